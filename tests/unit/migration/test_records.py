"""Records of an old RIS: taken once, listed where they can't be, matched and never merged, linked both ways."""

from __future__ import annotations

import csv
import hashlib
import json
import multiprocessing
import shutil
import stat
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import func, select

from migration.records import archiving, deciding, importing, reading, reconciling
from migration.records.commands import records
from migration.records.deciding import CannotDecide
from migration.records.importing import Stopped
from tests.unit.migration.old_ris import MAPPING, NOW, PATIENTS, REPORTS, ZONE, import_and_die, job, rows, written
from zambezi import audit, clock, identifiers, keys, legacy, orders, worklist
from zambezi.config.settings import Worklist
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AnnouncedInstance,
    AuditEntry,
    Delivery,
    ExceptionItem,
    LegacyImport,
    LegacyReport,
    LegacyRow,
    Order,
    Patient,
    Study,
)
from zambezi.database.upgrade import upgrade
from zambezi.environment import REPOSITORY, Environment


@pytest.fixture
def made(tables_url: str) -> Sessions:
    return sessions(connect(tables_url, "migration"), "migration")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "old"
    found.mkdir()
    written(found)
    return found


def a_study(session, uid: str, patient_id: str, accession: str = "") -> Study:
    at = clock.text(NOW)
    study = Study(
        study_uid=uid, orthanc_id=uid, cause="migration", patient_id=patient_id, accession_number=accession,
        instances=3, first_at=at, last_at=at,
    )  # fmt: skip
    session.add(study)
    session.flush()
    return study


def test_every_row_is_taken_or_listed_with_its_reason(made: Sessions, folder: Path):
    outcomes = importing.run(job(made, folder))
    assert outcomes["patient"] == {"taken": 3, "refused": 1}
    assert outcomes["exam"] == {"taken": 3, "refused": 2, "waiting": 1}
    assert outcomes["report"] == {"taken": 3, "refused": 1}
    listed = rows(made, "patient")["103"]
    assert listed.reason == "BirthDate: '31/02/1970' is no date in any of the formats %d/%m/%Y"
    assert listed.raw["APELIDO"] == "Tembe", "whole, to be exported"
    exams = rows(made, "exam")
    assert "only exams that are over" in exams["3"].reason
    assert exams["5"].reason == "no patient 999 of HCM-OLD is known yet"
    assert exams["6"].reason == "AccessionNumber: it has 27 characters; 16 fit"
    with made() as session:
        joao = identifiers.find(session, "101", "HCM-OLD")
        assert joao and (joao.family_name, joao.given_name, joao.sex) == ("Machava", "João António", "M")
        done = session.scalars(select(Order).where(Order.accession_number == "A1")).one()
        assert (done.status, done.source, done.scheduled_at) == (
            "completed",
            "legacy:old-ris",
            "2015-03-05T07:30:00.000000Z",
        )
        assert session.scalars(select(ExceptionItem)).one().facts == {"source": "old-ris", "count": 5}


def test_what_is_imported_sets_nothing_off(made: Sessions, folder: Path):
    importing.run(job(made, folder))
    with made.begin() as session:
        that_day = datetime(2015, 3, 7, tzinfo=UTC)
        assert worklist.entries(session, Worklist(hours_back=96, hours_ahead=96), ZONE, that_day) == []
        assert session.scalar(select(func.count()).select_from(Delivery)) == 0
        told = session.scalars(select(AuditEntry).where(AuditEntry.event == "order-changed")).all()
        from gateway.triggers import _state
        from zambezi.chain import Sealed

        states = [_state(Sealed(e.journal, e.seq, e.hash, e.payload).facts) for e in told]
        assert states == ["", "", ""], "a trigger on exam-changed would tell the HIS of exams of years ago"


