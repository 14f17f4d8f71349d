"""Whether the archive takes an object in (PS3.4 B.2.3): its SOP class, its size, its identity. Pure.

Asked by the plugin for each C-STORE where the configuration says anything of it, and by whoever stores over HTTP
what a stranger sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from zambezi.config.settings.admission import Admission, Policy

#: C-STORE responses: Success; Refused: SOP class not supported; Refused: not authorized (PS3.7 C.5); Error: data set
#: does not match SOP class; Warning: the same, for what is in the hold, whole; Refused: out of resources.
SUCCESS, CLASS_REFUSED, NOT_AUTHORIZED, NO_MATCH, HELD, NO_RESOURCES = 0, 0x0122, 0x0124, 0xA900, 0xB007, 0xA700

#: PS3.5 9.1, but for components that begin with a zero: older equipment makes them, and they do no harm.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID, _LONGEST_ID = 64, 64


@dataclass(frozen=True)
class Newcomer:
    """What an object says of itself, without padding; empty where it says nothing."""

    sop_class: str
    sop_uid: str
    study_uid: str
    series_uid: str
    patient_id: str
    size: int


@dataclass(frozen=True)
class Terms:
    """What holds for one peer."""

    missing_identity: Policy = "accept"
    malformed_identity: Policy = "accept"
    sop_classes: frozenset[str] = frozenset()
    refused_sop_classes: frozenset[str] = frozenset()
    largest_megabytes: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What is done, the C-STORE status, and why (in words that name no patient)."""

    action: Policy = "accept"
    status: int = SUCCESS
    reason: str = ""


def terms(settings: Admission, peer: str) -> Terms:
    """What holds for a peer, by its name in DicomModalities ("" for one that isn't known)."""
    own = settings.peers.get(peer)

    def of(name: str) -> object:
        given = getattr(own, name) if own else None
        return getattr(settings, name) if given is None else given

    return Terms(
        missing_identity=of("missing_identity"), malformed_identity=of("malformed_identity"),  # type: ignore[arg-type]  # as declared there
        sop_classes=frozenset(of("sop_classes")), refused_sop_classes=frozenset(of("refused_sop_classes")),  # type: ignore[call-overload]  # as declared there
        largest_megabytes=of("largest_megabytes"),  # type: ignore[arg-type]  # as declared there
    )  # fmt: skip


def asks(settings: Admission) -> bool:
    """Whether anything is to be looked at, of any peer."""
    return any(terms(settings, peer) != Terms() for peer in ("", *settings.peers))


def judge(one: Newcomer, terms: Terms) -> Verdict:
    """What is done with an object."""
    if one.sop_class in terms.refused_sop_classes or (terms.sop_classes and one.sop_class not in terms.sop_classes):
        return Verdict("refuse", CLASS_REFUSED, f"SOP class {one.sop_class or '(none)'} is not taken from it")
    if terms.largest_megabytes is not None and one.size > terms.largest_megabytes * 1e6:
        what = f"{one.size / 1e6:.1f} MB, more than the {terms.largest_megabytes:g} MB that are taken from it"
        return Verdict("refuse", NOT_AUTHORIZED, what)
    for policy, fault in (
        (terms.malformed_identity, _malformed(one)),
        (terms.missing_identity, "" if one.patient_id.strip() else "it has no Patient ID"),
    ):
        if fault and policy == "hold":
            return Verdict("hold", HELD, fault)
        if fault and policy == "refuse":
            return Verdict("refuse", NO_MATCH, fault)
    return Verdict()


def _malformed(one: Newcomer) -> str:
    """Which identifier isn't as DICOM wants it; a missing one is none of them."""
    if len(one.patient_id) > _LONGEST_ID or "\\" in one.patient_id or not one.patient_id.isprintable():
        return "its Patient ID is too long, or has characters that DICOM doesn't allow"
    for name, uid in (("SOP", one.sop_uid), ("Series", one.series_uid), ("Study", one.study_uid)):
        if uid and (len(uid) > _LONGEST_UID or not _UID.fullmatch(uid)):
            return f"its {name} Instance UID is none"
    return ""
