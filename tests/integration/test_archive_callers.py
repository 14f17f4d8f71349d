"""Who calls at the archive's DICOM port, and who may send what: on the real Orthanc, by real peers."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, JPEGLSNearLossless
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from demo.neighbours import free_ports
from operations.modality_commands import modalities_group
from tests.integration.archive_fixture import PEERS, Archive, image, until
from zambezi import hold
from zambezi.environment import REPOSITORY

SECRET = "Segredo^Conceicao"
(PORT_OF_PACS2,) = free_ports(1)
LIMITS: dict[str, Any] = {
    "Admission": {
        "MissingIdentity": "refuse", "MalformedIdentity": "hold",
        "RefusedSopClasses": ["1.2.840.10008.5.1.4.1.1.4"], "LargestMegabytes": 0.5,
        "Peers": {"US1": {"MissingIdentity": "hold", "RefusedSopClasses": []}},
    }
}  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("archive")
    written = shutil.copytree(REPOSITORY / "orthanc-config", folder / "written")
    made = Archive(folder / "home", rules=LIMITS, variables={"ZAMBEZI_CONFIG": str(written)})
    pacs2 = {"AET": "PACS2", "Host": "127.0.0.1", "Port": PORT_OF_PACS2, "AllowGet": False}
    known = {"DicomModalities": PEERS | {"PACS2": pacs2, "FAR": ["FAR", "10.1.0.21", 104]}}
    for place in (written, made.environment.orthanc_config_dir):
        (place / "40-peers.json").write_text("// Peers, each once.\n" + json.dumps(known, indent=2))
        (place / "30-zambezi.json").write_text(json.dumps({"Zambezi": LIMITS}))
    made.start()
    yield made
    made.leave()


def call(archive: Archive, aet: str, *contexts: str, called: str = "ZAMBEZI") -> Any:
    entity = AE(aet)
    for one in contexts or (Verification,):
        entity.add_requested_context(one)
    return entity.associate("127.0.0.1", archive.environment.ports.dicom, ae_title=called)


def query(**keys: str) -> Dataset:
    asked = Dataset()
    asked.QueryRetrieveLevel = "STUDY"
    for name, value in keys.items():
        setattr(asked, name, value)
    return asked


def zambezi_modalities(archive: Archive, *words: str) -> Result:
    return CliRunner().invoke(modalities_group, words, env={**archive.variables, "ZAMBEZI_DATABASE_URL": ""})


def signs(archive: Archive) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["aet"], one["sign"]): one for one in archive.get("/zambezi/callers").json()["callers"]}


def test_associations_refusals_and_retrieves_are_in_the_journal_and_no_name_is_in_the_log(archive: Archive):
    one = image(PatientName=SECRET, PatientID="P77")
    assert archive.send(one) == [0]
    moves, finds = StudyRootQueryRetrieveInformationModelMove, StudyRootQueryRetrieveInformationModelFind
    peer = call(archive, "PACS2", Verification, finds, moves, StudyRootQueryRetrieveInformationModelGet)
    assert peer.is_established
    assert peer.send_c_echo().Status == 0
    list(peer.send_c_find(query(PatientName=SECRET, PatientID="P77"), finds))
    list(peer.send_c_move(query(StudyInstanceUID=one.StudyInstanceUID, PatientName=SECRET), "CT1", moves))
    list(peer.send_c_get(query(StudyInstanceUID=one.StudyInstanceUID), StudyRootQueryRetrieveInformationModelGet))
    peer.release()
    for aet, called in (("KNOCK", "ZAMBEZI"), ("CT1", "WRONG"), ("FAR", "ZAMBEZI")):
        assert call(archive, aet, called=called).is_rejected
    until(lambda: archive.events("refused", aet="FAR"))
    until(lambda: archive.events("associated", aet="PACS2"))

    (move,) = archive.events("retrieve-asked")
    assert (move["aet"], move["ip"], move["kind"], move["target"]) == ("PACS2", "127.0.0.1", "Move", "CT1")
    reasons = {(one["aet"], one["reason"]) for one in archive.events("refused", door="dicom")}
    assert reasons == {
        ("KNOCK", "the AE title is unknown"), ("CT1", "it calls an AE title that is not ours"),
        ("FAR", "the AE title belongs to another address"), ("PACS2", "C-GET is not allowed for it"),
    }  # fmt: skip
    assert not archive.events("associated", aet="KNOCK") and not archive.events("associated", aet="FAR")
    (associated,) = archive.events("associated", aet="PACS2")
    assert associated["requests"] == {"Echo": 1, "Find": 1, "Move": 1, "Get": 1}
    seen = signs(archive)
    assert {("PACS2", "echo"), ("PACS2", "query"), ("PACS2", "move"), ("CT1", "image")} <= set(seen)
    assert seen["CT1", "refused"]["called_aet"] == "WRONG"
    assert archive.get("/zambezi/status").json()["seen"].get("PACS2"), "an echo alone is a sign of life"
    kept = archive.log
    assert "Segredo" not in kept and "P77" not in kept
    assert '"KNOCK" is not listed' in kept, "warnings stay where they were"
    assert "\nI" not in kept


def test_a_peer_gets_what_it_takes_or_nothing_and_the_archive_goes_on(archive: Archive, tmp_path: Path):
    """Orthanc dies where its GDCM packs JPEG-LS: no peer may bring it to do so. JPEG 2000 is unpacked by GDCM alone."""
    pixels = bytes(range(256)) * 16
    plain, packed = tmp_path / "plain.dcm", tmp_path / "packed.dcm"
    one = image(Rows=64, Columns=64, PixelData=pixels)
    assert archive.send(one) == [0]
    image(Rows=64, Columns=64, PixelData=pixels).save_as(plain, enforce_file_format=True)
    subprocess.run(["gdcmconv", "--j2k", plain, packed], check=True)
    two = dcmread(packed)
    store_packed(archive, two)
    moves, gets = StudyRootQueryRetrieveInformationModelMove, StudyRootQueryRetrieveInformationModelGet
    taken: list[Dataset] = []

    def take(event: evt.Event) -> int:
        taken.append(event.dataset)
        taken[-1].file_meta = event.file_meta
        return 0

    for stored, syntax in ((one, JPEGLSLossless), (one, JPEGLSNearLossless), (two, ExplicitVRLittleEndian)):
        wanted = query(StudyInstanceUID=stored.StudyInstanceUID)
        taken.clear()
        peer = AE("US1")
        peer.add_requested_context(gets)
        peer.add_requested_context(moves)
        peer.add_requested_context(CTImageStorage, syntax)
        asking = peer.associate(
            "127.0.0.1", archive.environment.ports.dicom, ae_title="ZAMBEZI",
            ext_neg=[build_role(CTImageStorage, scp_role=True)], evt_handlers=[(evt.EVT_C_STORE, take)],
        )  # fmt: skip
        assert {str(context.abstract_syntax) for context in asking.accepted_contexts} == {gets, moves, CTImageStorage}
        statuses = [status.get("Status") for status, _ in asking.send_c_get(wanted, gets)]
        receiver = AE("PACS2")
        receiver.add_supported_context(CTImageStorage, syntax)
        server = receiver.start_server(
            ("127.0.0.1", PORT_OF_PACS2), block=False, evt_handlers=[(evt.EVT_C_STORE, take)]
        )
        try:
            statuses += [status.get("Status") for status, _ in asking.send_c_move(wanted, "PACS2", moves)]
        finally:
            server.shutdown()
        asking.release()
        assert archive.process and archive.process.poll() is None, archive.log[-2000:]
        assert archive.get("/system").status_code == 200, statuses
        assert {each.file_meta.TransferSyntaxUID for each in taken} <= {syntax}
        if syntax == JPEGLSLossless and taken:  # as Orthanc 1.12.7 and 1.13.0 do, by C-GET
            taken[0].save_as(packed, enforce_file_format=True)
            subprocess.run(["dcmdjpls", packed, plain], check=True)
            assert dcmread(plain).PixelData == pixels
    assert [each.PixelData for each in taken] == [pixels, pixels], "JPEG 2000, by C-GET and by C-MOVE"


def store_packed(archive: Archive, one: Dataset) -> None:
    sender = AE("CT1")
    sender.add_requested_context(CTImageStorage, one.file_meta.TransferSyntaxUID)
    sending = sender.associate("127.0.0.1", archive.environment.ports.dicom, ae_title="ZAMBEZI")
    assert sending.send_c_store(one).Status == 0
    sending.release()


def test_colours_that_came_as_rle_are_shown_as_they_are(archive: Archive, tmp_path: Path):
    """DCMTK inside Orthanc 1.10.1 takes its planes for pixels; GDCM unpacks it."""
    plain, packed, pixels = tmp_path / "plain.dcm", tmp_path / "packed.dcm", bytes(range(192)) * 64
    image(
        Rows=64, Columns=64, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0, PixelData=pixels
    ).save_as(plain, enforce_file_format=True)
    subprocess.run(["gdcmconv", "--rle", plain, packed], check=True)
    one = dcmread(packed)
    store_packed(archive, one)
    (orthanc_id,) = archive.as_service().find("Instance", {"SOPInstanceUID": one.SOPInstanceUID})
    shown = archive.get(f"/instances/{orthanc_id}/preview", headers={"Accept": "image/x-portable-arbitrarymap"})
    assert shown.status_code == 200 and shown.content.endswith(b"ENDHDR\n" + pixels)


def test_a_new_device_is_let_in_without_a_restart_and_the_console_tells_of_it(archive: Archive):
    assert call(archive, "NEW1").is_rejected
    until(lambda: ("NEW1", "refused") in signs(archive))
    assert "to let it in: zambezi modalities add NEW1 NEW1 127.0.0.1 PORT" in zambezi_modalities(archive).stdout
    assert archive.process
    before, file = archive.process.pid, Path(archive.variables["ZAMBEZI_CONFIG"]) / "40-peers.json"
    file.chmod(0o640)
    (port,) = free_ports(1)
    # What could not be used is not written.
    same = zambezi_modalities(archive, "add", "OTHER", "CT1", "10.1.0.9", "104", "--yes")
    assert "belongs to CT1 already" in str(same.exception) and "OTHER" not in file.read_text()
    added = zambezi_modalities(archive, "add", "NEW1", "NEW1", "127.0.0.1", str(port), "--allow", "echo", "--yes")
    assert added.exit_code == 0, added.output + str(added.exception)
    assert '+    "NEW1": {' in added.stdout and "taken by the archive" in added.stdout
    assert file.read_text().startswith("// Peers, each once.") and file.stat().st_mode & 0o777 == 0o640
    device = call(archive, "NEW1")
    assert device.send_c_echo().Status == 0
    device.release()
    until(lambda: ("NEW1", "echo") in signs(archive))
    assert archive.process.pid == before
    told = json.loads(zambezi_modalities(archive, "--json").stdout)
    (new,) = [one for one in told["known"] if one["name"] == "NEW1"]
    assert new["allowed"] == ["echo"] and new["signs"]["echo"]
    assert [one for one in told["strangers"] if one["aet"] == "NEW1"] == []
    echo = zambezi_modalities(archive, "echo", "NEW1")
    assert echo.exit_code == 1 and "NEW1 does not answer our echo" in echo.stdout
    assert "Its last echo to us: 2" in echo.stdout
    listening = AE("NEW1")
    listening.add_supported_context(Verification)
    server = listening.start_server(("127.0.0.1", port), block=False)
    try:
        assert "NEW1 answers our echo." in zambezi_modalities(archive, "echo", "NEW1").stdout
    finally:
        server.shutdown()
    assert "no modality" in str(zambezi_modalities(archive, "echo", "NOBODY").exception)


@pytest.mark.parametrize(
    ("aet", "tags", "status", "said"),
    [
        ("CT1", {"PatientID": ""}, 0xA900, "it has no Patient ID"),
        (
            "CT1",
            {"PatientID": "P" * 65},
            0xB007,
            "its Patient ID is too long, or has characters that DICOM doesn't allow",
        ),
        ("US1", {"PatientID": "", "Modality": "US"}, 0xB007, "it has no Patient ID"),
        ("CT1", {"PixelData": bytes(600_000)}, 0x0124, "0.6 MB, more than the 0.5 MB that are taken from it"),
    ],
)
def test_what_isn_t_admitted_gets_its_status_and_what_is_held_is_whole(
    archive: Archive, aet: str, tags: dict[str, Any], status: int, said: str
):
    one = image(**tags)
    assert archive.send(one, aet=aet) == [status]
    assert (
        archive.post("/tools/find", {"Level": "Instance", "Query": {"SOPInstanceUID": one.SOPInstanceUID}}).json() == []
    )
    until(lambda: archive.events("refused", method="C-STORE", who=aet, reason=said))
    held = archive.events("held", sop_uid=one.SOPInstanceUID)
    if status == 0xB007:
        (entry,) = held
        assert (entry["why"], entry["state"], entry["sender"]) == ("identity", "waiting", f"{aet} by DICOM")
        content = hold.get(archive.environment.hold_dir, entry["sha256"])
        assert len(content) == entry["size"] and one.PixelData in content
    else:
        assert held == []
    # The device was put right: the same image comes again, and is no rival of what was turned away.
    one.PatientID, one.PixelData = "P1", bytes(64)
    assert archive.send(one, aet=aet) == [0]
    assert archive.events("held", sop_uid=one.SOPInstanceUID, why="conflict") == []


def test_a_sop_class_that_is_not_taken_is_refused_by_its_own_status_whoever_else_may_send_it(archive: Archive):
    for aet, status in (("CT1", 0x0122), ("US1", 0)):
        one = image()
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
        entity = AE(aet)
        entity.add_requested_context(one.SOPClassUID)
        entity.add_requested_context(CTImageStorage)
        association = entity.associate("127.0.0.1", archive.environment.ports.dicom, ae_title="ZAMBEZI")
        assert association.send_c_store(one).Status == status
        association.release()


def test_dcmtk_s_sender_takes_the_warning_for_stored(archive: Archive, tmp_path: Path):
    file = tmp_path / "one.dcm"
    image(PatientID="").save_as(file, enforce_file_format=True)
    command = ["storescu", "-v", "-aet", "US1", "-aec", "ZAMBEZI", "127.0.0.1", str(archive.environment.ports.dicom)]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" in done.stderr + done.stdout


def test_demands_that_change_are_taken_while_it_runs(archive: Archive):
    milder = {"Admission": {**LIMITS["Admission"], "LargestMegabytes": 2}}
    (archive.environment.orthanc_config_dir / "30-zambezi.json").write_text(json.dumps({"Zambezi": milder}))
    assert archive.post("/zambezi/reload", {}, service="operations").status_code == 200
    assert archive.send(image(PixelData=bytes(600_000))) == [0]
