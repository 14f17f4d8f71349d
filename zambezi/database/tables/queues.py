"""Messages and deliveries; what waits for a person, and who was told; paused neighbours."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Leased, Moment, Uid


class Message(Base):
    """An HL7 message that was received: the raw bytes are here before the sender gets its ACK."""

    __tablename__ = "message"
    __table_args__ = (UniqueConstraint("peer", "control_id", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    peer: Mapped[str] = mapped_column(String(64))
    control_id: Mapped[str] = mapped_column(String(200))
    digest: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(40))  # such as ADT^A04
    raw: Mapped[bytes] = mapped_column(LargeBinary)
    encoding: Mapped[str] = mapped_column(String(40), default="")
    #: applied, rejected (AE/AR, with the reason), waiting (a person must look)
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text, default="")
    ack: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[str] = mapped_column(Moment, index=True)


class Delivery(Leased, Base):
    """One route that must be carried out: instances to an archive, or a message to a peer.

    `id` derives from what caused it (for a journal entry: journal, seq, rule, destination), so reading
    twice can't double it.
    """

    __tablename__ = "delivery"
    __table_args__ = (Index("ix_delivery_due", "kind", "state", "next_at"),)
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8))  # dicom, hl7, fetch (gateway.fetching)
    rule: Mapped[str] = mapped_column(String(64))
    destination: Mapped[str] = mapped_column(String(64), index=True)
    because: Mapped[str] = mapped_column(Text)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"))
    #: [[orthanc_id, series_uid, sop_uid], ...] of a DICOM delivery
    instances: Mapped[list[list[str]]] = mapped_column(JSON, default=list)
    #: the HL7 message, as it goes out; of a fetch, whose earlier studies (JSON)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: due, sending, delivered, retrying, parked, cancelled
    state: Mapped[str] = mapped_column(String(16), default="due")
    #: the higher goes first, whatever has waited longer: the rule's, or the order's (plugins.routing)
    priority: Mapped[int] = mapped_column(default=0)
    #: SOP Instance UIDs that the receiver has acknowledged so far
    acknowledged: Mapped[list[str]] = mapped_column(JSON, default=list)
    #: committed, found, acknowledged: the destination's level of proof, reached when delivered
    proof: Mapped[str] = mapped_column(String(16), default="")
    outcome: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class ExceptionItem(Base):
    """Something that waits for a person: nothing that can't be handled disappears (DESIGN rule 4)."""

    __tablename__ = "exception_item"
    __table_args__ = (
        UniqueConstraint("room", "reference"),
        Index("ix_exception_item_waiting", "decided_at", "since", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    #: archive, hl7, mpps, delivery, migration, hold, correction, deletion, keys, disk, audit
    room: Mapped[str] = mapped_column(String(40))
    reference: Mapped[str] = mapped_column(String(200))  # what it is about, unique in its room
    #: in a machine's word what sort of thing it is (parked, conflict, no-order ...): bulk rules select by it
    kind: Mapped[str] = mapped_column(String(40), default="", index=True)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    #: what a person can do about it: [{"label": ..., "href": ..., "method": "get" or "post"}], pages of ours
    actions: Mapped[list[dict[str, str]]] = mapped_column(JSON, default=list)
    #: what the kind's words speak of (zambezi.exception_kinds): source, rule, attempts, reason ...
    facts: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    what: Mapped[str] = mapped_column(Text)  # in plain English, no patient name: where a kind has no words of its own
    suggestion: Mapped[str] = mapped_column(Text, default="")
    since: Mapped[str] = mapped_column(Moment)
    decided_at: Mapped[str | None] = mapped_column(Moment)
    decided_by: Mapped[str | None] = mapped_column(String(80))
    decision: Mapped[str | None] = mapped_column(Text)
    rule_id: Mapped[int | None] = mapped_column(ForeignKey("exception_rule.id"))  # the rule that decided it
    alerted_at: Mapped[str | None] = mapped_column(Moment)  # when the alert channel told of it last


class ExceptionRule(Base):
    """A person's decision about exceptions to come, carried out by the process operations until it ends."""

    __tablename__ = "exception_rule"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    kind: Mapped[str] = mapped_column(String(40))  # one of zambezi.exception_kinds.RULED
    room: Mapped[str] = mapped_column(String(40), default="")  # "" for every room
    source: Mapped[str] = mapped_column(String(200), default="")  # the item's fact `source`; "" for every source
    older_days: Mapped[int] = mapped_column(default=0)
    decision: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    daily_limit: Mapped[int]
    made_by: Mapped[str] = mapped_column(String(80))
    made_at: Mapped[str] = mapped_column(Moment)
    expires_at: Mapped[str] = mapped_column(Moment)
    ended_at: Mapped[str | None] = mapped_column(Moment)  # switched off by a person
    ended_by: Mapped[str | None] = mapped_column(String(80))
    day: Mapped[str] = mapped_column(String(10), default="")  # the site's day that decided_on_day counts
    decided_on_day: Mapped[int] = mapped_column(default=0)
    decided_total: Mapped[int] = mapped_column(default=0)


class AlertChannel(Base):
    """One way by which persons are told (webhook, mail): when it told last, and what is in its way."""

    __tablename__ = "alert_channel"
    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    sent_at: Mapped[str | None] = mapped_column(Moment)
    digest_day: Mapped[str] = mapped_column(String(10), default="")  # the site's day of the last digest
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    next_at: Mapped[str | None] = mapped_column(Moment)  # after a failure: not before
    error: Mapped[str] = mapped_column(Text, default="")
    error_since: Mapped[str | None] = mapped_column(Moment)


class AlertTold(Base):
    """What a channel has told of (operations.alerts.Concern.key) and goes on; the row goes when that is over."""

    __tablename__ = "alert_told"
    channel: Mapped[str] = mapped_column(String(16), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    told_at: Mapped[str] = mapped_column(Moment)


class Breaker(Base):
    """The circuit breaker of one neighbour (zambezi.breakers): every worker sees that it is open."""

    __tablename__ = "breaker"
    name: Mapped[str] = mapped_column(String(80), primary_key=True)  # such as dicom:ARCHIVE, hl7:HIS, source:LEGACY
    state: Mapped[str] = mapped_column(String(16), default="closed")  # closed, open, half-open
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    opened: Mapped[int] = mapped_column(default=0)  # so often in a row without a success: the pause grows
    probe: Mapped[int] = mapped_column(default=0)  # number of the last probe: an older one decides nothing
    #: open: from when on one attempt may try whether it is well again; half-open: when that attempt counts as dead
    probe_at: Mapped[str | None] = mapped_column(Moment)
    reason: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[str] = mapped_column(Moment)
