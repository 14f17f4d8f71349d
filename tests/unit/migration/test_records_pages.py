"""Pages of old systems' records, and their reports where clinicians read: seen in the RIS's own application."""

from __future__ import annotations

import gzip
import html
from pathlib import Path

import pytest
from sqlalchemy import select, update

from migration.records import importing, previewing
from ris_service.app import create_app
from tests.unit.migration.old_ris import job, rows, written
from tests.unit.ris_service.seeding import CHEST, OLD, OURS, Hospital, csrf, seeded
from zambezi.config.settings import Zambezi
from zambezi.database.tables import AuditEntry, LegacyReport, Order, Patient, Report, User

#: A twin of a seeded patient under another number, and their report of an exam whose images are here already.
PATIENTS = "NUM;APELIDO;NOMES;NASC;SEXO\n77;CONCEICAO;JOSE ANTONIO;12/04/1958;Masculino\n78;Cossa;Ana;;Feminino\n"
EXAMS = (
    "ID;NUM;ACESSO;UID;DATA;HORA;PROC;MOD;ESTADO\n1;77;X1;{old};10/01/2024;09:30;RX <tórax>;CR;FEITO\n"
    "2;78;X2;;11/01/2024;09:30;US;US;FEITO\n"
)
REPORTS = (
    'ID;NUM;ACESSO;TEXTO;AUTOR;DATA\n1;77;X1;"Sequelas <b>TB</b>";Dr. Muianga;10/01/2024 12:00\n2;78;X2;Normal.;;\n'
)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> tuple[Hospital, Path]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("old")
    made = seeded(home)
    made.app = create_app(
        made.environment, Zambezi(), made.sessions, made.keys, made.clock,
        (*OURS, "migration.pages:pages", "migration.records_pages:pages"),
    )  # fmt: skip
    written(folder, patients=PATIENTS, exams=EXAMS.format(old=OLD), reports=REPORTS)
    with made.sessions.begin() as session:
        imported = importing.enter(job(made.sessions, folder), session)
        imported.preview = previewing.preview(job(made.sessions, folder), 5)
    importing.run(job(made.sessions, folder))
    return made, folder


def test_the_pages_show_what_was_found_and_what_waits(house):
    engineer = house[0].signed_in("migration-engineer")
    assert "/migrations/records/old-ris" in engineer.get("/migrations/records").text
    page = engineer.get("/migrations/records/old-ris").text
    assert "há aqui alguém parecido com outro número" in page
    assert "exames sem imagens" in page
    shown = engineer.get("/migrations/records/old-ris/preview").text
    assert "12/04/1958" in shown and ">12/04/1958</td>" in shown and "RX &lt;tórax&gt;" in shown
    assert house[0].signed_in("reception").get("/migrations/records/old-ris").status_code == 403
    assert house[0].app.test_client().get("/migrations/records").status_code == 401


@pytest.mark.parametrize(
    ("language", "words", "others"),
    [
        ("en", ("exams without images", "somebody here is alike", "names 100% alike"), ("exames", "há aqui")),
        ("pt", ("exames sem imagens", "há aqui alguém parecido", "nomes parecidos em"), ("alike", "exams without")),
    ],
)
def test_each_page_is_in_one_language_and_light(house, language, words, others):
    hospital, _folder = house
    engineer, held = hospital.signed_in("migration-engineer"), rows(hospital.sessions, "patient")["77"].id
    with hospital.sessions.begin() as session:
        session.execute(update(User).where(User.login == "migration-engineer").values(language=language))
    of_import = "/migrations/records/old-ris"
    answers = [engineer.get(path) for path in ("/migrations/records", of_import, f"{of_import}/preview",
                                               f"{of_import}/rows/{held}")]  # fmt: skip
    with hospital.sessions.begin() as session:
        session.execute(update(User).where(User.login == "migration-engineer").values(language="pt"))
    assert [len(gzip.compress(answer.data)) < 40_000 for answer in answers] == [True] * 4
    shown = " ".join(html.unescape(answer.text.partition("<main")[2]) for answer in answers)
    assert [word for word in words if word not in shown] == []
    assert [word for word in (*others, 'lang="en"') if word in shown] == []


