"""Bringing objects by C-GET (PS3.4 C.4.3), where a source can't be told to move them: through us into the archive.

As zambezi.retrieving asks. Where a source names another syntax for an object than the one it sends (0008,3002), the
object is left there: it would not be the same one. Slower than C-MOVE, since every byte passes through us.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from io import BytesIO
from typing import Any

from pydicom.filereader import read_dataset
from pydicom.tag import Tag
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, build_context, build_role, evt

from migration.desk import Desk
from migration.probing import associated
from migration.source import Given, Named, Request, Trouble, trouble_of
from zambezi import digests, retries, retrieving
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable
from zambezi.retries import ErrorClass
from zambezi.retrieving import CANNOT, GET, SUCCESS, SYNTAXES, USUAL, Ended

log = logging.getLogger(__name__)

_SERIES = Tag("SeriesInstanceUID")


def bring(desk: Desk, request: Request, named: Mapping[str, Named], keeper: Keeper) -> dict[str, Given]:
    """Fetch what the request names and store it; by SOP Instance UID, the MD5 of what passed through us.

    `named`: what the source names of the study. Trouble of kind object where something of it was left behind.
    """
    taker = _Taker(desk, named)
    classes = sorted({one.sop_class for one in named.values() if one.sop_class}) or list(USUAL)

    def between() -> None:
        keeper.check()
        desk.check_open()

    wanted = _asked_for(request, named)
    for some in retrieving.groups(classes):
        get = partial(_get, desk.peer, desk.settings, request, some, taker.take, between)
        ended = retrieving.by_syntax(get, lambda: taker.broken is not None or wanted <= taker.given.keys())
        if taker.broken is not None:
            raise taker.broken
        kind = retries.of_dimse("query", ended.status)
        if kind and not ended.failed and not taker.left:
            raise Trouble(kind, f"C-GET: status 0x{ended.status:04X}")
        if ended.failed and not wanted <= taker.given.keys():
            taker.left.append(f"C-GET: {ended.failed} images could not be sent (status 0x{ended.status:04X})")
    if taker.left:
        raise Trouble(ErrorClass.OBJECT, "; ".join(taker.left)[:500])
    return taker.given


def _asked_for(request: Request, named: Mapping[str, Named]) -> set[str]:
    """SOP Instance UIDs of what the source names of a request."""
    match request.keys:
        case (_, series_uid):
            return {uid for uid, one in named.items() if one.series_uid == series_uid}
        case (_, _, sop_uid):
            return {sop_uid}
    return set(named)


def names(peer: Modality, settings: MigrationSource, study_uid: str) -> dict[str, Named]:
    """What a source has of a study, from what it sends: for those that name no images. Nothing of it is kept.

    Trouble (of kind object) unless it says that it has sent everything.
    """
    named: dict[str, Named] = {}

    def take(event: Any) -> int:
        head = BytesIO(event.request.DataSet.getvalue())
        syntax = UID(event.context.transfer_syntax)
        found = read_dataset(
            head, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=lambda tag, *_: tag > _SERIES
        )  # fmt: skip
        sop_class, series_uid = str(event.request.AffectedSOPClassUID), str(found.get("SeriesInstanceUID", ""))
        named[str(event.request.AffectedSOPInstanceUID)] = Named(series_uid, sop_class)
        return SUCCESS

    others = [str(one.abstract_syntax) for one in AllStoragePresentationContexts]
    ended = Ended()
    for some in retrieving.groups([*USUAL, *(one for one in others if one not in USUAL)]):
        ended = _get(peer, settings, Request("Study", (study_uid,)), some, take, lambda: None)
        if ended.status == SUCCESS and not ended.failed:
            return named
    raise Trouble(
        ErrorClass.OBJECT, f"it does not send everything by C-GET either: status 0x{ended.status & 0xFFFF:04X}"
    )


def _get(
    peer: Modality, settings: MigrationSource, request: Request, classes: Sequence[str], take: Callable[[Any], int],
    between: Callable[[], None], syntaxes: Sequence[str] = SYNTAXES,
) -> Ended:  # fmt: skip
    contexts = [build_context(GET), *(build_context(one, syntax) for one in classes for syntax in syntaxes)]
    roles = [build_role(one, scp_role=True) for one in classes]
    began = time.monotonic()
    until = began + settings.deadline_seconds
    with associated(peer, settings.aet, contexts, roles, [(evt.EVT_C_STORE, take)]) as (line, why):
        if line is None:
            raise Trouble(ErrorClass.TRANSIENT, why)
        line.dimse_timeout = settings.silence_seconds

        def hurry() -> None:
            between()
            if time.monotonic() > until:
                line.abort()
                words = f"not done in {settings.deadline_seconds:g} s, broken off"
                raise Trouble(ErrorClass.TRANSIENT, words, took_long=True)

        try:
            ended = retrieving.ask(line, request.level, request.query, hurry)
        except ValueError as error:  # no context for the retrieve itself
            raise Trouble(ErrorClass.OBJECT, f"the source offers no C-GET: {error}") from error
        except RuntimeError as error:  # the association was lost
            raise Trouble(ErrorClass.TRANSIENT, f"C-GET ended early: {error}") from error
    if ended.status == -1:
        took_long = time.monotonic() - began >= settings.silence_seconds
        raise Trouble(ErrorClass.TRANSIENT, "C-GET ended without an answer", took_long=took_long)
    return ended


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
            return CANNOT
        sop_uid, syntax = str(event.request.AffectedSOPInstanceUID), str(event.context.transfer_syntax)
        expected = self._named.get(sop_uid)
        if expected and expected.syntax and expected.syntax != syntax:
            would = f"{UID(syntax).name} instead of {UID(expected.syntax).name}"
            self.left.append(f"{sop_uid}: left there, since by C-GET it would come as {would}")
            return CANNOT
        if sop_uid in self.given:
            return SUCCESS
        sent = bytes(event.encoded_dataset())
        try:
            self._desk.client.store(sent)
        except OrthancUnreachable as error:
            self.broken = Trouble(ErrorClass.TRANSIENT, f"the archive: {error}", is_ours=True)
            return CANNOT
        except OrthancRefused as refused:
            kind = retries.of_http(refused.status) or ErrorClass.OBJECT
            if kind is ErrorClass.OBJECT:
                self.left.append(f"{sop_uid}: the archive can't take it: {trouble_of(refused.detail)}")
            else:
                self.broken = Trouble(kind, f"the archive: {refused.detail}", is_ours=True)
            return CANNOT
        self.given[sop_uid] = Given(digests.orthanc_md5(sent), None)
        # The source waits for our answer before it sends the next; it must not think that we are dead.
        self._desk.stop.wait(min(self._desk.line.used(len(sent), self._desk.cap, self._desk.now()), 10.0))
        return SUCCESS
