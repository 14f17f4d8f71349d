"""The outbox: deliveries that are due, and who carries which one out at the moment.

A delivery is written in the transaction of what causes it and performed later, by a worker that claims it
with a lease and a fence (zambezi.leases). What a failure means is decided by its class (zambezi.retries).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, aliased

from zambezi import audit, breakers, causes, clock, exceptions, leases, retries, studies, telling, triggers
from zambezi.config.settings import Zambezi
from zambezi.database.tables import CommitmentAsked, Delivery, ExceptionItem, Order, Report
from zambezi.leases import Lease
from zambezi.retries import Decision, ErrorClass, Policy

#: States in which nobody works on a delivery and nothing more will happen by itself.
AT_REST = ("delivered", "parked", "cancelled")


def delivery_id(*cause: object) -> str:
    """The id of the delivery that `cause` (such as journal, seq, rule, destination) gives; always the same."""
    return hashlib.sha256("/".join(map(str, cause)).encode()).hexdigest()[:32]


def control_id(delivery: str) -> str:
    """MSH-10 of a delivery's message: a repeat on the wire carries the same one (ST of at most 20)."""
    return delivery[:20]


def add(
    session: Session, *, id: str, kind: str, rule: str, destination: str, because: str, now: datetime, writer: str,
    study_uid: str | None = None, order_id: int | None = None, instances: list[list[str]] | None = None,
    body: bytes | None = None, priority: int = 0,
) -> bool:  # fmt: skip
    """Put a delivery into the outbox, due at once; False if it has been there (the same cause, read twice)."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    at = clock.text(now)
    row = insert(Delivery).values(
        id=id, kind=kind, rule=rule, destination=destination, because=because, study_uid=study_uid, order_id=order_id,
        instances=instances or [], body=body, state="due", next_at=at, created_at=at, updated_at=at,
        priority=priority,
    )  # fmt: skip
    added = session.execute(row.on_conflict_do_nothing().returning(Delivery.id)).first() is not None
    if added:
        _audit(session, id, destination, study_uid, now, writer, state="due", rule=rule)
    return added


def look(kind: str, destination: str, early: bool = False) -> leases.Look:
    """Whether `claim` may find a delivery of this kind to this destination; `early`: or one that isn't due yet."""
    wanted = (Delivery.kind == kind, Delivery.destination == destination)
    return leases.Look(Delivery, ready=("due", "retrying"), working="sending", where=wanted, early=early)


def claim(
    session: Session, kind: str, *, now: datetime, owner: str, lease: timedelta, writer: str, destination: str = ""
) -> tuple[Delivery, Lease] | None:
    """Claim the delivery of the highest priority, of those the one that has waited longest.

    Claimable is what is due, retrying and its time has come, or sending with a dead lease.

    With a `destination`, a message waits for earlier ones about the same study: a correction never overtakes what
    it corrects, while other patients' messages go on. A lease that ran out is said in the audit.
    """
    wanted: list[ColumnElement[bool]] = [Delivery.kind == kind]
    if destination:
        earlier = aliased(Delivery)
        wanted.append(Delivery.destination == destination)
        wanted.append(
            ~exists().where(
                earlier.kind == kind,
                earlier.destination == destination,
                earlier.study_uid == Delivery.study_uid,
                earlier.created_at < Delivery.created_at,
                earlier.state.not_in(AT_REST),
                # ... but what was sent, and only waits for the receiver's commitment, keeps nothing back.
                ~exists().where(CommitmentAsked.delivery_id == earlier.id, CommitmentAsked.closed_at.is_(None)),
            )
        )
    found: tuple[Delivery, Lease] | None = leases.claim(
        session, Delivery, ready=("due", "retrying"), working="sending", now=now, owner=owner, lease=lease,
        where=wanted, order_by=(Delivery.priority.desc(), Delivery.next_at, Delivery.created_at, Delivery.id),
    )  # fmt: skip
    if found is not None and found[1].taken_from:
        row, held = found
        _audit(session, row.id, row.destination, row.study_uid, now, writer, state="sending",
               reason=f"the lease of {held.taken_from} ran out; {owner} goes on")  # fmt: skip
    return found


def delivered(session: Session, held: Lease, *, proof: str, outcome: str, now: datetime, writer: str) -> None:
    """The receiver has it, shown at the level `proof`; leases.Fenced if the delivery isn't ours any more."""
    row = leases.finish(session, held, "delivered", proof=proof, outcome=outcome, updated_at=clock.text(now))
    exceptions.decide(
        session, "delivery", row.id, who="the delivery itself", decision="delivered", now=now, writer=writer
    )
    _audit(session, row.id, row.destination, row.study_uid, now, writer, state="delivered", proof=proof, reason=outcome)


