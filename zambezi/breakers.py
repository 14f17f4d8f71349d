"""Circuit breakers: a neighbour that is away is left alone, for longer and longer, and asked by one worker at a time.

Without one, a night's backlog is tried against a dead receiver again and again, each delivery uses up its
attempts, and the receiver gets all of it at once when it comes up. Every worker of every process sees the same
row, on both database engines.

    closed --N failures in a row, or one of configuration or disk--> open
    open --the pause is over: one worker's compare-and-swap--> half-open --success--> closed
                                                                 |--failure--> open, for a longer pause

Names: dicom:NAME and hl7:NAME (destinations and peers), source:NAME (migration), queue:KIND (a disk of ours).
What a person decides (`resume`) and what happens by itself is in the audit chain of whoever writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.database.tables import Breaker
from zambezi.retries import ErrorClass, Policy

ROOM = "neighbour"
#: The database's own retry while a disk is full: nothing of that queue goes meanwhile.
DISK = Policy(first=timedelta(seconds=30), cap=timedelta(minutes=5))


@dataclass(frozen=True)
class Circuit:
    """A breaker's row as a value."""

    state: Literal["closed", "open", "half-open"] = "closed"
    failures: int = 0  # in a row, while closed
    opened: int = 0  # times in a row without a success
    probe: int = 0  # number of the last probe: an older one decides nothing
    probe_at: datetime | None = None  # open: when the next probe may begin; half-open: when this one counts as dead
    reason: str = ""

    @property
    def is_closed(self) -> bool:
        return self.state == "closed"


@dataclass(frozen=True)
class Rule:
    """When a breaker opens (after so many failures in a row) and how long it stays so (the policy's growing waits)."""

    after: int
    pause: Policy


def may_enter(circuit: Circuit, now: datetime) -> Literal["go", "probe", "wait"]:
    """Whether work may begin: freely, as the one probe, or not yet."""
    if circuit.is_closed:
        return "go"
    return "probe" if circuit.probe_at is None or circuit.probe_at <= now else "wait"


def probing(circuit: Circuit, now: datetime, lasting: timedelta) -> Circuit:
    """The breaker with a new probe under way; if it says nothing for `lasting`, another one may begin."""
    return replace(circuit, state="half-open", probe=circuit.probe + 1, probe_at=now + lasting)


def failed(
    circuit: Circuit, kind: ErrorClass, reason: str, now: datetime, rule: Rule, draw: float, probe: int | None = None
) -> Circuit:
    """What a failure of the neighbour means; `probe` is the number of the probe that met it, None for other work.

    While it is open only the running probe's word counts: what had begun before is the same outage.
    """
    if circuit.is_closed:
        failures = circuit.failures + 1
        if kind not in (ErrorClass.CONFIGURATION, ErrorClass.DISK) and failures < rule.after:
            return replace(circuit, failures=failures, reason=reason)
        circuit = replace(circuit, failures=failures)
    elif circuit.state == "open" or probe != circuit.probe:
        return circuit
    opened = circuit.opened + 1
    return replace(
        circuit, state="open", opened=opened, probe_at=now + rule.pause.wait(opened, draw), reason=reason
    )  # fmt: skip


def withdrawn(circuit: Circuit, now: datetime, probe: int) -> Circuit:
    """The probe ended without having asked the neighbour: the next one may begin at once."""
    if circuit.state != "half-open" or circuit.probe != probe:
        return circuit
    return replace(circuit, state="open", probe_at=now)


# --- the row ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pass:
    """The right to begin work with a neighbour; `probes` has the breakers for which it is the one probe."""

    names: tuple[str, ...]
    probes: dict[str, int] = field(default_factory=dict)


