"""The hold in a whole installation: conflicts of pydicom's own samples, compared, shown, released, discarded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pydicom import dcmread
from pydicom.data import get_testdata_file
from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from operations.custody.identity import identify
from tests import invariants
from tests.integration.test_ris_browser import shot
from zambezi import clock, corrections, hold, holding, keys
from zambezi.database.tables import AnnouncedInstance, AuditEntry, Held
from zambezi.orthanc_client import OrthancClient

#: What reaches beyond a telephone's edge, but for what scrolls by itself.
TOO_WIDE = """[...document.querySelectorAll("main *")].filter((one) => one.getBoundingClientRect().right > 391)
  .map((one) => one.outerHTML.slice(0, 80))"""


def sample(name: str) -> bytes:
    return Path(get_testdata_file(name, download=False)).read_bytes()


@pytest.fixture(scope="module")
def archive(hospital: Hospital) -> OrthancClient:
    """The archive as a service that may store."""
    environment = hospital.environment
    return OrthancClient(environment, keys.load(environment.keys_file), "ris")


def put(hospital: Hospital, content: bytes, state: str, **how: object) -> int:
    """Into the hold, as who finds a conflict does it; the row's id."""
    folder = hospital.environment.hold_dir
    sha256 = hold.put(folder, content)
    owner = hospital.environment.home.stat()
    for made in (folder / "lock", hold.path(folder, sha256).parent, hold.path(folder, sha256)):
        os.chown(made, owner.st_uid, owner.st_gid)  # the processes have an account of their own
    with hospital.database().begin() as session:
        given = {
            "sha256": sha256, "size": len(content), "why": "conflict", "reason": "other bytes",
            "writer": "custody",
            "reference": f"test {sha256[:8]}", "now": clock.now(), "state": state, "sender": "CT1 127.0.0.1",
            **identify(content).columns, **how,
        }  # fmt: skip
        return holding.hold(session, **given).id


def becomes(hospital: Hospital, number: int, state: str) -> Held:
    def look() -> str:
        found = row(hospital, number)
        return "" if found.state == state else f"{number} is {found.state}: {found.decision or found.reason}"

    invariants.eventually(f"held object {number} is {state}", look)
    return row(hospital, number)


def row(hospital: Hospital, number: int) -> Held:
    with hospital.database().begin() as session:
        return session.get_one(Held, number)


def test_the_archives_own_conflicts_are_compared_by_what_they_say(hospital, archive):
    archive.store(sample("MR_small.dcm"))
    same = put(hospital, sample("MR_small_bigendian.dcm"), "comparing")
    other = put(hospital, sample("MR_small_RLE.dcm"), "comparing")
    assert becomes(hospital, same, "same").differs == []
    assert "(7fe0,0010)" in becomes(hospital, other, "waiting").differs
    assert str(other) in hospital.zambezi("hold", "list")


def test_what_is_released_is_in_the_archive_byte_by_byte(hospital, archive):
    content = sample("JPEG-lossy.dcm")
    number = put(hospital, content, "waiting", why="quarantine")
    hospital.zambezi("hold", "release", str(number), "--reason", "checked")
    held = becomes(hospital, number, "released")
    (orthanc_id,) = archive.find("Instance", {"SOPInstanceUID": held.sop_uid})
    assert archive.file(orthanc_id) == content
    assert held.keep_until > clock.text(clock.now())
    with hospital.database().begin() as session:
        told = session.get_one(AnnouncedInstance, held.sop_uid)
        assert (told.cause, told.reference) == ("restore", f"hold {number}")


def test_the_archives_own_copy_is_never_overwritten_by_a_release(hospital, archive):
    ours = sample("MR_small.dcm")
    archive.store(ours)
    number = put(hospital, sample("MR_small_padded.dcm")[:-2] + b"\1\1", "waiting", why="quarantine")
    hospital.zambezi("hold", "release", str(number))
    invariants.eventually(
        "the release is refused", lambda: "" if row(hospital, number).decision else "not decided yet"
    )  # fmt: skip
    (orthanc_id,) = archive.find("Instance", {"SOPInstanceUID": row(hospital, number).sop_uid})
    assert archive.file(orthanc_id) == ours


