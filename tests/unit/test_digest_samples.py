"""The canonical digest on all of pydicom's own test files, written anew in every way that two programs know."""

import struct
import subprocess

import pytest
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.samples import FILES, NATIVE, OBJECTS, UNREADABLE, WITHOUT_UID, content, read, save
from zambezi.digest import Unreadable, differences, fingerprint

_ISO_2022 = "pydicom decodes text on its way and writes its ISO 2022 escapes, or its padding, in another place"
_NAMES = "pydicom leaves out the empty component group at the end of a name"
#: What pydicom itself changes: the elements whose value bytes are not those it has read, and why.
PYDICOM_CHANGES = {
    "charset_files/chrKoreanMulti.dcm": ({"(0008,1070)", "(0010,0010)", "(0010,1001)", "(0010,21b0)"}, _ISO_2022),
    "charset_files/chrSQEncoding.dcm": ({"(0032,1064)"}, _ISO_2022),
    "charset_files/chrSQEncoding1.dcm": ({"(0032,1064)"}, _ISO_2022),
    "charset_files/chrX1.dcm": (
        {"(0010,0010)"},
        "pydicom writes the empty component groups of names that it leaves out",
    ),
    "charset_files/chrX2.dcm": (
        {"(0010,0010)"},
        "pydicom writes the empty component groups of names that it leaves out",
    ),
}
PYDICOM_REFUSES = {"test_files/SC_rgb_jpeg.dcm": "it says explicit VR, and is implicit: pydicom can't write it"}
DCMTK_REFUSES = {"test_files/SC_rgb_jpeg.dcm": "it says explicit VR, and is implicit: dcmtk can't read it"}

NATIVE_OPTIONS = (
    ("+te", "-e", "+g="), ("+ti", "+e", "-g"), ("+tb", "-e", "-g"), ("+td", "+e", "+g="), ("+te", "+e", "+g", "+u"),
    ("+te", "-u"), ("+te", "+p", "512", "64"), ("+ti", "-e", "+g"), ("+tb", "+e", "+g"),
)  # fmt: skip
COMPRESSED_OPTIONS = (("-e", "+g="), ("+e", "-g"), ("+p", "512", "64"))


def is_native(name: str) -> bool:
    return fingerprint(content(name)).transfer_syntax in ("", *NATIVE)


@pytest.mark.parametrize("name", FILES)
def test_every_sample_is_taken_apart_or_is_named_with_its_reason(name):
    if name in UNREADABLE or name in WITHOUT_UID:
        with pytest.raises(Unreadable):
            fingerprint(FILES[name])
    if name not in UNREADABLE:
        assert fingerprint(content(name)).sop_uid


@pytest.mark.parametrize("name", OBJECTS)
def test_written_anew_by_dcmtk(tmp_path, name):
    before = fingerprint(content(name))
    file, copy = tmp_path / "sample.dcm", tmp_path / "copy.dcm"
    file.write_bytes(content(name))
    for options in NATIVE_OPTIONS if is_native(name) else COMPRESSED_OPTIONS:
        done = subprocess.run(["dcmconv", *options, file, copy], capture_output=True, check=False)
        assert (done.returncode != 0) == (name in DCMTK_REFUSES), done.stderr
        if done.returncode == 0:
            assert differences(before, fingerprint(copy)) == [], options
            assert before.digest == fingerprint(copy).digest


@pytest.mark.parametrize("name", [name for name in OBJECTS if name not in PYDICOM_REFUSES])
def test_written_anew_by_pydicom(name):
    before = fingerprint(content(name))
    allowed, _ = PYDICOM_CHANGES.get(name, (set(), ""))
    changed = set()
    for syntax in NATIVE if is_native(name) else [UID(before.transfer_syntax)]:
        for undefined in (False, True):
            dataset = read(content(name))
            if (syntax == ExplicitVRBigEndian) == dataset.original_encoding[1]:
                for element in dataset.iterall():
                    if element.VR == "OW" and isinstance(element.value, bytes):  # pydicom leaves this to its caller
                        pairs = len(element.value) // 2
                        element.value = struct.pack(f">{pairs}H", *struct.unpack(f"<{pairs}H", element.value))
            changed |= set(differences(before, fingerprint(save(dataset, syntax, undefined))))
    assert changed == allowed


@pytest.mark.parametrize("name", [name for name in OBJECTS if name not in PYDICOM_REFUSES])
@pytest.mark.parametrize("undefined", [False, True])
def test_with_every_vr_lost_to_unknown(name, undefined):
    """PS3.5 6.2.2: who doesn't know a VR writes UN, and what is in it is implicit VR little endian."""
    if not is_native(name):
        dataset = read(content(name))
        for element in list(dataset.iterall()):
            if element.tag == 0x7FE00010 and element.tag in dataset:
                del dataset[element.tag]  # compressed pixel data has a VR, always (PS3.5 A.4)
        implicit = save(dataset, ImplicitVRLittleEndian, False)
    else:
        implicit = save(read(content(name)), ImplicitVRLittleEndian, False)
    before, lost = fingerprint(implicit), unknown(implicit, undefined)
    assert b"UN" in lost
    assert differences(before, fingerprint(lost)) == []


def unknown(implicit: bytes, undefined: bool) -> bytes:
    """The elements of an implicit VR little endian file with VR UN each, sequences of known or undefined length."""
    (length,) = struct.unpack("<I", implicit[140:144])
    out = bytearray(implicit[: 144 + length].replace(b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2.1\0"))
    out[140:144] = struct.pack("<I", length + 2)
    at = out.index(b"1.2.840.10008.1.2.1\0")
    out[at - 2 : at] = struct.pack("<H", 20)
    at = 144 + length
    while at < len(implicit):
        tag, (size,) = implicit[at : at + 4], struct.unpack("<I", implicit[at + 4 : at + 8])
        value = implicit[at + 8 : at + 8 + size]
        assert len(value) == size
        if undefined and value.startswith(b"\xfe\xff\x00\xe0") and tag != b"\xe0\x7f\x10\x00":
            out += tag + b"UN\0\0\xff\xff\xff\xff" + value + b"\xfe\xff\xdd\xe0\0\0\0\0"
        else:
            out += tag + b"UN\0\0" + struct.pack("<I", size) + value
        at += 8 + size
    return bytes(out)


def test_the_frozen_table_of_text_elements_is_part_of_the_standard():
    """A newer dictionary may know more elements; the table is frozen with RULES, so only these may be in it."""
    from pydicom.datadict import dictionary_VR

    from zambezi.digest import _TEXT, _text_elements

    tags, _ = _text_elements()
    assert len(tags) > 2000
    known = {vr.decode() for vr in _TEXT} | {"UI"}
    assert {tag for tag in tags if dictionary_VR(tag) not in known} == set()


def test_explicit_vr_inside_unknown_is_read_too():
    """Not what PS3.5 6.2.2 says, and met all the same."""
    plain = save(read(content("test_files/rtplan.dcm")), ExplicitVRLittleEndian, False)
    broken = plain.replace(b"\x0c\x30\x02\x00SQ", b"\x0c\x30\x02\x00UN")
    assert plain != broken
    assert fingerprint(plain).digest == fingerprint(broken).digest