def enter(session: Session, names: Sequence[str], *, now: datetime, lasting: timedelta) -> Pass | None:
    """A pass if every one of these breakers lets work begin; None (and nothing taken) if one doesn't.

    A probe lasts `lasting` unless it is held (`hold`). Where there is nothing to do after all, roll back: the probe
    isn't taken then.
    """
    found = {row.name: row for row in session.scalars(select(Breaker).where(Breaker.name.in_(names)))}
    ways = {name: may_enter(_circuit(row), now) for name, row in found.items()}
    if "wait" in ways.values():
        return None
    probes = {}
    for name in sorted(name for name, way in ways.items() if way == "probe"):
        row = found[name]
        seen = (Breaker.name == name, Breaker.state == row.state, Breaker.probe == row.probe,
                Breaker.probe_at.is_not_distinct_from(row.probe_at))  # fmt: skip
        circuit = probing(_circuit(row), now, lasting)
        # Compare and swap: on PostgreSQL a second worker waits for the first one's row, and then finds another.
        ours = update(Breaker).where(*seen).values(**_columns(circuit, now)).returning(Breaker.name)
        if session.execute(ours).first():
            probes[name] = circuit.probe
        else:
            session.rollback()
            return None
    return Pass(tuple(names), probes)


def hold(session: Session, entry: Pass, *, now: datetime, lasting: timedelta) -> None:
    """The probe is still under way: call it with each heartbeat of long work."""
    for name, probe in entry.probes.items():
        session.execute(
            update(Breaker)
            .where(Breaker.name == name, Breaker.state == "half-open", Breaker.probe == probe)
            .values(probe_at=clock.text(now + lasting))
        )


def give_back(session: Session, entry: Pass, *, now: datetime) -> None:
    """The work ended without having asked the neighbour (the process stops, the archive is away)."""
    for name, probe in entry.probes.items():
        row = _locked(session, name)
        _write(row, withdrawn(_circuit(row), now, probe), now)


def succeeded(session: Session, entry: Pass, *, now: datetime, writer: str) -> None:
    """The neighbour answered: its breakers close, and failures are counted from none again."""
    known = select(Breaker).where(Breaker.name.in_(entry.names)).execution_options(populate_existing=True)
    for row in session.scalars(known.order_by(Breaker.name)).all():
        if _circuit(row) == Circuit(probe=row.probe):
            continue  # nothing to write in the ordinary case
        name = row.name
        was_closed = row.state == "closed"
        row = _locked(session, name)
        _write(row, Circuit(probe=row.probe), now)
        if not was_closed:
            _closed(session, name, now, writer, who="the neighbour itself", decision="it answers again")


def strike(
    session: Session, entry: Pass, name: str, kind: ErrorClass, reason: str, rule: Rule, *, now: datetime, draw: float,
    writer: str,
) -> Circuit:  # fmt: skip
    """A failure of the neighbour `name` (or of a queue's disk): count it, and open the breaker where it is due.

    `reason` is for persons, without a patient's name. The breaker as it is now.
    """
    row = _locked(session, name)
    before = _circuit(row)
    after = failed(before, kind, reason, now, rule, draw, entry.probes.get(name))
    _write(row, after, now)
    if after.state == "open" and before.state != "open":
        until = clock.text(after.probe_at or now)
        audit.append(
            session, writer, "neighbour-changed", now, neighbour=name, state="open", until=until, reason=reason
        )
    if after.state == "open" and before.state == "closed" and kind is not ErrorClass.TRANSIENT:
        exceptions.wait(
            session, ROOM, name, kind=kind.value, now=now, what=f"{name} is paused: {reason}",
            suggestion=f"Put that right, then: zambezi route resume {name}",
        )  # fmt: skip
    return after


def failures(session: Session, name: str) -> int:
    """How often in a row a neighbour that is paused has failed; 0 while it isn't."""
    row = session.get(Breaker, name)
    return row.failures + row.opened - 1 if row is not None and row.state != "closed" else 0


def ask_now(session: Session, name: str, *, now: datetime) -> None:
    """A person wants to see whether it is well: where it is paused, the next probe may begin at once."""
    waits = update(Breaker).where(Breaker.name == name, Breaker.state == "open").values(probe_at=clock.text(now))
    session.execute(waits)


def resume(session: Session, name: str, *, now: datetime, writer: str, who: str) -> list[str]:
    """A person says: go on at once. `name` is a breaker's, or what follows its colon; those that were closed by it."""
    rows = session.scalars(select(Breaker).where(Breaker.state != "closed").with_for_update()).all()
    found = [row for row in rows if name in (row.name, row.name.partition(":")[2])]
    for row in found:
        _write(row, Circuit(probe=row.probe), now)
        _closed(session, row.name, now, writer, who=who, decision="go on")
    return sorted(row.name for row in found)


