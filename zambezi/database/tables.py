"""The central database: every table there is, on SQLite and PostgreSQL alike.

Moments are text as `zambezi.clock.text` writes it (UTC, fixed width: text order is time order, the same on
both engines). JSON columns hold plain lists and objects. What a state may be stands beside its column.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

Moment = String(27)
Uid = String(64)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Leased:
    """Work that one worker at a time carries out (zambezi.leases): who has it, until when, and the claim's fence."""

    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[str] = mapped_column(Moment)
    lease_owner: Mapped[str | None] = mapped_column(String(80))
    lease_until: Mapped[str | None] = mapped_column(Moment)
    fence: Mapped[int] = mapped_column(default=0)


# --- audit and journal ----------------------------------------------------------------------------


class ChainHead(Base):
    """The locked head of each chain: who appends reads and writes this row in the same transaction.

    For a plugin's journal it is the gateway's cursor, too: everything up to `seq` is committed here.
    """

    __tablename__ = "chain_head"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(default=0)
    hash: Mapped[str] = mapped_column(String(64), default="")


class FollowerLease(Leased, Base):
    """Which node of several records what is stored (one row, id 1): `fence` is the epoch, `lease_owner` the node."""

    __tablename__ = "follower_lease"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    state: Mapped[str] = mapped_column(String(16))  # free, following


class NodeJournal(Base):
    """A journal of one of several nodes: how far the node said it goes, and when it last said so."""

    __tablename__ = "node_journal"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    node: Mapped[str] = mapped_column(String(40))
    seq: Mapped[int] = mapped_column(default=0)
    seen_at: Mapped[str] = mapped_column(Moment)


class FencedEntries(Base):
    """Entries of a node that another one had relieved: what they say of stores is told by the other one's."""

    __tablename__ = "fenced_entries"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    last: Mapped[int | None]  # none yet: until the node records again


