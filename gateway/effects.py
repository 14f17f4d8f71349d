"""What the archive's entries mean in the central database: studies, exams, deliveries, what waits for a person.

`counted` and `delivery_id` are pure. `Effects` works within the transaction that takes the entries over.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import CursorResult, Table, bindparam, case, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from gateway import fetching
from gateway.unordered import note_unordered
from zambezi import (
    audit,
    causes,
    clock,
    exceptions,
    holding,
    identifiers,
    orders,
    orthanc_ids,
    outbox,
    patients,
    studies,
    telling,
)
from zambezi.chain import Sealed
from zambezi.config.settings import Hl7Trigger, Zambezi
from zambezi.database.tables import Order, PerformedStep, Series, Study

log = logging.getLogger("zambezi.effects")

WRITER = "gateway"
#: Labels of what a person can do, in the pages' words (ris_service.words.ACTION).
OPEN_STUDY = "Open the study"
OPEN_OTHER_STUDY = "Open the other study"
#: Facts of a study-began entry that a Study row holds, with the longest that fits.
_STUDY_FACTS = {
    "patient_id": 64, "patient_name": 200, "birth_date": 8, "sex": 16, "accession_number": 64, "study_date": 8,
    "study_time": 16, "description": 200,
}  # fmt: skip
_SERIES = cast("Table", Series.__table__)
_ADD_TO_SERIES = (
    update(_SERIES)
    .where(_SERIES.c.series_uid == bindparam("uid"), _SERIES.c.orthanc_id == bindparam("id"))
    .values(instances=_SERIES.c.instances + bindparam("count"))
)


@dataclass(frozen=True)
class StudyKey:
    """A study in the archive; the same Study UID of two patients is two studies of Orthanc."""

    study_uid: str
    orthanc_id: str


@dataclass
class Counted:
    """What a run of stored entries adds to one study: so many instances, in these series; how the first one came."""

    cause: str
    reference: str
    causes: set[str]
    first_at: str
    last_at: str
    sender: str
    series: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def counted(entries: Iterable[dict[str, Any]]) -> dict[StudyKey, Counted]:
    """Add up the `stored` entries of a batch; a thousand images are a few rows."""
    sums: dict[StudyKey, Counted] = {}
    for facts in entries:
        if facts["event"] != "stored":
            continue
        key = StudyKey(facts["study_uid"], facts["study_orthanc_id"])
        first = facts["at"], facts["at"], (facts.get("remote_aet") or "")[:16]
        one = sums.setdefault(key, Counted(facts["cause"], facts.get("reference", ""), set(), *first))
        one.causes.add(facts["cause"])
        one.last_at = max(one.last_at, facts["at"])
        one.series[(facts["series_uid"], facts["series_orthanc_id"], facts.get("modality") or "")] += 1
    return sums


def delivery_id(facts: dict[str, Any]) -> str:
    """The id of the delivery that an entry calls for, such as `routed`; `entry`: what gateway.triggers saw."""
    to = facts[{"routed": "destination", "priors-wanted": "source"}.get(facts["event"], "peer")]
    return outbox.delivery_id(facts.get("entry") or f"{facts['journal']}/{facts['seq']}", facts["rule"], to)


def _runs(told: Sequence[tuple[Sealed, dict[str, Any]]]) -> Iterable[Sequence[tuple[Sealed, dict[str, Any]]]]:
    """The entries in runs that end with a deletion: what is stored again behind it is counted behind it."""
    ends = [n for n, (_entry, facts) in enumerate(told, 1) if facts["event"] == "deleted"]
    for begin, end in zip([0, *ends], [*ends, len(told)], strict=True):
        if begin < end:
            yield told[begin:end]


def _study_page(study_uid: str | None) -> list[dict[str, str]]:
    return [{"label": "Open the study", "href": f"/studies/{study_uid}"}] if study_uid else []


class Effects:
    """What a batch of entries means in the central database, within one transaction."""

    def __init__(self, session: Session, settings: Zambezi, now: datetime, salted: bool = False) -> None:
        self._session = session
        self._settings = settings
        self._now = now
        self._salted = salted
        self._messages = 0

    def carry_out(self, entries: Sequence[Sealed]) -> None:
        """Do what each entry calls for; one that can't be carried out waits for a person, the others go on."""
        for run in _runs([(entry, entry.facts) for entry in entries]):
            self._run(run)

    def _run(self, told: Sequence[tuple[Sealed, dict[str, Any]]]) -> None:
        # What a study is comes before its images, whose order is looked for by it.
        for entry, facts in told:
            if facts["event"] == "study-began":
                self._try(entry, facts, self._began)
        for key, sums in counted(facts for _, facts in told).items():
            self._stored(key, sums)
        does = {
            "study-completed": self._completed, "routed": self._routed, "priors-wanted": self._wanted,
            "hl7-triggered": self._triggered, "deleted": self._deleted, "held": self._held,
            "conflict": self._second_copy, "coercion-failed": self._not_coerced,
        }  # fmt: skip
        for entry, facts in told:
            effect = does.get(facts["event"])
            if effect is not None:
                self._try(entry, facts, effect)

    def _try(self, entry: Sealed, facts: dict[str, Any], effect: Callable[[dict[str, Any]], None]) -> None:
        if self._salted:
            facts = {**facts, "journal": f"{entry.journal}-{entry.hash}"}
        try:
            with self._session.begin_nested():
                effect(facts)
        except (OperationalError, InterfaceError, IntegrityError):
            raise
        except Exception as error:  # edge: one odd entry must not stop the archive from being followed
            log.exception("entry %s of %s could not be carried out", entry.seq, entry.journal)
            exceptions.wait(
                self._session, "archive", f"{entry.journal}/{entry.seq}", now=self._now, kind="entry-failed",
                study_uid=facts.get("study_uid"), actions=_study_page(facts.get("study_uid")),
                facts={
                    "source": entry.journal, "place": entry.seq, "event": facts["event"],
                    "reason": type(error).__name__,
                },
                what=f"what follows from the archive's entry {entry.seq} ({facts['event']}) could not be carried "
                f"out: {type(error).__name__}",
                suggestion="The entry itself is kept. Look at the study and at the gateway's log.",
            )  # fmt: skip

    def _stored(self, key: StudyKey, sums: Counted) -> None:
        total = sum(sums.series.values())
        at = {"first_at": sums.first_at, "last_at": sums.last_at}
        # Most images come to a study and a series that are there: to insert first would be a statement in vain each.
        study = self._session.get(Study, (key.study_uid, key.orthanc_id), with_for_update=True)
        if study is None:
            self._insert(
                Study, study_uid=key.study_uid, orthanc_id=key.orthanc_id, cause=sums.cause,
                reference=sums.reference[:200], instances=0, **at,
            )  # fmt: skip
            study = self._session.get_one(Study, (key.study_uid, key.orthanc_id), with_for_update=True)
        study.instances += total
        study.last_at = max(study.last_at, sums.last_at)
        study.sender = study.sender or sums.sender
        for (series_uid, orthanc_id, modality), count in sums.series.items():
            added = {"uid": series_uid, "id": orthanc_id, "count": count}
            if not cast("CursorResult[Any]", self._session.execute(_ADD_TO_SERIES, added)).rowcount:
                self._insert(
                    Series, series_uid=series_uid, orthanc_id=orthanc_id, study_uid=key.study_uid,
                    modality=modality[:16], instances=0,
                )  # fmt: skip
                self._session.execute(_ADD_TO_SERIES, added)
        modalities = {m for m in study.modalities.split("\\") if m} | {m for _, _, m in sums.series if m}
        study.modalities = "\\".join(sorted(modalities))[:100]
        self._session.flush()
        if causes.MODALITY in sums.causes:
            self._exam_begun(self._link(study))

    def _began(self, facts: dict[str, Any]) -> None:
        study = self._session.get(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        if study is None:
            self._insert(
                Study, study_uid=facts["study_uid"], orthanc_id=facts["study_orthanc_id"], cause=facts["cause"],
                instances=0, first_at=facts["at"], last_at=facts["at"],
            )  # fmt: skip
            study = self._session.get_one(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        study.cause, study.reference = facts["cause"], facts.get("reference", "")[:200]
        for name, longest in _STUDY_FACTS.items():
            setattr(study, name, str(facts.get(name) or "")[:longest])
        self._session.flush()
        order = self._link(study)
        if facts["cause"] == causes.MODALITY:
            self._exam_begun(order)

    def _completed(self, facts: dict[str, Any]) -> None:
        study = self._session.get_one(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        study.completed_at = facts["at"]
        order = self._link(study)
        patients.follow_merge(self._session, study, now=self._now, writer=WRITER)
        if order is None or facts["cause"] != causes.MODALITY or order.status not in orders.OPEN:
            return
        # A modality that reports its progress says itself when it is done (MPPS).
        reporting = select(PerformedStep).where(
            PerformedStep.order_id == order.id, PerformedStep.status == "IN PROGRESS"
        )
        if self._session.scalars(reporting).first() is None:
            orders.set_status(
                self._session,
                order,
                "completed",
                now=self._now,
                writer=WRITER,
                reason="all images of the study are there",
            )

    def _routed(self, facts: dict[str, Any]) -> None:
        study = studies.latest(self._session, facts["study_uid"])
        outbox.add(
            self._session, id=delivery_id(facts), kind="dicom", rule=facts["rule"], destination=facts["destination"],
            because=facts["because"], now=self._now, writer=WRITER, study_uid=facts["study_uid"],
            order_id=study.order_id if study else None, instances=facts["instances"],
            priority=facts.get("priority", 0),
        )  # fmt: skip

    def _wanted(self, facts: dict[str, Any]) -> None:
        outbox.add(
            self._session, id=delivery_id(facts), kind=fetching.KIND, rule=facts["rule"], destination=facts["source"],
            because=facts["because"], now=self._now, writer=WRITER, study_uid=facts["study_uid"],
            body=fetching.Wanted.of(facts).written, priority=facts.get("priority", 0),
        )  # fmt: skip

    def _triggered(self, facts: dict[str, Any]) -> None:
        study = studies.latest(self._session, facts["study_uid"], facts.get("study_orthanc_id", ""))
        if study is None:
            raise LookupError("no study to tell of")
        order = self._session.get(Order, study.order_id) if study.order_id else None
        # As it was decided: the rule may read otherwise by now, or be gone.
        rule = Hl7Trigger(
            name=facts["rule"], on=facts["on"], send_to=facts["peer"], message=facts.get("message"),
            template=facts.get("template"),
        )  # fmt: skip
        id = delivery_id(facts)
        # Messages about one study go out in the order of their moments; in one batch each needs its own.
        self._messages += 1
        now = self._now + timedelta(microseconds=self._messages)
        event = telling.Event(facts["on"], clock.parse(facts["at"]))
        body = telling.body(self._settings, rule, outbox.control_id(id), study, order, event, now)
        outbox.add(
            self._session, id=id, kind="hl7", rule=facts["rule"], destination=facts["peer"], because=facts["because"],
            now=now, writer=WRITER, study_uid=facts["study_uid"], order_id=study.order_id, body=body,
        )  # fmt: skip

    def _deleted(self, facts: dict[str, Any]) -> None:
        note_unordered(self._session, facts, self._now, WRITER)
        counts = Counter(series_uid for _, series_uid, _ in facts["instances"] if series_uid)
        study = self._session.get(Study, (facts.get("study_uid") or "", facts.get("study_orthanc_id") or ""))
        if study is None:
            return  # a correction has put another study in its place, and its rows are gone
        # A correction that was undone before we read of its deletions has made the row anew: it counts from nothing.
        study.instances = max(0, study.instances - sum(counts.values()))
        # The same series UID under another patient ID is another series of Orthanc, with images of its own.
        is_known = orthanc_ids.study(study.patient_id, study.study_uid) == study.orthanc_id
        for series_uid, count in counts.items():
            of_series = [Series.series_uid == series_uid, Series.study_uid == study.study_uid]
            if is_known:
                mine = orthanc_ids.series(study.patient_id, study.study_uid, series_uid)
                of_series.append(Series.orthanc_id == mine)
            left = case((Series.instances > count, Series.instances - count), else_=0)
            self._session.execute(update(Series).where(*of_series).values(instances=left))

    def _held(self, facts: dict[str, Any]) -> None:
        """The plugin put an arrival into the hold, on disk before the sender was answered."""
        told = ("sha256", "size", "why", "state", "reason", "reference")
        named = ("sop_uid", "series_uid", "study_uid", "patient_id", "orthanc_id", "other_sha256", "sender")
        holding.hold(
            self._session, now=self._now, writer=WRITER, **{name: facts[name] for name in told},
            **{name: facts[name] for name in named if name in facts},
        )  # fmt: skip

    def _not_coerced(self, facts: dict[str, Any]) -> None:
        """An image was stored as it came; one item a study and rule, however many images."""
        rule = facts["rule"] or "all"
        exceptions.wait(
            self._session, "archive", f"coercion {facts['study_uid']} {rule}", now=self._now, kind="coercion-failed",
            study_uid=facts["study_uid"], actions=_study_page(facts["study_uid"]),
            facts={"source": rule, "reason": facts["reason"]},
            what=f"images of a study were stored as they came; rule {rule} could not be carried out: {facts['reason']}",
            suggestion="Put right what the reason names; a correction changes the images that are there.",
        )  # fmt: skip

    def _second_copy(self, facts: dict[str, Any]) -> None:
        here = f"study {facts['study_uid']} ({facts['study_orthanc_id']})"
        there = f"study {facts['other_study_uid']} ({facts['other_study_orthanc_id']})"
        actions = [{"label": OPEN_STUDY, "href": f"/studies/{facts['study_uid']}"}]
        if facts["other_study_uid"] != facts["study_uid"]:
            actions.append({"label": OPEN_OTHER_STUDY, "href": f"/studies/{facts['other_study_uid']}"})
        exceptions.wait(
            self._session, "archive", f"second copy {facts['study_orthanc_id']} {facts['other_study_orthanc_id']}",
            now=self._now, kind="second-copy", study_uid=facts["study_uid"], actions=actions,
            what=f"the SOP Instance UID {facts['sop_uid']} is in the archive twice, under another patient, study or "
            f"series: in {here}, which came now, and in {there}. The archive keeps both; nothing lies in the hold.",
            suggestion="Find out which of the two the image belongs to, and correct or delete the other.",
        )  # fmt: skip

    def _link(self, study: Study) -> Order | None:
        """The study's order: by Study UID, else by accession number and patient."""
        if study.order_id is not None:
            return self._session.get(Order, study.order_id)
        order = self._session.scalars(select(Order).where(Order.study_uid == study.study_uid)).first()
        # A correction has looked at whose the images are: a number that they brought along says nothing against it.
        was_given = study.cause in (causes.CORRECTION, causes.RESTORE)
        if order and was_given and not identifiers.is_called(self._session, order.patient, study.patient_id):
            order = None
        if order is None and study.accession_number and study.patient_id:
            order = orders.find_by_accession(self._session, study.accession_number, study.patient_id)
        if order is None:
            return None
        study.order_id = order.id
        self._session.flush()
        audit.append(
            self._session, WRITER, "exam-changed", self._now, study_uid=study.study_uid, order=order.id,
            accession_number=order.accession_number, changed=["linked"],
        )  # fmt: skip
        if study.patient_id and not identifiers.is_called(self._session, order.patient, study.patient_id):
            exceptions.wait(
                self._session, "archive", f"study {study.study_uid}", now=self._now, kind="patient-mismatch",
                study_uid=study.study_uid, facts={"accession": order.accession_number},
                actions=[
                    {"label": "Open the order", "href": f"/orders/{order.id}"}, *_study_page(study.study_uid),
                ],
                what=f"the images of order {order.accession_number} carry another patient ID than the order",
                suggestion="Compare patient and images; the modality may have used a wrong worklist entry.",
            )  # fmt: skip
        return order

    def _exam_begun(self, order: Order | None) -> None:
        if order is not None and order.status in ("scheduled", "arrived"):
            orders.set_status(
                self._session, order, "in-progress", now=self._now, writer=WRITER, reason="the first image is there"
            )

    def _insert(self, table: type[Study] | type[Series], **values: Any) -> None:
        insert = sqlite.insert if self._session.get_bind().dialect.name == "sqlite" else postgresql.insert
        defaults: dict[str, Any] = {c.name: c.default.arg for c in table.__table__.columns if c.default is not None}
        self._session.execute(insert(table).values(**{**defaults, **values}).on_conflict_do_nothing())
