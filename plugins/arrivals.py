"""What comes in, looked at before Orthanc takes it: another content under a known identity goes to the hold first.

Orthanc keeps what it has under an identity (Patient ID, Study, Series, SOP Instance UID) and tells the sender
of other content Success, without a word to anybody. So each instance is looked at as it comes: its identity and the
SHA-256 of its bytes, against what the journal has recorded and against what came but isn't recorded yet.
Where Orthanc would, or might, drop it, its bytes are in the hold and a `held` entry is committed before
Orthanc goes on. `judge` is pure. Nothing is discarded, ever.

Orthanc serialises this callback: whatever it costs, every sender pays. It answers from memory and the plugin's own
file; no network, no call back into Orthanc.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from plugins import header
from plugins.claims import Claim, Claims
from plugins.facts import Came, Instance
from plugins.header import Header, HeaderFault
from plugins.journal import PROCESS, Journal
from plugins.pushed import Announced
from zambezi import causes, crash, hold

log = logging.getLogger("zambezi.arrivals")

#: Whatever came so long ago was stored and is recorded by now, or never will be.
SETTLED_S = 600
#: So many instances that came and aren't recorded yet are known; beyond, following is far behind.
COMING = 500_000
#: Between our look and Orthanc's commit no instance is for so long.
IN_FLIGHT_S = 30
#: So many of their bytes are at hand, for the case that another content follows before the first one is stored.
KEPT_BYTES = 64_000_000
#: So many of what came are digested ahead; the others when they are asked for.
FRESH = 10_000

_COPIES = (
    "SELECT instances.orthanc_id, instances.sha256, came.sha256 FROM instances LEFT JOIN came"
    " ON came.orthanc_id = instances.orthanc_id WHERE sop_uid = ? AND present = 1"
)
_ARRIVED = (
    "SELECT instances.sha256, came.sha256, came.changed FROM instances LEFT JOIN came"
    " ON came.orthanc_id = instances.orthanc_id WHERE instances.orthanc_id = ? AND present = 1"
)


@dataclass(frozen=True)
class Copy:
    """An instance with the SOP Instance UID of the newcomer; its digest is None where it isn't known.

    `came` is the digest of what came, where a rule coerced that.
    """

    orthanc_id: str
    sha256: str | None
    came: str | None = None

    def is_one_of(self, digests: Collection[str]) -> bool:
        return self.sha256 in digests or self.came in digests


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a newcomer besides letting Orthanc take it: nothing (`why` is empty), or to hold it."""

    why: str = ""
    state: str = ""
    reason: str = ""
    other_sha256: str | None = None


def judge(
    newcomer: Header, sha256: str, copies: Sequence[Copy], is_ours: bool, knows_all: bool, came: str | None = None
) -> Verdict:
    """Whether Orthanc may drop the newcomer, and it must be held. `copies` are all that have its SOP Instance UID.

    `is_ours`: we store it ourselves in place of what was there before (correction, restore), and announced it.
    `knows_all`: whatever is in the archive is recorded or was seen coming. `came`: digest of the newcomer before it
    was coerced. The same bytes are the same instance whether they were coerced each time, once, or not at all.
    """
    digests = {one for one in (sha256, came) if one}
    names = (("SOP", newcomer.sop_uid), ("Study", newcomer.study_uid), ("Series", newcomer.series_uid))
    missing = [f"{name} Instance UID" for name, uid in names if not uid]
    if missing:
        return Verdict("no-identity", "waiting", f"it has no {' and no '.join(missing)}: Orthanc refuses it")
    if is_ours:
        return Verdict()
    # Of an identity that Orthanc may read in another way, any copy may be the same instance.
    same = [one for one in copies if one.orthanc_id == newcomer.orthanc_id or not newcomer.is_certain]
    if not same:
        # Under another patient, study or series Orthanc makes a second copy: the recorder tells of it.
        if knows_all:
            return Verdict()
        return Verdict("conflict", "comparing", "it came before all that the archive holds was recorded")
    if all(one.is_one_of(digests) for one in same):
        return Verdict()
    others = [one.sha256 for one in same if one.sha256 and not one.is_one_of(digests)]
    if others:
        return Verdict("conflict", "comparing", "the archive has the same instance with other bytes", others[0])
    return Verdict("conflict", "comparing", "the archive has the same instance, and its bytes' digest isn't known")


