"""HL7 triggers on what the central chains tell of: exams, deliveries of images, rejections.

Every room writes what happens into its chain, in the transaction of what happens. `Watcher` reads the chains behind
its cursors and commits cursor, decision (`hl7-triggered`) and delivery together: after a crash it goes on from there,
and no entry is told of twice. What the archive itself saw (studies that came) its plugin has decided already.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from zambezi import audit, clock, deletions, exceptions, outbox, studies, telling, triggers
from zambezi.config import Configuration
from zambezi.database.engine import Sessions, looking
from zambezi.database.tables import AuditEntry, ChainHead, Deletion, Delivery, Order, Study, TriggerCursor
from zambezi.telling import Event
from zambezi.triggers import Happened

log = logging.getLogger("zambezi.triggers")

WRITER = "gateway"
#: Which entries may set off a trigger On ...; of the others nothing is read.
EVENTS: dict[str, tuple[str, ...]] = {
    "study-delivered": ("delivery-changed",),
    "delivery-parked": ("delivery-changed",),
    "study-rejected": ("deletion-changed",),
    "exam-changed": ("exam-changed", "order-changed"),
}
#: The chains of the archive's nodes.
_ARCHIVE = "orthanc-%"
#: Entries of one chain in one transaction.
BATCH = 100
IDLE_S = 1.0
#: Without a rule for it there is nothing to look for.
NOTHING_S = 3600.0

_HEADS = select(ChainHead.journal, ChainHead.seq).where(ChainHead.journal.not_like(_ARCHIVE))
_CURSORS = select(TriggerCursor.journal, TriggerCursor.seq)


@dataclass(frozen=True)
class About:
    """What an entry tells of: as rules see it, as a message tells of it, and whom it is about."""

    happened: Happened
    event: Event
    study: Study | None
    order: Order | None


class Watcher:
    """Looks at the central chains; used by one thread. Another gateway's watcher waits for the cursors' rows."""

    def __init__(
        self, sessions: Sessions, configuration: Configuration, now: Callable[[], datetime] = clock.now
    ) -> None:
        self._sessions = sessions
        self._settings = configuration.zambezi
        self._configuration = configuration.hash
        self._now = now
        self._last = datetime.min.replace(tzinfo=UTC)
        wanted = {one.on for one in self._settings.hl7.triggers}
        self._events = sorted({event for on in wanted for event in EVENTS.get(on, ())})

    def round(self) -> float:
        """Look at what is new; the seconds to wait before the next time."""
        if self._events and not self._is_behind():
            return IDLE_S
        with self._sessions.begin() as session:
            if not self._events:
                # Rules that come later tell of what happens then, not of the years before.
                session.execute(delete(TriggerCursor))
                return NOTHING_S
            return 0.0 if self._look(session) else IDLE_S

    def _is_behind(self) -> bool:
        """Whether there is anything that isn't read yet, or nothing was ever read."""
        with looking(self._sessions) as connection:
            heads = dict(connection.execute(_HEADS).all())
            read = dict(connection.execute(_CURSORS).all())
        return not read or any(seq > read.get(journal, 0) for journal, seq in heads.items())

    def _look(self, session: Session) -> bool:
        """Whether there is more than one transaction should take."""
        heads = session.execute(_HEADS).all()
        cursors = {one.journal: one for one in session.scalars(select(TriggerCursor).with_for_update())}
        if not cursors:
            session.add(TriggerCursor(journal="", seq=0))
            session.add_all(TriggerCursor(journal=journal, seq=seq) for journal, seq in heads)
            return False
        more = False
        for journal, head in heads:
            cursor = cursors.get(journal) or TriggerCursor(journal=journal, seq=0)
            if cursor.seq < head:
                session.add(cursor)
                reached = self._read(session, journal, cursor.seq, head)
                cursor.seq, more = reached, more or reached < head
        return more

    def _read(self, session: Session, journal: str, since: int, head: int) -> int:
        found = session.execute(
            select(AuditEntry.seq, AuditEntry.payload)
            .where(
                AuditEntry.journal == journal, AuditEntry.seq > since, AuditEntry.seq <= head,
                AuditEntry.event.in_(self._events),
            )
            .order_by(AuditEntry.seq)
            .limit(BATCH)
        ).all()  # fmt: skip
        for seq, payload in found:
            self._try(session, f"{journal}/{seq}", json.loads(payload))
        return found[-1].seq if len(found) == BATCH else head

    def _try(self, session: Session, entry: str, facts: dict[str, Any]) -> None:
        try:
            with session.begin_nested():
                about = look_up(session, facts)
                if about is not None:
                    self._tell(session, entry, about)
        except (OperationalError, InterfaceError, IntegrityError):
            raise
        except Exception as error:  # edge: one odd entry must not stop all triggers
            log.exception("what entry %s sets off could not be carried out", entry)
            journal, _, place = entry.rpartition("/")
            exceptions.wait(
                session, "archive", f"trigger {entry}", now=self._now(), kind="trigger-failed",
                study_uid=facts.get("study_uid"),
                facts={"source": journal, "place": place, "event": facts["event"], "reason": type(error).__name__},
                what=f"no HL7 message could be made of entry {entry} ({facts['event']}): {type(error).__name__}",
                suggestion="Look at the trigger and its template in orthanc-config/; `zambezi hl7 try` shows it.",
            )  # fmt: skip

    def _moment(self) -> datetime:
        """Now, and later than the time before: messages about one exam go out in the order of their moments."""
        self._last = max(self._now(), self._last + timedelta(microseconds=1))
        return self._last

    def _tell(self, session: Session, entry: str, about: About) -> None:
        now, order = self._moment(), about.order
        study_uid = about.study.study_uid if about.study else order.study_uid if order else None
        for one in triggers.decide([about.happened], self._settings.hl7.triggers):
            name, peer = one.rule.name, one.rule.send_to
            id = outbox.delivery_id(entry, name, peer)
            body = telling.body(self._settings, one.rule, outbox.control_id(id), about.study, order, about.event, now)
            audit.append(
                session, WRITER, "hl7-triggered", now, entry=entry, study_uid=study_uid,
                configuration=self._configuration, **one.told,
            )  # fmt: skip
            outbox.add(
                session, id=id, kind="hl7", rule=name, destination=peer, because=one.because, now=now, writer=WRITER,
                study_uid=study_uid, order_id=order.id if order else None, body=body,
            )  # fmt: skip


