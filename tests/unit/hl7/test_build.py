import base64
import dataclasses
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hl7apy.parser import parse_message
from hypothesis import given, settings
from hypothesis import strategies as st

from zambezi.hl7 import build
from zambezi.hl7.read import read

AT = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
HEADER = build.Header("HIS", "HCM", "0123456789abcdef0123", AT, ZoneInfo("Africa/Maputo"), sending_facility="Hospital")
EXAM = build.Exam(
    "4711", "HIS", "Conceição & Filhos", "João", "19800229", "M", "PL1", "F1", "ACC1", "2.25.123", "R1", "S1", "TC1",
    "TC do crânio", "CT", AT,
)  # fmt: skip
REPORT = build.SignedReport(
    (("59776-5", "Procedure findings", "Sem ^ alterações\n\nfim"), ("19005-8", "Impression", "")),
    AT, "ana", False, b"%PDF-1.4 \x00",
)  # fmt: skip
THERE = build.OrderStatus("SC", "A", "study-updated")


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_a_status_names_order_and_study(version):
    got = read(build.order_status(dataclasses.replace(HEADER, version=version), EXAM, THERE))
    assert got.kind == "ORM^O01"
    assert (got.get("ORC-1"), got.get("ORC-5"), got.get("NTE-3")) == ("SC", "A", "study-updated")
    assert (got.get("ORC-2"), got.get("OBR-18"), got.get("ZDS-1.1")) == ("PL1", "ACC1", "2.25.123")
    assert (got.get("PID-3"), got.get("PID-3.4"), got.get("PID-5.1")) == ("4711", "HIS", "Conceição & Filhos")
    assert (got.get("MSH-5"), got.get("MSH-6"), got.control_id) == ("HIS", "HCM", HEADER.control_id)
    assert (got.get("MSH-7"), got.get("MSH-12")) == ("20260301103000+0200", version)


def test_images_without_a_report_are_a_result_that_is_stored_and_not_verified():
    got = read(build.images(HEADER, EXAM, THERE))
    assert (got.kind, got.get("OBR-25"), got.get("OBX-5"), got.get("OBX-11")) == ("ORU^R01", "R", "2.25.123", "R")
    gone = read(build.images(HEADER, EXAM, THERE, are_gone=True))
    assert (gone.get("OBR-25"), gone.get("OBX-11")) == ("I", "D")


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_a_report_carries_text_study_and_pdf(version):
    got = read(build.report(dataclasses.replace(HEADER, version=version), EXAM, REPORT))
    assert got.kind == "ORU^R01"
    assert got.get("OBR-25") == "F"
    observations = [segment for segment in got.segments if str(segment[0]) == "OBX"]
    assert [str(segment[2]) for segment in observations] == ["ST", "TX", "ED"]
    assert got.get("OBX-3.2") == "DICOM Study"
    assert got.get("OBX-5") == "2.25.123"
    assert got.lines("OBX-5")[1:4] == ["Sem ^ alterações", "", "fim"]
    pdf = str(observations[2][5])
    assert pdf.startswith("^Application^PDF^Base64^")
    assert base64.b64decode(pdf.split("^")[4]) == REPORT.pdf


def test_a_correction_says_so_in_every_observation():
    got = read(build.report(HEADER, EXAM, dataclasses.replace(REPORT, corrected=True)))
    assert got.get("OBR-25") == "C"
    assert set(got.lines("OBX-11")) == {"C"}


def test_a_report_without_a_pdf_has_none():
    assert b"|ED|" not in build.report(HEADER, EXAM, dataclasses.replace(REPORT, pdf=None))


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_an_independent_library_reads_every_segment_of_what_we_send(version):
    header = dataclasses.replace(HEADER, version=version)
    for sent in (
        build.order_status(header, EXAM, THERE),
        build.images(header, EXAM, THERE),
        build.report(header, EXAM, REPORT),
    ):
        message = parse_message(sent.decode(), find_groups=False)
        assert [segment.name for segment in message.children] == [line[:3] for line in sent.decode().split("\r")[:-1]]


def test_an_old_peer_gets_latin_1():
    sent = build.order_status(dataclasses.replace(HEADER, encoding="8859/1"), EXAM, THERE)
    assert "Conceição".encode("latin-1") in sent
    assert read(sent).get("MSH-18") == "8859/1"


def test_text_that_latin_1_cannot_carry_goes_out_as_utf_8_and_says_so():
    exam = dataclasses.replace(EXAM, given_name="Ŝona")
    sent = build.order_status(dataclasses.replace(HEADER, encoding="8859/1"), exam, THERE)
    got = read(sent)
    assert (got.get("PID-5.2"), got.get("MSH-18"), got.guessed) == ("Ŝona", "UNICODE UTF-8", False)


@settings(deadline=None, max_examples=60)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip))
def test_text_goes_out_so_that_it_is_read_again(text):
    if text and text != '""' and not {"\r", "\n"} & set(text):
        exam = dataclasses.replace(EXAM, family_name=text)
        assert read(build.order_status(HEADER, exam, THERE)).get("PID-5.1") == text
