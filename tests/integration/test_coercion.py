"""Coercion in a real Orthanc: by C-STORE and by the coercing port; what came, what is stored, and what is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pynetdicom import AE

from demo.neighbours import free_ports
from gateway.coercing_admission import Gate
from gateway.coercing_port import CoercingPort
from tests.gateway_alone import a_gateway
from tests.integration.archive_fixture import Archive, image, until, written
from tests.unit.coercion.images import read
from zambezi import clock, digest, hold
from zambezi.coercion import declared
from zambezi.config import safety
from zambezi.config.settings import Admission
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import AuditEntry, Base, Held
from zambezi.orthanc_client import OrthancClient

#: Secondary Capture Image Storage.
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"

RULES: list[dict[str, Any]] = [
    {
        "Name": "clinic", "When": {"InstitutionName": {"Pattern": "clinica*"}}, "Fill": {"IssuerOfPatientID": "CN"},
        "Prefix": {"PatientID": "CN-", "AccessionNumber": "CN"},
    },
    {"Name": "too-long", "When": {"StationName": "LONG"}, "Prefix": {"AccessionNumber": "0123456789ABCDEF"}},
    {"Name": "by-aet", "When": {"CallingAet": "US1"}, "Set": {"InstitutionName": "Policlínica"}},
]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    running = Archive(tmp_path_factory.mktemp("coercion"), {"Coercions": RULES}).start()
    yield running
    running.leave()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    engine = connect(f"sqlite:///{tmp_path_factory.mktemp('database')}/z.db", "test")
    Base.metadata.create_all(engine)
    return sessions(engine, "test")


@pytest.fixture(scope="module")
def port(archive: Archive, database: Sessions) -> Iterator[int]:
    peers = safety.modalities(
        {"DicomModalities": {
            "US1": ["US1", "127.0.0.1", 11113], "FAR": ["FAR", "192.0.2.1", 104],
            "MUTE": {"AET": "MUTE", "Host": "127.0.0.1", "Port": 104, "AllowStore": False},
        }}
    )  # fmt: skip

    def client() -> OrthancClient:
        return OrthancClient(archive.environment, archive.keys, "gateway", 20)

    (number,) = free_ports(1)
    asked = Admission.model_validate({"MissingIdentity": "hold", "Peers": {"US1": {"RefusedSopClasses": [SECONDARY]}}})
    gate = Gate(database, asked, peers, archive.environment.hold_dir, clock.now)
    listening = CoercingPort(database, peers, client, "ZAMBEZI", number, gate)
    listening.start()
    yield number
    listening.stop()


def clinic(**tags: Any) -> Dataset:
    return image(InstitutionName="Clinica Norte", AccessionNumber="A7", **tags)


def stored(archive: Archive, sop_uid: str) -> dict[str, Any]:
    """The `stored` entry of an instance, once it is there."""
    return until(lambda: archive.events("stored", sop_uid=sop_uid))[0]


def file_of(archive: Archive, entry: dict[str, Any]) -> bytes:
    return archive.get(f"/instances/{entry['orthanc_id']}/file").content


def offer(port: int, one: Dataset, aet: str = "US1", called: str = "ZAMBEZI") -> int | None:
    """C-STORE to the coercing port: the status, None where the association is refused."""
    sender = AE(aet)
    sender.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
    association = sender.associate("127.0.0.1", port, ae_title=called)
    if not association.is_established:
        return None
    try:
        return association.send_c_store(one).get("Status")
    finally:
        association.release()


def test_what_a_rule_names_changes_and_the_journal_tells_of_both(archive: Archive):
    one, plain = clinic(), image()
    assert archive.send(one, plain) == [0, 0]
    entry = stored(archive, one.SOPInstanceUID)
    content = file_of(archive, entry)
    new = read(content)
    assert (new.PatientID, new.IssuerOfPatientID, new.AccessionNumber) == ("CN-P1", "CN", "CNA7")
    assert new.PixelData == one.PixelData
    assert new.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientID == "P1"
    assert (entry["patient_id"], entry["coerced"], entry["cause"]) == ("CN-P1", ["clinic"], "modality")
    assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    assert entry["came_sha256"] != entry["sha256"]
    (began,) = archive.events("study-began", study_uid=one.StudyInstanceUID)
    assert (began["issuer"], began["accession_number"]) == ("CN", "CNA7")
    untouched = stored(archive, plain.SOPInstanceUID)
    assert "coerced" not in untouched
    assert untouched["remote_aet"] == entry["remote_aet"] == "CT1"


def test_compressed_pixels_and_their_transfer_syntax_stay(archive: Archive):
    one = dcmread(str(get_testdata_file("JPEG2000.dcm")))
    one.InstitutionName, one.PatientID = "Clinica Norte", "P9"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.99001"
    sender = AE("CT1")
    sender.add_requested_context(one.SOPClassUID, one.file_meta.TransferSyntaxUID)
    association = sender.associate("127.0.0.1", archive.environment.ports.dicom, ae_title="ZAMBEZI")
    assert association.send_c_store(one).Status == 0
    association.release()
    entry = stored(archive, one.SOPInstanceUID)
    assert entry["transfer_syntax"] == one.file_meta.TransferSyntaxUID
    new = read(file_of(archive, entry))
    assert (new.PatientID, new.PixelData) == ("CN-P9", one.PixelData)


def test_a_sender_that_repeats_itself_makes_nothing_also_after_a_power_cut(archive: Archive):
    one = clinic()
    assert archive.send(one, one) == [0, 0]
    first = stored(archive, one.SOPInstanceUID)
    assert archive.send(one) == [0]
    archive.cut_power()
    archive.start()
    again = until(lambda: archive.events("stored-again", sop_uid=one.SOPInstanceUID))
    assert again[0]["recovered"], "the index had lost it"
    assert archive.send(one) == [0]
    assert hashlib.sha256(file_of(archive, first)).hexdigest() == first["sha256"], "it was not coerced a second time"
    one.ImageComments = "other content"
    assert archive.send(one) == [0]
    (held,) = until(lambda: archive.events("held", sop_uid=one.SOPInstanceUID))
    assert (held["why"], held["orthanc_id"]) == ("conflict", first["orthanc_id"])
    assert len(archive.events("stored", sop_uid=one.SOPInstanceUID)) == 1


def test_what_was_deleted_comes_again_as_new(archive: Archive):
    one = clinic()
    archive.send(one)
    entry = stored(archive, one.SOPInstanceUID)
    archive.as_service("custody").request("DELETE", f"/instances/{entry['orthanc_id']}")
    until(lambda: archive.events("deleted", study_uid=one.StudyInstanceUID))
    assert archive.send(one) == [0]
    new = until(lambda: archive.events("stored", sop_uid=one.SOPInstanceUID)[1:])[0]
    assert new["came_sha256"] == entry["came_sha256"]
    assert not archive.events("held", sop_uid=one.SOPInstanceUID)


def test_what_fails_is_stored_as_it_came_and_told(archive: Archive):
    one = image(StationName="LONG", AccessionNumber="A7")
    assert archive.send(one) == [0]
    entry = stored(archive, one.SOPInstanceUID)
    assert read(file_of(archive, entry)).AccessionNumber == "A7"
    (failed,) = archive.events("coercion-failed")
    assert (failed["rule"], failed["study_uid"]) == ("too-long", one.StudyInstanceUID)
    assert failed["seq"] < entry["seq"]


def test_what_a_service_stores_is_never_coerced_nor_what_is_migrated(archive: Archive):
    ours, migrated = clinic(), clinic()
    assert archive.as_service("custody").store(written(ours))["Status"] == "Success"
    status = archive.get("/zambezi/status").json()
    announced = {migrated.StudyInstanceUID: {"cause": "migration", "reference": "lab"}}
    generation = status["announced_generation"] + 1
    archive.put("/zambezi/announced", {"generation": generation, "studies": announced})
    assert archive.send(migrated) == [0]
    for one in (ours, migrated):
        entry = stored(archive, one.SOPInstanceUID)
        assert digest.fingerprint(file_of(archive, entry)).digest == digest.fingerprint(written(one)).digest


def test_a_migrated_study_gets_what_its_plan_declares_by_c_store_and_by_http(archive: Archive):
    sent, posted = clinic(), clinic()
    posted.StudyInstanceUID = sent.StudyInstanceUID
    changes = {"PatientID": "00012", "IssuerOfPatientID": "HCM", "PatientName": "Conceição^Ana"}
    announced = {sent.StudyInstanceUID: {"cause": "migration", "reference": "lab", "changes": changes}}
    generation = archive.get("/zambezi/status").json()["announced_generation"] + 1
    assert archive.put("/zambezi/announced", {"generation": generation, "studies": announced}).status_code == 200
    assert archive.send(sent) == [0]
    assert archive.as_service("migration").store(written(posted))["Status"] == "Success"
    for one in (sent, posted):
        entry = stored(archive, one.SOPInstanceUID)
        content = file_of(archive, entry)
        new = read(content)
        assert (new.PatientID, new.IssuerOfPatientID, str(new.PatientName)) == tuple(changes.values())
        assert (new.AccessionNumber, entry["cause"], entry["coerced"]) == ("A7", "migration", ["migration-lab"])
        assert declared.differences(written(one), content, changes, "lab", clock.now()) == []
    assert stored(archive, posted.SOPInstanceUID)["came_sha256"] == hashlib.sha256(written(posted)).hexdigest()


def test_the_coercing_port_knows_its_sender_and_says_what_orthanc_says(archive: Archive, port: int):
    one = image()
    assert offer(port, one) == 0
    assert offer(port, one) == 0
    entry = stored(archive, one.SOPInstanceUID)
    assert (entry["remote_aet"], entry["remote_ip"], entry["called_aet"]) == ("US1", "127.0.0.1", "ZAMBEZI")
    assert (entry["cause"], entry["coerced"], entry["http_user"]) == ("modality", ["by-aet"], "gateway")
    content = file_of(archive, entry)
    assert read(content).InstitutionName == "Policlínica"
    assert b"to be coerced" not in content
    assert archive.get("/zambezi/status").json()["seen"]["US1"]
    named = set(digest.differences(digest.fingerprint(written(one)), digest.fingerprint(content)))
    assert named == {"(0008,0005)", "(0008,0080)", "(0400,0561)"}
    assert not archive.events("held", sop_uid=one.SOPInstanceUID)
    del one.StudyInstanceUID
    assert offer(port, one) == 0xA700, "Orthanc refuses it"


def test_the_coercing_port_refuses_strangers_and_who_may_not_store(port: int, database: Sessions):
    assert offer(port, image(), aet="NOBODY") is None
    assert offer(port, image(), aet="FAR") is None
    stranger = AE("NOBODY")
    stranger.add_requested_context("1.2.840.10008.1.1")
    assert stranger.associate("127.0.0.1", port, ae_title="ZAMBEZI").is_rejected, "it is told, not cut off"
    assert offer(port, image(), called="OTHER") is None
    assert offer(port, image(), aet="MUTE") == 0x0124
    with database() as session:
        told = {json.loads(entry.payload)["aet"] for entry in session.query(AuditEntry)}
    assert told == {"NOBODY", "FAR", "MUTE"}


def test_the_coercing_port_takes_what_admission_lets_in(archive: Archive, port: int, database: Sessions):
    nobodys, scan = image(PatientID=""), image(SOPClassUID=SECONDARY)
    scan.file_meta.MediaStorageSOPClassUID = SECONDARY
    assert (offer(port, nobodys), offer(port, scan)) == (0xB007, 0x0122)
    with database() as session:
        (held,) = session.query(Held)
        assert (held.why, held.sop_uid, held.sender) == ("identity", nobodys.SOPInstanceUID, "US1")
        content = hold.get(archive.environment.hold_dir, held.sha256)
    assert read(content).PixelData == nobodys.PixelData
    assert b"to be coerced" not in content
    assert not archive.events("stored", sop_uid=nobodys.SOPInstanceUID)


def test_the_gateway_opens_the_port_where_it_is_asked_to(tmp_path: Path):
    peers = {"US1": ["US1", "127.0.0.1", 11113]}
    with a_gateway(tmp_path, {}, peers, start=False) as gateway:
        (number,) = free_ports(1)
        gateway.environ["ZAMBEZI_COERCING_PORT"] = str(number)
        gateway.start()
        assert offer(number, image()) == 0xA700, "whoever answers there stores nothing"
        assert gateway.stop() == 0


def test_rules_come_and_go_while_images_come(archive: Archive):
    def reload(rules: list[dict[str, Any]]) -> requests.Response:
        archive.configure({"Coercions": rules})
        return archive.post("/zambezi/reload", {}, "operations")

    bad = reload([{"Name": "bad", "Set": {"StationNam": "X"}}])
    assert bad.status_code == 409
    assert 'did you mean "StationName"?' in bad.json()["faults"][0]
    one, other = clinic(), clinic()
    assert archive.send(one) == [0]
    assert stored(archive, one.SOPInstanceUID)["coerced"] == ["clinic"]
    assert reload([]).status_code == 200
    assert archive.send(other) == [0]
    assert "coerced" not in stored(archive, other.SOPInstanceUID)
    assert reload(RULES).status_code == 200


def test_while_the_archive_is_away_no_sender_is_told_success(archive: Archive, port: int):
    archive.stop()
    one = image()
    assert offer(port, one) == 0xA700
    archive.start()
    assert offer(port, one) == 0
    assert stored(archive, one.SOPInstanceUID)["remote_aet"] == "US1"