def test_a_second_run_changes_nothing_and_lists_what_the_old_system_changed(made: Sessions, folder: Path):
    importing.run(job(made, folder))
    with made() as session:
        entries = session.scalar(select(func.count()).select_from(AuditEntry))
    again = importing.run(job(made, folder))
    assert (again["patient"]["same"], again["exam"]["same"], again["report"]["same"]) == (3, 3, 3)
    with made() as session:
        new = session.scalars(select(AuditEntry).order_by(AuditEntry.seq)).all()[entries:]
        assert {e.event for e in new} == {"records-imported"}
        assert session.scalar(select(func.count()).select_from(LegacyReport)) == 3

    written(
        folder, patients=PATIENTS.replace("Machava;João", "Machava;Joao"), reports=REPORTS.replace("limite", "normal")
    )
    later = importing.run(job(made, folder))
    assert (later["patient"]["changed"], later["report"]["changed"]) == (1, 1)
    row = rows(made, "report")["1"]
    with made() as session:
        assert "limite" in session.get_one(LegacyReport, row.report_id).text, "it stays until a person decides"
    deciding.decide(job(made, folder), row.id, "accept", "corrected by the old system's author")
    with made() as session:
        report = session.get_one(LegacyReport, rows(made, "report")["1"].report_id)
        assert (report.version, report.is_latest) == (2, True) and "normal" in report.text
        first = session.scalars(select(LegacyReport).where(LegacyReport.version == 1, ~LegacyReport.is_latest)).one()
        assert "limite" in first.text
    assert importing.run(job(made, folder))["report"] == {"same": 3, "refused": 1}


def test_a_report_is_kept_to_the_letter_with_its_hash(made: Sessions, folder: Path):
    importing.run(job(made, folder))
    with made() as session:
        reports = {r.source_key: r for r in session.scalars(select(LegacyReport))}
    text = 'Sem alterações; "normal".\r\n\r\nCoração no limite.'
    assert reports["1"].text == text
    assert reports["1"].text_sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert reports["2"].text == "Conclusão: normal.\nFim"
    assert reports["2"].document.startswith(b"{\\rtf1"), "the very file"
    assert reports["1"].written_at == "2015-03-05T13:00:00.000000Z"


def test_documents_are_due_for_the_archive_where_the_mapping_says_so_and_their_study_is_here(
    made: Sessions, folder: Path
):
    fields = {**MAPPING["Reports"]["Fields"], "File": "FICHEIRO"}
    asks = {**MAPPING, "ToArchive": True, "Reports": {**MAPPING["Reports"], "Fields": fields}}
    table = "ID;NUM;ACESSO;TEXTO;AUTOR;DATA;FICHEIRO\n1;101;A1;;;05/03/2015 15:00;1.pdf\n2;101;A2;words;;;\n"
    written(folder, reports=table)
    (folder / "1.pdf").write_bytes(b"%PDF-1.4 first")

    def states() -> list[tuple[str, int, str]]:
        with made() as session:
            found = session.scalars(select(LegacyReport).order_by(LegacyReport.source_key, LegacyReport.version))
            return [(one.source_key, one.version, one.archive_state) for one in found]

    importing.run(job(made, folder, {**asks, "ToArchive": False}))
    assert states() == [("1", 1, ""), ("2", 1, "")]
    importing.run(job(made, folder, asks))
    assert states() == [("1", 1, "due"), ("2", 1, "")], "what was taken before it was asked for, too; words are no file"
    with made.begin() as session:
        assert archiving.due(session) == []
        a_study(session, "1.2.3.1", "101", "A1")
        (number,) = archiving.due(session)
        (study,) = legacy.studies_of(session, session.get_one(LegacyReport, number))
        assert study.study_uid == "1.2.3.1"
        assert reconciling.counts(session, "old-ris")["documents that wait for their study"] == 1
    archiving.announce(made, [number], NOW)
    with made.begin() as session:
        (told,) = session.scalars(select(AnnouncedInstance))
        assert (told.cause, told.reference) == ("migration", "records old-ris")
    archiving.announce(made, [], NOW + timedelta(hours=2))
    with made.begin() as session:
        assert session.scalars(select(AnnouncedInstance)).all() == [], "told for an hour: then the journal has it"
        session.get_one(LegacyReport, number).archive_state = "refused"
    (folder / "1.pdf").write_bytes(b"%PDF-1.4 second")
    importing.run(job(made, folder, asks))
    assert states()[0] == ("1", 1, "due"), "an import tries again what was refused"
    deciding.decide(job(made, folder, asks), rows(made, "report")["1"].id, "accept", "the newer word")
    assert states()[:2] == [("1", 1, ""), ("1", 2, "due")], "the newest version is the one that is stored"


