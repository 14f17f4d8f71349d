"""One installation for the whole run: each test brings patients of its own.

`make test` runs four tests at a time. All that use that one installation stay together, in the order of their files;
otherwise a file is what stays together. Those that wait longest begin first.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright
from sqlalchemy import Engine, event
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from demo import neighbours
from demo.hospital import Hospital
from tests import postgres
from tests.running import a_hospital, a_hospital_on_postgresql
from zambezi.database.engine import connect
from zambezi.database.tables import Base

CHROMIUM = "/usr/bin/chromium"
#: Software rendering for the viewers (which nothing may take for dead where two cores do much else), and no calls out
#: of this machine.
ARGUMENTS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-gpu-watchdog", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@event.listens_for(Engine, "connect")
def rows_without_an_order_come_the_other_way_round(connection: Any, _record: Any) -> None:
    """What asks for no order gets another than that of writing, as PostgreSQL may give it on any day."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA reverse_unordered_selects = ON").close()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the one installation has central database and index."""
    parser.addoption("--on", choices=["sqlite", "postgresql"], default="sqlite")


@pytest.fixture(scope="session")
def deaths_of_databases() -> dict[str, Callable[[], bool]]:
    """How what `hospital` has its databases in is killed and started again; nothing where they are files."""
    return {}


@pytest.fixture(scope="session")
def hospital(request: pytest.FixtureRequest, deaths_of_databases: dict[str, Callable[[], bool]]) -> Iterator[Hospital]:
    """The demo hospital, every process of it, on free ports."""
    if request.config.getoption("--on") == "sqlite":
        with a_hospital() as running:
            yield running
    else:
        with a_hospital_on_postgresql() as on_postgresql:
            deaths_of_databases["postgresql"] = on_postgresql.kill
            yield on_postgresql.hospital


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """One for the whole run, for a process can have no second."""
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def chromium(playwright: Playwright) -> Iterator[Browser]:
    """Debian's Chromium, headless: a new one for each file, for drawing in software wears it out."""
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield launched
    launched.close()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The same, and nothing stays open in it: a viewer that goes on drawing takes a core from the tests that follow."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL of this run's own."""
    with postgres.a_cluster(postgres.installed()) as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database; a test that asks for it runs on both engines."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/z.db"
        return
    cluster: postgres.Cluster = request.getfixturevalue("postgres_cluster")
    with cluster.a_database() as url:
        yield url


@pytest.fixture(scope="session")
def empty_tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite file with this version's tables, to be copied."""
    file = tmp_path_factory.mktemp("tables") / "z.db"
    _make_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def empty_tables_on_postgresql(postgres_cluster: postgres.Cluster) -> Iterator[str]:
    """The same in PostgreSQL, where one database serves test after test: making one costs too much."""
    with postgres_cluster.a_database() as url:
        _make_tables(url)
        postgres.keep(url)
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def tables_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database with this version's tables and nothing in them; such a test runs on both engines."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_tables"), tmp_path / "z.db")
        return f"sqlite:///{tmp_path}/z.db"
    url: str = request.getfixturevalue("empty_tables_on_postgresql")
    postgres.bring_back(url)
    return url


def _make_tables(url: str) -> None:
    engine = connect(url, "test")
    Base.metadata.create_all(engine)
    engine.dispose()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a line that is seen although pytest captures output: the figures of a round are worth a line.

    At once where tests run one by one; at the end where they run beside each other.
    """

    def line(words: str) -> None:
        request.node.user_properties.append((_SAID, words))
        with capsys.disabled():
            print(f"\n  {words}", flush=True)  # noqa: T201

    return line


_SAID = "said"


def pytest_configure(config: pytest.Config) -> None:
    """Tests beside each other name ports of their own: another could take one before it is used."""
    worker = getattr(config, "workerinput", None)
    if worker:
        neighbours.PORTS = neighbours.PORTS[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put those first that wait for processes, and before all those of the one installation."""
    waits = {"integration", "e2e", "soak", "containers"}
    items.sort(key=lambda item: 0 if _of_the_one(item.path) else 1 if waits & set(item.path.parts) else 2)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """What stays together when tests run beside each other: a file, and all files of the one installation."""
    return _ByInstallation(config, log)


class _ByInstallation(LoadScopeScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        if file.startswith("tests/containers/"):
            return "containers"  # they share one, too
        return "the one installation" if _of_the_one(self.config.rootpath / file) else file


@cache
def _of_the_one(file: Path) -> bool:
    """Whether tests (or fixtures) of this file ask for the installation that serves the whole run."""
    return "unit" not in file.parts and _ASKS.search(file.read_text(encoding="utf-8")) is not None


#: Helpers that are handed a `Hospital` may get another's.
_ASKS = re.compile(r"(?:^def test_\w+|^@pytest\.fixture.*\ndef \w+)\([^)]*\bhospital: Hospital", re.MULTILINE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What tests said beside each other, once all have run."""
    if not config.getoption("numprocesses", None):
        return
    for report in [one for reports in terminalreporter.stats.values() for one in reports]:
        for name, words in getattr(report, "user_properties", ()):
            if name == _SAID and getattr(report, "when", "") == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {words}")
