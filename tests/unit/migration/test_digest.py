import subprocess
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from zambezi.digest import Unreadable, differences, fingerprint

NATIVE = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "test-SR.dcm", "reportsi.dcm", "examples_palette.dcm",
          "liver_1frame.dcm", "waveform_ecg.dcm", "SC_rgb_small_odd.dcm")  # fmt: skip
COMPRESSED = ("MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "examples_ybr_color.dcm", "SC_rgb_rle_2frame.dcm")


def sample(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def written(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, undefined: bool = False) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2.3")
    meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3.4")
    copy = Dataset(dataset)
    copy.file_meta = meta
    if undefined:
        for element in copy.iterall():
            element.is_undefined_length = element.VR == "SQ"
    out = BytesIO()
    copy.save_as(out, enforce_file_format=True)
    return out.getvalue()


def an_object(**elements: object) -> Dataset:
    made = Dataset()
    made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.SOPInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("option", ["+te", "+tb", "+ti", "+td"])
@pytest.mark.parametrize("lengths", ["+e", "-e"])
def test_re_encoding_by_dcmtk_changes_no_digest(tmp_path, name, option, lengths):
    copy = tmp_path / "copy.dcm"
    subprocess.run(["dcmconv", option, lengths, "+g", sample(name), copy], check=True)
    assert differences(fingerprint(sample(name)), fingerprint(copy)) == []
    assert fingerprint(sample(name)).digest == fingerprint(copy).digest


@pytest.mark.parametrize("name", COMPRESSED)
def test_dcmtk_passing_compressed_objects_on_changes_no_digest(tmp_path, name):
    copy = tmp_path / "copy.dcm"
    subprocess.run(["dcmconv", "-e", "+g", sample(name), copy], check=True)
    assert fingerprint(sample(name)).digest == fingerprint(copy).digest


@pytest.mark.parametrize("other", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm", "MR_small_expb.dcm"])
def test_the_same_object_in_another_encoding_has_the_same_digest(other):
    assert fingerprint(sample("MR_small.dcm")).digest == fingerprint(sample(other)).digest


def test_a_sequence_read_by_pydicom_from_big_endian_is_the_same():
    assert fingerprint(sample("liver_1frame.dcm")).digest == fingerprint(sample("liver_expb_1frame.dcm")).digest


def test_compressed_pixels_are_not_the_native_ones():
    found = differences(fingerprint(sample("MR_small.dcm")), fingerprint(sample("MR_small_RLE.dcm")))
    assert found == ["(7fe0,0010)"]


def test_the_transfer_syntax_of_compressed_pixels_counts():
    pixels = encapsulate([b"\1\2\3\4"])
    one = an_object(PixelData=pixels)
    one["PixelData"].is_undefined_length = True
    assert (
        fingerprint(written(one, RLELossless)).digest != fingerprint(written(one, UID("1.2.840.10008.1.2.4.90"))).digest
    )


def test_fragments_and_their_offset_table_may_be_cut_anew():
    frame = bytes(range(256)) * 4
    digests = set()
    for pixels in (encapsulate([frame]), encapsulate([frame], fragments_per_frame=4, has_bot=False)):
        image = an_object(NumberOfFrames=1, PixelData=pixels)
        image["PixelData"].is_undefined_length = True
        digests.add(fingerprint(written(image, RLELossless)).digest)
    assert len(digests) == 1


def test_one_flipped_bit_of_a_pixel_shows():
    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    before = fingerprint(written(dataset))
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]
    assert differences(before, fingerprint(written(dataset))) == ["(7fe0,0010)"]


def test_meta_header_group_lengths_and_trailing_padding_do_not_count():
    plain = an_object(PatientID="P1")
    padded = an_object(PatientID="P1")
    padded.add_new(0x00100000, "UL", 12)
    padded.add_new(0xFFFCFFFC, "OB", b"\0" * 32)
    assert fingerprint(written(plain)).digest == fingerprint(written(padded)).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"PatientID": "P1"}, {"PatientID": "P2"}),
        ({"PatientID": "P1", "PatientName": ""}, {"PatientID": "P1"}),
        ({"SliceThickness": "1.0"}, {"SliceThickness": "1.00"}),
        ({"PatientName": " Ana"}, {"PatientName": "Ana"}),
        ({"Rows": 1, "Columns": 256}, {"Rows": 256, "Columns": 1}),
    ],
)
def test_what_an_object_says_is_never_made_equal(one, other):
    assert fingerprint(written(an_object(**one))).digest != fingerprint(written(an_object(**other))).digest


def test_the_order_of_items_counts():
    def with_codes(*codes: str) -> Dataset:
        return an_object(ProcedureCodeSequence=Sequence([an_item(code) for code in codes]))

    assert fingerprint(written(with_codes("A", "B"))).digest != fingerprint(written(with_codes("B", "A"))).digest


def an_item(code: str) -> Dataset:
    item = Dataset()
    item.CodeValue = code
    return item


def test_character_set_bytes_count_even_where_the_text_reads_the_same():
    latin = an_object(SpecificCharacterSet="ISO_IR 100", PatientName="Conceição")
    unicode = an_object(SpecificCharacterSet="ISO_IR 192", PatientName="Conceição")
    assert differences(fingerprint(written(latin)), fingerprint(written(unicode))) == ["(0008,0005)", "(0010,0010)"]


@pytest.mark.parametrize("junk", [b"", b"not DICOM at all", b"PK\3\4" + b"\0" * 200])
def test_what_is_no_dicom_object_is_said_to_be_unreadable(junk):
    with pytest.raises(Unreadable):
        fingerprint(junk)


def test_an_object_that_was_cut_off_is_unreadable():
    with pytest.raises(Unreadable, match="cut off"):
        fingerprint(sample("MR_truncated.dcm"))


texts = st.text("ABCabc019 .-", max_size=16)
numbers = st.integers(0, 0xFFFF)


@st.composite
def objects(draw, depth: int = 2) -> Dataset:
    made = an_object(
        PatientID=draw(texts), StudyDescription=draw(texts), Rows=draw(numbers), PixelAspectRatio=[1, draw(numbers)],
        SliceLocation=str(draw(numbers)), RealWorldValueSlope=draw(st.floats(allow_nan=False)),
        FrameIncrementPointer=0x00181063, EncapsulatedDocument=draw(st.binary(min_size=1, max_size=9)),
    )  # fmt: skip
    block = made.private_block(0x0029, "ZAMBEZI TEST", create=True)
    block.add_new(1, "LO", draw(texts))
    block.add_new(2, "US", draw(numbers))
    block.add_new(3, "OB", draw(st.binary(max_size=9)))
    if depth:
        inner = Sequence(draw(st.lists(objects(depth=depth - 1), max_size=2)))
        made.ReferencedImageSequence = inner
        block.add_new(4, "SQ", Sequence(draw(st.lists(objects(depth=0), max_size=2))))
    return made


@settings(max_examples=60, deadline=None)
@given(objects(), st.sampled_from([ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]),
       st.booleans())  # fmt: skip
def test_no_encoding_by_pydicom_changes_a_digest(dataset, syntax, undefined):
    one, other = fingerprint(written(dataset)), fingerprint(written(dataset, syntax, undefined))
    assert differences(one, other) == []
    assert one.digest == other.digest


@settings(max_examples=60, deadline=None)
@given(objects(depth=1), objects(depth=1))
def test_two_objects_have_one_digest_only_if_nothing_differs(one, other):
    prints = fingerprint(written(one)), fingerprint(written(other))
    assert (prints[0].digest == prints[1].digest) == (differences(*prints) == [])