class AuditEntry(Base):
    """A sealed entry (zambezi.chain); the other columns are copies of its payload's facts, to search by."""

    __tablename__ = "audit_entry"
    journal: Mapped[str] = mapped_column(String(64), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    event: Mapped[str] = mapped_column(String(40), index=True)
    at: Mapped[str] = mapped_column(Moment, index=True)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    sop_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    who: Mapped[str | None] = mapped_column(String(200), index=True)


# --- people -----------------------------------------------------------------------------------------


class User(Base):
    __tablename__ = "app_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(String(80), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    role: Mapped[str] = mapped_column(String(40))
    language: Mapped[str | None] = mapped_column(String(8))
    password_hash: Mapped[str] = mapped_column(Text)
    must_change_password: Mapped[bool] = mapped_column(default=False)
    totp_secret: Mapped[str | None] = mapped_column(String(64))
    totp_last_step: Mapped[int | None]
    failures: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[str | None] = mapped_column(Moment)
    disabled_at: Mapped[str | None] = mapped_column(Moment)
    created_at: Mapped[str] = mapped_column(Moment)


class Revocation(Base):
    """A sign-in (session id of the token) that ended before its token did; pushed to the plugin."""

    __tablename__ = "revocation"
    session: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires: Mapped[int]


# --- patients, orders, exams ------------------------------------------------------------------------


class Patient(Base):
    __tablename__ = "patient"
    __table_args__ = (UniqueConstraint("issuer", "patient_id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(String(64), index=True)
    issuer: Mapped[str] = mapped_column(String(64))
    family_name: Mapped[str] = mapped_column(String(64), index=True)
    given_name: Mapped[str] = mapped_column(String(64), default="")
    birth_date: Mapped[str | None] = mapped_column(String(8))  # YYYYMMDD
    sex: Mapped[str | None] = mapped_column(String(1))  # M F O U
    merged_into: Mapped[int | None]  # id of the patient whose identifier this one has become (HL7 A40)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class Order(Base):
    """An imaging service request with its one requested procedure and scheduled step."""

    __tablename__ = "imaging_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    patient_key: Mapped[int] = mapped_column(ForeignKey("patient.id"))
    patient: Mapped[Patient] = relationship(lazy="joined")
    placer_number: Mapped[str | None] = mapped_column(String(64), index=True)
    filler_number: Mapped[str | None] = mapped_column(String(64))
    accession_number: Mapped[str] = mapped_column(String(16), unique=True)
    study_uid: Mapped[str] = mapped_column(Uid, unique=True)
    procedure_id: Mapped[str] = mapped_column(String(16))
    step_id: Mapped[str] = mapped_column(String(16))
    procedure_code: Mapped[str] = mapped_column(String(64), default="")
    procedure_text: Mapped[str] = mapped_column(String(200), default="")
    modality: Mapped[str] = mapped_column(String(16), default="")
    station_aet: Mapped[str | None] = mapped_column(String(16))
    scheduled_at: Mapped[str] = mapped_column(Moment, index=True)
    priority: Mapped[str] = mapped_column(String(16), default="ROUTINE")  # STAT HIGH ROUTINE
    #: scheduled, arrived, in-progress, completed, discontinued, cancelled
    status: Mapped[str] = mapped_column(String(16), default="scheduled", index=True)
    #: none, draft, final
    report_status: Mapped[str] = mapped_column(String(16), default="none")
    clinical_information: Mapped[str] = mapped_column(Text, default="")
    referring_physician: Mapped[str] = mapped_column(String(200), default="")
    source: Mapped[str] = mapped_column(String(64), default="ris")  # the HL7 peer's name, or ris
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class PerformedStep(Base):
    """An MPPS object (PS3.4 F.7): what a modality says it did."""

    __tablename__ = "performed_step"
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    status: Mapped[str] = mapped_column(String(16))  # IN PROGRESS, COMPLETED, DISCONTINUED
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"))
    station_aet: Mapped[str] = mapped_column(String(16))
    attributes: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class Study(Base):
    """A study in the archive, as the journal told of it."""

    __tablename__ = "study"
    study_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"), index=True)
    cause: Mapped[str] = mapped_column(String(16))  # zambezi.causes
    reference: Mapped[str] = mapped_column(String(200), default="")  # of the cause: order, project, correction ...
    patient_id: Mapped[str] = mapped_column(String(64), default="", index=True)
    patient_name: Mapped[str] = mapped_column(String(200), default="")
    birth_date: Mapped[str] = mapped_column(String(8), default="")
    sex: Mapped[str] = mapped_column(String(16), default="")
    accession_number: Mapped[str] = mapped_column(String(64), default="", index=True)
    study_date: Mapped[str] = mapped_column(String(8), default="")
    study_time: Mapped[str] = mapped_column(String(16), default="")
    description: Mapped[str] = mapped_column(String(200), default="")
    modalities: Mapped[str] = mapped_column(String(100), default="")  # joined by a backslash
    instances: Mapped[int] = mapped_column(default=0)
    first_at: Mapped[str] = mapped_column(Moment)
    last_at: Mapped[str] = mapped_column(Moment, index=True)
    completed_at: Mapped[str | None] = mapped_column(Moment)


class Series(Base):
    __tablename__ = "series"
    series_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    study_uid: Mapped[str] = mapped_column(Uid, index=True)
    modality: Mapped[str] = mapped_column(String(16), default="")
    instances: Mapped[int] = mapped_column(default=0)


class AnnouncedStudy(Base):
    """A Study UID whose images will come by a cause that the sender alone doesn't tell (DESIGN rule 2)."""

    __tablename__ = "announced_study"
    study_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    cause: Mapped[str] = mapped_column(String(16))
    reference: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[str] = mapped_column(Moment)


class AnnouncedInstance(Base):
    """A SOP Instance UID that we are about to store ourselves, with its cause: it holds whoever brings the file in."""

    __tablename__ = "announced_instance"
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    cause: Mapped[str] = mapped_column(String(16))
    reference: Mapped[str] = mapped_column(String(200), default="")
    sha256: Mapped[str] = mapped_column(String(64), default="")  # of the bytes that are to come, where they are known
    created_at: Mapped[str] = mapped_column(Moment)


class Generation(Base):
    """Counts the changes of what is pushed to the plugin whole: `worklist`, `announced`, `revocations`.

    Raised in the same transaction as the change; the plugin ignores an older generation.
    """

    __tablename__ = "generation"
    name: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(default=0)


# --- messages and deliveries ------------------------------------------------------------------------


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
    kind: Mapped[str] = mapped_column(String(8))  # dicom, hl7
    rule: Mapped[str] = mapped_column(String(64))
    destination: Mapped[str] = mapped_column(String(64), index=True)
    because: Mapped[str] = mapped_column(Text)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"))
    #: [[orthanc_id, series_uid, sop_uid], ...] of a DICOM delivery
    instances: Mapped[list[list[str]]] = mapped_column(JSON, default=list)
    #: the HL7 message, as it goes out
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: due, sending, delivered, retrying, parked, cancelled
    state: Mapped[str] = mapped_column(String(16), default="due")
    #: found, acknowledged: the destination's level of proof, reached when delivered
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


# --- the hold, corrections, deletions ----------------------------------------------------------------


class Held(Leased, Base):
    """An object in the hold: the file ZAMBEZI_HOME/hold/<first two>/<sha256>.dcm, and why it lies there."""

    __tablename__ = "held"
    __table_args__ = (UniqueConstraint("sha256", "why", "reference"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(default=0)
    #: conflict, no-identity, unreadable, quarantine, corrected (old copy), deleted
    why: Mapped[str] = mapped_column(String(16), index=True)
    reason: Mapped[str] = mapped_column(Text)  # in words, without a patient's name
    reference: Mapped[str] = mapped_column(String(200))  # what put it there: journal/seq, correction 12, deletion 3 ...
    #: comparing, waiting (for a person), kept (safe copy), same, releasing, released, discard-asked, discarded
    state: Mapped[str] = mapped_column(String(16), default="waiting", index=True)
    sop_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    series_uid: Mapped[str | None] = mapped_column(Uid)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    orthanc_id: Mapped[str | None] = mapped_column(String(44))  # the identity it has, or would have, in the archive
    other_sha256: Mapped[str | None] = mapped_column(String(64))  # of the copy in the archive, where it conflicts
    differs: Mapped[list[str]] = mapped_column(JSON, default=list)  # tags whose content differs, (gggg,eeee)
    sender: Mapped[str] = mapped_column(String(200), default="")
    times: Mapped[int] = mapped_column(default=1)  # the same bytes came so often
    held_at: Mapped[str] = mapped_column(Moment, index=True)
    keep_until: Mapped[str | None] = mapped_column(Moment)  # retention of safe copies; NULL: until a person decides
    checked_at: Mapped[str | None] = mapped_column(Moment)
    is_intact: Mapped[bool] = mapped_column(default=True)
    asked_by: Mapped[str | None] = mapped_column(String(80))  # who asked to discard it; another person confirms
    asked_at: Mapped[str | None] = mapped_column(Moment)
    decided_by: Mapped[str | None] = mapped_column(String(80))
    decided_at: Mapped[str | None] = mapped_column(Moment)
    decision: Mapped[str | None] = mapped_column(Text)
    correction_id: Mapped[int | None] = mapped_column(ForeignKey("correction.id"))  # that puts it in another's place


class Correction(Leased, Base):
    """A change to what the archive holds, asked for by a person or the HIS and carried out instance by instance."""

    __tablename__ = "correction"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))  # edit, reassign, merge, split, move, replace, undo
    #: due, preparing, switching (only forward from here), retrying, done, parked, cancelled
    state: Mapped[str] = mapped_column(String(16), default="due", index=True)
    request: Mapped[dict[str, Any]] = mapped_column(JSON)  # what was asked: which instances, which changes
    reason: Mapped[str] = mapped_column(Text)
    asked_by: Mapped[str] = mapped_column(String(80))
    undo_of: Mapped[int | None] = mapped_column(ForeignKey("correction.id"))
    outcome: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[str] = mapped_column(Moment, index=True)
    updated_at: Mapped[str] = mapped_column(Moment)
    done_at: Mapped[str | None] = mapped_column(Moment)


class CorrectionItem(Base):
    """One instance of a correction: what it was, what it becomes, and how far that is."""

    __tablename__ = "correction_item"
    correction_id: Mapped[int] = mapped_column(ForeignKey("correction.id"), primary_key=True)
    old_orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(Uid)
    old_study_uid: Mapped[str] = mapped_column(Uid, index=True)
    old_series_uid: Mapped[str] = mapped_column(Uid)
    new_study_uid: Mapped[str] = mapped_column(Uid, index=True)
    new_series_uid: Mapped[str] = mapped_column(Uid)
    old_study: Mapped[str] = mapped_column(String(44), default="")  # Orthanc's ids of the studies
    new_study: Mapped[str] = mapped_column(String(44), default="")
    new_orthanc_id: Mapped[str | None] = mapped_column(String(44))
    old_sha256: Mapped[str | None] = mapped_column(String(64))
    new_sha256: Mapped[str | None] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), default="planned")  # planned, held, removed, stored, done


class Deletion(Leased, Base):
    """Instances that are to leave the archive: asked for by one person, confirmed by another, after a wait."""

    __tablename__ = "deletion"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str] = mapped_column(Uid, index=True)
    study_orthanc_id: Mapped[str] = mapped_column(String(44))
    series_uid: Mapped[str | None] = mapped_column(Uid)  # NULL: the whole study
    sop_uid: Mapped[str | None] = mapped_column(Uid)  # NULL: the whole series
    code: Mapped[str] = mapped_column(String(24))  # zambezi.deletions.CODES
    reason: Mapped[str] = mapped_column(Text)
    #: asked, confirmed, due (copies go to the hold), deleting, retrying, done, withdrawn, parked, restoring, restored
    state: Mapped[str] = mapped_column(String(16), default="asked", index=True)
    asked_by: Mapped[str] = mapped_column(String(80))
    asked_at: Mapped[str] = mapped_column(Moment)
    confirmed_by: Mapped[str | None] = mapped_column(String(80))
    confirmed_at: Mapped[str | None] = mapped_column(Moment)
    not_before: Mapped[str | None] = mapped_column(Moment)
    done_at: Mapped[str | None] = mapped_column(Moment)
    restored_by: Mapped[str | None] = mapped_column(String(80))  # who asked for it; restored_at once all are back
    restored_at: Mapped[str | None] = mapped_column(Moment)
    outcome: Mapped[str] = mapped_column(Text, default="")
    updated_at: Mapped[str] = mapped_column(Moment)


