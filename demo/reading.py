"""Play step 5: a radiologist signs in, opens the images, writes a report and signs it; HIS and archive get it."""

from __future__ import annotations

import base64
import hashlib
import io

import pydicom
from sqlalchemy import select

from demo import his
from demo.hospital import Hospital, Run, must, wait_for
from zambezi.database.tables import Report, Series

FINDINGS = "Opacidade no lobo superior direito, com cavitação. Sem derrame pleural."
IMPRESSION = "Achados compatíveis com tuberculose pulmonar activa."


def radiologist_reports(hospital: Hospital, run: Run) -> str:
    """Through the front door: images by both viewers' ways, report, signature; ORU^R01 and Encapsulated PDF follow."""
    study_uid = run.exam.study_uid
    person = hospital.person("radiologista")
    person.open_study(study_uid)
    with hospital.database().begin() as session:
        series = session.scalars(select(Series).where(Series.study_uid == study_uid)).first()
    assert series is not None  # step 4 has linked them
    person.get(f"/web-viewer/app/viewer.html?series={series.orthanc_id}")
    must(series.orthanc_id in person.page(f"/studies/{study_uid}"), "the study page has no link to the web viewer")
    person.report(study_uid, findings=FINDINGS, impression=IMPRESSION)
    return report_is_there(hospital, run)


def report_is_there(hospital: Hospital, run: Run) -> str:
    """The final report, its ORU^R01 with text and PDF at the HIS, its Encapsulated PDF in the archive, all one."""
    study_uid = run.exam.study_uid

    def stored() -> Report | None:
        with hospital.database().begin() as session:
            return session.scalars(
                select(Report).where(Report.study_uid == study_uid, Report.stored_at.is_not(None))
            ).first()

    report = wait_for("the report in the archive", stored, 60)
    must(report.state == "final" and report.pdf, "the report is not final, or has no PDF")
    held = hospital.orthanc().find("Instance", {"SOPInstanceUID": report.sop_uid or "?"})
    must(len(held) == 1, "the report's Encapsulated PDF is not in the archive")
    document = pydicom.dcmread(io.BytesIO(hospital.orthanc().file(held[0])))
    must(document.StudyInstanceUID == study_uid, "the Encapsulated PDF belongs to another study")
    must(document.PatientID == run.patient_id, "the Encapsulated PDF belongs to another patient")
    pdf = bytes(document.EncapsulatedDocument)[: int(document.EncapsulatedDocumentLength)]
    must(hashlib.sha256(pdf).hexdigest() == report.pdf_sha256, "the archive's PDF is not the one that was signed")

    def told() -> str | None:
        messages = [str(m) for m in his.received(hospital.neighbours.his_inbox) if study_uid in str(m)]
        return next((message for message in messages if "|ORU^R01" in message), None)

    message = wait_for("ORU^R01 at the HIS", told, 60)
    must(IMPRESSION in message, "the ORU^R01 does not carry the impression with its accents")
    encoded = base64.b64encode(pdf).decode()
    must(encoded in message, "the ORU^R01 does not carry the signed PDF")
    return f"report signed; ORU^R01 with text and PDF ({len(pdf) // 1024 + 1} KB) at the HIS; PDF in the archive"
