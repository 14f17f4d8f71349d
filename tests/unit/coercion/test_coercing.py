"""What rules make of an image: what they name and nothing else, whatever its encoding; or it stays as it came."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from tests.unit.coercion.images import read, rules
from tests.unit.zambezi.test_rewriting import ORIGINALS, SAMPLES, SYNTAXES, differing, made
from zambezi import elements, worklist
from zambezi.coercion.coercing import coerce
from zambezi.coercion.orders import Orders
from zambezi.coercion.steps import CoercionFailed

AT = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
SITE = {
    "Fill": {"IssuerOfPatientID": "CLINIC"}, "Prefix": {"PatientID": "CN-", "AccessionNumber": "CN"},
    "Remove": ["(0009,1001)"],
}  # fmt: skip


def coerced(content: bytes, *written: dict[str, Any], orders: Orders | None = None) -> bytes:
    return coerce(content, rules(*written).all, orders or Orders(), AT).content


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_a_site_gets_its_issuer_and_prefixes_and_what_was_there_is_kept_inside(syntax: str, undefined: bool):
    old = made(syntax, undefined=undefined)
    new = coerced(old, SITE)
    assert differing(old, new) == {
        "(0010,0021)", "(0010,0020)", "(0008,0050)", "(0009,1001)", "(0040,0275)", ORIGINALS,
    }  # fmt: skip
    image = read(new)
    assert (image.PatientID, image.IssuerOfPatientID, image.AccessionNumber) == ("CN-P1", "CLINIC", "CNA1")
    assert image.RequestAttributesSequence[0].AccessionNumber == "CNA1"
    assert image.file_meta == read(old).file_meta
    assert image.PixelData == read(old).PixelData
    (kept,) = image.OriginalAttributesSequence
    assert (kept.ModifyingSystem, kept.ReasonForTheAttributeModification) == ("ZAMBEZI rule-0", "COERCE")
    assert kept.AttributeModificationDateTime == "20260301083000.000000+0000"
    was = kept.ModifiedAttributesSequence[0]
    assert (was.PatientID, was.AccessionNumber, was[0x00091001].value) == ("P1", "A1", b"\x01\x02\x03\x04")
    assert "IssuerOfPatientID" not in was
    assert coerced(new, SITE) == new, "a second time there is nothing to do"


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_of_every_sample_nothing_else_changes_or_it_stays_as_it_came(file: Path):
    old = file.read_bytes()
    try:
        new = coerced(old, SITE, {"Set": {"StationName": "ROOM 2"}, "Copy": {"PatientComments": "PatientID"}})
    except CoercionFailed:
        return
    named = {
        "(0010,0021)", "(0010,0020)", "(0008,0050)", "(0009,1001)", "(0040,0275)", "(0040,a370)", "(0008,1010)",
        "(0010,4000)", ORIGINALS,
    }  # fmt: skip
    tags = {int(one[1:5] + one[6:10], 16) for one in named}
    before, after = (
        b"".join(one.whole for one in elements.scan(content, tags).elements if one.tag & 0xFFFF and one.tag not in tags)
        for content in (old, new)
    )
    assert before == after  # but for retired group lengths
    with suppress(ValueError):  # cut off within its pixels, or without a UID: no object of an archive
        assert {"(0008,1010)", ORIGINALS} <= differing(old, new) <= named


def test_what_is_left_alone_lies_there_byte_by_byte():
    old = made()
    before, after = (
        elements.read(old),
        elements.read(coerced(old, {"Set": {"StudyDescription": "X", "StationName": "Y"}})),
    )
    touched = {0x00081030, 0x00081010, 0x04000561}
    assert [one.whole for one in before.elements if one.tag not in touched] == [
        one.whole for one in after.elements if one.tag not in touched
    ]
    assert [one.tag for one in after.elements] == sorted(one.tag for one in after.elements)


def test_steps_go_in_their_order_and_rules_one_after_another():
    old = made(PatientSex="MALE", StationName="CT9")
    image = read(
        coerced(
            old,
            {
                "Copy": {"PatientComments": "PatientID"},
                "Map": {"PatientSex": {"MALE": "M"}, "BodyPartExamined": {"": "CHEST"}},
            },
            {
                "Set": {"PatientID": "NEW"}, "Prefix": {"PatientID": "CN-"}, "Fill": {"StationName": "no"},
                "Remove": ["StudyDescription"],
            },
            {"Copy": {"StationName": "PatientID"}},
        )
    )  # fmt: skip
    assert (image.PatientComments, image.PatientSex, image.BodyPartExamined) == ("P1", "M", "CHEST")
    assert (image.PatientID, image.StationName) == ("CN-NEW", "CN-NEW")
    assert "StudyDescription" not in image
    assert image.OriginalAttributesSequence[0].ModifyingSystem == "ZAMBEZI rule-0, rule-1, rule-2"


@pytest.mark.parametrize(
    ("charset", "text", "wanted", "becomes"),
    [
        (None, "Conceição", "guess", "ISO_IR 192"),
        ("ISO_IR 100", "Conceição", "guess", "ISO_IR 192"),
        ("ISO_IR 100", "Conceição", "ISO_IR 192", "ISO_IR 192"),
        ("ISO_IR 192", "Ana", "ISO_IR 100", "ISO_IR 192"),  # plain ASCII: nothing to put right
    ],
)
def test_a_wrong_character_set_is_put_right_without_touching_a_letter(
    charset: str | None, text: str, wanted: str, becomes: str
):
    old = made(charset="ISO_IR 192", PatientName=text)
    declared = elements.read(old).get(0x00080005)
    assert declared is not None
    wrong = elements.written(0x00080005, "CS", charset.encode(), declared.coding) if charset else None
    old = elements.joined(elements.read(old), {0x00080005: wrong})
    image = read(coerced(old, {"CharacterSet": wanted}))
    assert (image.PatientName, image.SpecificCharacterSet) == (text, becomes)


def test_latin_without_a_character_set_gets_one_and_what_is_no_text_in_it_stays():
    latin = elements.joined(elements.read(made(PatientName="Conceição")), {0x00080005: None})
    assert read(coerced(latin, {"CharacterSet": "guess"})).PatientName == "Conceição"
    with pytest.raises(CoercionFailed, match="can't be read as ISO_IR 192"):
        coerced(latin, {"CharacterSet": "ISO_IR 192"})
    assert coerced(made(PatientName="Conceição"), {"CharacterSet": "guess"}) == made(PatientName="Conceição")


def test_old_text_is_read_by_the_character_set_that_was_put_right():
    utf8 = made(charset="ISO_IR 192", PatientName="Conceição")
    wrong = elements.joined(
        elements.read(utf8), {0x00080005: elements.written(0x00080005, "CS", b"ISO_IR 100", elements.EXPLICIT)}
    )
    image = read(coerced(wrong, {"CharacterSet": "ISO_IR 192", "Copy": {"PatientComments": "PatientName"}}))
    assert (image.PatientComments, image.PatientName) == ("Conceição", "Conceição")


def order(study_uid: str, accession_number: str, **told: Any) -> bytes:
    """An item of the worklist as the gateway pushes it."""
    item = Dataset()
    item.SpecificCharacterSet = "ISO_IR 100"
    item.StudyInstanceUID, item.AccessionNumber = study_uid, accession_number
    for keyword, value in told.items():
        setattr(item, keyword, value)
    step = Dataset()
    step.Modality = "CT"
    item.ScheduledProcedureStepSequence = Sequence([step])
    return worklist.as_file(item)


TAKE = {"FromWorklist": {"Take": ["PatientName", "PatientBirthDate", "StudyInstanceUID", "PatientSex"]}}


def test_the_order_is_found_by_study_uid_then_by_accession_number():
    items = [
        order("1.2.3", "B1", PatientName="Sitoe^José", PatientSex="M"), order("1.2.9", "A1", PatientName="Tembo^Rui"),
        order("1.2.3", "B1", PatientName="Sitoe^José", PatientSex="M"),
    ]  # fmt: skip
    image = read(coerced(made(), TAKE, orders=Orders(items)))
    assert (image.PatientName, image.PatientSex, image.StudyInstanceUID) == ("Sitoe^José", "M", "1.2.3")
    image = read(coerced(made(), TAKE, orders=Orders(items[1:2])))
    assert (image.PatientName, image.StudyInstanceUID) == ("Tembo^Rui", "1.2.9")
    assert image.RequestAttributesSequence[0].StudyInstanceUID == "1.2.9"
    assert image.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].StudyInstanceUID == "1.2.3"


def test_an_order_of_another_patient_lends_nothing_unless_its_number_is_wanted():
    other = Orders([order("1.2.9", "A1", PatientID="P7", PatientName="Tembo^Rui")])
    with pytest.raises(CoercionFailed, match="another patient ID"):
        coerced(made(), TAKE, orders=other)
    wanted = {"FromWorklist": {"Take": ["PatientID", "PatientName"]}}
    assert read(coerced(made(), wanted, orders=other)).PatientID == "P7"
    prefixed = Orders([order("1.2.9", "A1", PatientID="CN-P1", PatientName="Teste^Ana Rita")])
    image = read(coerced(made(), {**TAKE, "Prefix": {"PatientID": "CN-"}}, orders=prefixed))
    assert (image.PatientID, image.PatientName) == ("CN-P1", "Teste^Ana Rita")


def test_without_an_order_it_stays_and_with_several_it_fails():
    assert coerced(made(), TAKE) == made()
    must = {"FromWorklist": {**TAKE["FromWorklist"], "MustMatch": True}}
    with pytest.raises(CoercionFailed, match="no order on the worklist"):
        coerced(made(), must)
    two = Orders([order("1.2.8", "A1"), order("1.2.9", "A1")])
    with pytest.raises(CoercionFailed, match="2 orders"):
        coerced(made(), TAKE, orders=two)
    assert (
        coerced(made(), {"FromWorklist": {**TAKE["FromWorklist"], "MatchBy": ["StudyInstanceUID"]}}, orders=two)
        == made()
    )


@pytest.mark.parametrize(
    ("content", "rule", "says"),
    [
        (made(AccessionNumber="0123456789ABCDEF"), SITE, "AccessionNumber: the value .*SH"),
        (made(PatientComments="Ana Teste"), {"Copy": {"PatientBirthDate": "PatientComments"}}, "PatientBirthDate"),
        (made(StudyDescription="Tórax"), {"Set": {"PatientName": "Иванова"}}, "ISO_IR 100 can't hold"),
        (made()[132:], SITE, "no DICOM file"),
    ],
)
def test_what_can_not_be_done_fails_with_a_reason_that_names_no_patient(
    content: bytes, rule: dict[str, Any], says: str
):
    with pytest.raises(CoercionFailed, match=says) as failed:
        coerced(content, rule)
    assert not {"Ana", "0123456789"} & set(str(failed.value).replace("'", " ").split())


@settings(max_examples=120, deadline=None)
@given(
    syntax=st.sampled_from(SYNTAXES),
    tags=st.sets(
        st.sampled_from(
            [0x00080005, 0x00080008, 0x00081030, 0x00100010, 0x00200011, 0x00400275, 0x04000561, 0x7FDF0010]
        )
    ),
)
def test_scanning_takes_apart_what_reading_does(syntax: str, tags: set[int]):
    content = made(syntax, undefined=len(tags) % 2 == 0)
    scanned, whole = elements.scan(content, tags), elements.read(content)
    assert elements.joined(scanned, {}) == elements.joined(whole, {})
    for tag in tags:
        one, other = scanned.get(tag), whole.get(tag)
        assert (one and one.whole) == (other and other.whole)
    new: dict[int, bytes | None] = {tag: elements.written(tag, "UN", b"ab", whole.coding) for tag in tags}
    assert elements.joined(scanned, new) == elements.joined(whole, new)


def test_a_coerced_image_is_what_a_plain_reader_expects():
    assert read(coerced(made(ExplicitVRLittleEndian), SITE)).Rows == 2
