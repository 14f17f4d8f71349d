"""What old systems hand over: files in any encoding, HL7 of any shape, databases; and reports of any kind."""

from __future__ import annotations

import base64
import hashlib
import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian
from sqlalchemy import select, text

from migration.records import evaluating, importing, mapping, matching, previewing
from migration.records.detecting import detect
from migration.records.matching import Person
from migration.records.reading import sources
from migration.records.rows import Raw
from tests.unit.migration.old_ris import MAPPING, NOW, PATIENTS, ZONE, job, rows, written
from zambezi import legacy_documents
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Base, LegacyReport, Order

PDF = b"%PDF-1.4\n% a report of 2009\n%%EOF\n"
PID = "PID|1||{id}^^^HCM||{family}^{given}||{born}|{sex}\r"
ORU = (
    "MSH|^~\\&|OLD|HCM|||20150305150000||ORU^R01|{n}|P|2.3|||||||{charset}\rPID|1||201^^^HCM||Bila^Tomás||19720110|M\r"
    "ORC|RE|P{n}|F{n}\rOBR|1|P{n}|F{n}|TX^Tórax|||201503050930|||||||||1^Nkavele^Ivo||A{n}||||20150305150000||CR|{status}\r"
    "OBX|1|TX|||Linha um~Linha dois\rOBX|2|FT|||A\\.br\\B \\T\\ C\r{more}"
)


@pytest.fixture
def made(tmp_path: Path):
    engine = connect(f"sqlite:///{tmp_path / 'z.db'}", "migration")
    Base.metadata.create_all(engine)
    yield sessions(engine, "migration")
    engine.dispose()


def read(folder: Path, section: str, how: dict[str, Any], **more: Any) -> tuple[list[Any], dict[str, Any]]:
    """All rows of a section that stands so, and what was seen."""
    document = {"Name": "x", "Issuer": "HCM", section: {**MAPPING[section], **more, "From": how}}
    source = sources(mapping.read(document), folder)[0]
    return list(source.rows()), source.facts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp850"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_encoding_and_delimiter_are_found(tmp_path: Path, encoding: str, delimiter: str):
    table = 'N;NOME;NOTA\n1;"Conceição; José\nGuimarães";São João\n2;Ângela;À espera\n3;Inês;Órgão\n'
    (tmp_path / "p.csv").write_bytes(table.replace(";", delimiter).encode(encoding))
    found = detect(tmp_path / "p.csv")
    assert (found.encoding, found.delimiter) == (encoding, delimiter)
    raws, facts = read(tmp_path, "Patients", {"Csv": "p.csv"}, Key="N")
    assert [raw.values["NOME"] for raw in raws] == [f"Conceição{delimiter} José\nGuimarães", "Ângela", "Inês"]
    assert facts["files"]["p.csv"]["because"], "and it is said why"


def test_lines_that_are_cut_wrongly_are_yielded_with_their_fault(tmp_path: Path):
    (tmp_path / "p.csv").write_text("NUM,A,A\n1,x,y\n2,too,many,values\n3,z,\0w\n")
    raws, facts = read(tmp_path, "Patients", {"Csv": "p.csv"})
    assert [raw.fault[:30] for raw in raws] == ["", "4 values under 3 columns: a de", ""]
    assert raws[1].values == {"value 1": "2", "value 2": "too", "value 3": "many", "value 4": "values"}
    assert (raws[1].place, raws[2].values["A#3"]) == ("p.csv:3", "w")
    assert facts["doubts"] == ["p.csv: column A stands twice; the second is called A#3"]


def test_bytes_of_another_encoding_are_no_text_to_guess_at(tmp_path: Path):
    (tmp_path / "p.csv").write_bytes("NUM;A\n1;José\n2;Žižka\n".encode())
    raws, _facts = read(tmp_path, "Patients", {"Csv": "p.csv", "Encoding": "ascii"})
    assert {raw.fault for raw in raws} == {"some of its bytes are no ascii; give the right Encoding"}


def test_a_column_that_is_not_there_is_said_before_anything_is_taken(made, tmp_path: Path):
    written(tmp_path, patients=PATIENTS.replace("APELIDO", "Apelido"))
    with pytest.raises(mapping.MappingFault, match=r"no column APELIDO at patients\.csv:2; there are NUM, Apelido"):
        importing.run(job(made, tmp_path))
    assert rows(made, "patient") == {}


