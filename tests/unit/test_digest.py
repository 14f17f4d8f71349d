import contextlib
import hashlib
import subprocess
import sys
import time
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

from zambezi import digests
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


def with_sequences(dataset: Dataset) -> list[Dataset]:
    """The data set and every item in it that has elements."""
    found = [dataset]
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                found += with_sequences(item)
    return [one for one in found if len(one)]


def changed_value(element: object, draw: st.DrawFn) -> object:
    """Another value of the same kind, that differs in more than padding."""
    value = element.value
    if isinstance(value, pydicom.multival.MultiValue):
        return [*value[:-1], int(value[-1]) + 1]
    if element.VR == "UI":
        return f"{value}.1"
    if element.VR in ("LO", "IS", "DS"):
        return f"8{value or ''}"[:16]
    if element.VR in ("US", "AT"):
        return int(value) ^ (1 << draw(st.integers(0, 15)))
    if element.VR == "FD":
        return -1.5 if value != -1.5 else 2.5
    raw = bytes(value or b"")
    if not raw:
        return b"\1"
    at = draw(st.integers(0, len(raw) - 1))
    return raw[:at] + bytes([raw[at] ^ (1 << draw(st.integers(0, 7)))]) + raw[at + 1 :]


@settings(max_examples=300, deadline=None)
@given(st.data(), objects(), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]))
def test_one_changed_value_added_or_removed_element_shows(data, dataset, syntax):
    before = fingerprint(written(dataset, syntax))
    inside = data.draw(st.sampled_from(with_sequences(dataset)), "in")
    what = data.draw(st.sampled_from(["change", "remove", "add", "add private"]), "what")
    if what == "add":
        inside.ContrastBolusAgent = ""
    elif what == "add private":
        inside.private_block(0x0031, "ZAMBEZI OTHER", create=True).add_new(1, "OB", b"")
    else:
        here = [e for e in inside if e.tag != 0x00080018 and (what == "remove" or e.VR != "SQ")]
        element = data.draw(st.sampled_from(here), "element")
        if what == "remove":
            del inside[element.tag]
        else:
            element.value = changed_value(element, data.draw)
    after = fingerprint(written(dataset, syntax))
    assert len(differences(before, after)) in (1, 2)  # two: a private block and its creator
    assert before.digest != after.digest


@settings(max_examples=60, deadline=None)
@given(st.lists(objects(depth=1), min_size=2, max_size=4), st.randoms())
def test_items_in_another_order_show(items, random):
    kept = items[:]
    random.shuffle(kept)
    prints = [fingerprint(written(an_object(ReferencedImageSequence=Sequence(order)))) for order in (items, kept)]
    same = [written(one) for one in items] == [written(one) for one in kept]
    assert (prints[0].digest == prints[1].digest) == same


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from(["CT_small.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd.dcm", "image_dfl.dcm",
                                   "MR_small_RLE.dcm", "examples_ybr_color.dcm"]))  # fmt: skip
def test_one_flipped_bit_of_any_pixel_shows(data, name):
    dataset = pydicom.dcmread(sample(name))
    syntax = dataset.file_meta.TransferSyntaxUID
    pixels = dataset.PixelData
    begin = 0
    if syntax.is_compressed and syntax != DeflatedExplicitVRLittleEndian:  # behind the offset table and an item's head
        begin = 16 + int.from_bytes(pixels[4:8], "little")
        end = begin + int.from_bytes(pixels[begin - 4 : begin], "little")
    else:
        end = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
    before = fingerprint(sample(name))
    at = data.draw(st.integers(begin, end - 1))
    dataset.PixelData = pixels[:at] + bytes([pixels[at] ^ (1 << data.draw(st.integers(0, 7)))]) + pixels[at + 1 :]
    out = BytesIO()
    dataset.save_as(out)
    assert differences(before, fingerprint(out.getvalue())) == ["(7fe0,0010)"]


def raw(*elements: bytes, syntax: bytes = b"1.2.840.10008.1.2.1\0") -> bytes:
    """A file of elements that are written already, in explicit VR little endian unless said."""
    meta = b"\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
    uid = b"1.2.3.4\0"
    sop = (b"\x08\0\x18\0" + len(uid).to_bytes(4, "little") + uid if syntax == IMPLICIT else
           b"\x08\0\x18\0UI" + len(uid).to_bytes(2, "little") + uid)  # fmt: skip
    return bytes(128) + b"DICM" + meta + sop + b"".join(elements)


IMPLICIT = b"1.2.840.10008.1.2\0"


