"""A deletion in the whole house: two people at their browsers, custody's own thread, kills, and the way back."""

from __future__ import annotations

import uuid

from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from demo.person import Person
from tests import invariants, killing
from tests.senders import Sender, small_study
from zambezi import clock
from zambezi.database.tables import Deletion, ExceptionItem, Study
from zambezi.hl7.read import Reading, read


def files_of(hospital: Hospital, study_uid: str) -> dict[str, bytes]:
    """SOP Instance UID -> file, of what the archive has of the study."""
    orthanc = hospital.orthanc()
    found = orthanc.find("Instance", {"StudyInstanceUID": study_uid}, expand=True)
    return {one["MainDicomTags"]["SOPInstanceUID"]: orthanc.file(one["ID"]) for one in found}


def test_two_people_delete_a_study_and_it_comes_back(hospital: Hospital):
    study_uid = f"2.25.{uuid.uuid4().int}"
    sender = Sender(hospital.environment.ports.dicom)
    sender.send(small_study(f"D{study_uid[-8:]}", 5, study_uid))
    before = files_of(hospital, study_uid)

    def unknown() -> str:
        with hospital.database().begin() as session:
            found = session.scalars(select(Study).where(Study.study_uid == study_uid)).first()
        return "" if found and found.instances == 5 else "the study is not known"

    invariants.eventually("the study is known", unknown)
    hospital.zambezi("user", "add", "pacs", "--name", "Pacs", "--role", "pacs-administrator", "--password-stdin",
                     said=PASSWORD + "\n")  # fmt: skip
    first, second = Person(hospital.environment.front_url), Person(hospital.environment.front_url)
    first.insist(lambda: first.sign_in("pacs", PASSWORD))
    second.insist(lambda: second.sign_in("admin", PASSWORD))
    asked = first.submit(f"/deletions/new?study={study_uid}", "reason", code="quality", reason="movement")
    number = int(asked.url.rsplit("/", 1)[1])
    second.submit(f"/deletions/{number}", "/confirm", looked="on")
    with hospital.database().begin() as session:  # three days later
        row = session.get_one(Deletion, number)
        assert row.state == "confirmed"
        row.next_at = row.not_before = clock.text(clock.now())

    def not_yet(state: str) -> str:
        with hospital.database().begin() as session:
            found = session.get_one(Deletion, number)
        return "" if found.state == state else f"it is {found.state}: {found.outcome}"

    killing.kill(hospital, "operations")
    killing.kill(hospital, "orthanc")
    killing.kill(hospital, "gateway")
    invariants.eventually("deleted", lambda: not_yet("done"))
    assert files_of(hospital, study_uid) == {}
    assert "5 imagens deste estudo saíram do arquivo" in second.page(f"/studies/{study_uid}")

    def his_was_told() -> list[Reading]:
        files = list(hospital.neighbours.his_inbox.glob("*.hl7"))
        return [one for one in (read(file.read_bytes()) for file in files) if one.get("OBX-5") == study_uid]

    invariants.eventually("told", lambda: "" if his_was_told() else "the HIS doesn't know of the rejection")
    (told,) = his_was_told()
    assert [told.get(path) for path in ("MSH-9.1", "OBX-11", "NTE-3")] == [
        "ORU", "D", "study-rejected: Rejected for Quality Reasons: movement",
    ]  # fmt: skip

    first.submit(f"/deletions/{number}", "/restore", reason="it was right after all")
    killing.kill(hospital, "operations")
    invariants.eventually("restored", lambda: not_yet("restored"))
    assert files_of(hospital, study_uid) == before
    with hospital.database().begin() as session:
        kinds = session.scalars(select(ExceptionItem.kind).where(ExceptionItem.study_uid == study_uid)).all()
    assert "deletion-unordered" not in kinds
