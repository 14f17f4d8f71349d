"""What every way of sending images has in common: what is sent, what became of it, and how it can end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from zambezi.retries import ErrorClass


class AttemptFailed(Exception):
    """The destination doesn't have everything; the text says why, for a person, and `kind` what helps."""

    def __init__(self, kind: ErrorClass, text: str) -> None:
        super().__init__(text)
        self.kind = kind

    @property
    def is_about_objects(self) -> bool:
        """Whether it speaks of single images, so that others may go."""
        return self.kind in (ErrorClass.OBJECT, ErrorClass.CONFLICT)


class Interrupted(Exception):
    """The process stops, or Orthanc is away: no fault of the destination, and no attempt of it."""


class Overtaken(Interrupted):
    """Something that must go first is due for the same destination; this delivery goes on behind it."""


class CutShort(Exception):
    """Orthanc went away while it was sending. Most often that is a restart, and the attempt is made again at once.

    But an image whose sending brings Orthanc down must not do so for ever: it counts, and soon waits grow.
    """


class Instance(NamedTuple):
    """One image of a delivery, as its row names it."""

    orthanc_id: str
    series_uid: str
    sop_uid: str


@dataclass(frozen=True)
class Shipment:
    """What one delivery is about: instances of one study."""

    study_uid: str
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class Sent:
    """What became of instances that were offered: those that were acknowledged, why the others weren't, warnings."""

    acknowledged: tuple[Instance, ...] = ()
    fault: AttemptFailed | None = None
    remarks: tuple[str, ...] = ()


class Carrier(Protocol):
    """A way to a destination. Both methods raise Interrupted and CutShort; a fault of the receiver is in the result."""

    part: int  # so many instances are offered at once

    def store(self, study_uid: str, instances: Sequence[Instance]) -> Sent:
        """Offer these instances to the receiver."""

    def lacking(self, shipment: Shipment) -> tuple[Instance, ...]:
        """Those that the receiver doesn't name when it is asked; AttemptFailed where it doesn't answer."""
