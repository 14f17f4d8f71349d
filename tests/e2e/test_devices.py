"""The page of devices in a browser: who was refused at either door, an echo, and how a new one is let in."""

from __future__ import annotations

import os
from typing import Any

from playwright.sync_api import Browser, Page, expect
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from demo.hospital import Hospital, wait_for
from tests.e2e.screenshots import signed_in


def shot(page: Page, name: str) -> None:
    """A picture, where ZAMBEZI_SCREENSHOTS names a folder for it."""
    if folder := os.environ.get("ZAMBEZI_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def call(port: int, aet: str = "NEW1") -> Any:
    entity = AE(aet)
    entity.add_requested_context(Verification)
    return entity.associate("127.0.0.1", port, ae_title="ZAMBEZI")


def test_a_device_that_is_refused_is_shown_with_what_lets_it_in(hospital: Hospital, browser: Browser):
    ports = hospital.environment.ports
    assert not call(ports.dicom).is_established and not call(ports.mpps).is_established
    with signed_in(hospital, browser, "admin") as page:

        def shown() -> bool:
            page.goto("/modalities")
            return page.get_by_role("cell", name="NEW1").is_visible()

        wait_for("the stranger on the page", shown)
        row = page.get_by_role("row").filter(has_text="NEW1")
        expect(row).to_contain_text("o AE title é desconhecido")
        page.get_by_role("button", name="Eco a BACKUP").click()
        expect(page.get_by_role("status")).to_have_text("✓ BACKUP responde ao nosso eco.")
        shot(page, "devices")
        page.get_by_role("button", name="Eco a CT1").click()
        expect(page.get_by_role("alert")).to_contain_text("CT1 não responde ao nosso eco.")
        row.get_by_role("link", name="Acrescentar este").click()
        page.get_by_label("Porta em que escuta").fill("11115")
        page.keyboard.press("Enter")
        command = page.locator("code.secret").inner_text()
        shot(page, "device-new")
    assert command.startswith("zambezi modalities add NEW1 NEW1 127.0.0.1 11115 --allow echo")
    words = command.split()[1:]
    # The peers belong to root, the command becomes the installation's account: it says what to write.
    kept = hospital.try_zambezi(*words, "--yes")
    assert kept.returncode == 2 and "belongs to another account" in kept.stderr
    assert '+    "NEW1": {' in kept.stdout
    assert not call(ports.dicom).is_established
