"""What a plan declares for a study, and the proof that nothing else became different."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.archive_fixture import image, written
from tests.unit.coercion.images import read
from zambezi.coercion import declared
from zambezi.coercion.steps import CoercionFailed

NOW = datetime(2026, 3, 1, tzinfo=UTC)
CHANGES = {"PatientID": "00012", "IssuerOfPatientID": "HCM", "PatientName": "Conceição^Ana", "AccessionNumber": ""}


def coerced(content: bytes, at: datetime = NOW, changes: dict[str, str] = CHANGES) -> bytes:
    return declared.coerced(content, changes, "pacs 2026", at)


def test_an_image_gets_what_is_declared_and_keeps_what_it_said_before() -> None:
    made = read(coerced(written(image(AccessionNumber="A1"))))
    assert (made.PatientID, made.IssuerOfPatientID, str(made.PatientName)) == ("00012", "HCM", "Conceição^Ana")
    assert made.AccessionNumber == ""
    (before,) = made.OriginalAttributesSequence
    assert before.ModifyingSystem == "ZAMBEZI migration-pacs-2026"
    assert before.ModifiedAttributesSequence[0].PatientID == "P1"


def test_one_that_is_so_already_stays_byte_for_byte() -> None:
    once = coerced(written(image(AccessionNumber="A1")))
    assert coerced(once, NOW + timedelta(days=1)) is once


def test_a_character_set_is_named_and_no_letter_touched() -> None:
    content = written(image(SpecificCharacterSet="ISO_IR 192", PatientName="Jos\xe9^Ana"))
    wrong = content.replace(b"ISO_IR 192", b"ISO_IR 100")
    made = coerced(wrong, changes={"SpecificCharacterSet": "ISO_IR 192"})
    assert str(read(made).PatientName) == "José^Ana"
    assert declared.differences(wrong, made, {"SpecificCharacterSet": "ISO_IR 192"}, "pacs 2026", NOW) == []


def test_the_proof_allows_what_was_declared_and_nothing_else() -> None:
    one = image(AccessionNumber="A1")
    source = written(one)
    stored = coerced(source, NOW + timedelta(hours=3))
    assert declared.differences(source, stored, CHANGES, "pacs 2026", NOW) == []
    assert "(0010,0020)" in declared.differences(source, source, CHANGES, "pacs 2026", NOW)  # nothing was carried out
    one.PixelData = bytes(63) + b"\1"
    assert declared.differences(written(one), stored, CHANGES, "pacs 2026", NOW) == ["(7fe0,0010)"]
    one = image(AccessionNumber="A2", PatientID="other")
    one.PixelData, one.SOPInstanceUID = bytes(64), read(source).SOPInstanceUID
    found = declared.differences(written(one), stored, CHANGES, "pacs 2026", NOW)
    assert "(0400,0561)" in found  # the old values that were kept aren't this source's


def test_what_may_differ_is_known_beforehand() -> None:
    assert declared.tags({}) == frozenset()
    assert declared.tags({"PatientID": "1"}) == {"(0010,0020)", "(0008,0005)", "(0400,0561)"}
    assert "(0040,0275)" in declared.tags({"AccessionNumber": "1"})


def test_what_cannot_be_carried_out_fails_and_says_no_value() -> None:
    with pytest.raises(CoercionFailed) as failed:
        coerced(b"nothing of DICOM")
    assert "00012" not in str(failed.value)