def test_reports_and_studies_find_each_other_whichever_came_first(made: Sessions, folder: Path):
    with made.begin() as session:
        a_study(session, "1.9.2", "101", "A2")  # before its exam, which the old RIS knows without a Study UID
        a_study(session, "1.9.9", "555", "A1")  # another patient's study with a number that was given out twice
    importing.run(job(made, folder))
    with made.begin() as session:
        a_study(session, "1.2.3.1", "101", "A1").order_id = session.scalars(
            select(Order.id).where(Order.accession_number == "A1")
        ).one()
    with made() as session:

        def found(uid: str) -> list[tuple[str, str]]:
            study = session.scalars(select(Study).where(Study.study_uid == uid)).one()
            order = session.get(Order, study.order_id) if study.order_id else None
            return [(one.report.source_key, one.because) for one in legacy.reports_of(session, study, order)]

        assert found("1.9.2") == [("2", "order")]
        assert found("1.2.3.1") == [("1", "order")]
        assert found("1.9.9") == [], "an accession number alone is no proof"
        orphans = reconciling.orphans(session, "old-ris", 10)
        assert [row["key"] for row in orphans["reports without a study"]] == ["3"]
        assert [row["accession_number"] for row in orphans["exams without images"]] == ["A4"]
        assert [row["accession_number"] for row in orphans["exams without a report"]] == ["A4"]
        assert [row["study_uid"] for row in orphans["studies without an exam"]] == ["1.9.9"]


def test_a_patient_who_may_be_known_waits_for_a_person_and_so_do_their_exams(made: Sessions, folder: Path):
    with made.begin() as session:
        his = orders.register_patient(
            session, patient_id="H7", issuer="HIS", family_name="MACHAVA", given_name="JOAO ANTONIO",
            birth_date="19580203", sex="M", now=NOW, writer="gateway",
        ).id  # fmt: skip
        orders.register_patient(
            session, patient_id="102", issuer="HCM-OLD", family_name="Nguenha", given_name="Pedro",
            birth_date="19800101", sex="M", now=NOW, writer="gateway",
        )  # fmt: skip
    outcomes = importing.run(job(made, folder))
    assert outcomes["patient"] == {"held": 2, "taken": 1, "refused": 1}
    assert outcomes["exam"] == {"waiting": 4, "refused": 2}
    held = rows(made, "patient")["101"]
    assert [c["patient"] for c in held.candidates] == [his] and held.candidates[0]["score"] > 0.9
    with made() as session:
        assert session.scalar(select(func.count()).select_from(Order)) == 0
        assert [row.id for row in deciding.likely(session, "old-ris", 0.9)] == [held.id]
    with pytest.raises(CannotDecide, match="reason"):
        deciding.decide(job(made, folder), held.id, "same-as", " ")
    with pytest.raises(CannotDecide, match="another patient's identifier"):
        deciding.decide(job(made, folder), rows(made, "patient")["102"].id, "register", "no")
    deciding.decide(job(made, folder), held.id, "same-as", "same card, same mother's name")
    with made() as session:
        old = identifiers.find(session, "101", "HCM-OLD")
        assert old and identifiers.survivor_of(session, old).id == his
        assert {o.patient_key for o in session.scalars(select(Order))} == {his}, "what waited for him came by itself"
        told = session.scalars(select(AuditEntry).where(AuditEntry.event == "records-decided")).one()
        assert told.who == "ana"
    deciding.decide(job(made, folder), rows(made, "patient")["102"].id, "leave-out", "not ours")
    assert importing.run(job(made, folder))["patient"]["left-out"] == 1
    assert rows(made, "exam")["4"].state == "waiting"


def test_a_pass_that_is_killed_goes_on_where_it_was(made: Sessions, folder: Path, monkeypatch):
    monkeypatch.setattr(importing, "BATCH", 2)
    running = job(made, folder)
    running.tell = lambda kind, number, counts: running.stop.set() if (kind, number) == ("exam", 2) else None
    with pytest.raises(Stopped):
        importing.run(running)
    outcomes = importing.run(job(made, folder))
    assert outcomes["patient"] == {}, "nothing of it again"
    assert outcomes["exam"].total() == 4
    with made() as session:
        imported = session.scalars(select(LegacyImport)).one()
        assert (imported.pass_no, imported.state) == (1, "done")
        assert session.scalar(select(func.count()).select_from(Order)) == 3