class Digest:
    """The SHA-256 of what came, made when it is asked for: a sender waits while Orthanc's threads compute."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self._sha256 = ""

    def sha256(self) -> str:
        """In hex. Two threads may ask at a time; the bytes are let go when it is known."""
        content = self._content
        if content is not None:
            self._sha256 = hashlib.sha256(content).hexdigest()
            self._content = None
        return self._sha256


@dataclass
class _Coming:
    """An instance that came and isn't recorded yet."""

    digest: Digest | None  # None where Orthanc may have stored other bytes
    size: int
    at: float
    is_held: bool  # its bytes are in the hold, whatever Orthanc does with them
    came: Came | None = None  # what it was before it was coerced
    looks: int = 1  # so many came under this identity


class Arrivals:
    """Asked by Orthanc's threads for each instance, and told by the follower what is recorded."""

    def __init__(
        self,
        journal: Journal,
        folder: Path,
        announced: Callable[[], Announced],
        recovering: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
        claims: Claims | None = None,
    ) -> None:
        self._claims = claims
        self._journal = journal
        self._folder = folder
        self._announced = announced
        self._recovering = recovering
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._reader = journal.reader()
        self._knows_all = False
        #: By SOP Instance UID and Orthanc id, in the order in which they came.
        self._coming: dict[tuple[str, str], _Coming] = {}
        self._of_sop: dict[str, set[str]] = {}
        self._bytes: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes_size = 0
        #: What came since `digest_ahead` was called, as far as it matters.
        self._fresh: deque[tuple[str, str]] = deque(maxlen=FRESH)

    def look(
        self, content: bytes, by_dicom: bool, now: datetime, came: Came | None = None, read: Header | None = None
    ) -> bool:
        """Whether Orthanc may take it; False: it must refuse it, for what it might drop could not be held.

        `came` is what it was before it was coerced; `read` its header, where somebody has read that already.
        """
        try:
            return self._look(content, by_dicom, now, came, read or header.read(content))
        except Exception as error:  # edge: whatever is wrong with us or with the bytes, they are kept whole
            reason = str(error) if isinstance(error, HeaderFault) else f"looking at it failed: {type(error).__name__}"
            if not isinstance(error, HeaderFault):
                log.exception("an arrival could not be looked at")
            verdict = Verdict("unreadable", "waiting", reason)
            return self._hold(content, None, verdict, by_dicom, now)

    def _look(self, content: bytes, by_dicom: bool, now: datetime, came: Came | None, newcomer: Header) -> bool:
        digest = Digest(content)
        key = newcomer.sop_uid, newcomer.orthanc_id
        elsewhere, first = None, ""
        if self._claims:
            # Another node may have let it in a moment ago: none of our tables tells of that.
            first = came.sha256 if came else digest.sha256()  # what each sending of it has in common
            elsewhere = self._claims.claim(newcomer.orthanc_id, first, now)
        with self._lock:
            earlier = self._coming.get(key)
            # First what is coming, then what is recorded: in between an instance is in both, never in neither.
            coming = [self._copy(key[0], one) for one in self._of_sop.get(key[0], ())]
            recorded = [Copy(*row) for row in self._reader.execute(_COPIES, (newcomer.sop_uid,))]
            is_recorded = any(one.orthanc_id == newcomer.orthanc_id for one in recorded)
            if elsewhere and not is_recorded and earlier is None:
                coming.append(Copy(newcomer.orthanc_id, elsewhere.sha256, elsewhere.sha256))
            is_ours = self._is_ours(newcomer.sop_uid, digest, by_dicom)
            verdict = Verdict()
            if not self._recovering:  # operations.recovery compares and holds by itself: it knows whose file it was
                # Claims go by identity: of one that Orthanc may read in another way there is none to be found.
                knows_all = self._knows_all and (self._claims is None or newcomer.is_certain)
                copies = coming + recorded
                sha256 = digest.sha256() if copies else ""  # of what nobody else has the UID of, it makes no difference
                verdict = judge(newcomer, sha256, copies, is_ours, knows_all, came.sha256 if came else None)
            rival = self._bytes.get(key)
            if verdict.why != "no-identity" and (is_ours or not is_recorded):
                self._expect(key, digest, content, verdict, came)
        if not verdict.why:
            return True
        held = self._hold(content, newcomer, verdict, by_dicom, now)
        is_other = elsewhere is not None and elsewhere.sha256 != first and not is_recorded and earlier is None
        if held and elsewhere and is_other and _is_in_flight(elsewhere, now):
            return False  # nobody knows which of the two Orthanc stores: the sender sends it again
        sha256 = digest.sha256()
        before = earlier.digest if earlier else None  # another sender may take it away at any time
        if not held or earlier is None or earlier.is_held or (before and before.sha256() == sha256):
            return held
        # Which of the two Orthanc stores first, nobody knows: the earlier one must be safe before the newcomer goes on.
        if rival is None:
            return self._monotonic() - earlier.at > IN_FLIGHT_S
        other = Verdict("conflict", "comparing", "other bytes of the same instance came at the same time", sha256)
        if not self._hold(rival, newcomer, other, by_dicom, now):
            return False
        with self._lock:
            earlier.is_held = True
            self._drop_bytes(key)
        return True

    def _is_ours(self, sop_uid: str, digest: Digest, by_dicom: bool) -> bool:
        because = self._announced().instances.get(sop_uid)
        if by_dicom or because is None or because.cause not in (causes.CORRECTION, causes.RESTORE):
            return False
        # An announcement stays for weeks: it holds for the very bytes that were announced, never for others.
        return because.sha256 == digest.sha256()

    def _copy(self, sop_uid: str, orthanc_id: str) -> Copy:
        coming = self._coming[sop_uid, orthanc_id]
        sha256 = coming.digest.sha256() if coming.digest else None
        return Copy(orthanc_id, sha256, coming.came.sha256 if coming.came else None)

    def holds(self, newcomer: Header, sha256: str) -> bool:
        """Whether the archive has these very bytes under the newcomer's identity."""
        with self._lock:
            recorded = [Copy(*row) for row in self._reader.execute(_COPIES, (newcomer.sop_uid,))]
        return any((one.orthanc_id, one.sha256) == (newcomer.orthanc_id, sha256) for one in recorded)

    def _expect(
        self, key: tuple[str, str], digest: Digest, content: bytes, verdict: Verdict, came: Came | None
    ) -> None:
        """It may be what Orthanc stores under this identity; where another may be, too, the digest isn't known."""
        there = self._coming.get(key)
        if there is None:
            at = self._monotonic()
            known = None if verdict.why else digest
            self._coming[key] = _Coming(known, len(content), at, bool(verdict.why), came if known else None)
            self._of_sop.setdefault(key[0], set()).add(key[1])
            if not verdict.why:
                self._bytes[key] = content
                self._bytes_size += len(content)
                self._fresh.append(key)
        else:
            there.looks += 1
            if there.digest is None or there.digest.sha256() != digest.sha256():
                there.digest = None
                there.came = there.came if came and there.came and there.came.sha256 == came.sha256 else None
        while self._bytes_size > KEPT_BYTES:
            oldest = next(iter(self._bytes))
            if kept := self._coming[oldest].digest:
                kept.sha256()  # it would keep the bytes
            self._drop_bytes(oldest)
        if len(self._coming) > COMING:
            self._forget(next(iter(self._coming)))
            self._knows_all = False

    def _hold(
        self, content: bytes, newcomer: Header | None, verdict: Verdict, by_dicom: bool, now: datetime, sender: str = ""
    ) -> bool:
        """Keep the bytes and record it; whether both are on disk."""
        try:
            sha256 = hold.put(self._folder, content)
            crash.point(PROCESS)
            with self._journal.transaction() as transaction:
                transaction.append("held", now, **_facts(content, sha256, newcomer, verdict, by_dicom, sender))
        except Exception:  # edge: no room, no disk, no journal; Orthanc must not tell the sender Success
            log.exception("what came could not be held: it is refused")
            return False
        return True

    # -- what the gate tells and asks (plugins.admission)

    def turned_away(self, newcomer: Header, content: bytes, now: datetime) -> None:
        """Orthanc won't store what was looked at under this identity: others of it are no rivals of that."""
        key = newcomer.sop_uid, newcomer.orthanc_id
        with self._lock:
            there = self._coming.get(key)
            if there is None:
                return
            there.looks -= 1
            if there.looks:
                return
            self._forget(key)
        if self._claims:
            # As it was claimed: by what each sending of it has in common.
            first = there.came.sha256 if there.came else hashlib.sha256(content).hexdigest()
            self._claims.withdraw(newcomer.orthanc_id, first, now)

    def keep(self, content: bytes, newcomer: Header, reason: str, sender: str, now: datetime) -> bool:
        """Hold what the archive doesn't take as it is; whether its bytes and the entry are on disk."""
        return self._hold(content, newcomer, Verdict("identity", "waiting", reason), True, now, sender)

    def digest_ahead(self) -> None:
        """Make the digests of what came since the last call, in a thread that no sender waits for."""
        with self._lock:
            there = [self._coming[key].digest for key in self._fresh if key in self._coming]
            self._fresh.clear()
        for one in there:
            if one:
                one.sha256()

    # -- what the follower tells and asks

    def digest(self, sop_uid: str, orthanc_id: str, size: int) -> str | None:
        """The digest of the bytes that Orthanc stored, if it is known which they were."""
        with self._lock:
            coming = self._coming.get((sop_uid, orthanc_id))
            digest = coming.digest if coming and coming.size == size else None
        return digest.sha256() if digest else None

    def arrived(self, sop_uid: str, orthanc_id: str, size: int) -> tuple[str | None, Came | None]:
        """SHA-256 of what Orthanc was given to store (None: nobody saw it), and what came where that was coerced."""
        with self._lock:
            recorded = self._reader.execute(_ARRIVED, (orthanc_id,)).fetchone()
            coming = self._coming.get((sop_uid, orthanc_id))
            digest, was = (coming.digest, coming.came) if coming and coming.size == size else (None, None)
        if recorded:
            sha256, came, changed = recorded
            return sha256, Came(came, (), tuple(changed.split()) if changed is not None else None) if came else None
        return digest.sha256() if digest else None, was

    def came(self, sop_uid: str, orthanc_id: str, size: int) -> Came | None:
        """What Orthanc's copy was before it was coerced, if it was and that is known."""
        with self._lock:
            coming = self._coming.get((sop_uid, orthanc_id))
            return coming.came if coming and coming.size == size else None

    def recorded(self, instances: Iterable[Instance]) -> None:
        """These are committed to the journal."""
        with self._lock:
            for one in instances:
                self._forget((one.sop_uid, one.orthanc_id))

    def settled(self, keys: Iterable[tuple[str, str]]) -> None:
        """These (SOP UID, Orthanc id) were recorded by another node, and are in our tables."""
        with self._lock:
            for key in keys:
                self._forget(key)

    def caught_up(self, all_nodes: bool = True) -> None:
        """Everything that the archive held a moment ago is recorded; whether by all its nodes."""
        if self._claims and all_nodes:
            self._claims.forget_old()
        with self._lock:
            self._knows_all = True
            settled = self._monotonic() - SETTLED_S
            while self._coming and next(iter(self._coming.values())).at < settled:
                self._forget(next(iter(self._coming)))

    def _forget(self, key: tuple[str, str]) -> None:
        if self._coming.pop(key, None) is None:
            return
        self._drop_bytes(key)
        others = self._of_sop[key[0]]
        others.discard(key[1])
        if not others:
            del self._of_sop[key[0]]

    def _drop_bytes(self, key: tuple[str, str]) -> None:
        content = self._bytes.pop(key, None)
        if content is not None:
            self._bytes_size -= len(content)


