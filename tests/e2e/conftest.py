from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from demo.hospital import Hospital, Run, new_run
from zambezi import clock

CHROMIUM = "/usr/bin/chromium"
#: Software rendering for the viewers, and no calls out of this machine.
ARGUMENTS = [
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, headless."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def run(hospital: Hospital) -> Run:
    """The identifiers of this test run's play."""
    return new_run(clock.now(), hospital.configuration().zambezi.site.zone)
