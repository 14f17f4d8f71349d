"""The plan of a migration: a JSON file that `zambezi migrate plan` reads, shows and makes the next version of.

It stands in the database (table migration_plan), not in orthanc-config/: it belongs to one migration and has versions.
Of its rules everything is decided from the inventory before a byte moves; what they give is carried out as images come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from zambezi.config.settings.coercion import Asked
from zambezi.config.settings.section import Name, NamesUnknown, Section

#: What a rule may give a value: it is one for a whole study (PS3.3 C.7.1.1, C.7.2.1), or of the hospital that made it.
CHANGEABLE = (
    "PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex", "OtherPatientIDs",
    "AccessionNumber", "StudyID", "StudyDescription", "ReferringPhysicianName", "InstitutionName",
    "InstitutionalDepartmentName",
)  # fmt: skip
#: What rules may look at: what inventories hold of a study, as far as its source told it.
KNOWN = (
    *CHANGEABLE, "StudyInstanceUID", "StudyDate", "StudyTime", "ModalitiesInStudy", "SpecificCharacterSet",
)  # fmt: skip
CharacterSet = Literal[
    "", "guess", "ISO_IR 100", "ISO_IR 192", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110", "ISO_IR 144", "ISO_IR 127",
    "ISO_IR 126", "ISO_IR 138", "ISO_IR 148", "ISO_IR 166", "ISO_IR 13", "GB18030", "GBK",
]  # fmt: skip
Words = Annotated[str, Field(max_length=2000)]


class Strip(Section):
    """What is taken away from a value."""

    prefix: str = Field("", max_length=64, description="At its beginning, once.")
    suffix: str = Field("", max_length=64, description="At its end, once.")
    characters: str = Field("", max_length=64, description='Each of these wherever it stands, such as " -./".')
    zeros: bool = Field(False, description="Zeros before a number; one that is nothing else stays as 0.")


class Pad(Section):
    """What is put before a value that is too short."""

    length: int = Field(ge=1, le=64, description="So many characters; longer values stay as they are.")
    with_: str = Field("0", alias="With", min_length=1, max_length=1, description="The character.")


class PlanRule(Section):
    """One rule of cleansing and mapping. Its steps are done in the order of these keys."""

    name: Name = Field(description="The rule's name; it stands in previews, the plan document and the audit trail.")
    when: dict[str, Asked] = Field(
        default_factory=dict,
        description="Conditions on what the inventory says of the study, all of which must hold, as in Coercions; they "
        "look at it as the source said it. Empty: every study.",
    )
    character_set: CharacterSet = Field(
        "", description="What the texts are really written in, as in Coercions; no letter is touched."
    )
    tidy: tuple[Literal["PatientName", "ReferringPhysicianName"], ...] = Field(
        (), description='Names: "SILVA,  ANA " becomes "SILVA^ANA"; no blanks or ^ too many. Case stays.'
    )
    strip: dict[str, Strip] = Field(default_factory=dict, description="Attribute, and what is taken away from it.")
    cut: dict[str, int] = Field(
        default_factory=dict, description="Attribute, and how many characters are left of it, from the beginning."
    )
    pad: dict[str, Pad] = Field(default_factory=dict, description="Attribute, and how it is filled up; not if empty.")
    prefix: dict[str, str] = Field(
        default_factory=dict, description="Attribute, and what is put before a value that doesn't begin with it."
    )
    copy_: dict[str, str] = Field(
        default_factory=dict, alias="Copy", description="Attribute, and the one whose value it gets where that has one."
    )
    map_: dict[str, dict[str, str]] = Field(
        default_factory=dict, alias="Map", description='Attribute, and for each value another one; "" is an empty one.'
    )
    map_file: dict[str, str] = Field(
        default_factory=dict,
        description="Attribute, and a CSV file beside the plan, whose first two columns are old and new value. It is "
        "read into Map when the plan is: a version of a plan is whole in itself.",
    )
    set_: dict[str, str] = Field(default_factory=dict, alias="Set", description="Attribute and its value.")
    fill: dict[str, str] = Field(default_factory=dict, description="The same, where the attribute is empty.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        steps: tuple[Mapping[str, object], ...] = (
            self.strip, self.cut, self.pad, self.prefix, self.copy_, self.map_, self.map_file, self.set_, self.fill,
        )  # fmt: skip
        faults = _conditions(self.when)
        if not any((self.character_set, self.tidy, *steps)):
            faults.append(("Name", "the rule does nothing; give Strip, Pad, Prefix, Map, Set, CharacterSet, ..."))
        for key, named in zip(("Strip", "Cut", "Pad", "Prefix", "Copy", "Map", "MapFile", "Set", "Fill"), steps,
                              strict=True):  # fmt: skip
            faults += _unknown(key, named, CHANGEABLE)
        faults += _unknown("Copy", self.copy_.values(), KNOWN)
        faults += [(f"Cut.{named}", f"found {length}, allowed is 1 to 64") for named, length in self.cut.items()
                   if not 1 <= length <= 64]  # fmt: skip
        if faults:
            raise NamesUnknown(faults)
        return self


class Skip(Section):
    """Studies that are left where they are."""

    name: Name = Field(description="The rule's name.")
    when: dict[str, Asked] = Field(min_length=1, description="Conditions, as in Rules: all of them must hold.")
    before: date | None = Field(None, description="And the study's date is before this day; undated ones never fit.")
    because: str = Field(min_length=3, max_length=200, description="Why; it stands on the certificate.")

    @field_validator("when")
    @classmethod
    def _knows_them(cls, found: dict[str, Asked]) -> dict[str, Asked]:
        if faults := _conditions(found):
            raise NamesUnknown(faults)
        return found


class Matching(Section):
    """Whose studies they are: each patient of the source is compared with those that RIS and HIS know."""

    accept: float = Field(
        0.9, ge=0.7, le=1, description="From this score a match is taken by itself, if nobody else comes near it."
    )
    lead: float = Field(0.15, ge=0.05, le=1, description="So far the second best must be behind.")
    look: float = Field(
        0.5, ge=0.1, le=0.7,
        description="Who here reaches this score may be the source's patient; below it nobody is.",
    )  # fmt: skip
    unknown: Literal["take", "hold"] = Field(
        "take", description="What becomes of studies whose patient nobody here resembles: take: a patient of their own."
    )
    give: tuple[
        Literal["PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"], ...
    ] = Field(
        ("PatientID", "IssuerOfPatientID", "PatientName", "PatientBirthDate", "PatientSex"),
        description="What a matched study gets of the patient here, as far as it is known; the old values stay in the "
        "image (Original Attributes Sequence).",
    )  # fmt: skip


class Sample(Section):
    """Which studies are compared with a second retrieve; drawn before anything moves."""

    studies: int = Field(500, ge=1, le=10_000_000, description="So many; all where there are fewer. 0.6 % error bound "
                         "at 500 without a fault (rule of three).")  # fmt: skip
    seed: int = Field(2026, ge=0, le=2**31, description="The draw's; the same seed and inventory draw the same.")


class Batches(Section):
    """Parts of a migration that are rolled back as one."""

    by: Literal["one", "year", "count"] = Field("count", description="One batch, one a year, or so many studies each.")
    studies: int = Field(500, ge=1, le=1_000_000, description="Studies of a batch, where it is by count.")


class Duty(Section):
    """Who answers for what."""

    who: str = Field(min_length=1, max_length=100)
    what: Words


class MigrationPlan(Section):
    """The whole plan."""

    title: str = Field("", max_length=200, description="As the plan document's cover says it.")
    purpose: Words = Field("", description="Why studies move, in a sentence or two.")
    skip: tuple[Skip, ...] = Field((), description="What is left out; the first rule that fits.")
    rules: tuple[PlanRule, ...] = Field((), description="Cleansing and mapping, one after another.")
    matching: Matching | None = Field(None, description="Without it, identifiers are taken as rules leave them.")
    order: Literal["scheduled", "newest", "oldest"] = Field(
        "scheduled", description="scheduled: studies of patients with an order to come first, then the newest."
    )
    batches: Batches = Field(Batches(), description="How it is parted.")
    level: Literal["arrival", "source"] = Field(
        "source", description="How far studies are proven: arrival (2) for all; source (3) for all, or for Sample."
    )
    sample: Sample | None = Field(None, description="With Level source: only so many are compared with the source.")
    carry: tuple[Literal["labels", "metadata", "attachments"], ...] = Field(
        (), description="From another Orthanc: what users put beside the images comes, too, once a study is verified. "
        "Nothing unless it is named: a label may open doors, and another program's notes may mean nothing here.",
    )  # fmt: skip
    begins: date | None = Field(None, description="The first day; for the schedule.")
    roll_back: Words = Field("", description="Who decides on taking a batch back, and until when.")
    cut_over: Words = Field("", description="What has to hold before the old archive is switched off.")
    duties: tuple[Duty, ...] = Field((), max_length=30, description="Who answers for what.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        faults = []
        named = [*(rule.name for rule in self.skip), *(rule.name for rule in self.rules)]
        faults += [("Rules", f'"{name}" stands twice') for name in sorted({n for n in named if named.count(n) > 1})]
        if self.sample is not None and self.level != "source":
            faults.append(("Sample", "is drawn for Level source alone"))
        if self.matching and self.matching.look >= self.matching.accept:
            faults.append(("Matching.Look", "must be below Accept"))
        if faults:
            raise NamesUnknown(faults)
        return self


def _conditions(when: Mapping[str, Asked]) -> list[tuple[str, str]]:
    return [(f"When.{named}", what) for named, what in _unknown("", when, KNOWN)]


def _unknown(key: str, named: Iterable[str], allowed: tuple[str, ...]) -> list[tuple[str, str]]:
    wrong = [name for name in named if name not in allowed]
    return [(f"{key}.{name}".strip("."), f"allowed here are {', '.join(allowed)}") for name in wrong]