def look_up(session: Session, facts: dict[str, Any]) -> About | None:
    """What an entry of a central chain tells of; None where no trigger could wait for it."""
    if facts["event"] == "delivery-changed":
        return _delivery(session, facts)
    if facts["event"] == "deletion-changed":
        return _deletion(session, facts)
    return _exam(session, facts)


def study_of(session: Session, study_uid: str | None, order: Order | None) -> Study | None:
    """The study, or the newest of the order."""
    if study_uid:
        return studies.latest(session, study_uid)
    query = select(Study).order_by(Study.last_at.desc()).limit(1)
    return session.scalars(query.where(Study.order_id == order.id)).first() if order else None


def _delivery(session: Session, facts: dict[str, Any]) -> About | None:
    on = {"delivered": "study-delivered", "parked": "delivery-parked"}.get(str(facts.get("state")))
    row = session.get(Delivery, facts["delivery"]) if on else None
    # Of messages nobody is told by a message: that would never end.
    if on is None or row is None or row.kind != "dicom":
        return None
    order = session.get(Order, row.order_id) if row.order_id else None
    study = study_of(session, row.study_uid, order)
    reason = str(facts.get("reason", "")) if on == "delivery-parked" else ""
    said = f"{row.destination} has {len(row.instances)} images ({facts.get('proof', '')})"
    words = f"the delivery to {row.destination} failed: {reason}" if reason else said
    return About(
        Happened(
            on, words, study.cause if study else "", telling.modalities(study, order), destination=row.destination
        ),
        Event(on, clock.parse(facts["at"]), destination=row.destination, reason=reason), study, order,
    )  # fmt: skip


def _deletion(session: Session, facts: dict[str, Any]) -> About | None:
    row = session.get(Deletion, facts["deletion"]) if facts.get("state") == "done" and facts.get("count") else None
    if row is None:
        return None
    study = session.get(Study, (row.study_uid, row.study_orthanc_id))
    order = session.get(Order, study.order_id) if study and study.order_id else None
    reason = f"{deletions.CODES[row.code][1]}: {row.reason}"
    is_whole = row.series_uid is None and row.sop_uid is None
    return About(
        Happened(
            "study-rejected", f"{facts['count']} images were rejected ({row.code})", study.cause if study else "",
            telling.modalities(study, order),
        ),
        Event("study-rejected", clock.parse(facts["at"]), reason=reason, are_gone=is_whole), study, order,
    )  # fmt: skip


def _exam(session: Session, facts: dict[str, Any]) -> About | None:
    state = _state(facts)
    order = session.get(Order, facts["order"]) if state and facts.get("order") else None
    if order is None:
        return None
    study = study_of(session, None, order)
    happened = Happened(
        "exam-changed", f"the exam is {state}", modalities=telling.modalities(study, order), state=state,
        # In the gateway's chain that is a peer; a person of the pages may be called like one.
        said_by=str(facts.get("who", "")) if facts["journal"] == WRITER else "",
    )  # fmt: skip
    event = Event("exam-changed", clock.parse(facts["at"]), state=state, reason=str(facts.get("reason", "")))
    return About(happened, event, study, order)


def _state(facts: dict[str, Any]) -> str:
    """What state an exam has got by this entry; empty where the entry tells of something else."""
    if "before" in facts:
        return str(facts.get("status", ""))
    is_new = facts["event"] == "order-changed" and {"placed", "scheduled_at"} & set(facts.get("changed", ()))
    return "scheduled" if is_new else ""
