"""Reading for longer than a sign-in lasts by itself, in OHIF; a sign-in that ends with its account; a shared link."""

from __future__ import annotations

import dataclasses
import re
import time
from contextlib import nullcontext

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from demo import images
from demo.hospital import PASSWORD, Hospital
from tests import invariants
from tests.asking import Asker
from zambezi import clock, keys
from zambezi.access import tokens
from zambezi.access.tokens import COOKIE
from zambezi.database.tables import Study

LOGIN = "leitora"
#: What is left of the first token once OHIF is open.
FIRST_S = 12


@pytest.fixture(scope="module")
def study_uid(hospital: Hospital, tmp_path_factory: pytest.TempPathFactory) -> str:
    exam = images.Exam("READ1", "Mabunda^Telma", "19680523", "F", "", images.uid("reading", "study"), "20260105")
    hospital.ct.store(images.ct_slices(exam, 3, tmp_path_factory.mktemp("reading")))
    hospital.try_zambezi("user", "add", LOGIN, "--name", "Dra. Leitora", "--role", "radiologist", "--password-stdin",
                         said=PASSWORD + "\n")  # fmt: skip

    def known() -> str:
        with hospital.database().begin() as session:
            rows = session.query(Study).where(Study.study_uid == exam.study_uid, Study.instances == 3).count()
        return "" if rows else "not yet"

    invariants.eventually("the study in the RIS", known)
    return exam.study_uid


def carried(context: BrowserContext, key: str) -> tokens.Token:
    value = next(one["value"] for one in context.cookies() if one["name"] == COOKIE)
    return tokens.read(value, key, 0)


def status(page: Page, path: str) -> int:
    return int(page.evaluate("path => fetch(path).then(answer => answer.status)", path))


def touch(page: Page, turn: int) -> None:
    """A key, or the mouse, told as an event: a real move waits for a picture that may never be drawn in software."""
    if turn % 2:
        page.keyboard.press("Shift")
    else:
        page.dispatch_event("body", "pointermove", timeout=10_000)


def test_who_reads_stays_signed_in_who_has_gone_does_not_and_the_end_of_the_account_is_the_end(
    hospital: Hospital, browser: Browser, study_uid: str
):
    url, key = hospital.environment.front_url, keys.load(hospital.environment.keys_file).session_key
    signed_in = tokens.read(hospital.person(LOGIN).cookie, key, 0)
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    context.add_cookies([{"name": COOKIE, "value": tokens.sign(signed_in, key), "url": url}])
    page = context.new_page()
    page.clock.install()
    renewals: list[int] = []
    page.on("response", lambda answer: renewals.append(answer.status) if "/session/renew" in answer.url else None)
    page.goto(f"/viewer?StudyInstanceUIDs={study_uid}")
    page.wait_for_selector("canvas", timeout=60_000)

    assert "/web-viewer/" not in page.url, "OHIF is not installed; tools/install --tests brings it"
    began = int(clock.now().timestamp())
    first = dataclasses.replace(signed_in, expires=began + FIRST_S)  # half an hour later, as it were
    context.add_cookies([{"name": COOKIE, "value": tokens.sign(first, key), "url": url}])

    def pass_by(minutes: int, reading: bool) -> int:
        """So many minutes of the browser's clock; how often the sign-in was renewed meanwhile."""
        before = len(renewals)
        for minute in range(minutes):
            if reading:
                touch(page, minute)
            with page.expect_response("**/session/renew") if reading else nullcontext():
                page.clock.fast_forward(60_000)
        return len(renewals) - before

    assert pass_by(90, reading=True) >= 85, renewals
    assert set(renewals) == {204}
    renewed = carried(context, key)
    assert (renewed.session, renewed.started) == (first.session, first.started)
    assert renewed.expires > began + 1500
    time.sleep(max(0.0, began + FIRST_S + 1 - clock.now().timestamp()))
    path = f"/dicom-web/studies/{study_uid}/metadata"
    assert status(page, path) == 200, "the first token is over, and its reader reads"

    pass_by(1, reading=False)  # what was moved last may count once more
    assert pass_by(30, reading=False) == 0

    hospital.zambezi("user", "disable", LOGIN)
    touch(page, 0)
    page.clock.fast_forward(60_000)
    expect(page.get_by_role("alert")).to_contain_text("Your sign-in has ended")
    link = page.get_by_role("alert").get_by_role("link").get_attribute("href")
    assert link and link.startswith("/session?next=%2Fviewer")
    invariants.eventually("the archive knows", lambda: "" if status(page, path) == 403 else "still open", 30)
    context.close()


def test_the_web_viewers_page_renews_too(hospital: Hospital, study_uid: str):
    person = hospital.person("radiologista")
    page = Asker(hospital.environment.front_url, cookie=person.cookie).ask("/web-viewer/app/viewer.html?series=x")
    assert page.status == 200 and page.text.count('<script src="/reading.js" defer></script></head>') == 1


def test_a_link_is_made_on_a_page_and_opens_ohif_for_a_stranger_with_the_pin(
    hospital: Hospital, browser: Browser, study_uid: str
):
    base = hospital.environment.front_url
    maker = browser.new_context(base_url=base).new_page()
    maker.goto(f"/session?next=/studies/{study_uid}")
    maker.fill("input[name=login]", "radiologista")
    maker.fill("input[name=password]", PASSWORD)
    maker.keyboard.press("Enter")
    maker.get_by_role("link", name="Partilhar por ligação").click()
    maker.fill("input[name=recipient]", "Dr. Gumbo")
    maker.fill("input[name=pin]", "471147")
    maker.get_by_role("button", name="Fazer a ligação").click()
    link = maker.locator("code.secret").inner_text()
    assert re.fullmatch(re.escape(base) + r"/s/[\w-]{32}", link)

    stranger = browser.new_context(base_url=base).new_page()
    stranger.goto(link)
    stranger.fill("input[name=pin]", "471147")
    stranger.keyboard.press("Enter")
    stranger.wait_for_url("**/shared")
    with stranger.context.expect_page() as opened:
        stranger.locator("a[href*='/viewer?']").click()
    opened.value.wait_for_selector("canvas", timeout=60_000)

    logs = (hospital.environment.logs_dir / "front.log").read_text(errors="replace")
    assert '"POST /s/..." 303' in logs and link.rpartition("/")[2] not in logs

    maker.goto("/shares")
    maker.get_by_role("button", name="Revogar").first.click()
    path = f"/dicom-web/studies/{study_uid}/metadata"
    invariants.eventually("the archive knows", lambda: "" if status(stranger, path) == 403 else "still open", 30)
