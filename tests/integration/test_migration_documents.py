"""Documents of an old RIS on their way into an archive with the whole plugin."""

from __future__ import annotations

import json
import multiprocessing
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, generate_uid
from sqlalchemy import select

from migration.records import archiving, mapping
from tests import documents_process
from tests.integration.archive_fixture import image, written
from tests.integration.proof_room import Pushed, Room, room, running, study_of
from zambezi import announcing, clock, legacy, legacy_documents
from zambezi.database.tables import (
    AuditEntry,
    ExceptionItem,
    LegacyReport,
    MigrationStudy,
)
from zambezi.database.tables import Study as TheStudy

__all__ = ["room", "running"]

PDF = b"%PDF-1.4\n% an old report, of odd length\n%%EOF"


def old_reports(room: Room, archive: bool, *made: legacy.PastReport) -> None:
    """Reports as an import leaves them behind, whose mapping says so or not."""
    fields = {"StudyUID": "UID", "File": "FILE"}
    said = {"Name": "old-ris", "Issuer": "HCM", "ToArchive": archive,
            "Reports": {"From": {"Csv": "r.csv"}, "Key": "ID", "Fields": fields}}  # fmt: skip
    with room.sessions.begin() as session:
        for one in made:
            legacy.record_report(session, None, one, now=clock.now())
        archiving.mark(session, mapping.read(said))


def test_documents_of_an_old_ris_go_into_the_archive_with_their_study_and_set_nothing_off(room: Room) -> None:
    (ct,) = study_of(1, AccessionNumber="A1")
    sr = image(
        ct.StudyInstanceUID, generate_uid(), PatientID=ct.PatientID, SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    strangers = image(
        ct.StudyInstanceUID, generate_uid(), PatientID="ANOTHER", SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    renumbered = image(
        ct.StudyInstanceUID, generate_uid(), PatientID="OLD-7", SOPClassUID=BasicTextSRStorage, Modality="SR"
    )
    for one in (sr, strangers, renumbered):
        del one.PixelData
        item = Dataset()
        item.ValueType, item.TextValue = "TEXT", "Sem altera"
        one.ContentSequence = [item]
    assert room.archive.send(ct) == [0]
    room.follow()

    def report(
        key: str, document: bytes, media: str, study_uid: str = str(ct.StudyInstanceUID), sop_uid: str = ""
    ) -> Any:
        return legacy.PastReport(
            "old-ris", key, "", media, document, sop_uid, study_uid, written_at=clock.text(clock.now())
        )

    dicom = legacy_documents.DICOM
    made = (report("1", PDF, legacy_documents.PDF), report("2", written(sr), dicom, sop_uid=sr.SOPInstanceUID),
            report("3", written(strangers), dicom, sop_uid=strangers.SOPInstanceUID),
            report("4", PDF, legacy_documents.PDF, study_uid="1.2.3.999"),
            report("5", b"words", legacy_documents.TEXT),
            report("6", written(renumbered), dicom, sop_uid=renumbered.SOPInstanceUID))  # fmt: skip
    project = room.project(ct, Level="arrival")  # its plan has said who OLD-7 is here
    with room.sessions.begin() as session:
        row = session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)).one()
        row.patient_id, row.changes = "OLD-7", {"PatientID": ct.PatientID}
    old_reports(room, False, *made)
    client = Pushed(room.archive.environment, room.archive.keys, "migration")
    client.push = lambda: room.pushes.push_what_is_newer(clock.now())

    def a_round() -> int:
        return archiving.store_all(room.sessions, room.sessions, client, ZoneInfo("Africa/Maputo"), lambda: True)

    assert a_round() == 0, "only where the mapping asks for it"
    old_reports(room, True)
    before = room.md5s()
    assert a_round() == 4, "the fourth waits for its study, the fifth is words"
    came = {one: md5 for one, md5 in room.md5s().items() if one not in before}
    assert len(came) == 3
    with room.sessions.begin() as session:
        rows = {one.source_key: one for one in session.scalars(select(LegacyReport))}
        assert rows["3"].archive_reason == "the object names another patient than the study's images do"
        assert rows["3"].document == made[2].document, "whole"
        assert {key: row.archive_state for key, row in rows.items()} == {
            "1": "stored", "2": "stored", "3": "refused", "4": "due", "5": "", "6": "stored"
        }  # fmt: skip
        (waits,) = session.scalars(select(ExceptionItem).where(ExceptionItem.kind == "documents-refused"))
        assert waits.facts == {"source": "old-ris", "count": 1}
    (pdf_id,) = client.find("Instance", {"SOPInstanceUID": rows["1"].sop_uid})
    pdf = client.file(pdf_id)
    assert legacy_documents.inner_pdf(pdf) == PDF
    found = pydicom.dcmread(BytesIO(pdf))
    assert (found.StudyInstanceUID, found.PatientID) == (ct.StudyInstanceUID, ct.PatientID)
    (sr_id,) = client.find("Instance", {"SOPInstanceUID": sr.SOPInstanceUID})
    assert client.file(sr_id) == made[1].document, "the object itself"
    (new_id,) = client.find("Instance", {"SOPInstanceUID": renumbered.SOPInstanceUID})
    new = pydicom.dcmread(BytesIO(client.file(new_id)))
    (before_that,) = new.OriginalAttributesSequence[0].ModifiedAttributesSequence
    assert (new.PatientID, before_that.PatientID) == (ct.PatientID, "OLD-7"), "as the plan declares it, and no more"
    assert new.ContentSequence[0].TextValue == renumbered.ContentSequence[0].TextValue
    room.follow()
    with room.sessions.begin() as session:
        told = [
            json.loads(one) for one in session.scalars(select(AuditEntry.payload).where(AuditEntry.event == "stored"))
        ]
        by_id = {one["orthanc_id"]: (one["cause"], one.get("reference")) for one in told}
        assert {by_id[one] for one in came} == {("migration", "records old-ris")}
        (study,) = session.scalars(select(TheStudy).where(TheStudy.study_uid == ct.StudyInstanceUID))
        linked = [one.report.source_key for one in legacy.reports_of(session, study, None)]
        assert linked == ["6", "5", "3", "2", "1"], "the study's page leads to its reports, each report to its object"
        assert announcing.forget_instances(session, "migration", "records ", clock.now()) == 4