def test_files_are_joined_by_a_query(tmp_path: Path):
    written(tmp_path)
    (tmp_path / "doctors.csv").write_text("NUM,MEDICO\n101,Dr. Nkavele\n")
    how = {
        "Csv": ["exams.csv", "doctors.csv"],
        "Query": "SELECT e.*, MEDICO FROM exams e LEFT JOIN doctors d USING (NUM) ORDER BY ID",
    }
    raws, _facts = read(tmp_path, "Exams", how)
    assert [(raw.values["ID"], raw.values["MEDICO"]) for raw in raws][:3] == [
        ("1", "Dr. Nkavele"), ("2", "Dr. Nkavele"), ("3", ""),
    ]  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def old_database(request: pytest.FixtureRequest, tmp_path: Path):
    """The URL of a database with a patient in it, one of whose columns is no text."""
    rows = (
        "CREATE TABLE pat (num INTEGER, nome TEXT, nasc DATE, foto {})",
        "INSERT INTO pat VALUES (7, 'Ana', '1990-01-02', {})",
    )
    if request.param == "sqlite":
        with closing(sqlite3.connect(tmp_path / "old.db")) as old:
            for statement, kind in zip(rows, ("BLOB", "X'255044'"), strict=True):
                old.execute(statement.format(kind))
            old.commit()
        yield "sqlite:///old.db"
        return
    with request.getfixturevalue("postgres_cluster").a_database() as url:
        made = connect(url, "old")
        with made.begin() as connection:
            for statement, kind in zip(rows, ("BYTEA", "'\\x255044'"), strict=True):
                connection.execute(text(statement.format(kind)))
        made.dispose()
        yield url


def test_a_database_is_read_and_can_not_be_written(tmp_path: Path, old_database: str):
    secret = tmp_path / "old.url"
    secret.write_text(old_database + "\n")
    secret.chmod(0o644)
    sql = {"UrlFile": "old.url", "Query": "SELECT * FROM pat"}
    with pytest.raises(mapping.MappingFault, match="chmod 600"):
        read(tmp_path, "Patients", {"Sql": sql}, Key="num")
    secret.chmod(0o600)
    raws, _facts = read(tmp_path, "Patients", {"Sql": sql}, Key="num")
    assert [raw.values for raw in raws] == [{"num": "7", "nome": "Ana", "nasc": "1990-01-02", "foto": b"%PD"}]
    for statement in ("DELETE FROM pat RETURNING num", "SELECT nothing FROM pat"):
        with pytest.raises(mapping.MappingFault, match="the database can't be asked"):
            read(tmp_path, "Patients", {"Sql": {**sql, "Query": statement}}, Key="num")
    assert read(tmp_path, "Patients", {"Sql": sql}, Key="num")[0] == raws


def batch(*messages: str, announced: int | None = None) -> str:
    """Messages in a file as HL7 has it (2.10.3)."""
    count = len(messages) if announced is None else announced
    return f"FHS|^~\\&|OLD\rBHS|^~\\&|OLD\r{''.join(messages)}BTS|{count}\rFTS|1\r"


def an_oru(n: int, status: str = "F", charset: str = "", more: str = "") -> str:
    return ORU.format(n=n, status=status, charset=charset, more=more)


@pytest.mark.parametrize("ends", ["\r", "\n", "\r\n"])
def test_hl7_files_need_no_mapping_of_fields(made, tmp_path: Path, ends: str):
    ed = f"OBX|3|ED|||^application^pdf^Base64^{base64.b64encode(PDF).decode()}\r"
    content = batch(an_oru(1, "P"), an_oru(2, more=ed), an_oru(1, "F"), "MSH|\r", announced=5)
    (tmp_path / "out.hl7").write_bytes(content.replace("\r", ends).encode("cp1252"))
    how = {"From": {"Hl7": "out.hl7"}}
    document = {"Name": "old", "Issuer": "HCM", "Patients": how, "Exams": how, "Reports": how}
    outcomes = importing.run(job(made, tmp_path, document))
    assert outcomes["patient"] == {"taken": 1, "same": 2, "refused": 1}
    assert outcomes["exam"] == {"taken": 2, "same": 1, "refused": 1}
    assert outcomes["report"] == {"taken": 2, "updated": 1, "refused": 1}, "the final follows the preliminary"
    again = importing.run(job(made, tmp_path, document))
    assert again["report"] == {"same": 3, "refused": 1}, "and the preliminary is no news when it is read once more"
    with made() as session:
        reports = session.scalars(select(LegacyReport).where(LegacyReport.is_latest).order_by(LegacyReport.source_key))
        one, two = reports.all()
        assert (one.text, one.author, one.status, one.version) == ("Linha um\nLinha dois\nA\nB & C", "", "F", 2)
        assert (two.document, two.media) == (PDF, "application/pdf")
        assert two.document_sha256 == hashlib.sha256(PDF).hexdigest()
        orders = session.scalars(select(Order).order_by(Order.id)).all()
        first = orders[0]
        assert (first.accession_number, first.modality, first.referring_physician) == ("A1", "CR", "Nkavele^Ivo")
        assert one.order_id == orders[0].id
    refused = next(row for row in rows(made, "report").values() if row.state == "refused")
    assert "no HL7 message" in refused.reason and refused.raw["message"].startswith("MSH|")


