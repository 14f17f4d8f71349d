"""One installation for the whole run: each test brings patients of its own.

`make test` runs two tests at a time. All that use that one installation stay together, in the order of their files;
otherwise a file is what stays together. Those that wait longest begin first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from demo.hospital import Hospital
from tests import postgres
from tests.running import a_hospital

CHROMIUM = "/usr/bin/chromium"
#: Software rendering for the viewers, and no calls out of this machine.
ARGUMENTS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def hospital() -> Iterator[Hospital]:
    """The demo hospital, every process of it, on free ports."""
    with a_hospital() as running:
        yield running


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless: one for the whole run, for Playwright allows no second in a process."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def postgres_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL of this run's own."""
    found = postgres.programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed; tools/install --tests brings it")
    with postgres.a_cluster(found) as running:
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
    """Whether tests of this file ask for the installation that serves the whole run."""
    return "unit" not in file.parts and "hospital: Hospital" in file.read_text(encoding="utf-8")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What tests said beside each other, once all have run."""
    if not config.getoption("numprocesses", None):
        return
    for report in [one for reports in terminalreporter.stats.values() for one in reports]:
        for name, words in getattr(report, "user_properties", ()):
            if name == _SAID and getattr(report, "when", "") == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {words}")
