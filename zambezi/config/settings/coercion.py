"""Attributes of images that are put right as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from zambezi.config.settings.section import Name, NamesUnknown, Section

#: Of the conditions those that aren't attributes of the image.
CALLING_AET, ANNOUNCED = "CallingAet", "Announced"
_FORMS = 'a text, a list of texts, {"Pattern": text or list} or {"Present": true or false}'
_VALUES = {"oneOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}


@dataclass(frozen=True)
class Wanted:
    """What is asked of one attribute: exactly one of these."""

    equal: tuple[str, ...] = ()
    pattern: tuple[str, ...] = ()
    present: bool | None = None


def _wanted(found: Any) -> Wanted:
    if isinstance(found, Wanted):
        return found
    if isinstance(found, Mapping) and set(found) == {"Pattern"}:
        return Wanted(pattern=_texts(found["Pattern"]))
    if isinstance(found, Mapping) and set(found) == {"Present"} and isinstance(found["Present"], bool):
        return Wanted(present=found["Present"])
    return Wanted(equal=_texts(found))


def _texts(found: Any) -> tuple[str, ...]:
    several = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not several or not all(isinstance(one, str) and one for one in several):
        raise ValueError(f"allowed is {_FORMS}")
    return several


Asked = Annotated[
    Wanted,
    PlainValidator(_wanted),
    WithJsonSchema(
        {
            "description": f"What is asked of it: {_FORMS}.",
            "oneOf": [
                *_VALUES["oneOf"],
                {
                    "type": "object", "required": ["Pattern"], "additionalProperties": False,
                    "properties": {"Pattern": _VALUES},
                },
                {
                    "type": "object", "required": ["Present"], "additionalProperties": False,
                    "properties": {"Present": {"type": "boolean"}},
                },
            ],
        }
    ),
]  # fmt: skip


class FromWorklist(Section):
    """Attributes that an image gets from the order it was made for, as it stands on the worklist."""

    take: tuple[
        Literal[
            "AccessionNumber", "ReferringPhysicianName", "PatientName", "PatientID", "IssuerOfPatientID",
            "PatientBirthDate", "PatientSex", "StudyInstanceUID", "RequestedProcedureDescription",
            "RequestedProcedureID",
        ], ...,
    ] = Field(min_length=1, description="These; what the order leaves empty stays as it came. Without PatientID, "
        "an order with another patient ID than the image's has failed.")  # fmt: skip
    match_by: tuple[Literal["StudyInstanceUID", "AccessionNumber"], ...] = Field(
        ("StudyInstanceUID", "AccessionNumber"),
        min_length=1,
        description="How the order is found; the first that fits.",
    )
    must_match: bool = Field(
        False,
        description="Without such an order the coercion has failed: the image stays as it came, a person is told.",
    )


class Coercion(Section):
    """One rule. What it does is done in the order of these keys; conditions look at the image as it came."""

    name: Name = Field(description="The rule's name; it stands in the audit trail and in the image.")
    when: dict[str, Asked] = Field(
        default_factory=dict,
        description='Conditions, all of which must hold: a DICOM keyword or (gggg,eeee) and what it must be: "CT"; '
        '["CT", "MR"]; {"Pattern": "CLINIC*"}, in which * and ? stand for anything and capitals count as small ones; '
        '{"Present": false}. CallingAet: the sender\'s AE title, known at the coercing port alone. Announced: whether '
        'an open order announced the study, {"Present": true or false}. Empty: every image.',
    )
    character_set: Literal["", "guess", "ISO_IR 100", "ISO_IR 192", "ISO_IR 101", "ISO_IR 109", "ISO_IR 110",
        "ISO_IR 144", "ISO_IR 127", "ISO_IR 126", "ISO_IR 138", "ISO_IR 148", "ISO_IR 166", "ISO_IR 13", "GB18030",
        "GBK"] = Field(
        "", description="What the image's text is really written in; (0008,0005) is put right where it says otherwise, "
        "no letter is touched. guess: ISO_IR 192 where all of it can be read so, else ISO_IR 100 where none is named.",
    )  # fmt: skip
    from_worklist: FromWorklist | None = Field(None, description="What is taken from the order.")
    copy_: dict[str, str] = Field(
        default_factory=dict, alias="Copy", description="Attribute, and the one whose value it gets where that has one."
    )
    map_: dict[str, dict[str, str]] = Field(
        default_factory=dict, alias="Map",
        description='Attribute, and for each value another one; "" is one that is missing or empty.',
    )  # fmt: skip
    set_: dict[str, str] = Field(default_factory=dict, alias="Set", description="Attribute and its value.")
    fill: dict[str, str] = Field(default_factory=dict, description="The same, where the attribute is missing or empty.")
    prefix: dict[str, str] = Field(
        default_factory=dict,
        description="Attribute, and what its value must begin with; put before one that doesn't, not before nothing.",
    )
    remove: tuple[str, ...] = Field((), description="Attributes that are taken away; private ones and sequences, too.")

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        faults: list[tuple[str, str]] = []
        if not any((self.character_set, self.from_worklist, self.copy_, self.map_, self.set_, self.fill, self.prefix,
                    self.remove)):  # fmt: skip
            faults.append(("Name", "the rule does nothing; give CharacterSet, FromWorklist, Copy, Map, Set, ..."))
        faults += self._condition_faults()
        faults += self._attribute_faults()
        if faults:
            raise NamesUnknown(faults)
        return self

    def _condition_faults(self) -> list[tuple[str, str]]:
        from zambezi.coercion import attributes  # half the standard: only where there is a rule

        faults = []
        for named, wanted in self.when.items():
            if named == ANNOUNCED and wanted.present is None:
                faults.append((f"When.{named}", 'allowed is {"Present": true} or {"Present": false}'))
            if named not in (ANNOUNCED, CALLING_AET):
                faults += _faults(f"When.{named}", attributes.readable, [named])
        return faults

    def _attribute_faults(self) -> list[tuple[str, str]]:
        from zambezi.coercion import attributes
        from zambezi.correctable import ValueRefused, checked_value

        faults = _faults("Copy", attributes.readable, self.copy_.values())
        faults += _faults("Remove", attributes.removable, self.remove)
        for key, several in (
            ("Copy", self.copy_), ("Map", self.map_), ("Set", self.set_), ("Fill", self.fill), ("Prefix", self.prefix),
        ):  # fmt: skip
            faults += _faults(key, attributes.settable, several)
        for key, named, value in (
            *(("Set", *one) for one in self.set_.items()),
            *(("Fill", *one) for one in self.fill.items()),
            *(("Map", named, value) for named, values in self.map_.items() for value in values.values()),
        ):
            try:
                checked_value(attributes.settable(named), value)
            except attributes.AttributeUnknown:
                continue  # told of already
            except ValueRefused as refused:
                faults.append((f"{key}.{named}", str(refused)))
        faults += [(f"Prefix.{named}", "is empty") for named, value in self.prefix.items() if not value]
        return faults


def _faults(key: str, look: Callable[[str], object], named: Iterable[str]) -> list[tuple[str, str]]:
    from zambezi.coercion.attributes import AttributeUnknown

    faults = []
    for one in named:
        try:
            look(one)
        except AttributeUnknown as unknown:
            faults.append((key, str(unknown)))
    return faults
