"""What happens to a message that came in: peer, repeat, effects, acknowledgement, in one transaction.

The raw bytes, what they changed and the ACK are committed together before the ACK is sent. When the
database is away there is no ACK at all: the sender keeps the message and sends it again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.config.settings import Hl7Peer, Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import Message
from zambezi.hl7.ack import Trouble, acknowledge
from zambezi.hl7.apply import NotForUs, carry_out
from zambezi.hl7.orders import CannotApply
from zambezi.hl7.read import Reading, Unreadable, read

log = logging.getLogger("zambezi.hl7.in")

WRITER = "gateway"


class Stranger(Exception):
    """The sender is none of the peers: close the connection; the text says why, for log and audit trail."""


class NoAnswer(Exception):
    """Nothing was committed, so nothing may be acknowledged: close the connection, the sender tries again."""


@dataclass(frozen=True)
class Verdict:
    """What became of a message: the row's state, the ACK's code, and why."""

    state: str
    code: str
    trouble: Trouble | None = None


class Inbox:
    """Receives messages for one installation; used by several threads."""

    def __init__(self, sessions: Sessions, settings: Zambezi, now: Callable[[], datetime] = clock.now) -> None:
        self._sessions = sessions
        self._settings = settings
        self._now = now

    def knows(self, address: str) -> bool:
        """Whether any peer may connect from this address."""
        return any(address in peer.addresses for peer in self._settings.hl7.peers.values())

    def receive(self, raw: bytes, address: str) -> bytes:
        """Commit a message and give its acknowledgement back; raises Stranger or NoAnswer."""
        try:
            reading = read(raw)
        except Unreadable as error:
            raise Stranger(f"a block of {len(raw)} bytes that is no HL7 message: {error}") from None
        name, peer = self._peer(reading, address)
        for last in (False, True):
            try:
                with self._sessions.begin() as session:
                    return self._committed(session, raw, reading, name, peer)
            except IntegrityError as error:
                # Two workers with the same message, or the same new patient: the second look finds the first's.
                if last:
                    raise NoAnswer(f"the database refuses it: {type(error.orig).__name__}") from error
            except DBAPIError as error:
                raise NoAnswer(f"the database is away: {type(error.orig).__name__}") from error
        raise AssertionError("the second attempt returns or raises")

    def _peer(self, reading: Reading, address: str) -> tuple[str, Hl7Peer]:
        application, facility = reading.get("MSH-3"), reading.get("MSH-4")
        for name, peer in self._settings.hl7.peers.items():
            fits = peer.application == application and peer.facility in ("", facility)
            if fits and address in peer.addresses:
                return name, peer
        raise Stranger(f"no peer {application[:40]!r} / {facility[:40]!r} (MSH-3, MSH-4) may send from there")

    def _committed(self, session: Session, raw: bytes, reading: Reading, name: str, peer: Hl7Peer) -> bytes:
        digest = hashlib.sha256(raw).hexdigest()
        control = reading.control_id[:200]
        before = session.scalars(select(Message).where(Message.peer == name, Message.control_id == control)).all()
        for one in before:
            if one.digest == digest:
                log.info("%s: message %s came again; its stored answer is sent again", name, one.id)
                return one.ack
        if before and control:
            log.warning("%s: control id %s is used again for another message; it is carried out", name, control[:40])
        now = self._now()
        verdict = self._verdict(session, reading, name, peer, now)
        trouble = verdict.trouble
        number = hashlib.sha256(f"{name}/{control}/{digest}".encode()).hexdigest()[:20]
        row = Message(
            peer=name, control_id=control, digest=digest, kind=reading.kind[:40], raw=raw, encoding=_encoding(reading),
            state=verdict.state, reason=trouble.text if trouble else "", received_at=clock.text(now),
            ack=acknowledge(reading, now, number, verdict.code, trouble),
        )  # fmt: skip
        session.add(row)
        session.flush()
        why = {"reason": trouble.text} if trouble else {}
        audit.append(
            session, WRITER, "message-received", now,
            peer=name, message=row.id, kind=row.kind, control_id=control, digest=digest, state=row.state, **why,
        )  # fmt: skip
        if verdict.state == "waiting" and trouble:
            exceptions.wait(
                session, "hl7", f"message {row.id}", now=now, kind="message-refused",
                facts={"source": name, "message": row.kind, "number": row.id, "reason": trouble.text},
                what=f"{row.kind} from {name} could not be carried out: {trouble.text}",
                suggestion=f"The sender was told (AE). Put right what it names, then: zambezi message retry {row.id}",
            )  # fmt: skip
        log.info("%s: %s, message %s: %s", name, row.kind, row.id, verdict.code)
        return row.ack

    def _verdict(self, session: Session, reading: Reading, name: str, peer: Hl7Peer, now: datetime) -> Verdict:
        try:
            with session.begin_nested():
                carry_out(session, reading, name, peer, self._settings.site, now=now, writer=WRITER)
        except NotForUs as error:
            return Verdict("rejected", "AR", error.trouble)
        except CannotApply as error:
            return Verdict("waiting", "AE", error.trouble)
        except (IntegrityError, OperationalError, InterfaceError):
            raise
        except Exception as error:  # edge of the request: a message that brings us down is kept for a person
            log.exception("%s: a message could not be carried out", name)
            return Verdict("waiting", "AE", Trouble("207", f"it could not be carried out ({type(error).__name__})"))
        return Verdict("applied", "AA")


def try_again(session: Session, message: Message, settings: Zambezi, *, now: datetime, writer: str, who: str) -> str:
    """A person says: carry out a waiting message now. "" if it worked, else why it still can't be done."""
    peer = settings.hl7.peers.get(message.peer)
    if message.state != "waiting" or peer is None:
        return f"message {message.id} is {message.state}" if peer else f"there is no peer {message.peer} any more"
    try:
        with session.begin_nested():
            carry_out(session, read(message.raw), message.peer, peer, settings.site, now=now, writer=writer)
    except (NotForUs, CannotApply) as error:
        message.reason = str(error)
        return str(error)
    message.state, message.reason = "applied", f"carried out by {who}"
    exceptions.decide(session, "hl7", f"message {message.id}", now=now, who=who, decision="carried out", writer=writer)
    audit.append(
        session, writer, "message-received", now, peer=message.peer, message=message.id, state="applied", who=who
    )
    return ""


def _encoding(reading: Reading) -> str:
    return f"{reading.encoding} (guessed)" if reading.guessed else reading.encoding