def test_rows_of_a_query_are_all_met_again_after_an_interruption_for_they_may_come_in_another_order(
    made: Sessions, folder: Path, monkeypatch
):
    """A newer SQLite or another day may give them otherwise where the query doesn't say in which order."""
    monkeypatch.setattr(importing, "BATCH", 2)
    joined = {**MAPPING, "Exams": {**MAPPING["Exams"], "From": {"Csv": ["exams.csv"], "Query": "SELECT * FROM exams"}}}
    running = job(made, folder, joined)
    running.tell = lambda kind, number, counts: running.stop.set() if (kind, number) == ("exam", 2) else None
    with pytest.raises(Stopped):
        importing.run(running)
    ask = reading.sql_rows.query
    monkeypatch.setattr(reading.sql_rows, "query", lambda *about: reversed(list(ask(*about))))
    importing.run(job(made, folder, joined))
    assert set(rows(made, "exam")) == {"1", "2", "3", "4", "5", "6"}


def test_a_key_that_stands_twice_is_listed_and_not_guessed(made: Sessions, folder: Path):
    written(folder, patients=PATIENTS + "104;Sitoe;Elias;;Masculino\n101;Cossa;Ana;01/01/2001;Feminino\n")
    assert importing.run(job(made, folder))["patient"] == {"taken": 3, "refused": 2, "repeated": 1}
    assert importing.run(job(made, folder))["patient"] == {"same": 3, "refused": 2, "repeated": 1}
    with made() as session:
        assert session.scalar(select(func.count()).select_from(Patient)) == 3


def test_a_dry_run_writes_nothing(made: Sessions, folder: Path):
    told = importing.dry(job(made, folder))
    assert told["exam"]["counts"] == {"can be taken": 4, "would be refused": 2}
    assert told["patient"]["facts"]["files"]["patients.csv"]["encoding"] == "cp1252"
    with made() as session:
        assert session.scalar(select(func.count()).select_from(LegacyImport)) == 0


def test_a_mapping_says_everything_that_is_wrong_with_it_at_once(made: Sessions, folder: Path):
    fields = {"PatientId": "NUM", "Modality": {"Column": "M", "Constant": "CT"}}
    exams = {"From": {"Csv": "exams.csv"}, "Fields": fields}
    wrong = {**MAPPING, "Exams": exams}
    with pytest.raises(ValueError) as raised:
        job(made, folder, wrong)
    assert "Exams.Fields.Modality: give exactly one of" in str(raised.value)
    del fields["Modality"]
    with pytest.raises(ValueError) as raised:
        job(made, folder, wrong)
    for said in ("Exams.Key: name the column", "Exams.Fields.PatientId: no such field", "PerformedAt: must be given"):
        assert said in str(raised.value)


def outcome(made: Sessions) -> dict[str, object]:
    """What an import has come to, as far as it may not depend on how often it died."""
    with made() as session:
        assert audit.verify(session) == []
        return {
            "rows": {(r.kind, r.key): r.state for r in session.scalars(select(LegacyRow))},
            "patients": sorted(session.scalars(select(Patient.patient_id))),
            "orders": sorted(session.scalars(select(Order.accession_number))),
            "reports": sorted((r.source_key, r.version, r.text_sha256) for r in session.scalars(select(LegacyReport))),
        }


@pytest.mark.parametrize("tables_url", ["sqlite"], indirect=True)
def test_a_death_at_any_commit_is_made_good_by_the_same_command(
    tables_url: str, folder: Path, tmp_path: Path, monkeypatch
):
    monkeypatch.setattr(importing, "BATCH", 4)
    empty, wanted = Path(tables_url.removeprefix("sqlite:///")), {}
    for death in count(1):
        file = tmp_path / f"{death}.db"
        shutil.copy(empty, file)
        died = dies(f"sqlite:///{file}", folder, tmp_path / "crash", death)
        again = sessions(connect(f"sqlite:///{file}", "migration"), "migration")
        importing.run(job(again, folder))
        found = outcome(again)
        again.kw["bind"].dispose()
        wanted = wanted or found
        assert found == wanted, f"died at commit event {death}"
        if not died:
            break
    assert death > 10, "before and after each batch"
    assert wanted["orders"] == ["A1", "A2", "A4"]


