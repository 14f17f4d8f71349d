"""HL7 triggers: which peer is told what, when something has happened; and messages of an administrator's own."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from zambezi.config.settings.routing import Cause
from zambezi.config.settings.section import Name, NamesUnknown, Section
from zambezi.hl7 import template

#: What a trigger may wait for (zambezi.triggers says what each means).
On = Literal[
    "study-received", "study-completed", "study-updated", "study-rejected", "study-delivered", "delivery-parked",
    "report-signed", "exam-changed",
]  # fmt: skip
State = Literal["scheduled", "arrived", "in-progress", "completed", "discontinued", "cancelled"]

#: On which of these a message of ours says something; a template may be sent on each.
MESSAGES: dict[str, tuple[str, ...]] = {
    "study-received": ("ORM^O01", "ORU^R01"),
    "study-completed": ("ORM^O01", "ORU^R01"),
    "study-updated": ("ORM^O01", "ORU^R01"),
    "study-rejected": ("ORM^O01", "ORU^R01"),
    "study-delivered": ("ORM^O01", "ORU^R01"),
    "delivery-parked": ("ORM^O01",),
    "report-signed": ("ORU^R01",),
    "exam-changed": ("ORM^O01",),
}


class TriggerWhen(Section):
    """Conditions of a trigger; all that are given must hold, and a list holds if one of its values does."""

    modality: tuple[str, ...] = Field((), description="A modality of the study (of the order, before images came).")
    state: tuple[State, ...] = Field((), description="On exam-changed: the state that the exam has got.")
    destination: tuple[Name, ...] = Field(
        (), description="On study-delivered and delivery-parked: where the images were to go."
    )


class Hl7Trigger(Section):
    name: Name = Field(description="The rule's name; it stands in the reason of every message.")
    on: On = Field(description="What must have happened.")
    when: TriggerWhen = Field(TriggerWhen(), description="Of which studies, exams and deliveries; all unless given.")
    causes: tuple[Cause, ...] = Field(
        ("modality",),
        description="Stores of which cause it acts on; `ourselves`: report, correction, restore.",
    )
    late_images: bool = Field(
        True, description="On study-completed: also when images that came late make it complete again."
    )
    send_to: Name = Field(description="A name from Hl7.Peers.")
    message: Literal["ORM^O01", "ORU^R01"] | None = Field(
        None, description="ORM^O01: the order's status. ORU^R01: the report, or that images are there."
    )
    template: Name | None = Field(None, description="A name from Hl7.Templates, instead of Message.")
    pdf: bool = Field(True, description="The ORU^R01 of a report carries it as PDF, too (OBX of type ED).")

    @property
    def says(self) -> str:
        """What is sent, for reasons and lists: the message's type, or the template's name."""
        return self.message or f"template {self.template}"

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.message is None) == (self.template is None):
            raise ValueError("either Message or Template must be given")
        if self.message and self.message not in MESSAGES[self.on]:
            raise ValueError(f"On {self.on} goes with Message {' or '.join(MESSAGES[self.on])}, or a Template")
        if self.when.state and self.on != "exam-changed":
            raise ValueError(f"When.State goes with On exam-changed, not with {self.on}")
        if self.when.destination and self.on not in ("study-delivered", "delivery-parked"):
            raise ValueError(f"When.Destination goes with On study-delivered or delivery-parked, not with {self.on}")
        return self


class Hl7Template(Section):
    """A message of your own. MSH is written by Zambezi, as for every message to that peer."""

    type: str = Field(
        pattern=r"^[A-Z]{3}\^[A-Z][A-Z0-9]{2}(\^[A-Z]{3}_[A-Z0-9]{3})?$",
        description="MSH-9, such as ORM^O01 or ORU^R01^ORU_R01.",
    )
    segments: tuple[str, ...] = Field(
        min_length=1,
        max_length=200,
        description="The segments behind MSH, a line each; `{study_uid}` is a placeholder.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        told = [(f"Segments[{n}]", what) for n, line in enumerate(self.segments) for what in template.faults(line)]
        if told:
            raise NamesUnknown(told)
        return self