def _is_in_flight(claim: Claim, now: datetime) -> bool:
    """Whether what the other node let in may not be stored yet; the nodes' clocks are those of their hosts."""
    return abs(now.timestamp() - claim.at) <= IN_FLIGHT_S


def _facts(
    content: bytes, sha256: str, newcomer: Header | None, verdict: Verdict, by_dicom: bool, sender: str = ""
) -> dict[str, Any]:
    """Facts of the `held` entry. The same bytes that come again have the same reference."""
    way = "DICOM" if by_dicom else "HTTP"
    told: dict[str, Any] = {
        "sha256": sha256, "size": len(content), "why": verdict.why, "state": verdict.state, "reason": verdict.reason,
        "other_sha256": verdict.other_sha256, "reference": "arrival", "sender": f"{sender} by {way}" if sender else way,
    }  # fmt: skip
    if newcomer is None:
        return told
    if newcomer.sender and not sender:
        told["sender"] = f"{newcomer.sender} by {way}"
    told |= {
        "sop_uid": newcomer.sop_uid[:64] or None, "series_uid": newcomer.series_uid[:64] or None,
        "study_uid": newcomer.study_uid[:64] or None, "patient_id": newcomer.patient_id[:64],
    }  # fmt: skip
    if verdict.why == "conflict":
        told |= {"orthanc_id": newcomer.orthanc_id, "reference": f"instance {newcomer.orthanc_id}"}
    return told