def short(tag: int, vr: bytes, value: bytes) -> bytes:
    return _tag(tag) + vr + len(value).to_bytes(2, "little") + value


def long(tag: int, vr: bytes, value: bytes) -> bytes:
    return _tag(tag) + vr + b"\0\0" + len(value).to_bytes(4, "little") + value


def _tag(tag: int) -> bytes:
    return (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")


@pytest.mark.parametrize("padded", [b"P1", b"P1\0", b"P1 ", b"P1  ", b"P1 \0", b"P1\0\0"])
def test_padding_of_text_does_not_count(padded):
    assert fingerprint(raw(short(0x00100020, b"LO", padded))).digest == fingerprint(
        raw(short(0x00100020, b"LO", b"P1"))
    ).digest  # fmt: skip


@pytest.mark.parametrize("vr", [b"OB", b"OW", b"UN"])
def test_an_odd_value_is_what_its_padded_form_is(vr):
    for tag in (0x00281201, 0x00291001, 0x00420011):
        odd, even = long(tag, vr, b"abc"), long(tag, vr, b"abc\0")
        assert fingerprint(raw(odd)).digest == fingerprint(raw(even)).digest
        assert fingerprint(raw(even)).digest != fingerprint(raw(long(tag, vr, b"abc\0\0\0"))).digest


def test_odd_private_text_is_padded_with_a_space():
    one, other = short(0x00291001, b"LO", b"abc"), short(0x00291001, b"LO", b"abc ")
    assert fingerprint(raw(one)).digest == fingerprint(raw(other)).digest


@pytest.mark.parametrize("longer", [b"ab  ", b"ab\0\0", b"ab \0"])
def test_bytes_at_the_end_of_a_private_value_may_be_a_part_of_it(longer):
    assert fingerprint(raw(long(0x00291001, b"OB", b"ab"))).digest != fingerprint(
        raw(long(0x00291001, b"OB", longer))
    ).digest  # fmt: skip


def test_spaces_inside_a_value_count():
    one, other = short(0x00080008, b"CS", b"A \\B "), short(0x00080008, b"CS", b"A\\B ")
    assert fingerprint(raw(one)).digest != fingerprint(raw(other)).digest


def test_a_private_sequence_called_other_bytes_is_the_sequence():
    """A VR of another kind that has been given to a sequence, by who lost its own."""
    inside = b"\xfe\xff\0\xe0" + (12).to_bytes(4, "little")
    items = inside + short(0x00080100, b"SH", b"abcd")
    implicit = inside + b"\x08\0\0\x01" + (4).to_bytes(4, "little") + b"abcd"
    digests = {
        fingerprint(raw(long(0x00291001, b"SQ", items))).digest,
        fingerprint(raw(long(0x00291001, b"OB", items))).digest,
        fingerprint(raw(long(0x00291001, b"UN", implicit))).digest,
        fingerprint(raw(_tag(0x00291001) + b"UN\0\0\xff\xff\xff\xff" + implicit + _tag(0xFFFEE0DD) + bytes(4))).digest,
    }
    assert len(digests) == 1


def test_bytes_that_only_begin_like_an_item_are_a_value():
    value = b"\xfe\xff\0\xe0\x04\0\0\0abcdefgh"
    one = fingerprint(raw(long(0x00291001, b"OB", value)))
    other = fingerprint(raw(long(0x00291001, b"OB", value[:-1] + b"i")))
    assert differences(one, other) == ["(0029,1001)"]


def test_an_element_that_stands_twice():
    one, other = short(0x00100020, b"LO", b"P1"), short(0x00100020, b"LO", b"P2")
    digests = [fingerprint(raw(*elements)).digest for elements in ([one], [one, one], [one, other], [other])]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("vr", "value"), [(b"FD", 8), (b"OD", 16), (b"OV", 16), (b"SV", 8), (b"UV", 8), (b"OF", 8), (b"OL", 8), (b"AT", 4),
                      (b"FL", 4), (b"OW", 6), (b"SL", 4), (b"SS", 2)])  # fmt: skip
