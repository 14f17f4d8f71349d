"""What is known of each DICOM peer: what it may do, its last sign of each kind, and who was refused. Pure.

Signs come from the plugin of each node (GET /zambezi/callers) and from the gateway's sign of life; both tell rows of
aet, ip, sign, at, called_aet, reason, count.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zambezi.config import peers
from zambezi.config.safety import Modality

#: Signs in the order in which they are shown.
SIGNS = ("image", "worklist", "echo", "mpps", "query", "move", "get", "commitment", "associated")
#: Of strangers so many are shown, the latest.
STRANGERS = 50


@dataclass(frozen=True)
class Refusal:
    """Somebody was not let in, or not with what it wanted; `at` is the last time of `count`."""

    aet: str
    ip: str
    called_aet: str
    reason: str
    at: str
    count: int

    @property
    def name(self) -> str:
        """A name under which it could stand in DicomModalities."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", self.aet).strip("-.") or "PEER"


@dataclass(frozen=True)
class Known:
    """A peer of DicomModalities; `signs` maps a sign to its last moment."""

    name: str
    aet: str
    host: str
    port: int
    allowed: tuple[str, ...]
    signs: dict[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None

    @property
    def last(self) -> str:
        """Its last sign of any kind; empty where there was none."""
        return max(self.signs.values(), default="")


@dataclass(frozen=True)
class Overview:
    """Every peer, who was refused and isn't one of them, and sentences about what could not be asked."""

    known: list[Known]
    strangers: list[Refusal]
    trouble: list[str] = field(default_factory=list)

    @property
    def told(self) -> dict[str, Any]:
        return asdict(self)


def overview(
    configured: Mapping[str, Modality], entries: Mapping[str, Any], rows: Iterable[Mapping[str, Any]],
    trouble: Iterable[str] = (),
) -> Overview:  # fmt: skip
    """Put together; `entries` are those of DicomModalities, as they are written."""
    rows = list(rows)
    known = [_known(peer, entries.get(peer.name), rows) for peer in configured.values()]
    places = {(peer.aet, peer.host) for peer in configured.values()}
    # A refusal without an address (the C-STORE filter of plugin 4.0 isn't told it) is of an AE title that was let in.
    strangers = [one for one in _refusals(rows) if one.ip and (one.aet, one.ip) not in places]
    return Overview(known, strangers[:STRANGERS], list(trouble))


def _known(peer: Modality, entry: Any, rows: list[Mapping[str, Any]]) -> Known:
    mine = [one for one in rows if one["aet"] == peer.aet and one["ip"] in (peer.host, "")]
    signs: dict[str, str] = {}
    for one in mine:
        if one["sign"] in SIGNS:
            signs[one["sign"]] = max(signs.get(one["sign"], ""), str(one["at"]))
    refusal = next(iter(_refusals(mine)), None)
    return Known(peer.name, peer.aet, peer.host, peer.port, peers.allowed(entry), signs, refusal)


def _refusals(rows: Iterable[Mapping[str, Any]]) -> list[Refusal]:
    """The last refusal of each caller, however many doors told of it, the latest first."""
    last: dict[tuple[str, str], Refusal] = {}
    for one in sorted((one for one in rows if one["sign"] == "refused"), key=lambda one: str(one["at"])):
        told = Refusal(
            str(one["aet"]), str(one["ip"]), str(one["called_aet"]), str(one["reason"]), str(one["at"]),
            int(one["count"]) + (last[one["aet"], one["ip"]].count if (one["aet"], one["ip"]) in last else 0),
        )  # fmt: skip
        last[told.aet, told.ip] = told
    return sorted(last.values(), key=lambda one: one.at, reverse=True)