def test_a_person_decides_whose_patient_it_is_and_the_report_is_where_they_read(house):
    hospital, _folder = house
    row = rows(hospital.sessions, "patient")["77"]
    path = f"/migrations/records/old-ris/rows/{row.id}"
    engineer = hospital.signed_in("migration-engineer")
    page = engineer.get(path).text
    assert "José António" in page and "P1001" in page, "both side by side"
    word = csrf(page)
    refused = engineer.post(path, data={"csrf_token": word, "verb": "same-as", "because": ""})
    assert (refused.status_code, "precisa do seu motivo" in refused.text) == (409, True)
    assert hospital.signed_in("radiologist").get(path).status_code == 403
    done = engineer.post(path, data={"csrf_token": word, "verb": "same-as", "because": "mesmo cartão"})
    assert done.status_code == 303
    with hospital.sessions() as session:
        jose = session.scalars(select(Patient).where(Patient.patient_id == "P1001")).one()
        exam = session.scalars(select(Order).where(Order.accession_number == "X1")).one()
        report = session.scalars(select(LegacyReport).where(LegacyReport.source_key == "1")).one()
        assert exam.patient_key == jose.id == report.patient_key

    reader = hospital.signed_in("radiologist")
    study = reader.get(f"/studies/{OLD}").text
    assert f"/old-reports/{report.id}" in study, "at its study"
    prior = reader.get(f"/studies/{CHEST}/report").text
    assert f"/old-reports/{report.id}" in prior, "and beside the patient's next one"
    assert f"/old-reports/{report.id}" in reader.get(f"/orders/{exam.id}").text
    shown = reader.get(f"/old-reports/{report.id}").text
    assert "Sequelas &lt;b&gt;TB&lt;/b&gt;" in shown and "Dr. Muianga" in shown and report.text_sha256 in shown
    assert "textarea" not in shown and "Não está assinado aqui" in shown
    with hospital.sessions() as session:
        read = session.scalars(select(AuditEntry).where(AuditEntry.event == "report-read")).all()
        assert [(e.who, b"old_report" in e.payload) for e in read] == [("radiologist", True)], "before it was shown"
        assert session.scalars(select(Report).where(Report.study_uid == OLD)).one().version == 1, "none of ours"


def test_old_exams_are_not_in_the_reading_list_and_reports_not_for_everybody(house):
    hospital, _folder = house
    with hospital.sessions() as session:
        report = session.scalars(select(LegacyReport).where(LegacyReport.source_key == "2")).one()
    assert hospital.signed_in("reception").get(f"/old-reports/{report.id}").status_code == 403
    assert hospital.signed_in("referrer").get(f"/old-reports/{report.id}").status_code == 404, "not their patient"
    listed = hospital.signed_in("radiologist").get("/?state=unreported&day=all").text
    assert ">X1<" not in listed


def test_a_document_is_handed_out_as_it_was(house):
    hospital, folder = house
    pdf = b"%PDF-1.4\n%%EOF\n"
    (folder / "9.pdf").write_bytes(pdf)
    written(folder, patients=PATIENTS, exams=EXAMS.format(old=OLD), reports="ID;NUM;F\n9;78;9.pdf\n")
    fields = {"PatientID": "NUM", "File": "F"}
    document = {"Name": "pdfs", "Issuer": "HCM-OLD", "Reports": {"From": {"Csv": "reports.csv"}, "Key": "ID",
                "Fields": fields}}  # fmt: skip
    importing.run(job(hospital.sessions, folder, document))
    with hospital.sessions() as session:
        report = session.scalars(select(LegacyReport).where(LegacyReport.source == "pdfs")).one()
    answer = hospital.signed_in("radiologist").get(f"/old-reports/{report.id}/document")
    assert (answer.data, answer.mimetype) == (pdf, "application/pdf")