def dies(url: str, folder: Path, crash: Path, at: int) -> bool:
    """Import in a process that ends without any clean-up at its n-th commit event; whether it came to that."""
    crash.mkdir(exist_ok=True)
    (crash / "migration").write_text(str(at))
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tests.unit.migration.old_ris"])
    child = processes.Process(target=import_and_die, args=(url, folder, crash, importing.BATCH))
    child.start()
    child.join(60)
    assert child.exitcode in (0, 137)
    return child.exitcode == 137


def test_what_was_here_before_is_not_changed_by_an_old_message(made: Sessions, tmp_path: Path):
    """The HIS knows this patient by this very identifier; an old ADT with another name may not overwrite that."""
    with made.begin() as session:
        orders.register_patient(
            session, patient_id="301", issuer="HIS", family_name="Bila", given_name="Tomás", birth_date="19720110",
            sex="M", now=NOW, writer="gateway",
        )  # fmt: skip
    adt = "MSH|^~\\&|OLD||||||ADT^A08|1|P|2.3\rPID|1||301^^^HIS||{name}||19720110|M\r"
    (tmp_path / "a.hl7").write_text(adt.format(name="Bila^Tomas") + adt.format(name="Bila^Tomas Antigo"))
    document = {"Name": "adt", "Issuer": "HIS", "Patients": {"From": {"Hl7": "a.hl7"}}}
    assert importing.run(job(made, tmp_path, document))["patient"] == {"taken": 1, "changed": 1}
    with made() as session:
        assert session.scalars(select(Patient.given_name)).one() == "Tomás"


def test_the_commands_say_what_was_found_and_write_what_could_not_be_taken(folder: Path, tmp_path: Path, monkeypatch):
    home = tmp_path / "home"
    for name, value in {"HOME": home, "CONFIG": REPOSITORY / "orthanc-config", "DATABASE_URL": ""}.items():
        monkeypatch.setenv(f"ZAMBEZI_{name}", str(value))
    home.mkdir()
    environment = Environment.read()
    keys.load_or_create(environment.keys_file)
    upgrade(connect(environment.database_url, "test"))
    (folder / "mapping.json").write_text(json.dumps(MAPPING))

    def run(*words: str, fails: bool = False) -> str:
        done = CliRunner().invoke(
            records, [str(folder / word) if word.endswith((".json", ".csv")) else word for word in words]
        )
        assert bool(done.exit_code) is fails, done.output
        return done.output

    assert "patients.csv: cp1252, delimiter ;" in run("probe", "mapping.json")
    assert "NASC" not in run("preview", "mapping.json") and "31/02/1970" in run("preview", "mapping.json")
    assert json.loads(run("import", "mapping.json", "--dry-run", "--json"))["exam"]["counts"]["can be taken"] == 4
    assert json.loads(run("import", "mapping.json", "--json"))["exam"] == {"taken": 3, "refused": 2, "waiting": 1}
    told = json.loads(run("status", "old-ris", "--json"))[0]
    assert told["rows"]["report"] == {"taken": 3, "refused": 1} and told["links"]["reports without a study"] == 3
    assert "reports without a study:" in run("orphans", "old-ris")
    run("export", "old-ris", "--kind", "patient", "--out", "refused.csv")
    exported = list(csv.DictReader((folder / "refused.csv").open(encoding="utf-8-sig")))
    assert [json.loads(row["columns"])["NASC"] for row in exported] == ["31/02/1970"]
    assert stat.S_IMODE((folder / "refused.csv").stat().st_mode) == 0o600
    words = ("decide", "mapping.json", exported[0]["row"], "--as")
    assert "what can be decided is leave-out" in run(*words, "accept", "--because", "x", fails=True)
    run(*words, "leave-out", "--because", "a test patient")
    assert '"left-out": 1' in run("status", "--json")
    (folder / "mapping.json").write_text(json.dumps({**MAPPING, "Patients": {"From": {"Csv": "no.csv"}}}))
    assert "Patients.Key: name the column" in run("import", "mapping.json", fails=True)
