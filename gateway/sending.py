"""What every way of sending images has in common: what is sent, what became of it, and how it can end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    is_about_objects = False


class Overtaken(Interrupted):
    """Something that must go first is due for the same destination; this delivery goes on behind it."""


class Closed(Interrupted):
    """The destination's window closed in mid-study: what it acknowledged stays sent, the rest goes when one opens."""

    def __init__(self) -> None:
        super().__init__("its window closed in mid-study; what it lacks goes when the next one opens")


class CutShort(Exception):
    """Orthanc went away while it was sending. Most often that is a restart, and the attempt is made again at once.

    But an image whose sending brings Orthanc down must not do so for ever: it counts, and soon waits grow.
    """

    is_about_objects = False


#: Why not everything that was offered was acknowledged.
Fault = AttemptFailed | Interrupted | CutShort
#: Whether the destination may be sent to at this moment.
IsOpen = Callable[[], bool]


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
    #: What else the delivery's row says; of a fetch, what is wanted (gateway.fetching).
    body: bytes = b""


@dataclass(frozen=True)
class Sent:
    """What became of instances that were offered: those that were acknowledged, why the others weren't, warnings."""

    acknowledged: tuple[Instance, ...] = ()
    fault: Fault | None = None
    remarks: tuple[str, ...] = ()


class Carrier(Protocol):
    """A way to a destination. Both methods raise Interrupted and CutShort where nothing was acknowledged yet; a fault
    that comes later, and one of the receiver, is in the result."""

    part: int  # so many instances are offered at once

    def store(self, study_uid: str, instances: Sequence[Instance]) -> Sent:
        """Offer these instances to the receiver."""

    def lacking(self, shipment: Shipment) -> tuple[Instance, ...]:
        """Those that the receiver doesn't name when it is asked; AttemptFailed where it doesn't answer."""
