"""Reports: drafts that don't overwrite each other, signed versions that stay, PDFs that say it right."""

from __future__ import annotations

import io
from dataclasses import replace

import pydicom
import pytest
from sqlalchemy import select

from ris_service import archive_pdf, report_pdf
from tests.unit.ris_service.seeding import CHEST, FOREIGN, KNEE, OLD, Hospital, csrf
from zambezi import audit, clock, reports, study_documents
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AnnouncedInstance, Delivery, Order, Report, Study
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable

JSON = {"Accept": "application/json"}


def draft_of(client, **changed):
    form = {"version": 1, "edits": 0, "technique": "", "findings": "Opacidade.", "impression": "TB provável."}
    return {**form, "csrf_token": csrf(client.get(f"/studies/{CHEST}/report").text), **changed}


def save(client, **changed):
    return client.post(f"/studies/{CHEST}/report/draft", data=draft_of(client, **changed), headers=JSON)


def sign(client, version=1, edits=1):
    word = csrf(client.get(f"/studies/{CHEST}/report").text)
    data = {"csrf_token": word, "version": version, "edits": edits}
    return client.post(f"/studies/{CHEST}/report/sign", data=data)


def latest(hospital: Hospital, uid: str = CHEST) -> Report:
    with hospital.sessions.begin() as session:
        return reports.latest(session, uid)


def test_a_draft_saves_itself_and_counts_its_edits(hospital):
    client = hospital.signed_in("radiologist")
    assert save(client).json["edits"] == 1
    assert save(client, edits=1, findings="Mais.").json["edits"] == 2
    assert (latest(hospital).findings, latest(hospital).state) == ("Mais.", "draft")
    with hospital.sessions.begin() as session:
        assert session.get(Order, hospital.order_ids["P1001"]).report_status == "draft"


def test_the_second_of_two_people_is_told_and_overwrites_nothing(hospital):
    one, other = hospital.signed_in("radiologist"), hospital.signed_in("radiologist", login="second")
    assert save(one).status_code == 200
    answer = save(other, findings="Outro texto.")
    assert answer.status_code == 409
    assert "Dr.ª Amélia Conceição guardou este relatório" in answer.json["message"]
    assert latest(hospital).findings == "Opacidade."
    page = other.post(f"/studies/{CHEST}/report/draft", data=draft_of(other, findings="Outro texto."))
    assert page.status_code == 409
    assert "Outro texto." in page.text  # nothing that was typed is lost


def test_signing_takes_what_the_confirmation_page_showed_and_nothing_newer(hospital):
    client = hospital.signed_in("radiologist")
    save(client)
    assert "Assinar como Dr.ª Amélia Conceição" in client.get(f"/studies/{CHEST}/report/sign").text
    save(hospital.signed_in("radiologist", login="second"), edits=1, findings="Mudado.")
    assert sign(client, edits=1).status_code == 409
    assert latest(hospital).state == "draft"
    assert sign(client, edits=2).status_code == 303
    assert latest(hospital).state == "final"


def test_a_signed_version_can_neither_be_saved_nor_signed_again(hospital):
    client = hospital.signed_in("radiologist")
    save(client)
    sign(client)
    before = latest(hospital)
    assert save(client, edits=1, findings="Emendado.").status_code == 409
    assert save(client, edits=2, findings="Emendado.").status_code == 409
    assert sign(client).status_code == 409
    after = latest(hospital)
    assert (after.findings, after.pdf, after.signed_at) == (before.findings, before.pdf, before.signed_at)


def test_an_addendum_is_the_next_version_and_the_signed_one_stays(hospital):
    client = hospital.signed_in("radiologist")
    save(client)
    sign(client)
    first = latest(hospital)
    word = csrf(client.get(f"/studies/{CHEST}/report").text)
    client.post(f"/studies/{CHEST}/report", data={"csrf_token": word})
    client.post(f"/studies/{CHEST}/report", data={"csrf_token": word})
    assert (latest(hospital).version, latest(hospital).state, latest(hospital).findings) == (2, "draft", "Opacidade.")
    assert save(client, version=2, edits=0, findings="Emendado.").status_code == 200
    assert sign(client, version=2, edits=1).status_code == 303
    with hospital.sessions.begin() as session:
        kept = session.get(Report, first.id)
        assert (kept.findings, kept.pdf, kept.state) == (first.findings, first.pdf, "final")
        assert session.get(Order, hospital.order_ids["P1001"]).report_status == "final"
    reader = hospital.signed_in("radiographer").get(f"/studies/{CHEST}/report").text
    assert "Emendado." in reader and "Opacidade." in reader


def test_an_empty_report_is_not_signed(hospital):
    client = hospital.signed_in("radiologist")
    save(client, findings=" ", impression="\n", technique="Incidência PA.")
    assert "Não há nada para assinar" in client.get(f"/studies/{CHEST}/report/sign").text
    assert sign(client).status_code == 409
    assert latest(hospital).state == "draft"