@dataclass(frozen=True)
class Neighbour:
    """A neighbour as the worker of a queue sees it: its own breaker, and that of the queue's disk.

    Call these before anything that appends to the audit in the same transaction: rows of breakers are locked first,
    then chains, by everybody.
    """

    name: str  # such as dicom:ARCHIVE
    queue: str  # such as queue:dicom
    rule: Rule
    writer: str

    def enter(self, session: Session, now: datetime, lasting: timedelta) -> Pass | None:
        """A pass, or None while the neighbour or the queue is paused."""
        return enter(session, (self.name, self.queue), now=now, lasting=lasting)

    def answered(self, session: Session, entry: Pass, now: datetime) -> None:
        """It did what was asked, or said of one object that it won't: either way it is well."""
        succeeded(session, entry, now=now, writer=self.writer)

    def failed(
        self, session: Session, entry: Pass, kind: ErrorClass, reason: str, now: datetime, draw: float
    ) -> None:  # fmt: skip
        """It failed by an error of this class."""
        if kind in (ErrorClass.OBJECT, ErrorClass.CONFLICT):
            self.answered(session, entry, now)
            return
        name, rule = (self.queue, Rule(1, DISK)) if kind is ErrorClass.DISK else (self.name, self.rule)
        strike(session, entry, name, kind, reason, rule, now=now, draw=draw, writer=self.writer)
        rest = {other: probe for other, probe in entry.probes.items() if other != name}
        give_back(session, replace(entry, probes=rest), now=now)  # of the other one nothing was learnt


@dataclass(frozen=True)
class Paused:
    """A neighbour that is left alone for now."""

    name: str
    until: str  # a moment as zambezi.clock.text writes it
    reason: str
    is_asked: bool  # a probe is under way

    @property
    def words(self) -> str:
        """For a terminal: who, until when, why."""
        if self.is_asked:
            return f"{self.name} is asked whether it is well again, because {self.reason}"
        return f"{self.name} is paused until {self.until[:19]}Z, because {self.reason}"


def paused(session: Session) -> list[Paused]:
    """Every breaker that isn't closed, by name."""
    rows = session.scalars(select(Breaker).where(Breaker.state != "closed").order_by(Breaker.name))
    return [Paused(row.name, row.probe_at or "", row.reason, row.state == "half-open") for row in rows]


def _closed(session: Session, name: str, now: datetime, writer: str, *, who: str, decision: str) -> None:
    exceptions.decide(session, ROOM, name, who=who, decision=decision, now=now)
    audit.append(session, writer, "neighbour-changed", now, neighbour=name, state="closed", who=who, reason=decision)


def _circuit(row: Breaker) -> Circuit:
    state = cast("Literal['closed', 'open', 'half-open']", row.state)
    probe_at = clock.parse(row.probe_at) if row.probe_at else None
    return Circuit(state, row.failures, row.opened, row.probe, probe_at, row.reason)


def _columns(circuit: Circuit, now: datetime) -> dict[str, Any]:
    return {
        "state": circuit.state, "failures": circuit.failures, "opened": circuit.opened, "probe": circuit.probe,
        "probe_at": clock.text(circuit.probe_at) if circuit.probe_at else None, "reason": circuit.reason,
        "updated_at": clock.text(now),
    }  # fmt: skip


def _write(row: Breaker, circuit: Circuit, now: datetime) -> None:
    for column, value in _columns(circuit, now).items():
        setattr(row, column, value)


def _locked(session: Session, name: str) -> Breaker:
    # On SQLite the transaction holds the write lock already (BEGIN IMMEDIATE); PostgreSQL locks the row.
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = insert(Breaker).values(name=name, state="closed", failures=0, opened=0, probe=0, reason="", updated_at="")
    session.execute(row.on_conflict_do_nothing())
    found = select(Breaker).where(Breaker.name == name).with_for_update().execution_options(populate_existing=True)
    return session.scalars(found).one()
