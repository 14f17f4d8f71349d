"""A corrected copy differs in what was named and in nothing else, whatever the file's encoding, or is refused."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from zambezi import digest, elements, rewriting
from zambezi.elements import NotFaithful
from zambezi.rewriting import Identity, Stamp

STAMP = Stamp(datetime(2026, 3, 1, 8, 30, tzinfo=UTC), "ZAMBEZI correction 12", "CORRECT")
ORIGINALS = "(0400,0561)"
#: pydicom's own samples: those of the package, and its files for character sets (no network).
SAMPLES = sorted(
    file
    for pattern in ("test_files/**/*", "charset_files/*.dcm")
    for file in (Path(pydicom.__file__).parent / "data").glob(pattern)
    if file.is_file() and file.suffix in ("", ".dcm")
)
#: Those that an archive can't hold as they are, or that aren't what they say, and why.
NO_META, NO_SOP, A_DIRECTORY = "meta header", "no SOP Instance UID", "no element of a data set"
REFUSED = {
    **dict.fromkeys(("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "no_meta.dcm", "rtstruct.dcm"), NO_META),
    **dict.fromkeys(("README", "README.txt", "meta_missing_tsyntax.dcm"), NO_META),
    **dict.fromkeys(("chrSQEncoding.dcm", "chrSQEncoding1.dcm", "UN_sequence.dcm", "priv_SQ.dcm"), NO_SOP),
    **dict.fromkeys(("empty_charset_LEI.dcm", "no_meta_group_length.dcm"), NO_SOP),
    **dict.fromkeys(("DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-empty.dcm", "DICOMDIR-implicit"), A_DIRECTORY),
    **dict.fromkeys(("DICOMDIR-nooffset", "DICOMDIR-nopatient", "DICOMDIR-reordered"), A_DIRECTORY),
    "nested_priv_SQ.dcm": A_DIRECTORY,
    **dict.fromkeys(("MR_truncated.dcm", "rtplan_truncated.dcm"), "cut off"),
    "SC_rgb_jpeg.dcm": "no VR where its transfer syntax wants one",
}
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
CHANGES: dict[str, str | None] = {"00100010": "Sitoe^Rui", "00100020": "P7", "00080050": "A77", "00081030": None}


def made(
    syntax: str = ExplicitVRLittleEndian, charset: str | None = "ISO_IR 100", undefined: bool = False, **tags: object
) -> bytes:
    one = Dataset()
    if charset is not None:
        one.SpecificCharacterSet = charset
    one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, "1.2.3.4"
    one.StudyInstanceUID, one.SeriesInstanceUID = "1.2.3", "1.2.3.1"
    one.PatientID, one.PatientName, one.StudyDescription = "P1", "Teste^Ana", "TC"
    one.AccessionNumber = "A1"
    request = Dataset()
    request.AccessionNumber, request.StudyInstanceUID, request.ScheduledProcedureStepID = "A1", "1.2.3", "S1"
    one.RequestAttributesSequence = Sequence([request])
    one.add_new(0x00091001, "OB", b"\x01\x02\x03\x04")
    one.add_new(0x00090010, "LO", "ZAMBEZI TEST")
    one.Rows = one.Columns = 2
    one.BitsAllocated = one.BitsStored = 16
    one.PixelData = bytes(range(8))
    one["PixelData"].VR = "OW"
    for keyword, value in tags.items():
        setattr(one, keyword, value)
    for element in one.iterall() if undefined else ():
        element.is_undefined_length = element.VR == "SQ"
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = syntax
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = CTImageStorage, "1.2.3.4"
    out = io.BytesIO()
    dcmwrite(out, one, enforce_file_format=True, implicit_vr=None, little_endian=None)
    return out.getvalue()


def differing(old: bytes, new: bytes) -> set[str]:
    return set(digest.differences(digest.fingerprint(old), digest.fingerprint(new)))


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_every_sample_is_rewritten_with_the_named_differences_alone_or_refused_with_a_reason(file: Path):
    old = file.read_bytes()
    if file.name in REFUSED:
        with pytest.raises(NotFaithful, match=REFUSED[file.name]):
            rewriting.rewrite(old, CHANGES, STAMP)
        return
    rewritten = rewriting.rewrite(old, CHANGES, STAMP)
    told = {one.tag for one in rewritten.changed}
    assert differing(old, rewritten.content) == told | {ORIGINALS}
    assert told <= {"(0010,0010)", "(0010,0020)", "(0008,0050)", "(0008,1030)", "(0040,0275)", "(0040,a370)"}
    before, after = elements.read(old), elements.read(rewritten.content)
    assert before.head == after.head
    untouched = [one.whole for one in before.elements if elements.name(one.tag) not in told | {ORIGINALS}]
    kept = [one.whole for one in after.elements if elements.name(one.tag) not in told | {ORIGINALS}]
    groups = {int(tag[1:5], 16) for tag in told} | {0x0400}
    lengths = [one.whole for one in before.elements if not one.tag & 0xFFFF and one.tag >> 16 in groups]
    assert kept == [one for one in untouched if one not in lengths]
    assert rewriting.rewrite(rewritten.content, CHANGES, STAMP).changed == ()


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_the_old_values_are_kept_behind_earlier_ones(syntax: str):
    first = rewriting.rewrite(made(syntax), {"00100020": "P7", "00080050": "A77"}, STAMP)
    second = rewriting.rewrite(first.content, {"00100020": "P8"}, Stamp(STAMP.at, "ZAMBEZI correction 13", "COERCE"))
    read = dcmread(io.BytesIO(second.content))
    assert (read.PatientID, read.AccessionNumber) == ("P8", "A77")
    request = read.RequestAttributesSequence[0]
    assert (request.AccessionNumber, request.ScheduledProcedureStepID) == ("A77", "S1")
    one, other = read.OriginalAttributesSequence
    was = one.ModifiedAttributesSequence[0]
    assert (was.PatientID, was.AccessionNumber) == ("P1", "A1")
    assert was.RequestAttributesSequence[0].AccessionNumber == "A1"
    assert "PatientName" not in was
    assert (one.ModifyingSystem, one.ReasonForTheAttributeModification) == ("ZAMBEZI correction 12", "CORRECT")
    assert one.AttributeModificationDateTime == "20260301083000.000000+0000"
    assert other.ModifiedAttributesSequence[0].PatientID == "P7"
    assert other.ReasonForTheAttributeModification == "COERCE"


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_sequences_of_undefined_length_are_added_to_and_changed_inside(syntax: str):
    was, earlier = Dataset(), Dataset()
    was.PatientID = "P0"
    earlier.ModifiedAttributesSequence = Sequence([was])
    earlier.ReasonForTheAttributeModification = "COERCE"
    old = made(syntax, undefined=True, OriginalAttributesSequence=Sequence([earlier]))
    new = rewriting.rewrite(old, {"00100020": "P7", "00080050": "A77"}, STAMP)
    read = dcmread(io.BytesIO(new.content))
    assert [one.ModifiedAttributesSequence[0].PatientID for one in read.OriginalAttributesSequence] == ["P0", "P1"]
    assert read.RequestAttributesSequence[0].AccessionNumber == "A77"
    assert differing(old, new.content) == {"(0010,0020)", "(0008,0050)", "(0040,0275)", ORIGINALS}


def test_a_moved_instance_names_its_study_in_its_request_too():
    moved = rewriting.rewrite(made(), {"0020000D": "1.2.9"}, STAMP)
    read = dcmread(io.BytesIO(moved.content))
    assert read.StudyInstanceUID == read.RequestAttributesSequence[0].StudyInstanceUID == "1.2.9"
    assert rewriting.identity(moved.content).study_uid == "1.2.9"


def test_a_value_in_the_files_own_character_set_changes_nothing_else():
    old = made(PatientName="Conceição^José")
    new = rewriting.rewrite(old, {"00100010": "Macuácua^Inês"}, STAMP)
    read = dcmread(io.BytesIO(new.content))
    assert (read.PatientName, read.SpecificCharacterSet) == ("Macuácua^Inês", "ISO_IR 100")
    assert read.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].PatientName == "Conceição^José"
    assert [(one.old, one.new) for one in new.changed] == [("Conceição^José", "Macuácua^Inês")]


@pytest.mark.parametrize(("name", "becomes"), [("Macuácua^Inês", "ISO_IR 100"), ("Иванова^Анна", "ISO_IR 192")])
def test_a_file_in_plain_ascii_declares_the_character_set_that_a_value_needs(name: str, becomes: str):
    old = made(charset=None)
    new = rewriting.rewrite(old, {"00100010": name}, STAMP)
    read = dcmread(io.BytesIO(new.content))
    assert (read.PatientName, read.SpecificCharacterSet) == (name, becomes)
    assert differing(old, new.content) == {"(0008,0005)", "(0010,0010)", ORIGINALS}


def test_a_value_that_would_change_how_other_texts_are_written_is_refused():
    with pytest.raises(NotFaithful, match=r"ISO_IR 100 can't hold.*\(0008,1030\)"):
        rewriting.rewrite(made(StudyDescription="Tórax"), {"00100010": "Иванова"}, STAMP)


def test_the_old_text_is_read_in_its_old_character_set_when_that_was_wrong():
    old = made(charset="ISO_IR 100", StudyDescription="Tórax")
    new = rewriting.rewrite(old, {"00080005": "ISO_IR 192", "00081030": "Tórax"}, STAMP)
    read = dcmread(io.BytesIO(new.content))
    assert (read.StudyDescription, read.SpecificCharacterSet) == ("Tórax", "ISO_IR 192")
    assert read.OriginalAttributesSequence[0].ModifiedAttributesSequence[0].StudyDescription == "Tórax"


def test_removing_what_is_there_is_a_change_and_removing_nothing_is_none():
    new = rewriting.rewrite(made(), {"00081030": None, "00080080": None}, STAMP)
    assert [(one.keyword, one.old, one.new) for one in new.changed] == [("StudyDescription", "TC", "")]
    assert "StudyDescription" not in dcmread(io.BytesIO(new.content))


@pytest.mark.parametrize("tag", ["00080018", "00080016", "7FE00010", "00280010"])
def test_identity_and_pixels_are_never_touched(tag: str):
    with pytest.raises(NotFaithful, match="no attribute that may be corrected"):
        rewriting.rewrite(made(), {tag: "1"}, STAMP)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda old: old[:-3], "cut off"),
        (lambda old: old + b"\x01\x02\x03", "at its end"),
        (lambda old: old[132:], "no DICOM file"),
        (lambda old: old + b"\xff\xfe\x00\x00LO\xff\x00", "cut off"),
    ],
)
def test_what_cannot_be_taken_apart_to_the_last_byte_is_refused(spoil, says: str):
    with pytest.raises(NotFaithful, match=says):
        rewriting.rewrite(spoil(made()), CHANGES, STAMP)


def test_identity_is_orthancs_own():
    found = rewriting.identity(made(PatientID="P1 "))
    assert found == Identity("P1", "1.2.3", "1.2.3.1", "1.2.3.4")
    assert found.orthanc_id == "a3b75298-d9fbbab3-fb9d7d54-5d849d34-0e4c03d0"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    syntax=st.sampled_from(SYNTAXES),
    name=st.text(st.characters(codec="latin-1", exclude_categories=["Cc"], exclude_characters="\\=^"), max_size=40),
    number=st.text("ABC0123456789", min_size=1, max_size=16),
    texts=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\\"), max_size=40),
    charset=st.sampled_from([None, "ISO_IR 100", "ISO_IR 192"]),
)
def test_whatever_the_values_only_they_change(syntax: str, name: str, number: str, texts: str, charset: str | None):
    old = made(syntax, charset, **({"ImageComments": texts} if charset == "ISO_IR 192" else {}))
    wanted = {"00100010": name.strip(), "00100020": number}
    new = rewriting.rewrite(old, wanted, STAMP)
    told = {one.tag for one in new.changed}
    assert differing(old, new.content) == (told | {ORIGINALS} if told else set())
    assert rewriting.values(new.content, wanted) == wanted
    assert rewriting.identity(new.content).patient_id == number
