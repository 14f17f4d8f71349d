"""The DICOM attributes that a rule may name: by keyword or tag, with value representation and level. Pure.

`RequestAttributesSequence/ScheduledProcedureStepID`, or `0040,0275/0040,0009`, stands in the items of a sequence, and
`0029,1008[SIEMENS CSA HEADER]` in the block that this creator reserved (PS3.5 7.8.1), whichever it is in a file.

The data dictionary is pydicom's (PS3.6); it is loaded when the first rule names an attribute, so that who has no such
rule pays nothing. Which attributes belong to the study and the series as a whole is PS3.3 C.7.1 to C.7.5: of those
one instance's value is the value of all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

Level = Literal["study", "series", "instance"]

#: Patient, General Study and Patient Study modules.
_OF_STUDY = (
    "PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex OtherPatientIDs PatientComments EthnicGroup"
    " PatientAge PatientSize PatientWeight Occupation AdditionalPatientHistory PregnancyStatus PatientSexNeutered"
    " ResponsibleOrganization PatientSpeciesDescription PatientBreedDescription MedicalAlerts Allergies PatientState"
    " StudyInstanceUID StudyDate StudyTime StudyID AccessionNumber StudyDescription ReferringPhysicianName"
    " PhysiciansOfRecord NameOfPhysiciansReadingStudy ReasonForVisit AdmissionID ConsultingPhysicianName"
    " RequestingService RequestingPhysician NumberOfStudyRelatedInstances NumberOfStudyRelatedSeries"
    " ProcedureCodeSequence"
)
#: General Series, Frame of Reference and General Equipment modules, and what goes with a request.
_OF_SERIES = (
    "Modality SeriesInstanceUID SeriesNumber SeriesDate SeriesTime SeriesDescription BodyPartExamined ProtocolName"
    " PatientPosition Laterality OperatorsName PerformingPhysicianName PerformedProcedureStepID"
    " PerformedProcedureStepDescription PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
    " RequestedProcedureDescription RequestedProcedurePriority RequestedProcedureID ReasonForPerformedProcedure"
    " AnatomicalOrientationType FrameOfReferenceUID PositionReferenceIndicator InstitutionName InstitutionAddress"
    " InstitutionalDepartmentName Manufacturer ManufacturerModelName StationName DeviceSerialNumber SoftwareVersions"
    " NumberOfSeriesRelatedInstances RequestAttributesSequence PerformedProtocolCodeSequence"
)

_LEVELS: dict[str, Level] = {
    **dict.fromkeys(_OF_STUDY.split(), "study"), **dict.fromkeys(_OF_SERIES.split(), "series"),
}  # fmt: skip

#: One step of a name, as JSON Schema and Python read it: a keyword, a tag, a private tag with its creator.
STEP = r"([A-Z][A-Za-z0-9]+|[0-9A-Fa-f]{4},[0-9A-Fa-f]{4}(\[[^\]\\]{1,64}\])?)"
_STEP = re.compile(STEP + "(/|$)")
_FORMS = (
    "allowed are a keyword, such as BodyPartExamined, a tag, such as 0018,0015, a private one with its creator, such "
    "as 0029,1008[SIEMENS CSA HEADER], and a way through sequences, such as 0040,0275/0040,0009"
)

_NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_MOMENTS = frozenset({"DA", "TM", "DT"})
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
#: Facts of a person that name nobody: what a rule found in them may be shown.
_SHOWN_OF_PATIENT = frozenset({"PatientSex", "PatientAge", "PregnancyStatus", "PatientState"})


class AttributeUnknown(ValueError):
    """A rule can't ask for this; the text says why and what it may ask for instead."""


