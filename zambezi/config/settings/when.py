"""The conditions of a rule: which attributes and circumstances must be how.

All keys of one object must hold. A key is a DICOM keyword or one of the circumstances below; `All`, `Any` and `Not`
hold more such objects. What is asked of a key: a value, a list of which one fits, or an object with one of
`Pattern`, `From` and `To`, `Present`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, PlainValidator, PrivateAttr, WithJsonSchema, model_validator

from zambezi import attributes
from zambezi.attributes import Attribute, AttributeUnknown
from zambezi.config.settings.section import NamesUnknown, Section, Window

Scalar = str | int | float

_FORMS = 'a value, a list of values, or one of {"Pattern": ...}, {"From": ..., "To": ...}, {"Present": true or false}'
_VALUE = {"type": ["string", "number"]}
_VALUES = {"oneOf": [_VALUE, {"type": "array", "minItems": 1, "items": _VALUE}]}
_SCHEMA: dict[str, Any] = {
    "description": f"What is asked of it: {_FORMS}.",
    "oneOf": [
        *_VALUES["oneOf"],
        {"type": "object", "required": ["Pattern"], "additionalProperties": False, "properties": {"Pattern": _VALUES}},
        {
            "type": "object", "minProperties": 1, "additionalProperties": False,
            "properties": {"From": _VALUE, "To": _VALUE},
        },
        {
            "type": "object", "required": ["Present"], "additionalProperties": False,
            "properties": {"Present": {"type": "boolean"}},
        },
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Test:
    """What is asked of one attribute or circumstance: exactly one of these."""

    __test__ = False  # no test of pytest's

    equal: tuple[Scalar, ...] = ()
    pattern: tuple[str, ...] = ()
    at_least: Scalar | None = None
    at_most: Scalar | None = None
    present: bool | None = None

    @property
    def is_range(self) -> bool:
        return self.at_least is not None or self.at_most is not None


def asked(found: Any) -> Test:
    """Read what is asked of a key; ValueError says what is allowed."""
    if isinstance(found, Test):
        return found
    if isinstance(found, Mapping):
        if set(found) == {"Pattern"}:
            return Test(pattern=tuple(str(one) for one in _values(found["Pattern"])))
        if set(found) == {"Present"} and isinstance(found["Present"], bool):
            return Test(present=found["Present"])
        if found and set(found) <= {"From", "To"}:
            ends = [_value(one) for one in found.values()]
            if len({isinstance(one, str) for one in ends}) == 1:
                return Test(at_least=found.get("From"), at_most=found.get("To"))
        raise ValueError(f"allowed is {_FORMS}")
    return Test(equal=_values(found))


def _values(found: Any) -> tuple[Scalar, ...]:
    several = tuple(found) if isinstance(found, list | tuple) else (found,)
    if not several:
        raise ValueError("an empty list fits nothing")
    return tuple(_value(one) for one in several)


def _value(found: Any) -> Scalar:
    if isinstance(found, bool) or not isinstance(found, str | int | float) or found == "":
        raise ValueError(f"allowed is {_FORMS}")
    return found


Asked = Annotated[Test | None, PlainValidator(asked), WithJsonSchema(_SCHEMA)]

#: Keys that aren't in the instance's header: as they are written, and as this class calls them.
CIRCUMSTANCES = {
    "CallingAet": "calling_aet", "CalledAet": "called_aet", "Site": "site", "Priority": "priority",
}  # fmt: skip
PRIORITIES = ("STAT", "HIGH", "ROUTINE")


class When(Section):
    """Conditions of a rule; all that are given must hold, and a list holds if one of its values does.

    Besides these keys every DICOM keyword is one, such as StudyDescription; every tag, a private one with its creator;
    and a way through sequences, of which one item must fit.
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "additionalProperties": False,
            # A pattern holds for the keys that are named besides, too: those that hold something else are no keywords.
            "patternProperties": {f"^(?!(All|Any|Not|Time)$){attributes.STEP}(/{attributes.STEP})*$": _SCHEMA},
        },
    )

    modality: Asked = Field(
        None, description="(0008,0060), and so every DICOM keyword, such as BodyPartExamined or SliceThickness: what "
        'it must be. "CT"; ["CT", "MR"]; {"Pattern": "*HEAD*"}, in which * and ? stand for anything and capitals '
        'count as small ones; {"From": 0, "To": 1.5}, both ends included; {"Present": false}. A key may be a tag, too: '
        '"0018,0015"; within a sequence: "0040,0275/0040,0009", one item must fit; private: '
        '"0029,1008[SIEMENS CSA HEADER]", in whichever block this creator reserved.',
    )  # fmt: skip
    calling_aet: Asked = Field(None, description="The sender's AE title; as Modality.")
    called_aet: Asked = Field(None, description="The AE title the sender called; as Modality.")
    site: Asked = Field(None, description="A name from Access.Sites, by the sender's AE title; as Modality.")
    priority: Asked = Field(
        None, description="The order's: STAT, HIGH or ROUTINE; absent where no order announced the study."
    )
    time: tuple[Window, ...] = Field(
        (), description="When it is decided, the site's clock must be in one of these windows."
    )
    all_: tuple[When, ...] = Field((), alias="All", description="Each of these must hold.")
    any_: tuple[When, ...] = Field((), alias="Any", description="One of these must hold.")
    not_: When | None = Field(None, alias="Not", description="This must not hold.")

    _tests: dict[str, Test] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _read(self) -> Self:
        faults: list[tuple[str, str]] = []
        tests: dict[str, Test] = {}
        if self.modality:
            tests["Modality"] = self.modality
        for key, name in CIRCUMSTANCES.items():
            if getattr(self, name):
                tests[key] = getattr(self, name)
        for key, found in (self.model_extra or {}).items():
            try:
                tests[key] = asked(found)
                _check(attributes.find(key), tests[key])
            except AttributeUnknown as unknown:
                near = attributes.nearest(key, [*CIRCUMSTANCES, "Time", "All", "Any", "Not"])
                faults.append((key, near.removeprefix("; ") or str(unknown)))
            except ValueError as error:
                faults.append((key, f"found {found!r}: {error}"))
        for wanted in self.priority.equal if self.priority else ():
            if wanted not in PRIORITIES:
                faults.append(("Priority", f"found {wanted!r}, allowed are {', '.join(PRIORITIES)}"))
        for key in CIRCUMSTANCES:
            if key in tests and tests[key].is_range:
                faults.append((key, "found a range, allowed are a value, a list, a Pattern and Present"))
        for n, window in enumerate(self.time):
            if window.kilobits_per_second is not None:
                faults.append((f"Time[{n}].KilobitsPerSecond", "a condition has no speed; Destinations have"))
        if faults:
            raise NamesUnknown(faults)
        self._tests = tests
        return self

    @property
    def tests(self) -> Mapping[str, Test]:
        """What is asked, by keyword or circumstance, as it is written."""
        return self._tests

    @property
    def asks_for_modalities_alone(self) -> bool:
        """Whether an order's modality decides: a value, a list, or no condition at all."""
        others = self._tests.keys() - {"Modality"} or self.time or self.below
        return not others and (self.modality is None or bool(self.modality.equal))

    @property
    def below(self) -> tuple[When, ...]:
        """The objects within this one."""
        return (*self.all_, *self.any_, *((self.not_,) if self.not_ else ()))

    @property
    def keywords(self) -> frozenset[str]:
        """Every DICOM keyword that it, or anything within it, asks for."""
        own = frozenset(self._tests) - CIRCUMSTANCES.keys()
        return own.union(*(one.keywords for one in self.below))

    @property
    def sites(self) -> frozenset[str]:
        """Every site that it, or anything within it, names."""
        own = frozenset(str(one) for one in self.site.equal) if self.site else frozenset[str]()
        return own.union(*(one.sites for one in self.below))


def _check(attribute: Attribute, test: Test) -> None:
    """Whether this can be asked of an attribute of its kind."""
    kind = attribute.kind
    if kind == "other" and test.present is None:
        raise ValueError(
            f'{attribute.keyword} is no single value ({attribute.vr}): only {{"Present": ...}} can be asked'
        )
    if not test.is_range:
        return
    ends = [one for one in (test.at_least, test.at_most) if one is not None]
    if kind in ("number", "age"):
        if any(isinstance(one, str) for one in ends):
            raise ValueError(f'{attribute.keyword} is a number{" of years" if kind == "age" else ""}: ends without "')
    elif kind == "moment":
        if not all(isinstance(one, str) and re.fullmatch(r"[0-9.]{2,26}", _digits(one)) for one in ends):
            raise ValueError(f'{attribute.keyword} is a date or time: ends such as "2026-03-01" or "18:30"')
    else:
        raise ValueError(f"{attribute.keyword} is text: a range means nothing; Pattern does")


def _digits(moment: str) -> str:
    return moment.translate({ord("-"): None, ord(":"): None})
