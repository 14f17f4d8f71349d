"""Messages of an administrator's own: checked when loaded, and no value ever becomes a field or a segment."""

import dataclasses
import json

import pytest
from hl7apy import load_library
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.hl7.mllp import Framer, frame
from tests.unit.hl7.test_build import HEADER
from zambezi.config.settings import Zambezi
from zambezi.environment import REPOSITORY
from zambezi.hl7 import build, template
from zambezi.hl7.read import read


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("PID|1||{patient_id}^^^{issuer}", ""),
        ("OBX|1|FT|X^{procedure_text}||{findings}\\.br\\{impression}\\X0D\\", ""),
        ("ZAM|{event}", ""),
        ("MSH|^~\\&|X", "found MSH, which Zambezi writes itself"),
        ("PDI|1||{patient_id}", "found segment 'PDI', allowed is one of HL7's or Z.. (nearest: P"),
        ("pid|1", "found segment 'pid'"),
        ("PID", "has no fields"),
        ("PID||||", "has no fields"),
        ("PID|1||{patientid}", "no placeholder {patientid} (nearest: patient_id)"),
        ("PID|1||{patient_id", "has a brace that belongs to no placeholder"),
        ("PID|1||${patient_id}}", "has a brace that belongs to no placeholder"),
        ("NTE|1||C:\\share", "has a backslash that is no escape of HL7"),
        ("NTE|1||a\rZXX|1", "holds a control character"),
        ("NTE|1||\x1c", "holds a control character"),
    ],
)
def test_a_segment_that_makes_no_sense_is_told_with_what_is_allowed(line, fault):
    found = template.faults(line)
    assert any(one.startswith(fault) for one in found) if fault else found == []


def test_every_segment_that_is_allowed_is_one_of_hl7s():
    known = {name for version in ("2.3.1", "2.5.1") for name in load_library(version).SEGMENTS}
    assert template.SEGMENTS - known <= {"IPC", "PDA", "ARQ"}


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["UNICODE UTF-8", "8859/1"]))
def test_whatever_a_value_holds_it_stays_in_its_component(value, encoding):
    lines = template.filled(
        ["PID|1||{patient_id}^^^X|{family_name}^Y|Z", "ZZZ|{reason}"], {"patient_id": value, "reason": value}
    )
    sent = build.own(dataclasses.replace(HEADER, encoding=encoding), "ORM^O01^ORM_O01", lines)
    (got,) = Framer(1 << 20).feed(frame(sent))
    assert got == sent
    # Of Latin-1 the reader believes what is valid UTF-8 rather than the declaration: it is told in UTF-8 what was sent.
    codec = "latin-1" if b"|8859/1" in got.split(b"\r")[0] else "utf-8"
    message = read(got.decode(codec).replace("8859/1", "UNICODE UTF-8", 1).encode())
    assert [str(segment[0]) for segment in message.segments] == ["MSH", "PID", "ZZZ"]
    assert [message.get(path) for path in ("PID-3.4", "PID-4.1", "PID-4.2", "PID-5")] == ["X", "", "Y", "Z"]
    same = value.replace("\r\n", "\n").replace("\r", "\n")
    assert message.get("PID-3.1") == ("" if same == '""' else same)


@pytest.mark.parametrize(("version", "kind"), [("2.3.1", "ORM^O01"), ("2.5.1", "ORM^O01^ORM_O01")])
def test_the_type_is_written_as_the_peers_version_has_it(version, kind):
    sent = build.own(dataclasses.replace(HEADER, version=version), "ORM^O01^ORM_O01", ["PID|1"])
    assert sent.split(b"|")[8].decode() == kind
    assert sent.endswith(b"\rPID|1\r")


@pytest.mark.parametrize("manual", ["administrator.md", "administrator.pt.md"])
def test_the_manual_names_every_placeholder_and_its_example_is_a_configuration(manual):
    text = (REPOSITORY / "docs" / manual).read_text(encoding="utf-8")
    assert [name for name in template.PLACEHOLDERS if f"`{name}`" not in text] == []
    example = text.partition('\n    "Hl7": {')[2].partition("\n\n")[0]
    found = Zambezi.model_validate(json.loads('{"Hl7": {' + example + "}"))
    assert [one.says for one in found.hl7.triggers] == ["ORM^O01", "template short"]
