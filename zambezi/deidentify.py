"""De-identification of images: what may stay is listed, everything else goes. Pure but for the data set it is given.

PS3.15 annex E lists what must go (Basic Application Level Confidentiality Profile, table E.1-1), and every tool that
works by such a list leaves what the list forgot, or what a vendor wrote into an attribute of its own. Here only
numbers and code strings of the modules that describe pixels and their geometry stay; all text, all dates, all
private attributes, overlays and curves go, at every depth. That is stricter than the profile: protocol names,
device names and codes of procedures are lost, too.

Text in the pixels themselves can't be seen from here: images that say they have some, and those of kinds that
often have some and don't say that they have none, are refused. So is what holds no image (reports, documents).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag


class NotDeidentifiable(Exception):
    """Nobody can promise that the patient isn't told by it; the text says why."""


#: Groups that describe acquisition, geometry and pixels; 5200 is the functional groups of multi-frame images.
_GROUPS = frozenset((0x0018, 0x0020, 0x0022, 0x0028, 0x0048, 0x0052, 0x0054, 0x5200))
_NUMBERS = frozenset(("US", "SS", "UL", "SL", "UV", "SV", "FL", "FD", "AT", "OF", "OD"))
#: Attributes outside of those groups, or of other representations, that stay.
_KEPT = frozenset((
    "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "ConversionType", "PresentationIntentType",
    "PixelPresentation",
    "VolumetricProperties", "VolumeBasedCalculationTechnique", "ComplexImageComponent", "AcquisitionContrast",
    "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData", "LUTData",
    "PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
))  # fmt: skip
_PIXELS = frozenset(("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
#: Type 2 of the modules that every image has: there, and empty.
_EMPTIED = (
    "AccessionNumber", "Manufacturer", "PatientBirthDate", "PatientSex", "ReferringPhysicianName", "StudyDate",
    "StudyID", "StudyTime",
)  # fmt: skip
#: Secondary capture, ultrasound, visible light: often with the patient's name in the picture.
_WRITTEN_ON = (
    "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.6", "1.2.840.10008.5.1.4.1.1.3.",
    "1.2.840.10008.5.1.4.1.1.77.1",
)  # fmt: skip
_CODE = re.compile(r"[A-Z0-9_ ]{0,16}")  # CS, PS3.5 6.2
METHOD = "Zambezi: listed attributes stay, all others go (PS3.15 E, basic profile)"


def deidentify(dataset: Dataset, uid: Callable[[str], str], patient: str) -> None:
    """Take out of the image, in place, who it is of. `uid` gives the UID that stands for one; `patient` the new id.

    NotDeidentifiable where that can't be promised; the data set is as it was then.
    """
    _check(dataset)
    _reduce(dataset, uid)
    dataset.PatientID = dataset.PatientName = patient
    for keyword in _EMPTIED:
        setattr(dataset, keyword, "")
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.LongitudinalTemporalInformationModified = "REMOVED"
    method = Dataset()
    method.CodeValue, method.CodingSchemeDesignator = "113100", "DCM"
    method.CodeMeaning = "Basic Application Confidentiality Profile"
    dataset.DeidentificationMethodCodeSequence = [method]


def _check(dataset: Dataset) -> None:
    if not any(keyword in dataset for keyword in _PIXELS):
        raise NotDeidentifiable(f"it holds no image but a {dataset.SOPClassUID.name}, whose text may tell the patient")
    written = str(dataset.get("BurnedInAnnotation", "")).upper()
    if written == "YES":
        raise NotDeidentifiable("it says that text is written into its pixels (Burned In Annotation)")
    if written != "NO" and str(dataset.SOPClassUID).startswith(_WRITTEN_ON):
        raise NotDeidentifiable(
            f"a {dataset.SOPClassUID.name} often has the patient's name in its pixels, and this one doesn't say "
            "that it has not (Burned In Annotation NO)"
        )


def _reduce(dataset: Dataset, uid: Callable[[str], str]) -> None:
    for tag in list(dataset.keys()):
        if not _may_stay(tag):
            del dataset[tag]
            continue
        element = dataset[tag]
        if element.VR == "SQ":
            for item in element.value:
                _reduce(item, uid)
            element.value = [item for item in element.value if len(item)]
            if not element.value:
                del dataset[tag]
        elif element.VR == "UI" and element.keyword != "SOPClassUID":
            if (tag.group == 0x0020 or element.keyword == "SOPInstanceUID") and element.VM == 1:
                element.value = uid(str(element.value))
            else:
                del dataset[tag]
        elif not _is_harmless(element):
            del dataset[tag]


def _may_stay(tag: BaseTag) -> bool:
    if tag.is_private:
        return False
    return tag.group in _GROUPS or keyword_for_tag(tag) in _KEPT


def _is_harmless(element: DataElement) -> bool:
    if element.keyword in _KEPT and element.VR != "CS":
        return True
    values = element.value if element.VM > 1 else [element.value] if element.VM else []
    if element.VR == "CS":
        return all(_CODE.fullmatch(str(value)) for value in values)
    if element.VR in ("DS", "IS"):
        return all(isinstance(value, int | float) or hasattr(value, "as_tuple") for value in values)
    return element.VR in _NUMBERS