def test_a_count_that_the_batch_does_not_keep_is_a_doubt(tmp_path: Path):
    (tmp_path / "o.hl7").write_text(batch(an_oru(1), announced=5))
    document = {"Name": "old", "Issuer": "HCM", "Reports": {"From": {"Hl7": "o.hl7"}}}
    source = sources(mapping.read(document), tmp_path)[0]
    assert len(list(source.rows())) == 1
    assert source.facts["doubts"] == ["o.hl7: its batches announce 5 messages (BTS-1), 1 are there"]


def test_reports_in_files_are_kept_byte_for_byte(made, tmp_path: Path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "1.pdf").write_bytes(PDF)
    (tmp_path / "docs" / "2.dcm").write_bytes(a_document())
    (tmp_path / "docs" / "3.bin").write_bytes(b"\0\1\2")
    written(
        tmp_path,
        reports="ID;F;NUM\n1;C:\\docs\\1.pdf;101\n2;docs/2.dcm;101\n3;docs/3.bin;101\n4;../z.db;101\n5;no;101\n",
    )
    fields = {"PatientID": "NUM", "File": "F"}
    document = {**MAPPING, "Reports": {"From": {"Csv": "reports.csv"}, "Key": "ID", "Fields": fields}}
    assert importing.run(job(made, tmp_path, document))["report"] == {"taken": 2, "refused": 3}
    with made() as session:
        found = {r.source_key: r for r in session.scalars(select(LegacyReport))}
    assert (found["1"].document, found["1"].media) == (PDF, legacy_documents.PDF)
    assert found["2"].document == a_document() and found["2"].sop_uid == "1.2.9"
    assert legacy_documents.inner_pdf(found["2"].document) == PDF
    reasons = {key: row.reason for key, row in rows(made, "report").items()}
    assert "neither PDF nor RTF" in reasons["3"] and "outside of the folder" in reasons["4"]
    (tmp_path / "docs" / "1.pdf").write_bytes(PDF + b"%")
    assert importing.run(job(made, tmp_path, document))["report"]["changed"] == 1, "the file's content counts"


def a_document() -> bytes:
    """An Encapsulated PDF with an SR-like title."""
    file = Dataset()
    file.SOPClassUID, file.SOPInstanceUID, file.StudyInstanceUID = EncapsulatedPDFStorage, "1.2.9", "1.2.3"
    file.EncapsulatedDocumentLength, file.EncapsulatedDocument = len(PDF), PDF + b"\0" * (len(PDF) % 2)
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_what_only_looks_like_a_report_is_refused_and_odd_ones_are_read():
    for wrong in (b"", b" \n", b"\0" * 128 + b"DICM" + b"\xff" * 40, b"PK\x03\x04\0\0"):
        with pytest.raises(legacy_documents.NoDocument):
            legacy_documents.read(wrong)
    head = rb"{\rtf1\ansi{\*\generator Word;}{\fonttbl{\f0 Arial;}}{\pict 0102}"
    rtf = head + rb"Nota \u-10179?\u-8704? \u8364? 5\par \{fim\}}"
    assert legacy_documents.rtf_text(rtf) == "Nota \U0001f600 € 5\n{fim}"


def test_a_structured_report_is_shown_in_words():
    def code(meaning: str) -> Dataset:
        found = Dataset()
        found.CodeValue, found.CodingSchemeDesignator, found.CodeMeaning = "1", "99", meaning
        return found

    words, number = Dataset(), Dataset()
    words.ValueType, words.TextValue, words.ConceptNameCodeSequence = "TEXT", "Fígado normal", [code("Finding")]
    measured = Dataset()
    measured.NumericValue, measured.MeasurementUnitsCodeSequence = "12.5", [code("mm")]
    number.ValueType, number.MeasuredValueSequence, number.ConceptNameCodeSequence = "NUM", [measured], [code("Length")]
    words.ContentSequence = [number]
    file = Dataset()
    file.SpecificCharacterSet, file.SOPClassUID, file.SOPInstanceUID = (
        "ISO_IR 192",
        "1.2.840.10008.5.1.4.1.1.88.11",
        "1.9",
    )
    file.ContentSequence = [words]
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = io.BytesIO()
    file.save_as(out, enforce_file_format=True)
    found = legacy_documents.read(out.getvalue())
    assert (found.text, found.sop_uid) == ("Finding: Fígado normal\n  Length: 12.5 mm", "1.9")


