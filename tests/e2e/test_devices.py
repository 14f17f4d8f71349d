"""A new device, from its refusal to its first echo: on the page, at the console, without a restart of the archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, expect
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import

from demo.hospital import Hospital, wait_for
from operations import supervision
from tests.e2e.screenshots import signed_in


def shot(page: Page, name: str) -> None:
    """A picture, where ZAMBEZI_SCREENSHOTS names a folder for it."""
    if folder := os.environ.get("ZAMBEZI_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def call(port: int, aet: str = "NEW1") -> Any:
    entity = AE(aet)
    entity.add_requested_context(Verification)
    return entity.associate("127.0.0.1", port, ae_title="ZAMBEZI")


@contextmanager
def writable_peers(hospital: Hospital) -> Iterator[None]:
    """The installation's account may write the peers; afterwards they are what they were."""
    file = hospital.environment.config_dir / "40-peers.json"
    before, modes = file.read_text(), {one: one.stat().st_mode for one in (file, file.parent)}
    file.parent.chmod(0o777)
    file.chmod(0o666)
    try:
        yield
        assert stat.S_IMODE(file.stat().st_mode) == 0o666, "its mode stays"
    finally:
        file.unlink()
        file.write_text(before)
        for one, mode in modes.items():
            one.chmod(mode)
        hospital.zambezi("config", "reload")


def test_a_device_that_is_refused_is_shown_added_and_then_let_in(hospital: Hospital, browser: Browser):
    ports = hospital.environment.ports
    assert call(ports.dicom).is_rejected and call(ports.mpps).is_rejected
    (orthanc,) = [one.pid for one in supervision.processes(hospital.environment) or [] if one.name == "orthanc"]
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
    kept = hospital.try_zambezi(*words, "--yes")
    if os.geteuid() == 0:  # the peers belong to root, the command becomes the installation's account
        assert kept.returncode == 2 and "belongs to another account" in kept.stderr
        assert '+    "NEW1": {' in kept.stdout, "what to write, by whoever may"
        assert call(ports.dicom).is_rejected
    with writable_peers(hospital):
        said = hospital.zambezi(*words, "--yes")
        assert '+    "NEW1": {' in said and "taken by the archive" in said
        peer = call(ports.dicom)
        assert peer.is_established and peer.send_c_echo().Status == 0
        peer.release()
        wait_for("the gateway's door", lambda: call(ports.mpps).is_established)
        wait_for("its echo", lambda: "echo 2" in _of("NEW1", hospital.zambezi("modalities")))
        done = hospital.try_zambezi("modalities", "echo", "NEW1")
        assert done.returncode == 1 and "NEW1 does not answer our echo:" in done.stdout
        assert "Its last echo to us: 2" in done.stdout
    assert [one.pid for one in supervision.processes(hospital.environment) or [] if one.name == "orthanc"] == [orthanc]
    assert call(ports.dicom).is_rejected


def _of(name: str, said: str) -> str:
    """The lines of one device in what `zambezi modalities` prints."""
    lines = said.splitlines()
    at = next((n for n, line in enumerate(lines) if line.startswith(name + " ")), len(lines))
    return "\n".join(lines[at : at + 2])
