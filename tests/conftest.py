"""One installation for the whole run: each test brings patients of its own.

`make test` runs two tests at a time. All that use that one installation stay together, in the order of their files;
otherwise a file is what stays together. Those that wait longest begin first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

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


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together, and put those first that wait for processes."""

    def turn(item: pytest.Item) -> int:
        waits = {"integration", "e2e", "soak"} & set(item.path.parts)
        return 0 if _of_the_one(item) else 1 if waits else 2

    for item in items:
        item.add_marker(pytest.mark.xdist_group("hospital" if _of_the_one(item) else str(item.path)))
    items.sort(key=turn)


def _of_the_one(item: pytest.Item) -> bool:
    return "unit" not in item.path.parts and "hospital" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """What tests said beside each other, once all have run."""
    if not config.getoption("numprocesses", None):
        return
    for report in [one for reports in terminalreporter.stats.values() for one in reports]:
        for name, words in getattr(report, "user_properties", ()):
            if name == _SAID and getattr(report, "when", "") == "call":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {words}")