def test_a_draft_is_seen_by_those_who_write_only(hospital):
    save(hospital.signed_in("radiologist"), findings="ainda por rever")
    assert "ainda por rever" in hospital.signed_in("radiologist", login="second").get(f"/studies/{CHEST}/report").text
    for role in ("radiographer", "administrator"):
        client = hospital.signed_in(role)
        assert "ainda por rever" not in client.get(f"/studies/{CHEST}/report").text
        assert client.get(f"/studies/{CHEST}/report/1.pdf").status_code == 404


def test_reading_a_signed_report_is_recorded(hospital):
    hospital.signed_in("radiographer").get(f"/studies/{KNEE}/report")
    hospital.signed_in("radiographer").get(f"/studies/{KNEE}/report/1.pdf")
    trail = hospital.signed_in("administrator").get(f"/audit?study={KNEE}&event=report-read&who=radiographer").text
    assert trail.count("relatório lido</td>") == 2


def test_signing_tells_the_peers_that_asked_and_the_chain_holds(hospital):
    peers = {"HIS": {"Application": "HIS", "Host": "127.0.0.1"}}
    triggers = [{"Name": "reports", "On": "report-signed", "SendTo": "HIS", "Message": "ORU^R01"}]
    settings = Zambezi.model_validate({"Hl7": {"Peers": peers, "Triggers": triggers}})
    parts = hospital.app.extensions["zambezi"]
    hospital.app.extensions["zambezi"] = replace(parts, settings=settings)
    client = hospital.signed_in("radiologist")
    save(client)
    assert sign(client).status_code == 303
    with hospital.sessions.begin() as session:
        sent = session.scalars(select(Delivery).where(Delivery.kind == "hl7")).one()
        assert (sent.destination, sent.study_uid, sent.state) == ("HIS", CHEST, "due")
        assert "Opacidade." in sent.body.decode()
        assert audit.verify(session) == []


def test_two_patients_under_one_study_uid_get_no_report(hospital):
    with hospital.sessions.begin() as session:
        now = clock.text(hospital.clock())
        session.add(
            Study(
                instances=1,
                study_uid=CHEST,
                orthanc_id="other",
                cause="modality",
                patient_id="P9",
                first_at=now,
                last_at=now,
            )
        )
    client = hospital.signed_in("radiologist")
    assert client.get(f"/studies/{CHEST}/report").status_code == 409
    assert "2 pacientes diferentes" in client.get(f"/studies/{CHEST}").text


def test_images_of_another_patient_than_the_order_are_pointed_out(hospital):
    with hospital.sessions.begin() as session:
        session.scalars(select(Study).where(Study.study_uid == CHEST)).one().patient_id = "P7777"
    client = hospital.signed_in("radiologist")
    for page in (f"/studies/{CHEST}", f"/studies/{CHEST}/report"):
        assert "trazem o número de paciente P7777, o pedido P1001" in client.get(page).text


def test_an_earlier_report_of_the_patient_is_shown_beside_the_draft(hospital):
    client = hospital.signed_in("radiologist")
    assert "Sequelas de tuberculose" not in client.get(f"/studies/{CHEST}/report").text
    assert "Sequelas de tuberculose" in client.get(f"/studies/{CHEST}/report?prior={OLD}").text
    assert "Sem lesão óssea" not in client.get(f"/studies/{CHEST}/report?prior={KNEE}").text


SHEET = report_pdf.Sheet(
    language="pt", site="Hospital Central de Maputo", version=1, patient_name="Conceição, José António",
    patient_id="P1001", born="12/04/1958", sex="masculino", exam="CT TC tórax", exam_date="02/03/2026",
    accession_number="Z2603020001", referrer="Dr. Elias Tembe", technique="", findings="Linha um.\n\nA < B & C.",
    impression="Ação çãõ", signed_by="Dr.ª Amélia Conceição", signed_at="2 de março de 2026, 10:30", digest="ab" * 32,
)  # fmt: skip


def test_the_pdf_is_the_same_for_the_same_report_and_carries_its_typeface():
    first = report_pdf.build(SHEET)
    assert first == report_pdf.build(SHEET)
    assert first != report_pdf.build(replace(SHEET, findings="Outra coisa."))
    assert b"FontFile2" in first


def test_a_long_report_goes_over_pages():
    pdf = report_pdf.build(replace(SHEET, language="en", findings="\n".join(["A line."] * 200)))
    assert pdf.count(b"/Type /Page\n") >= 4


def signed(hospital: Hospital) -> Report:
    client = hospital.signed_in("radiologist")
    save(client)
    sign(client)
    return latest(hospital)


ATTRIBUTES = {"PatientName": "Conceição^José António", "PatientID": "P1001", "StudyInstanceUID": CHEST,
              "StudyDate": "20260302", "StudyTime": "not a time", "AccessionNumber": "Z1"}  # fmt: skip