@pytest.mark.parametrize(
    ("field", "take", "written", "means"),
    [
        ("PatientID", {"Column": "C", "PadTo": 6, "Prefix": "B-"}, " 42 ", "B-000042"),
        ("PatientID", {"Column": "C", "Pattern": r"^HCM-(\d+)/"}, "HCM-77/1", "77"),
        ("PatientID", {"Column": "C", "Pattern": r"^HCM-(\d+)/"}, "77", "doesn't match"),
        ("PatientID", "C", "NULL", "nothing is there"),
        ("PatientID", "C", "A\\B", "backslash"),
        ("Sex", {"Column": "C", "Values": {"1": "M"}, "Otherwise": "U"}, "7", "U"),
        ("Sex", {"Column": "C", "Values": {"1": "M"}}, "7", "not among Values"),
        ("Sex", "C", "homem", "none of M, F, O, U"),
        ("BirthDate", "C", "1958-02-03 00:00:00", "19580203"),
        ("BirthDate", {"Column": "C", "Formats": ["%d.%m.%y"]}, "03.02.31", "19310203"),
        ("BirthDate", "C", "0001-01-01", "which can't be"),
        ("BirthDate", {"Column": "C", "IfBad": "empty"}, "00/00/0000", "left empty"),
    ],
)
def test_a_field_is_what_the_mapping_says_or_says_why_not(field: str, take: Any, written: str, means: str):
    given = {"PatientID": {"Constant": "1"}, "Name": {"Constant": "Ana Cossa"}, field: take}
    document = {"Name": "x", "Issuer": "I", "Patients": {"From": {"Csv": "p.csv"}, "Key": "C", "Fields": given}}
    records = mapping.read(document).patients
    assert records is not None
    found = evaluating.meant("patient", records, Raw("p.csv:2", {"C": written}), ZONE, NOW)
    assert evaluating.full_name(found) == ("Cossa", "Ana")
    if found.faults or found.notes:
        assert means in " ".join((*found.faults, *found.notes)) and bool(found.faults) is (means != "left empty")
    else:
        assert found.text(field) == means


@pytest.mark.parametrize(
    ("names", "born", "sex", "verdict"),
    [
        ("MACHAVA^Joao Antonio", "19580203", "M", "hold"),
        ("António^João Machava", "19580203", "", "hold"),
        ("Machaba^João", "19580203", "M", "hold"),
        ("Machava^Joana", "19580203", "F", "new"),
        ("Cossa^Ana", "19580203", "F", "new"),
    ],
)
def test_who_is_alike_is_held_and_who_is_not_is_new(names: str, born: str, sex: str, verdict: str):
    family, given = names.split("^")
    known = Person(1, "Machava", "João António", "19580203", "M")
    assert matching.decide(Person(0, family, given, born, sex), None, [known]).verdict == verdict


@pytest.mark.parametrize(
    ("family", "born", "sex", "verdict"),
    [("Machava", "19580203", "M", "same"), ("Machava", "", "", "same"), ("Machava", "19580302", "M", "hold"),
     ("Machava", "19580203", "F", "hold"), ("Cossa", "19580203", "M", "hold")],
)  # fmt: skip
def test_an_identifier_alone_is_no_proof(family: str, born: str, sex: str, verdict: str):
    known = Person(1, "Machava", "João", "19580203", "M")
    assert matching.decide(Person(0, family, "João", born, sex), known, []).verdict == verdict


def test_a_preview_shows_each_field_and_faulty_rows_from_further_down(made, tmp_path: Path):
    many = "".join(f"{n};Sitoe;Elias;01/01/1990;Masculino\n" for n in range(500, 600))
    written(tmp_path, patients=PATIENTS.replace("103;", many + "103;"))
    shown = previewing.preview(job(made, tmp_path), 2)["patient"]
    born = next(field for field in shown["first"][0]["fields"] if field["name"] == "BirthDate")
    assert (born["raw"], born["value"], born["fault"]) == ("03/02/1958", "19580203", "")
    assert [row["key"] for row in shown["faulty"]] == ["103"]
    told = previewing.probe(job(made, tmp_path).sources[0])
    assert told["columns"]["SEXO"]["values"] == {"Masculino": 102, "Feminino": 2}
    assert told["columns"]["APELIDO"]["values"] is not None and told["columns"]["NUM"]["values"] is None