class DeletionItem(Base):
    """One instance of a deletion, from the list that is made before anything is removed."""

    __tablename__ = "deletion_item"
    deletion_id: Mapped[int] = mapped_column(ForeignKey("deletion.id"), primary_key=True)
    orthanc_id: Mapped[str] = mapped_column(String(44), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(Uid)
    series_uid: Mapped[str] = mapped_column(Uid)
    sha256: Mapped[str | None] = mapped_column(String(64))
    #: planned, held, deleted, gone (the archive's journal has told of it, too), restored
    state: Mapped[str] = mapped_column(String(16), default="planned")


class LegalHold(Base):
    """Nothing of this study, or of this patient, may be deleted or discarded while it stands."""

    __tablename__ = "legal_hold"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_uid: Mapped[str | None] = mapped_column(Uid, index=True)
    patient_id: Mapped[str | None] = mapped_column(String(64), index=True)
    reason: Mapped[str] = mapped_column(Text)
    set_by: Mapped[str] = mapped_column(String(80))
    set_at: Mapped[str] = mapped_column(Moment)
    lifted_by: Mapped[str | None] = mapped_column(String(80))
    lifted_at: Mapped[str | None] = mapped_column(Moment)
    lift_reason: Mapped[str | None] = mapped_column(Text)


# --- reports ----------------------------------------------------------------------------------------


class Report(Base):
    """One version of a report; a signed version never changes, an addendum is the next version."""

    __tablename__ = "report"
    __table_args__ = (UniqueConstraint("study_uid", "version"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int | None] = mapped_column(ForeignKey("imaging_order.id"), index=True)
    study_uid: Mapped[str] = mapped_column(Uid, index=True)
    version: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(String(16), default="draft")  # draft, final
    edits: Mapped[int] = mapped_column(default=0)  # optimistic lock of the draft
    technique: Mapped[str] = mapped_column(Text, default="")
    findings: Mapped[str] = mapped_column(Text, default="")
    impression: Mapped[str] = mapped_column(Text, default="")
    language: Mapped[str] = mapped_column(String(8), default="pt")
    author: Mapped[str] = mapped_column(String(80))
    signed_by: Mapped[str | None] = mapped_column(String(80))
    signed_at: Mapped[str | None] = mapped_column(Moment)
    pdf: Mapped[bytes | None] = mapped_column(LargeBinary)
    pdf_sha256: Mapped[str | None] = mapped_column(String(64))
    #: SOP Instance UID of the Encapsulated PDF, made when signed; stored_at once the archive has it
    sop_uid: Mapped[str | None] = mapped_column(Uid)
    stored_at: Mapped[str | None] = mapped_column(Moment)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


# --- migration --------------------------------------------------------------------------------------


class MigrationProject(Base):
    __tablename__ = "migration_project"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    source: Mapped[str] = mapped_column(String(64))  # a name from Migration.Sources
    #: inventory, planned, running, paused, finished, certified
    state: Mapped[str] = mapped_column(String(16))
    note: Mapped[str] = mapped_column(Text, default="")  # why it stands still, what coverage was shown
    coverage: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    created_at: Mapped[str] = mapped_column(Moment)
    updated_at: Mapped[str] = mapped_column(Moment)


class MigrationStudy(Leased, Base):
    __tablename__ = "migration_study"
    __table_args__ = (UniqueConstraint("project_id", "study_uid"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"), index=True)
    study_uid: Mapped[str] = mapped_column(Uid)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[str] = mapped_column(String(16), default="")  # as the source wrote it, may be empty
    modalities: Mapped[str] = mapped_column(String(100), default="")
    expected: Mapped[int] = mapped_column(default=0)
    #: ready, moving, verifying, verified, retrying, divergent, parked
    state: Mapped[str] = mapped_column(String(16), default="ready")
    reason: Mapped[str] = mapped_column(Text, default="")
    verified_at: Mapped[str | None] = mapped_column(Moment)


class MigrationInstance(Base):
    __tablename__ = "migration_instance"
    study_id: Mapped[int] = mapped_column(ForeignKey("migration_study.id"), primary_key=True)
    sop_uid: Mapped[str] = mapped_column(Uid, primary_key=True)
    series_uid: Mapped[str] = mapped_column(Uid)
    orthanc_id: Mapped[str | None] = mapped_column(String(44))
    source_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of the second retrieve
    stored_digest: Mapped[str | None] = mapped_column(String(64))  # canonical, of what Orthanc holds
    stored_md5: Mapped[str | None] = mapped_column(String(32))
    #: expected, stored, equal, different, missing
    verdict: Mapped[str] = mapped_column(String(16), default="expected")


class Certificate(Base):
    __tablename__ = "certificate"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("migration_project.id"))
    issued_at: Mapped[str] = mapped_column(Moment)
    document: Mapped[bytes] = mapped_column(LargeBinary)  # canonical JSON, as it was signed
    signature: Mapped[str] = mapped_column(Text)  # base64, Ed25519
    public_key: Mapped[str] = mapped_column(Text)  # PEM


# --- running ----------------------------------------------------------------------------------------


class ProcessState(Base):
    """What each process last said of itself: `zambezi status` and the health page read it."""

    __tablename__ = "process_state"
    process: Mapped[str] = mapped_column(String(40), primary_key=True)
    at: Mapped[str] = mapped_column(Moment)
    version: Mapped[str] = mapped_column(String(40), default="")
    configuration: Mapped[str] = mapped_column(String(64), default="")
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    last_error: Mapped[str] = mapped_column(Text, default="")
    last_error_at: Mapped[str | None] = mapped_column(Moment)