def failed(
    session: Session, held: Lease, *, kind: ErrorClass, outcome: str, policy: Policy, draw: float, now: datetime,
    writer: str, is_probe: bool = False,
) -> Decision:  # fmt: skip
    """The attempt failed by an error of this class: try again later, or leave it to a person (parked).

    What else the decision asks for (pausing the neighbour or the queue) is the caller's. A parked one becomes an
    ExceptionItem. leases.Fenced if it isn't ours any more.
    """
    row = leases.write(session, held, {"outcome": outcome, "updated_at": clock.text(now)})
    decided = retries.decide(kind, row.attempts, policy, draw, is_probe)
    attempts = row.attempts if decided.counts else row.attempts - 1
    row = leases.finish(session, held, decided.state, next_at=clock.text(now + decided.wait), attempts=attempts)
    if decided.state == "parked":
        _park(session, row, kind, outcome, now)
    _audit(session, row.id, row.destination, row.study_uid, now, writer, state=decided.state, attempts=attempts,
           error=kind.value, reason=outcome)  # fmt: skip
    return decided


def let_go(session: Session, held: Lease, *, now: datetime) -> None:
    """Give an unfinished delivery back, as when the process stops: it is due at once and no attempt is counted."""
    at = clock.text(now)
    leases.finish(session, held, "due", attempts=Delivery.attempts - 1, next_at=at, updated_at=at)


def wait(session: Session, held: Lease, *, until: datetime, outcome: str, now: datetime) -> None:
    """Everything was done for now, and the receiver's word is waited for: no attempt is counted."""
    leases.finish(
        session, held, "due", attempts=Delivery.attempts - 1, next_at=clock.text(until), outcome=outcome,
        updated_at=clock.text(now),
    )  # fmt: skip


def due_now(session: Session, id: str, *, now: datetime) -> None:
    """What it waits for has come."""
    session.execute(update(Delivery).where(Delivery.id == id, Delivery.state == "due").values(next_at=clock.text(now)))


def awaited(session: Session, ids: Sequence[str]) -> set[str]:
    """Those of these deliveries whose receiver was asked for its commitment and has yet to answer."""
    open_ones = select(CommitmentAsked.delivery_id).where(
        CommitmentAsked.delivery_id.in_(ids), CommitmentAsked.closed_at.is_(None)
    )
    return set(session.scalars(open_ones)) if ids else set()


def goes_first(session: Session, row: Delivery, *, now: datetime) -> bool:
    """Whether a delivery of higher priority is due for the same destination, and doesn't have to wait for this one."""
    query = select(Delivery.id).where(
        Delivery.kind == row.kind, Delivery.destination == row.destination, Delivery.study_uid != row.study_uid,
        Delivery.state.in_(("due", "retrying")), Delivery.priority > row.priority, Delivery.next_at <= clock.text(now),
    )  # fmt: skip
    return session.scalars(query.limit(1)).first() is not None


def release_predecessors(session: Session, place: str, run: str, *, now: datetime) -> int:
    """End the leases that earlier workers of this place left when they died: nobody has to wait for them; how many.

    `place` is where only one worker process can live at a time (owners are PLACE/RUN/...), `run` the one that asks.
    Were an earlier one alive after all, its fence is gone and it can finish nothing.
    """
    ours = Delivery.lease_owner.startswith(f"{place}/", autoescape=True)
    living = Delivery.lease_owner.startswith(f"{place}/{run}/", autoescape=True)
    values = {"state": "due", "fence": Delivery.fence + 1, "lease_owner": None, "lease_until": None}
    found = session.execute(
        update(Delivery)
        .where(Delivery.state == "sending", ours, ~living)
        .values(**values, updated_at=clock.text(now))
        .returning(Delivery.id)
    ).all()
    return len(found)


def retry(session: Session, id: str, *, now: datetime, writer: str, who: str) -> bool:
    """A person says: try again now, with all attempts anew. False if it is being sent, delivered or unknown.

    Where the destination is paused, that is its next probe: if it is well, everything that waits goes.
    """
    return _decide(session, id, ("parked", "retrying", "cancelled", "due"), "due", now, writer, who)


def cancel(session: Session, id: str, *, now: datetime, writer: str, who: str) -> bool:
    """A person says: not any more. False if it is delivered, cancelled or unknown."""
    return _decide(session, id, ("due", "retrying", "parked", "sending"), "cancelled", now, writer, who)


def resend(session: Session, id: str, *, now: datetime, writer: str, who: str) -> bool:
    """A person says: send it once more, though it was delivered. False if it is being sent or unknown."""
    return _decide(session, id, ("delivered", "parked", "retrying", "cancelled", "due"), "due", now, writer, who)


def resume(session: Session, name: str, *, now: datetime, writer: str, who: str) -> tuple[list[str], int]:
    """A person says: `name` is well again. Its breakers close; what its configuration had parked is due again.

    `name` is a destination or peer, or a breaker's whole name. The breakers that were closed, and how many deliveries.
    """
    closed = breakers.resume(session, name, now=now, writer=writer, who=who)
    parked = session.scalars(
        select(Delivery.id)
        .join(ExceptionItem, and_(ExceptionItem.room == "delivery", ExceptionItem.reference == Delivery.id))
        .where(
            Delivery.state == "parked", Delivery.destination == (name.partition(":")[2] or name),
            ExceptionItem.facts["error"].as_string() == ErrorClass.CONFIGURATION.value,
            ExceptionItem.decided_at.is_(None),
        )
    ).all()  # fmt: skip
    return closed, sum(retry(session, id, now=now, writer=writer, who=who) for id in parked)