def test_the_archive_gets_an_encapsulated_pdf_of_the_same_study(hospital):
    report = signed(hospital)
    assert report.pdf.startswith(b"%PDF-")
    raw = archive_pdf.encapsulated(report, ATTRIBUTES, hospital.settings.site.zone)
    assert raw == archive_pdf.encapsulated(report, ATTRIBUTES, hospital.settings.site.zone)
    found = pydicom.dcmread(io.BytesIO(raw))
    assert found.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert (found.SOPInstanceUID, found.StudyInstanceUID) == (report.sop_uid, CHEST)
    assert str(found.PatientName) == "Conceição^José António"
    assert found.EncapsulatedDocument[: found.EncapsulatedDocumentLength] == report.pdf
    for keyword in ("Modality", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber", "ContentDate", "ContentTime",
                    "BurnedInAnnotation", "DocumentTitle", "MIMETypeOfEncapsulatedDocument",
                    "ConversionType"):  # fmt: skip
        assert found.data_element(keyword).value not in ("", None), keyword
    for keyword in ("PatientBirthDate", "PatientSex", "StudyID", "ReferringPhysicianName", "AcquisitionDateTime"):
        assert keyword in found  # type 2: there, if empty
    assert found.ConceptNameCodeSequence[0].CodeValue == "18748-4"


class FakeArchive:
    """An Orthanc with one CT image, or a failing one."""

    def __init__(self, failure: Exception | None = None, knows: int = 1000) -> None:
        self.failure, self.stored, self.knows = failure, [], knows

    def get(self, path: str, **_params: str):
        if self.failure:
            raise self.failure
        return {
            f"/studies/orthanc-{CHEST}": {"Series": ["s"]}, "/series/s": {"Instances": ["i"]},
            "/instances/i/simplified-tags": ATTRIBUTES, "/zambezi/status": {"announced_generation": self.knows},
        }[path]  # fmt: skip

    def store(self, dicom: bytes) -> dict[str, str]:
        self.stored.append(dicom)
        return {"Status": "AlreadyStored" if len(self.stored) > 1 else "Success"}


def test_storing_is_noted_once_it_is_done_and_repeated_until_then(hospital, monkeypatch):
    report = signed(hospital)
    with hospital.sessions.begin() as session:
        assert report.id in reports.unstored(session)
    zone, now = hospital.settings.site.zone, hospital.clock()
    for failure in (
        OrthancUnreachable("away"),
        OrthancRefused("GET", "/x", 404, ""),
        OrthancRefused("GET", "/x", 503, ""),
    ):
        with pytest.raises((OrthancUnreachable, OrthancRefused, archive_pdf.NotThere)):
            archive_pdf.store_one(hospital.sessions, FakeArchive(failure), report.id, zone, now)
    # The archive must know beforehand why this instance comes: nothing is sent to one that doesn't.
    monkeypatch.setattr(study_documents, "ANNOUNCE_S", 0)
    ignorant = FakeArchive(knows=0)
    with pytest.raises(archive_pdf.NotAnnounced):
        archive_pdf.store_one(hospital.sessions, ignorant, report.id, zone, now)
    assert ignorant.stored == []
    with hospital.sessions.begin() as session:
        announced = session.get_one(AnnouncedInstance, report.sop_uid)
        assert (announced.cause, announced.reference) == ("report", f"report {CHEST} version 1")
    archive = FakeArchive()
    archive_pdf.store_one(hospital.sessions, archive, report.id, zone, now)
    archive_pdf.store_one(hospital.sessions, archive, report.id, zone, now)
    assert archive.stored[0] == archive.stored[1]
    with hospital.sessions.begin() as session:
        assert report.id not in reports.unstored(session)


def test_the_printed_digest_is_that_of_the_text(hospital):
    report = signed(hospital)
    changed = Report(**{c.key: getattr(report, c.key) for c in Report.__table__.columns})
    assert reports.text_digest(changed) == reports.text_digest(report)
    changed.impression += "."
    assert reports.text_digest(changed) != reports.text_digest(report)


def test_a_study_without_an_order_can_be_reported(hospital):
    client = hospital.signed_in("radiologist")
    word = csrf(client.get(f"/studies/{FOREIGN}/report").text)
    data = {"csrf_token": word, "version": 1, "edits": 0, "findings": "x", "impression": "", "technique": ""}
    assert client.post(f"/studies/{FOREIGN}/report/draft", data=data, headers=JSON).status_code == 200
    data = {"csrf_token": word, "version": 1, "edits": 1}
    assert client.post(f"/studies/{FOREIGN}/report/sign", data=data).status_code == 303
    assert client.get(f"/studies/{FOREIGN}/report/1.pdf").data.startswith(b"%PDF-")