def test_a_death_at_any_commit_stores_a_document_once(room: Room, tmp_path: Path) -> None:
    (ct,) = study_of(1)
    assert room.archive.send(ct) == [0]
    room.follow()
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.documents_process"])

    def child(death: int) -> int | None:
        """A process that stores what is due, and dies at its n-th commit event; how it ended."""
        (tmp_path / "migration").unlink(missing_ok=True)
        if death:
            (tmp_path / "migration").write_text(str(death))
        one = processes.Process(target=documents_process.store_all, args=(room.archive.variables, str(tmp_path)))
        one.start()
        while one.is_alive():
            room.pushes.push_what_is_newer(clock.now())
            one.join(0.1)
        return one.exitcode

    for death in count(1):
        pdf = PDF + str(death).encode()
        report = legacy.PastReport("dying", str(death), "", legacy_documents.PDF, pdf, "", str(ct.StudyInstanceUID))
        with room.sessions.begin() as session:
            legacy.record_report(session, None, report, now=clock.now()).archive_state = "due"
        ended = child(death)
        if ended == 0:
            break
        assert (ended, child(0)) == (137, 0), f"death {death}"
    assert death > 4, "before and after it is announced, before and after it is written down that it is there"
    with room.sessions.begin() as session:
        made = session.scalars(select(LegacyReport).where(LegacyReport.source == "dying")).all()
        assert {one.archive_state for one in made} == {"stored"}
    (study,) = room.client.find("Study", {"StudyInstanceUID": ct.StudyInstanceUID})
    there = {one["ID"] for one in room.client.get(f"/studies/{study}/instances")}
    assert len(there) == 1 + len(made)
    changes = room.client.get("/changes", since="0", limit="100000")["Changes"]
    new = [one["ID"] for one in changes if one["ChangeType"] == "NewInstance"]
    assert sorted(one for one in new if one in there) == sorted(there), "each came once"
