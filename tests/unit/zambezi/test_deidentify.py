"""De-identification: a mark in every text attribute that DICOM knows, and none of them goes out."""

from __future__ import annotations

import pytest
from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, EncapsulatedPDFStorage, UltrasoundImageStorage

from tests.integration.archive_fixture import image
from zambezi.deidentify import NotDeidentifiable, deidentify

MARK = "CANARY"
#: What a mark looks like in each value representation that can hold one; CS cannot but in capitals, tried below.
TEXT = {
    "AE": MARK, "AS": "099Y", "CS": "Canary", "DA": "18991231", "DT": "18991231", "LO": MARK, "LT": MARK, "PN": MARK,
    "SH": MARK, "ST": MARK, "TM": "235959", "UC": MARK, "UI": "1.2.3.99999", "UR": MARK, "UT": MARK,
}  # fmt: skip
FORBIDDEN = (MARK, "Canary", "099Y", "18991231", "235959", "1.2.3.99999")


def marked() -> Dataset:
    """An image with a mark in every text attribute of the dictionary, at the top and in a functional group."""
    dataset = image(PatientID=MARK)
    deep = Dataset()
    for tag, (vr, _, _, _, keyword) in datadict.DicomDictionary.items():
        if vr in TEXT and tag >> 16 != 0x0002 and keyword not in ("SOPClassUID", "SpecificCharacterSet", "PatientID"):
            for one in (dataset, deep):
                if tag not in one:
                    one.add_new(tag, vr, TEXT[vr])
    middle = Dataset()
    middle.PixelMeasuresSequence = [deep]
    dataset.SharedFunctionalGroupsSequence = [middle]
    block = dataset.private_block(0x0029, "VENDOR", create=True)
    block.add_new(1, "LO", MARK)
    block.add_new(2, "UN", MARK.encode())
    dataset.add_new(0x60003000, "OW", bytes(8))
    dataset.add_new(0x60004000, "LT", MARK)
    dataset.BurnedInAnnotation = "NO"
    return dataset


def told(dataset: Dataset) -> str:
    return "\n".join(f"{element.tag} {element.value!r}" for element in dataset.iterall() if element.VR != "SQ")


@pytest.mark.filterwarnings("ignore:Invalid value for VR")  # so are the marks
def test_no_mark_in_any_text_attribute_goes_out():
    dataset = marked()
    before = told(dataset)
    assert sum(before.count(mark) for mark in FORBIDDEN) > 3000
    deidentify(dataset, lambda uid: f"2.25.{len(uid)}", "Z1")
    left = [line for line in told(dataset).splitlines() if any(mark in line for mark in FORBIDDEN)]
    assert left == []
    assert not any(tag.is_private or 0x6000 <= tag.group < 0x6100 for tag in dataset._dict)


def test_what_an_image_needs_to_be_seen_stays():
    dataset = image(
        Rows=8, PixelSpacing=[0.5, 0.5], RescaleSlope="1", WindowCenter="40", WindowWidth="400", KVP="120",
        ImagePositionPatient=[1, 2, 3], InstanceNumber=7, BodyPartExamined="CHEST", FrameOfReferenceUID="1.2.3",
    )  # fmt: skip
    deidentify(dataset, lambda uid: f"2.25.{sum(map(ord, uid))}", "Z1")
    assert dataset.SOPClassUID == CTImageStorage
    assert (dataset.PixelSpacing, dataset.WindowCenter, dataset.KVP) == ([0.5, 0.5], 40, 120)
    assert (dataset.InstanceNumber, dataset.BodyPartExamined) == (7, "CHEST")
    assert dataset.FrameOfReferenceUID.startswith("2.25.")
    assert dataset.PixelData == bytes(64)
    assert (dataset.PatientID, dataset.PatientName, dataset.PatientIdentityRemoved) == ("Z1", "Z1", "YES")
    # Type 2 of the modules that every image has (PS3.3 C.7.1.1, C.7.2.1): there, and empty.
    assert all(keyword in dataset and not dataset[keyword].value for keyword in ("StudyDate", "PatientBirthDate"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"BurnedInAnnotation": "YES"}, "written into its pixels"),
        ({"SOPClassUID": UltrasoundImageStorage}, "often has the patient's name in its pixels"),
        ({"SOPClassUID": EncapsulatedPDFStorage, "PixelData": None}, "holds no image but a Encapsulated PDF"),
    ],
)
def test_where_it_cant_be_promised_it_is_refused_and_nothing_was_changed(changes, why):
    dataset = image(**{name: value for name, value in changes.items() if value is not None})
    if "PixelData" in changes:
        del dataset.PixelData
    before = told(dataset)
    with pytest.raises(NotDeidentifiable, match=why):
        deidentify(dataset, lambda uid: "2.25.1", "Z1")
    assert told(dataset) == before
