"""Releasing: what a person lets go into the archive, stored through the one door and believed only when it is there.

An object whose SOP Instance UID the archive doesn't hold is announced (cause restore) and stored. A newcomer that is to
take another's place goes by a correction; its row follows what becomes of that.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta

from operations.custody import archived, comparing
from operations.custody.identity import identify
from operations.custody.worker import RETRY, WRITER, Desk
from zambezi import announcing, clock, digests, hold, holding, leases
from zambezi.database.tables import Correction, Held
from zambezi.digest import Unreadable, fingerprint
from zambezi.orthanc_client import OrthancError, OrthancRefused

log = logging.getLogger("zambezi.custody")

#: So often a correction is looked at, and so long the archive may take to hear of an announcement.
FOLLOW = timedelta(seconds=2)
KNOWN_WITHIN_S = 30.0


class NotReleased(Exception):
    """It can't go into the archive as it is; the text says why, and what can be done."""


@dataclass(frozen=True)
class Outcome:
    """`state`: released, failed or following (ask again later); `said`: in words."""

    state: str
    said: str = ""


def of_correction(correction: Correction | None) -> Outcome:
    """What the correction that puts a newcomer in another's place means for the newcomer's row."""
    if correction is None:
        return Outcome("failed", "the correction that was to do it is gone")
    if correction.state == "done":
        return Outcome("released", f"took the other's place by correction {correction.id}")
    if correction.state in ("parked", "cancelled"):
        said = correction.outcome or "no reason is given"
        return Outcome("failed", f"correction {correction.id} is {correction.state}: {said}")
    return Outcome("following")


def is_same(one: bytes, other: bytes) -> bool:
    """Whether two objects are equal, byte by byte or in what they say."""
    try:
        return one == other or fingerprint(one).digest == fingerprint(other).digest
    except Unreadable:
        return False


_RELEASES = comparing.look("releasing")


class Releasing:
    """Releases one object a round."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def round(self) -> bool:
        """Carry one release out, or look how far its correction is; True if there was one."""
        desk = self._desk
        if not _RELEASES(desk.sessions, desk.now()):
            return False
        with desk.sessions.begin() as session:
            claimed = comparing.claim(session, desk, "releasing")
            correction = (
                session.get(Correction, claimed[0].correction_id) if claimed and claimed[0].correction_id else None
            )
        if claimed is None:
            return False
        row, lease = claimed
        try:
            if row.correction_id:
                outcome = of_correction(correction)
            else:
                with leases.Keeper(desk.sessions, lease, desk.now, comparing.LEASE) as keeper:
                    outcome = self._store(row, keeper)
            self._write(lease, outcome)
        except leases.Fenced as why:
            log.warning("%s", why)
        except OrthancError:
            with desk.sessions.begin() as session:
                later = clock.text(desk.now() + RETRY.wait(row.attempts, 0))
                leases.finish(session, lease, "releasing", next_at=later)
            raise
        return outcome.state != "following"

    def _write(self, lease: leases.Lease, outcome: Outcome) -> None:
        now = self._desk.now()
        with self._desk.sessions.begin() as session:
            later = clock.text(now + FOLLOW)
            held = leases.finish(session, lease, "releasing", next_at=later)
            if outcome.state == "released":
                holding.released(session, held, outcome.said, now, WRITER)
            elif outcome.state == "failed":
                holding.release_failed(session, held, outcome.said, now, WRITER)

    def _store(self, row: Held, keeper: leases.Keeper) -> Outcome:
        try:
            content = hold.get(self._desk.environment.hold_dir, row.sha256)
            _fits(row, content)
            already = self._already_there(row, content)
            if already:
                return Outcome("released", f"the archive holds it already, as {already}")
            self._announce(row)
            keeper.check()
            return Outcome("released", f"stored as {self._stored(content)}")
        except hold.NotHeld as why:
            with self._desk.sessions.begin() as session:
                held = session.get_one(Held, row.id, with_for_update=True)
                holding.checked(session, held, str(why), self._desk.now(), WRITER)
            return Outcome("failed", str(why))
        except NotReleased as why:
            return Outcome("failed", str(why))

    def _already_there(self, row: Held, content: bytes) -> str:
        """Orthanc's id where the archive has it (an earlier attempt died before it could say so), or nothing."""
        for orthanc_id in archived.ids(self._desk.orthanc, row.sop_uid, row.orthanc_id):
            other = archived.fetch(self._desk.orthanc, orthanc_id)
            if other and is_same(content, other.content):
                return orthanc_id
            if other:
                raise NotReleased(
                    f"the archive holds other content under the same SOP Instance UID ({orthanc_id}); let this take "
                    "its place, or discard it"
                )
        return ""

    def _announce(self, row: Held) -> None:
        with self._desk.sessions.begin() as session:
            generation = announcing.announce_instances(
                session, {row.sop_uid or "": row.sha256}, "restore", f"hold {row.id}", self._desk.now()
            )
        if not announcing.wait_until_known(self._desk.orthanc, generation, KNOWN_WITHIN_S):
            raise OrthancError("the archive was not told what is to be released; is the gateway running?")

    def _stored(self, content: bytes) -> str:
        orthanc = self._desk.orthanc
        try:
            orthanc_id = str(orthanc.store(content)["ID"])
        except OrthancRefused as refused:
            if refused.is_transient or refused.status >= 507:  # starting, or its disk is full
                raise
            raise NotReleased(f"the archive can't take it: HTTP {refused.status}; export the file instead") from refused
        if orthanc.md5(orthanc_id) == digests.orthanc_md5(content):
            return orthanc_id
        there = archived.fetch(orthanc, orthanc_id)
        if there is None or not is_same(content, there.content):
            raise NotReleased(f"the archive holds other content as {orthanc_id} after it was stored; compare both")
        return orthanc_id


def _fits(row: Held, content: bytes) -> None:
    """The bytes must be what the row says of them, or something else would be stored than what was decided about."""
    own = identify(content)
    if not (own.sop_uid and own.series_uid and own.study_uid):
        raise NotReleased(
            "its own bytes have no Study, Series or SOP Instance UID; export it "
            f"(zambezi hold export {row.id} FILE), have it put right, and send it again"
        )
    if own.sop_uid != row.sop_uid:
        raise NotReleased("its own bytes have another SOP Instance UID than its row")