def test_a_newcomer_takes_the_place_of_the_archived_copy_by_a_correction(hospital, archive):
    ours = sample("MR_small_expb.dcm")
    archive.store(ours)
    there = dcmread(BytesIO(ours), stop_before_pixels=True)
    came = dcmread(BytesIO(sample("MR_small_RLE.dcm")))
    came.SeriesDescription = "the right one"
    out = BytesIO()
    came.save_as(out)
    number = put(hospital, out.getvalue(), "waiting")
    (orthanc_id,) = archive.find("Instance", {"SOPInstanceUID": there.SOPInstanceUID})
    with hospital.database().begin() as session:
        now, held = clock.now(), session.get_one(Held, number)
        request = {"instances": [orthanc_id], "replace": number}
        holding.ask_replace(
            session, held,
            lambda: corrections.ask(session, "replace", request, "checked", "ana", now, "custody"),
            "ana", "checked", now, "custody",
        )  # fmt: skip
    assert "took the other's place" in str(becomes(hospital, number, "released").decision)
    (orthanc_id,) = archive.find("Instance", {"SOPInstanceUID": there.SOPInstanceUID})
    assert dcmread(BytesIO(archive.file(orthanc_id))).SeriesDescription == "the right one"


def test_one_person_at_the_console_can_not_discard_alone(hospital):
    number = put(hospital, sample("rtplan.dcm"), "waiting", why="quarantine")
    hospital.zambezi("hold", "discard", str(number), "--reason", "a plan of a phantom")
    again = hospital.try_zambezi("hold", "confirm", str(number))
    assert again.returncode == 1
    assert "another person must confirm" in again.stderr
    assert row(hospital, number).state == "discard-asked"
    assert hospital.try_zambezi("hold", "check").returncode == 0


@pytest.fixture
def page(hospital: Hospital, browser: Browser) -> Iterator[Page]:
    """A PACS administrator who has signed in; nothing may be blocked or fail in the page."""
    login = "pacs"
    if login not in hospital.zambezi("user", "list"):
        hospital.zambezi(
            "user", "add", login, "--name", "Nelson Sithole", "--role", "pacs-administrator", "--password-stdin",
            said=PASSWORD + "\n",
        )  # fmt: skip
    opened = browser.new_context(base_url=hospital.environment.front_url).new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    opened.goto("/")
    opened.fill("input[name=login]", login)
    opened.fill("input[name=password]", PASSWORD)
    opened.keyboard.press("Enter")
    expect(opened.locator("nav")).to_be_visible()
    yield opened
    opened.close()
    assert complaints == []


def test_both_pictures_stand_beside_each_other_and_the_second_person_confirms(hospital, archive, page):
    ours = sample("CT_small.dcm")
    archive.store(ours)
    came = dcmread(BytesIO(ours))
    came.PatientName, came.StudyDescription, came.InstanceNumber = "Macuácua^João", "Coluna", "12"
    came.SpecificCharacterSet = "ISO_IR 192"
    pixels = came.PixelData
    wide = came.Columns * 2
    came.PixelData = b"".join(pixels[n : n + wide] for n in range(len(pixels) - wide, -1, -wide))  # upside down
    out = BytesIO()
    came.save_as(out)
    number = put(hospital, out.getvalue(), "comparing")
    becomes(hospital, number, "waiting")
    hospital.zambezi("hold", "discard", str(number), "--reason", "the phantom of the morning")

    page.goto("/hold")
    page.keyboard.press("j")
    shot(page, "hold")
    page.goto(f"/hold/{number}")
    pictures = page.locator("figure img")
    expect(pictures).to_have_count(2)
    for nth in range(2):
        pictures.nth(nth).scroll_into_view_if_needed()
        invariants.eventually("the picture is drawn", lambda nth=nth: _is_drawn(page, nth))
    shot(page, "held")
    first, second = (page.request.get(f"/hold/{number}/picture/{side}").body() for side in ("held", "archived"))
    assert first != second, "the two are different pictures"
    expect(page.get_by_text("≠").first).to_be_visible()
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate(TOO_WIDE) == [], "a telephone need not scroll sideways"
    shot(page, "held-phone")
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("button", name="Confirmar a eliminação").click()
    page.wait_for_url(re.compile(r"said=decided"))
    held = row(hospital, number)
    assert (held.state, held.decided_by) == ("discarded", "pacs")
    with hospital.database().begin() as session:
        seen = session.scalars(
            select(AuditEntry.seq).where(
                AuditEntry.event == "viewed", AuditEntry.who == "pacs", AuditEntry.journal == "ris"
            )
        ).all()
    assert len(seen) == 1


def _is_drawn(page: Page, nth: int) -> str:
    width = page.locator("figure img").nth(nth).evaluate("image => image.naturalWidth")
    return "" if width >= 128 else f"{width} pixels wide"