def test_numbers_of_every_width_mean_the_same_in_both_byte_orders(vr, value):
    width = {b"FD": 8, b"OD": 8, b"OV": 8, b"SV": 8, b"UV": 8, b"OF": 4, b"OL": 4, b"FL": 4, b"SL": 4}.get(vr, 2)
    little = bytes(range(1, value + 1))
    big = b"".join(little[n : n + width][::-1] for n in range(0, value, width))
    head = b"\x00\x29\x10\x01" + vr
    size = (
        value.to_bytes(2, "big") if vr in (b"FD", b"AT", b"FL", b"SL", b"SS") else bytes(2) + value.to_bytes(4, "big")
    )
    meta = b"\2\0\x10\0UI\x14\x001.2.840.10008.1.2.2\0"
    in_big = bytes(128) + b"DICM" + meta + b"\0\x08\0\x18UI\0\x081.2.3.4\0" + head + size + big
    written_little = long if len(size) == 6 else short
    lost = _tag(0x00291001) + value.to_bytes(4, "little") + little
    digests = {
        fingerprint(in_big).digest,
        fingerprint(raw(written_little(0x00291001, vr, little))).digest,
        fingerprint(raw(lost, syntax=IMPLICIT)).digest,
        fingerprint(raw(long(0x00291001, b"UN", little))).digest,
    }
    assert len(digests) == 1


def test_sequences_without_end_are_no_way_to_tire_it():
    """Items in items in items, each of them able to be something else."""
    value = b""
    for _ in range(200):
        value = b"\xfe\xff\0\xe0" + (len(value) + 8).to_bytes(4, "little") + _tag(0x00291001) + len(value).to_bytes(
            4, "little"
        ) + value  # fmt: skip
    began = time.monotonic()
    for end in (b"", b"\xff" * 8):
        for vr in (b"SQ", b"UN"):
            with contextlib.suppress(Unreadable):
                fingerprint(raw(long(0x00291001, vr, value + end)))
    assert time.monotonic() - began < 5


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(["rtplan.dcm", "CT_small.dcm", "MR_small_bigendian.dcm", "image_dfl.dcm"]))
def test_whatever_was_damaged_gives_a_digest_or_says_unreadable(data, name):
    whole = bytearray(sample(name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for damaged in (bytes(whole), cut):
        with contextlib.suppress(Unreadable):
            assert len(fingerprint(damaged).digest) == 64


LARGE = """
import resource, sys
from pathlib import Path
from zambezi import digest, digests
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]), int(sys.argv[2])))
file = Path(sys.argv[1])
print(digest.fingerprint(file).digest, digests.raw(file), digests.orthanc_md5(file))
"""


@pytest.mark.parametrize("syntax", [b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", b"1.2.840.10008.1.2.4.50"])
def test_memory_does_not_grow_with_the_object(tmp_path, syntax):
    """200 MB in frames, with 128 MiB of address space for all of Python."""
    frame, frames = bytes(range(256)) * 4096, 200
    file = tmp_path / "cine.dcm"
    with file.open("wb") as out:
        if syntax.endswith(b".2\0"):
            meta = b"\2\0\x10\0UI" + len(syntax).to_bytes(2, "little") + syntax
            out.write(bytes(128) + b"DICM" + meta + b"\0\x08\0\x18UI\0\x081.2.3.4\0")
            out.write(b"\x7f\xe0\0\x10OW\0\0" + (len(frame) * frames).to_bytes(4, "big"))
            pieces = [frame] * frames
        elif syntax.endswith(b".1\0"):
            out.write(raw(_tag(0x7FE00010) + b"OW\0\0" + (len(frame) * frames).to_bytes(4, "little"), syntax=syntax))
            pieces = [frame] * frames
        else:
            out.write(raw(_tag(0x7FE00010) + b"OB\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\0\0\0\0", syntax=syntax))
            item = b"\xfe\xff\0\xe0" + len(frame).to_bytes(4, "little")
            pieces = [item + frame] * frames + [b"\xfe\xff\xdd\xe0\0\0\0\0"]
        for piece in pieces:
            out.write(piece)
    assert file.stat().st_size > 200_000_000
    done = subprocess.run(
        [sys.executable, "-c", LARGE, file, str(128 << 20)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = done.stdout.split()
    with file.open("rb") as read:
        assert found[1] == hashlib.file_digest(read, "sha256").hexdigest()
        read.seek(0)
        assert found[2] == hashlib.file_digest(read, "md5").hexdigest()
    assert len(found[0]) == 64


def test_raw_digests_of_bytes_and_of_their_file_are_the_same(tmp_path):
    file = tmp_path / "one"
    file.write_bytes(b"content")
    assert digests.raw(b"content") == digests.raw(file) == hashlib.sha256(b"content").hexdigest()
    assert digests.orthanc_md5(b"content") == digests.orthanc_md5(file) == hashlib.md5(b"content").hexdigest()  # noqa: S324
