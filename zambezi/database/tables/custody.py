"""The hold, corrections, deletions."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from zambezi.database.tables.base import Base, Leased, Moment, Uid


class Held(Leased, Base):
    """An object in the hold: the file ZAMBEZI_HOME/hold/<first two>/<sha256>.dcm, and why it lies there."""

    __tablename__ = "held"
    __table_args__ = (UniqueConstraint("sha256", "why", "reference"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(default=0)
    #: conflict, no-identity, identity, unreadable, quarantine, corrected (old copy), deleted
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
