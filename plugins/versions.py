"""Where versions of Orthanc and its Python plugin differ: what one can't do (the status tells), how a call looks.

Found by looking, never from a version's number: Debian and hospitals build them as they like.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Offer:
    """Something that newer versions offer: where it is looked for, its row in docs/conformance.md, what lacks without.

    `name` is one of the module `orthanc`; `capability` a key of GET /system, at its top or under Capabilities.
    """

    row: str
    lacking: str
    name: str = ""
    capability: str = ""

    def is_in(self, names: Collection[str], system: Mapping[str, Any]) -> bool:
        if self.name:
            return self.name in names
        return bool(system.get(self.capability, system.get("Capabilities", {}).get(self.capability)))


OFFERS = (
    Offer(
        "a plugin may answer storage commitment (the gateway answers it, with each version)",
        "a plugin can't answer storage commitment; Orthanc's own goes by its index, the gateway's by the files, too",
        name="RegisterStorageCommitmentScpCallback",
    ),
    Offer(
        "Orthanc's own audit log",
        "Orthanc keeps no audit log of its own; the journal has it all",
        name="EmitAuditLog",
    ),
    Offer(
        "a plugin may set the stable status",
        "Orthanc's own stable events can't be set by our completeness clock",
        name="SetStableStatus",
    ),
    Offer(
        "whoever answers a worklist query is told the caller's address",
        "who answers a worklist query is told the caller's AE title, not the address; Orthanc has checked that before",
        name="RegisterWorklistCallback2",
    ),
    Offer("labels of studies", "Orthanc's studies can't carry labels", capability="HasLabels"),
    Offer(
        "`/tools/find` sorts and pages in the index",
        "Orthanc's index doesn't sort and page what is searched for",
        capability="HasExtendedFind",
    ),
    Offer(
        "`/changes` by kind",
        "Orthanc can't be asked for changes of one kind; all are read",
        capability="HasExtendedChanges",
    ),
    Offer(
        "queues in Orthanc's index",
        "Orthanc has no queues of its own; ours are in the journal and in the central database",
        capability="HasQueues",
    ),
)


def lacks(names: Collection[str], system: Mapping[str, Any]) -> list[str]:
    """A sentence for everything that these names of the module `orthanc` and this answer of GET /system don't offer."""
    return [offer.lacking for offer in OFFERS if not offer.is_in(names, system)]


class StatusAnswer:
    """Answers a REST call with a status other than 200.

    Up to plugin 4.0 the length of the body is a third argument, later it isn't, and neither a name nor a
    docstring tells which. The arguments are checked before anything is sent, so the first answer finds out.
    """

    def __init__(self) -> None:
        self._wants_length: bool | None = None

    def send(self, output: Any, status: int, body: str) -> None:
        if self._wants_length is None:
            try:
                output.SendHttpStatus(status, body)
            except TypeError:
                self._wants_length = True
            else:
                self._wants_length = False
                return
        if self._wants_length:
            output.SendHttpStatus(status, body, len(body.encode()))
        else:
            output.SendHttpStatus(status, body)