def report_signed(session: Session, report: Report, now: datetime, settings: Zambezi, writer: str = "ris") -> list[str]:
    """Put the messages of a report that is being signed into the outbox, for each trigger On report-signed.

    Call it in the transaction that signs, when text, signer, version and PDF are in the row. Where the report
    belongs to an order, every such trigger acts, for somebody asked for it; without one, those do
    whose Causes name the study's cause. The ids of the deliveries made.
    """
    order = session.get(Order, report.order_id) if report.order_id else None
    study = studies.of_report(session, report)
    if study is None and order is None:
        return []
    words = f"version {report.version} of the report was signed"
    cause = "" if order else study.cause if study else causes.MODALITY
    happened = triggers.Happened("report-signed", words, cause, telling.modalities(study, order))
    event = telling.Event("report-signed", now, report=report)
    made = []
    for one in triggers.decide([happened], settings.hl7.triggers):
        name, peer = one.rule.name, one.rule.send_to
        id = delivery_id("report", report.study_uid, report.version, name, peer)
        body = telling.body(settings, one.rule, control_id(id), study, order, event, now)
        if add(
            session, id=id, kind="hl7", rule=name, destination=peer, because=one.because, now=now,
            writer=writer, study_uid=report.study_uid, order_id=report.order_id, body=body,
        ):  # fmt: skip
            made.append(id)
    return made


def _decide(
    session: Session, id: str, states: tuple[str, ...], state: str, now: datetime, writer: str, who: str
) -> bool:
    at = clock.text(now)
    known = session.get(Delivery, id)
    if known is not None and state == "due":
        breakers.ask_now(session, f"{known.kind}:{known.destination}", now=now)
    values: dict[str, Any] = {"state": state, "fence": Delivery.fence + 1, "lease_owner": None, "lease_until": None}
    values |= {"attempts": 0, "next_at": at} if state == "due" else {}
    values |= {"acknowledged": []} if "delivered" in states else {}
    found = session.execute(
        update(Delivery)
        .where(Delivery.id == id, Delivery.state.in_(states))
        .values(**values, updated_at=at)
        .returning(Delivery.id)
    ).first()
    if found is None:
        return False
    # Who tries it again wants the receiver to be asked again, too; what was sent stays sent.
    session.execute(
        update(CommitmentAsked)
        .where(CommitmentAsked.delivery_id == id, CommitmentAsked.closed_at.is_(None))
        .values(closed_at=at)
    )
    row = session.get_one(Delivery, id, populate_existing=True)
    decision = "try again" if state == "due" else state
    exceptions.decide(session, "delivery", id, who=who, decision=decision, now=now, writer=writer)
    _audit(session, id, row.destination, row.study_uid, now, writer, state=state, who=who)
    return True


def actions(id: str) -> list[dict[str, str]]:
    """What a person can do about a delivery that stands still."""
    return [
        {"label": "Try again now", "href": f"/deliveries/{id}/retry", "method": "post"},
        {"label": "Cancel", "href": f"/deliveries/{id}/cancel", "method": "post"},
    ]


def _park(session: Session, row: Delivery, kind: ErrorClass, outcome: str, now: datetime) -> None:
    helps = {
        ErrorClass.CONFIGURATION: "Put the configuration of one of the two sides right",
        ErrorClass.CONFLICT: "Decide which of the two is right",
        ErrorClass.OBJECT: f"Find out why {row.destination} doesn't take it",
    }.get(kind, f"When {row.destination} is well again")
    named, said = ("fetch-parked", "fetching from") if row.kind == "fetch" else ("delivery-parked", "delivery to")
    exceptions.wait(
        session, "delivery", row.id, now=now, kind=named, study_uid=row.study_uid, actions=actions(row.id),
        facts={
            "source": row.destination, "rule": row.rule, "attempts": row.attempts, "reason": outcome,
            "error": kind.value,
        },
        what=f"{said} {row.destination} (rule {row.rule}) failed {row.attempts} times: {outcome}",
        suggestion=f"{helps}; then: zambezi route retry {row.id}",
    )  # fmt: skip


def _audit(
    session: Session, id: str, destination: str, study_uid: str | None, now: datetime, writer: str, **facts: Any
) -> None:
    about = {"study_uid": study_uid} if study_uid else {}
    audit.append(session, writer, "delivery-changed", now, delivery=id, destination=destination, **about, **facts)


def database_trouble(error: DBAPIError) -> str:
    """Why nothing can be claimed or recorded, as a sentence."""
    if retries.of_database(str(error.orig)) is ErrorClass.DISK:
        return "the database's disk is full or failing: nothing goes on until there is room"
    return f"the database is away ({type(error.orig).__name__})"


def depths(session: Session) -> dict[str, int]:
    """How many deliveries are in which state, for the heartbeat and the health page."""
    rows = session.execute(select(Delivery.state, func.count()).group_by(Delivery.state)).all()
    return {str(row[0]): int(row[1]) for row in rows}