@dataclass(frozen=True)
class Attribute:
    """An attribute of PS3.6, or a private one."""

    #: As it is named: a keyword, where it is one.
    keyword: str
    tag: int
    vr: str
    #: Who reserved the block of a private one; empty for one of PS3.6.
    creator: str = ""
    #: The sequences that it stands in, the outermost first.
    within: tuple[Attribute, ...] = ()

    @property
    def level(self) -> Level:
        """What has one value of it."""
        if self.within:
            return self.within[0].level
        return _LEVELS.get(self.keyword, "instance")

    @property
    def kind(self) -> Literal["number", "age", "moment", "text", "other"]:
        """How its values are compared."""
        parts = set(self.vr.split(" or "))
        if parts <= _NUMBERS or (self.creator and self.vr == "UN"):
            return "number"  # of a private one that nobody knows, too: text is equal or like to text all the same
        if self.vr == "AS":
            return "age"
        return "moment" if parts <= _MOMENTS else "text" if parts <= _TEXTS else "other"

    @property
    def path(self) -> str:
        """`0008,0060`, as Orthanc writes a tag."""
        return f"{self.tag >> 16:04x},{self.tag & 0xFFFF:04x}"

    @property
    def names_a_person(self) -> bool:
        """Whether a value must not be repeated in words that others read; of private ones nobody knows."""
        if self.creator or any(one.names_a_person for one in self.within):
            return True
        return self.vr == "PN" or (self.tag >> 16 == 0x0010 and self.keyword not in _SHOWN_OF_PATIENT)


@lru_cache(maxsize=4096)
def find(name: str) -> Attribute:
    """The attribute of this name; AttributeUnknown, with the nearest one or with what is allowed, where none is."""
    if name.isalnum() and name[0].isalpha():
        return _of_keyword(name)
    steps: list[str] = []
    while sum(len(step) + 1 for step in steps) <= len(name):
        match = _STEP.match(name, sum(len(step) + 1 for step in steps))
        if not match:
            raise AttributeUnknown(f"is no name of an attribute; {_FORMS}")
        steps.append(match[1])
    found = [_of_keyword(step) if step.isalnum() else _of_tag(step) for step in steps]
    for step, one in zip(steps[:-1], found, strict=False):
        if one.vr != "SQ" and not (one.creator and one.vr == "UN"):
            raise AttributeUnknown(f"{step} is no sequence ({one.vr}): nothing stands within it")
    return replace(found[-1], keyword=name if len(found) > 1 else found[-1].keyword, within=tuple(found[:-1]))


def _of_keyword(keyword: str) -> Attribute:
    from pydicom import datadict  # half the standard: only where a rule names an attribute

    tag = datadict.tag_for_keyword(keyword)
    if tag is None:
        near = nearest(keyword, datadict.keyword_dict)
        raise AttributeUnknown(f"no such attribute in DICOM{near or '; names are keywords, such as BodyPartExamined'}")
    return Attribute(keyword, _of_a_header(tag), datadict.dictionary_VR(tag))


def _of_tag(step: str) -> Attribute:
    """Of `0018,0015` or `0029,1008[SIEMENS CSA HEADER]`."""
    from pydicom import datadict

    tag = _of_a_header(int(step[:4] + step[5:9], 16))
    creator = step[10:-1].strip()
    if not tag >> 16 & 1:
        if creator:
            raise AttributeUnknown(f"{step[:9]} has an even group, so it is not private: it has no creator")
        try:
            return Attribute(datadict.keyword_for_tag(tag) or step, tag, datadict.dictionary_VR(tag))
        except KeyError:
            raise AttributeUnknown(f"no such attribute in DICOM: {step}") from None
    if not creator:
        raise AttributeUnknown(
            f"{step} is private (its group is odd), and means what its creator says: write it as "
            f"{step}[CREATOR], as it stands in ({step[:4]},00{step[5:7]}) of such an image"
        )
    if tag & 0xFFFF < 0x1000:
        raise AttributeUnknown(f"{step[:9]} belongs to no creator's block: private elements are 1000 to FFFF")
    try:
        return Attribute(step, tag, datadict.private_dictionary_VR(tag, creator), creator)
    except KeyError:
        return Attribute(step, tag, "UN", creator)


def _of_a_header(tag: int) -> int:
    if tag >> 16 < 0x0008 or tag >> 16 >= 0x7FE0:
        raise AttributeUnknown("belongs to no image's header; allowed are attributes of groups 0008 to 7FDF")
    return tag


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "X"?` where one of the known names is like it, else nothing."""
    by_fold = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), by_fold, 1, 0.75)
    return f'; did you mean "{by_fold[found[0]]}"?' if found else ""
