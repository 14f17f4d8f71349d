"""Bringing objects by C-GET (PS3.4 C.4.3), where a source can't be told to move them: through us into the archive.

Each transfer syntax is offered in a presentation context of its own, so that a source can send what it holds as it
holds it. Where it names another syntax for an object than the one it sends (0008,3002), the object is left there: it
would not be the same one. Slower than C-MOVE, since every byte passes through us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, build_role, evt

from migration.desk import Desk
from migration.probing import GET, SYNTAXES, associated
from migration.source import Given, Named, Request, Trouble, trouble_of
from zambezi import digests, retries
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass

log = logging.getLogger(__name__)

#: PS3.8 9.3.2.2: an association has 128 contexts, one of which is the retrieve itself.
_CLASSES_AT_ONCE = 127 // len(SYNTAXES)
_SUCCESS, _CANNOT = 0x0000, 0xC000
_LEVELS = {"Study": "STUDY", "Series": "SERIES", "Instance": "IMAGE"}
#: What is offered where the source doesn't say of what class its objects are.
_USUAL = (
    "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.88.59",
)  # fmt: skip


def bring(desk: Desk, request: Request, named: Mapping[str, Named], keeper: Keeper) -> dict[str, Given]:
    """Fetch what the request names and store it; by SOP Instance UID, the MD5 of what passed through us.

    `named`: what the source names of the study. Trouble of kind object where something of it was left behind.
    """
    taker = _Taker(desk, named)
    classes = sorted({one.sop_class for one in named.values() if one.sop_class}) or list(_USUAL)
    for first in range(0, len(classes), _CLASSES_AT_ONCE):
        _get(desk, request, classes[first : first + _CLASSES_AT_ONCE], taker, keeper)
    if taker.left:
        raise Trouble(ErrorClass.OBJECT, "; ".join(taker.left)[:500])
    return taker.given


def _get(desk: Desk, request: Request, classes: list[str], taker: _Taker, keeper: Keeper) -> None:
    contexts = [build_context(GET), *(build_context(one, syntax) for one in classes for syntax in SYNTAXES)]
    roles = [build_role(one, scp_role=True) for one in classes]
    until = time.monotonic() + desk.settings.study_deadline_seconds
    with associated(desk.peer, desk.settings.aet, contexts, roles, [(evt.EVT_C_STORE, taker.take)]) as (line, why):
        if line is None:
            raise Trouble(ErrorClass.TRANSIENT, why)
        line.dimse_timeout = min(desk.settings.study_deadline_seconds, 300)
        identifier = Dataset()
        identifier.QueryRetrieveLevel = _LEVELS[request.level]
        for keyword, value in request.query.items():
            setattr(identifier, keyword, value)
        last = -1
        try:
            for status, _ in line.send_c_get(identifier, GET):
                last = int(status.Status) if status and "Status" in status else -1
                keeper.check()
                desk.check_open()
                if time.monotonic() > until:
                    line.abort()
                    words = f"not done in {desk.settings.study_deadline_seconds:g} s, broken off"
                    raise Trouble(ErrorClass.TRANSIENT, words)
        except (ValueError, RuntimeError) as error:  # no context for the retrieve itself; the association was lost
            raise Trouble(ErrorClass.TRANSIENT, f"C-GET ended early: {error}") from error
    if taker.broken is not None:
        raise taker.broken
    if last == -1:
        raise Trouble(ErrorClass.TRANSIENT, "C-GET ended without an answer")
    kind = retries.of_dimse("query", last)
    if kind and not taker.left:
        raise Trouble(kind, f"C-GET: status 0x{last:04X}")


class _Taker:
    """Takes one object after the other, and stores it at once."""

    def __init__(self, desk: Desk, named: Mapping[str, Named]) -> None:
        self._desk, self._named = desk, named
        self.given: dict[str, Given] = {}
        self.left: list[str] = []  # why something stays behind
        self.broken: Trouble | None = None

    def take(self, event: Any) -> int:
        """Answer one C-STORE sub-operation."""
        if self.broken:
            return _CANNOT
        sop_uid, syntax = str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax)
        expected = self._named.get(sop_uid)
        if expected and expected.syntax and expected.syntax != syntax:
            would = f"{UID(syntax).name} instead of {UID(expected.syntax).name}"
            self.left.append(f"{sop_uid}: left there, since by C-GET it would come as {would}")
            return _CANNOT
        sent = bytes(event.encoded_dataset())
        try:
            self._desk.client.store(sent)
        except OrthancUnreachable as error:
            self.broken = Trouble(ErrorClass.TRANSIENT, f"the archive: {error}", is_ours=True)
            return _CANNOT
        except OrthancRefused as refused:
            kind = retries.of_http(refused.status) or ErrorClass.OBJECT
            if kind is ErrorClass.OBJECT:
                self.left.append(f"{sop_uid}: the archive can't take it: {trouble_of(refused.detail)}")
            else:
                self.broken = Trouble(kind, f"the archive: {refused.detail}", is_ours=True)
            return _CANNOT
        self.given[sop_uid] = Given(digests.orthanc_md5(sent), None)
        # The source waits for our answer before it sends the next; it must not think that we are dead.
        self._desk.stop.wait(min(self._desk.line.used(len(sent), self._desk.cap, self._desk.now()), 10.0))
        return _SUCCESS
