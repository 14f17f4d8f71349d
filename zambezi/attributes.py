"""The DICOM attributes that a rule may name: by keyword, with tag, value representation and level. Pure.

The data dictionary is pydicom's (PS3.6); it is loaded when the first rule names an attribute, so that who has no such
rule pays nothing. Which attributes belong to the study and the series as a whole is PS3.3 C.7.1 to C.7.5: of those
one instance's value is the value of all.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
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
)
#: General Series, Frame of Reference and General Equipment modules, and what goes with a request.
_OF_SERIES = (
    "Modality SeriesInstanceUID SeriesNumber SeriesDate SeriesTime SeriesDescription BodyPartExamined ProtocolName"
    " PatientPosition Laterality OperatorsName PerformingPhysicianName PerformedProcedureStepID"
    " PerformedProcedureStepDescription PerformedProcedureStepStartDate PerformedProcedureStepStartTime"
    " RequestedProcedureDescription RequestedProcedurePriority RequestedProcedureID ReasonForPerformedProcedure"
    " AnatomicalOrientationType FrameOfReferenceUID PositionReferenceIndicator InstitutionName InstitutionAddress"
    " InstitutionalDepartmentName Manufacturer ManufacturerModelName StationName DeviceSerialNumber SoftwareVersions"
    " NumberOfSeriesRelatedInstances"
)

_LEVELS: dict[str, Level] = {
    **dict.fromkeys(_OF_STUDY.split(), "study"), **dict.fromkeys(_OF_SERIES.split(), "series"),
}  # fmt: skip

_NUMBERS = frozenset({"IS", "DS", "US", "SS", "UL", "SL", "UV", "SV", "FL", "FD"})
_MOMENTS = frozenset({"DA", "TM", "DT"})
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UI", "UR", "UT"})
#: Facts of a person that name nobody: what a rule found in them may be shown.
_SHOWN_OF_PATIENT = frozenset({"PatientSex", "PatientAge", "PregnancyStatus", "PatientState"})


class AttributeUnknown(ValueError):
    """A rule can't ask for this; the text says why and what it may ask for instead."""


@dataclass(frozen=True)
class Attribute:
    """An attribute of PS3.6."""

    keyword: str
    tag: int
    vr: str

    @property
    def level(self) -> Level:
        """What has one value of it."""
        return _LEVELS.get(self.keyword, "instance")

    @property
    def kind(self) -> Literal["number", "age", "moment", "text", "other"]:
        """How its values are compared."""
        parts = set(self.vr.split(" or "))
        if parts <= _NUMBERS:
            return "number"
        if self.vr == "AS":
            return "age"
        return "moment" if parts <= _MOMENTS else "text" if parts <= _TEXTS else "other"

    @property
    def path(self) -> str:
        """`0008,0060`, as Orthanc writes a tag."""
        return f"{self.tag >> 16:04x},{self.tag & 0xFFFF:04x}"

    @property
    def names_a_person(self) -> bool:
        """Whether a value must not be repeated in words that others read."""
        return self.vr == "PN" or (self.tag >> 16 == 0x0010 and self.keyword not in _SHOWN_OF_PATIENT)


@lru_cache(maxsize=4096)
def find(keyword: str) -> Attribute:
    """The attribute with this keyword of PS3.6; AttributeUnknown with the nearest one where there is none."""
    from pydicom import datadict  # half the standard: only where a rule names an attribute

    tag = datadict.tag_for_keyword(keyword)
    if tag is None:
        near = nearest(keyword, datadict.keyword_dict)
        raise AttributeUnknown(f"no such attribute in DICOM{near or '; names are keywords, such as BodyPartExamined'}")
    if tag >> 16 < 0x0008 or tag >> 16 >= 0x7FE0:
        raise AttributeUnknown("belongs to no image's header; allowed are attributes of groups 0008 to 7FDF")
    return Attribute(keyword, tag, datadict.dictionary_VR(tag))


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean "X"?` where one of the known names is like it, else nothing."""
    by_fold = {one.casefold(): one for one in known}
    found = difflib.get_close_matches(name.casefold(), by_fold, 1, 0.75)
    return f'; did you mean "{by_fold[found[0]]}"?' if found else ""
