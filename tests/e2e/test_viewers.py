"""A radiologist in a real browser: signs in at the front door and sees pixels in both viewers."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect
from sqlalchemy import select

from demo import images
from demo.hospital import PASSWORD, Hospital
from tests import invariants
from zambezi.access.tokens import COOKIE
from zambezi.database.tables import AuditEntry, Series


@pytest.fixture(scope="module")
def study_uid(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CT study of six slices in the archive, known to the RIS."""
    exam = images.Exam("VIEW1", "Nhamtumbo^Celeste", "19680523", "F", "", images.uid("viewer", "study"), "20260105")
    hospital.ct.store(images.ct_slices(exam, 6, tmp_path_factory.mktemp("viewer")))
    invariants.eventually("the study in the RIS", lambda: "" if _series(hospital, exam.study_uid) else "not yet")
    return exam.study_uid


@pytest.fixture
def radiologist(hospital: Hospital, browser: Browser) -> BrowserContext:
    """A browser whose user has signed in through the page, as a person does."""
    context = browser.new_context(base_url=hospital.environment.front_url, viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto("/")
    page.fill("input[name=login]", "radiologista")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator("nav")).to_be_visible()
    return context


def test_ohif_shows_pixels(radiologist: BrowserContext, study_uid: str):
    page = radiologist.new_page()
    page.goto(f"/viewer?StudyInstanceUIDs={study_uid}")
    page.wait_for_selector("canvas", timeout=60_000)
    _shows_an_image(page, "ohif")


def test_ohif_shows_a_shared_study_to_somebody_without_an_account(hospital: Hospital, browser: Browser, study_uid: str):
    url = hospital.environment.front_url
    token = hospital.zambezi("token", "issue", "--kind", "share", "--name", "viewer", "--study", study_uid).strip()
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": COOKIE, "value": token, "url": url}])
    page = context.new_page()
    page.goto(f"/viewer?StudyInstanceUIDs={study_uid}")
    page.wait_for_selector("canvas", timeout=60_000)
    _shows_an_image(page, "ohif-shared")


def test_a_viewer_after_the_sign_in_ended_leads_to_the_sign_in_and_back(
    hospital: Hospital, browser: Browser, study_uid: str
):
    page = browser.new_context(base_url=hospital.environment.front_url).new_page()
    page.goto(f"/viewer?StudyInstanceUIDs={study_uid}")
    page.get_by_role("link", name="Entrar").click()
    page.fill("input[name=login]", "radiologista")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/viewer?StudyInstanceUIDs={study_uid}*")
    page.wait_for_selector("canvas", timeout=60_000)


def test_the_orthanc_web_viewer_shows_pixels(radiologist: BrowserContext, hospital: Hospital, study_uid: str):
    page = radiologist.new_page()
    page.goto(f"/studies/{study_uid}")
    with radiologist.expect_page() as opened:
        page.locator("a[href*='/web-viewer/']").first.click()
    _shows_an_image(opened.value, "web-viewer")


def test_a_study_opened_in_a_viewer_was_audited_first(radiologist: BrowserContext, hospital: Hospital, study_uid: str):
    radiologist.new_page().goto(f"/viewer?StudyInstanceUIDs={study_uid}")

    def viewed() -> str:
        with hospital.database().begin() as session:
            who = session.scalars(
                select(AuditEntry.who).where(AuditEntry.event == "viewed", AuditEntry.study_uid == study_uid)
            ).all()
        return "" if "radiologista" in who else "no viewed entry yet"

    invariants.eventually("the view in the audit trail", viewed, 30)


def _shows_an_image(page: Page, name: str) -> None:
    """Wait until the middle of the pane has the many greys of a CT slice, not one colour."""

    def blank() -> str:
        try:
            shot = page.screenshot()
        except Error as error:  # a browser that renders without a graphics card refuses now and then
            return error.message
        if "ZAMBEZI_SCREENSHOTS" in os.environ:
            (Path(os.environ["ZAMBEZI_SCREENSHOTS"]) / f"{name}.png").write_bytes(shot)
        picture = Image.open(io.BytesIO(shot)).convert("L")
        width, height = picture.size
        middle = picture.crop((width * 2 // 5, height // 3, width * 3 // 5, height * 2 // 3))
        greys = sum(1 for count in middle.histogram() if count > 10)
        return "" if greys > 40 else f"{greys} greys in the middle of the pane"

    invariants.eventually(f"pixels in {name}", blank, 90)


def _series(hospital: Hospital, study_uid: str) -> list[Series]:
    with hospital.database().begin() as session:
        return list(session.scalars(select(Series).where(Series.study_uid == study_uid)))
