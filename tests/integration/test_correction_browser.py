"""The correction form in a real browser, by keyboard, with an archive's REST behind the preview."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from demo.neighbours import free_port
from ris_service.app import create_app
from tests.integration.test_ris_browser import page, shot, sign_in  # noqa: F401  # fixtures
from tests.served import served
from tests.unit.custody.fake_archive import Archive
from tests.unit.ris_service.seeding import CHEST, OURS, Clock, Hospital, seeded
from zambezi import clock
from zambezi.database.tables import Correction
from zambezi.environment import Environment


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[Hospital, str]]:
    """A seeded hospital with the pages of corrections behind the server they run with, and its address."""
    made, archive, port = seeded(tmp_path / "home", moving=Clock(clock.now())), Archive(), free_port()
    archive.filled(made.sessions)
    environ = {"ZAMBEZI_HOME": str(tmp_path / "home"), "ZAMBEZI_ORTHANC_HTTP_PORT": str(port)}
    made.environment = Environment.read(environ)
    sets = (*OURS, "operations.custody.correction_pages:pages")
    made.app = create_app(made.environment, made.settings, made.sessions, made.keys, made.clock, sets)
    with archive.serving(port), served(made.app) as address:
        yield made, address


def tab_to(page: Page, what: str) -> None:  # noqa: F811
    """Press Tab until the element is focused, as somebody without a mouse does."""
    for _n in range(60):
        if page.evaluate(f"document.activeElement.matches({what!r})"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{what} is not reached by the keyboard")


def test_a_study_is_reassigned_by_keyboard_alone(running, page):  # noqa: F811
    hospital, address = running
    sign_in(page, address, "pacs-administrator")
    page.goto(f"{address}/studies/{CHEST}")
    shot(page, "correction-study")
    tab_to(page, "a.button[href^='/corrections/new']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/corrections/new"))
    shot(page, "correction-choose")
    tab_to(page, "a[href*='kind=reassign']")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("kind=reassign"))
    expect(page.locator("input[type=search]")).to_be_focused()
    page.keyboard.type("guambe")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("q=guambe"))
    tab_to(page, "input[type=radio]")
    page.keyboard.press("Space")
    shot(page, "correction-reassign")
    tab_to(page, "button.main")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("/corrections/preview$"))
    expect(page.locator("del").first).to_have_text("Conceição^José António")
    expect(page.locator("ins").first).to_have_text("Guambe^Celeste")
    expect(page.get_by_label("Motivo")).to_be_focused()
    shot(page, "correction-preview")
    page.keyboard.type("linha errada da lista de trabalho")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/corrections/\d+$"))
    expect(page.locator("h1")).to_have_text("Correcção 1")
    shot(page, "correction")
    with hospital.sessions.begin() as session:
        (made,) = session.scalars(select(Correction)).all()
        assert (made.kind, made.request["order"]) == ("reassign", hospital.order_ids["P1005"])
        made.state, made.outcome = "done", "2 images corrected"
    # It loads itself again while the correction is under way.
    expect(page.locator(".is-done").first).to_be_visible(timeout=15_000)
    page.goto(f"{address}/corrections")
    shot(page, "corrections")


@pytest.mark.parametrize("kind", ["edit", "move", "merge&q=mutasa", "split&q=mutasa"])
def test_on_a_phone_nothing_is_cut_off(running, page, kind):  # noqa: F811
    _hospital, address = running
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page, address, "pacs-administrator")
    page.goto(f"{address}/studies/{CHEST}")
    page.goto(page.locator("a[href^='/corrections/new']").first.evaluate("link => link.href") + f"&kind={kind}")
    shot(page, f"correction-phone-{kind[:5].strip('&')}")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
