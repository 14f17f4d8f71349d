"""Following the archive's journal: every sealed entry into the central database, with what it means there.

`counted` and `delivery_id` are pure. `Follower` commits a batch of entries, their effects and the
cursor (the journal's ChainHead) in one transaction: after a crash it goes on where that stood, and reading
an entry twice is impossible.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from zambezi import audit, chain, clock, exceptions, orders, outbox
from zambezi.chain import Sealed
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditEntry, ChainHead, Order, Patient, PerformedStep, Series, Study
from zambezi.hl7 import build
from zambezi.orthanc_client import OrthancClient, OrthancRefused

log = logging.getLogger("zambezi.journal")

WRITER = "gateway"
BATCH = 500
WAIT_S = 10
#: Facts of a study-began entry that a Study row holds, with the longest that fits.
_STUDY_FACTS = {
    "patient_id": 64, "patient_name": 200, "birth_date": 8, "sex": 16, "accession_number": 64, "study_date": 8,
    "study_time": 16, "description": 200,
}  # fmt: skip


@dataclass(frozen=True)
class StudyKey:
    """A study in the archive; the same Study UID of two patients is two studies of Orthanc."""

    study_uid: str
    orthanc_id: str


@dataclass
class Counted:
    """What a run of stored entries adds to one study: so many instances, in these series."""

    cause: str
    first_at: str
    last_at: str
    series: Counter[tuple[str, str, str]] = field(default_factory=Counter)


def counted(entries: Iterable[dict[str, Any]]) -> dict[StudyKey, Counted]:
    """Add up the `stored` entries of a batch; a thousand images are a few rows."""
    sums: dict[StudyKey, Counted] = {}
    for facts in entries:
        if facts["event"] != "stored":
            continue
        key = StudyKey(facts["study_uid"], facts["study_orthanc_id"])
        one = sums.setdefault(key, Counted(facts["cause"], facts["at"], facts["at"]))
        one.last_at = max(one.last_at, facts["at"])
        one.series[(facts["series_uid"], facts["series_orthanc_id"], facts.get("modality") or "")] += 1
    return sums


def delivery_id(facts: dict[str, Any]) -> str:
    """The id of the delivery that a `routed` or `hl7-triggered` entry calls for."""
    to = facts["destination"] if facts["event"] == "routed" else facts["peer"]
    return outbox.delivery_id(facts["journal"], facts["seq"], facts["rule"], to)


class Follower:
    """Takes over what the plugin of one Orthanc has recorded; used by one thread."""

    def __init__(
        self, sessions: Sessions, settings: Zambezi, orthanc: OrthancClient, now: Callable[[], datetime] = clock.now
    ) -> None:
        self._sessions = sessions
        self._settings = settings
        self._orthanc = orthanc
        self._now = now
        self._journal = ""
        self.seq = 0
        self.head = 0

    def follow(self, wait_s: int = WAIT_S) -> int:
        """Take over the next batch, waiting for it at most so long; how many entries."""
        if not self._journal:
            self._journal = str(self._orthanc.get("/zambezi/status")["journal"])
            self._note_new_journal()
        with self._sessions.begin() as session:
            seq, head = audit.head(session, self._journal)
        query = {"journal": self._journal, "since": seq, "hash": head, "limit": BATCH, "wait": wait_s}
        try:
            answer = self._orthanc.request("GET", "/zambezi/journal", params=query, timeout_s=wait_s + 30).json()
        except OrthancRefused as refused:
            if refused.status != 409:
                raise
            self._journal, before = "", self._journal
            if str(self._orthanc.get("/zambezi/status")["journal"]) != before:
                return 0  # another journal, noted as such when it is asked for next, not this one changed
            return self._fork(before, seq)
        if answer["journal"] != self._journal:
            self._journal = ""
            return 0
        entries = [Sealed(self._journal, e["seq"], e["hash"], e["payload"].encode()) for e in answer["entries"]]
        self.seq, self.head = seq + len(entries), answer["head"]
        if entries:
            self._commit(entries)
        return len(entries)

    def _commit(self, entries: Sequence[Sealed]) -> None:
        with self._sessions.begin() as session:
            audit.take_over(session, entries)
            Effects(session, self._settings, self._now()).carry_out(entries)

    def _note_new_journal(self) -> None:
        """A journal that was never followed while another one was: somebody took the old file away."""
        with self._sessions.begin() as session:
            others = session.scalars(select(ChainHead.journal).where(ChainHead.journal.like("orthanc-%"))).all()
            if not others or self._journal in others:
                return
            now = self._now()
            # The head makes it known, so that this is said once.
            session.add(ChainHead(journal=self._journal, seq=0, hash=""))
            why = f"the archive began a new journal {self._journal}; before there was {', '.join(sorted(others))}"
            audit.append(session, WRITER, "incident", now, reason=why, new_journal=self._journal)
            exceptions.wait(
                session, "archive", f"journal {self._journal}", now=now, what=why, kind="journal-new",
                facts={"source": self._journal, "reason": why},
                suggestion="Find out why plugin/journal.db was lost; entries not followed before that are lost.",
            )  # fmt: skip
        log.error("%s", why)

    def _fork(self, journal: str, seq: int) -> int:
        """The plugin's journal isn't the one we followed (an old copy of its file was put back, or it was changed).

        That is an incident. Following goes on from the last entry that both have: what the journal now says
        behind it is kept, sealed by us, in a chain of its own (`...-fork`), and carried out.
        """
        fork = f"{journal}-fork"
        with self._sessions.begin() as session:
            place = _place_in_fork(session, fork)
        try:
            if place is None:
                place = self._common(journal, seq)
                self._note_fork(journal, fork, place, seq)
            entries, head = self._read(journal, *place)
        except OrthancRefused as refused:
            if refused.status != 409:
                raise
            place = self._common(journal, seq)
            self._note_fork(journal, fork, place, seq)
            entries, head = self._read(journal, *place)
        broken = chain.first_broken(entries, Sealed(journal, *place, b""))
        if broken:
            raise ValueError(f"journal {journal}, entry {broken.seq}: {broken.why}")
        with self._sessions.begin() as session:
            for entry in entries:
                facts = entry.facts
                about = {name: facts[name] for name in ("study_uid", "sop_uid", "who") if name in facts}
                audit.append(
                    session, fork, facts["event"], clock.parse(facts["at"]), **about,
                    original=entry.payload.decode(), original_seq=entry.seq, original_hash=entry.hash,
                )  # fmt: skip
            # The places in the journal are used a second time: the hash keeps deliveries apart.
            Effects(session, self._settings, self._now(), salted=True).carry_out(entries)
        self.seq, self.head = place[0] + len(entries), head
        return len(entries)

    def _note_fork(self, journal: str, fork: str, place: tuple[int, str], seq: int) -> None:
        why = f"journal {journal} is not the one that was followed to entry {seq}: it differs behind entry {place[0]}"
        now = self._now()
        with self._sessions.begin() as session:
            audit.append(session, fork, "incident", now, reason=why, original_seq=place[0], original_hash=place[1])
            audit.append(session, WRITER, "incident", now, reason=why, forked=journal)
            exceptions.wait(
                session, "archive", f"journal {journal}", now=now, what=why, kind="journal-changed",
                facts={"source": journal, "place": place[0], "reason": why},
                suggestion="Find out who replaced or changed plugin/journal.db. Following goes on meanwhile.",
            )  # fmt: skip
        log.error("%s", why)

    def _read(self, journal: str, since: int, head: str, limit: int = BATCH) -> tuple[list[Sealed], int]:
        query = {"journal": journal, "since": since, "hash": head, "limit": limit, "wait": 0}
        answer = self._orthanc.request("GET", "/zambezi/journal", params=query).json()
        return [Sealed(journal, e["seq"], e["hash"], e["payload"].encode()) for e in answer["entries"]], answer["head"]

    def _common(self, journal: str, below: int) -> tuple[int, str]:
        """The last entry that the plugin's journal and the central table have both, by halving."""
        low, known, high = 0, "", below
        while low < high:
            middle = (low + high + 1) // 2
            with self._sessions.begin() as session:
                here = session.get_one(AuditEntry, (journal, middle)).hash
            try:
                self._read(journal, middle, here, limit=1)
            except OrthancRefused as refused:
                if refused.status != 409:
                    raise
                high = middle - 1
            else:
                low, known = middle, here
        return low, known


def _study_page(study_uid: str | None) -> list[dict[str, str]]:
    return [{"label": "Open the study", "href": f"/studies/{study_uid}"}] if study_uid else []


def _place_in_fork(session: Session, fork: str) -> tuple[int, str] | None:
    seq, _ = audit.head(session, fork)
    if not seq:
        return None
    facts = json.loads(session.get_one(AuditEntry, (fork, seq)).payload)
    return facts["original_seq"], facts["original_hash"]


class Effects:
    """What a batch of entries means in the central database, within one transaction."""

    def __init__(self, session: Session, settings: Zambezi, now: datetime, salted: bool = False) -> None:
        self._session = session
        self._settings = settings
        self._now = now
        self._salted = salted

    def carry_out(self, entries: Sequence[Sealed]) -> None:
        """Do what each entry calls for; one that can't be carried out waits for a person, the others go on."""
        # What a study is comes before its images, whose order is looked for by it.
        told = [(entry, entry.facts) for entry in entries]
        for entry, facts in told:
            if facts["event"] == "study-began":
                self._try(entry, facts, self._began)
        for key, sums in counted(facts for _, facts in told).items():
            self._stored(key, sums)
        does = {
            "study-completed": self._completed, "routed": self._routed, "hl7-triggered": self._triggered,
            "deleted": self._deleted,
        }  # fmt: skip
        for entry, facts in told:
            effect = does.get(facts["event"])
            if effect is not None:
                self._try(entry, facts, effect)

    def _try(self, entry: Sealed, facts: dict[str, Any], effect: Callable[[dict[str, Any]], None]) -> None:
        if self._salted:
            facts["journal"] = f"{entry.journal}-{entry.hash}"
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
        self._insert(Study, study_uid=key.study_uid, orthanc_id=key.orthanc_id, cause=sums.cause, instances=0, **at)
        study = self._session.get_one(Study, (key.study_uid, key.orthanc_id), with_for_update=True)
        study.instances += total
        study.last_at = max(study.last_at, sums.last_at)
        for (series_uid, orthanc_id, modality), count in sums.series.items():
            self._insert(
                Series, series_uid=series_uid, orthanc_id=orthanc_id, study_uid=key.study_uid, modality=modality[:16],
                instances=0,
            )  # fmt: skip
            self._session.execute(
                update(Series)
                .where(Series.series_uid == series_uid, Series.orthanc_id == orthanc_id)
                .values(instances=Series.instances + count)
            )
        modalities = {m for m in study.modalities.split("\\") if m} | {m for _, _, m in sums.series if m}
        study.modalities = "\\".join(sorted(modalities))[:100]
        self._session.flush()
        if sums.cause == "modality":
            self._exam_begun(self._link(study))

    def _began(self, facts: dict[str, Any]) -> None:
        study = self._session.get(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        if study is None:
            self._insert(
                Study, study_uid=facts["study_uid"], orthanc_id=facts["study_orthanc_id"], cause=facts["cause"],
                instances=0, first_at=facts["at"], last_at=facts["at"],
            )  # fmt: skip
            study = self._session.get_one(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        study.cause = facts["cause"]
        for name, longest in _STUDY_FACTS.items():
            setattr(study, name, str(facts.get(name) or "")[:longest])
        self._session.flush()
        order = self._link(study)
        if facts["cause"] == "modality":
            self._exam_begun(order)

    def _completed(self, facts: dict[str, Any]) -> None:
        study = self._session.get_one(Study, (facts["study_uid"], facts["study_orthanc_id"]))
        study.completed_at = facts["at"]
        order = self._link(study)
        if order is None or facts["cause"] != "modality" or order.status not in orders.OPEN:
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
        study = self._study(facts["study_uid"])
        outbox.add(
            self._session, id=delivery_id(facts), kind="dicom", rule=facts["rule"], destination=facts["destination"],
            because=facts["because"], now=self._now, writer=WRITER, study_uid=facts["study_uid"],
            order_id=study.order_id if study else None, instances=facts["instances"],
        )  # fmt: skip

    def _triggered(self, facts: dict[str, Any]) -> None:
        peer = self._settings.hl7.peers.get(facts["peer"])
        study = self._study(facts["study_uid"])
        if peer is None or study is None:
            raise LookupError(f"no HL7 peer {facts['peer']} or no study to tell of")
        order = self._session.get(Order, study.order_id) if study.order_id else None
        id = delivery_id(facts)
        header = outbox.header_for(peer, self._settings.site, outbox.control_id(id), self._now)
        outbox.add(
            self._session, id=id, kind="hl7", rule=facts["rule"], destination=facts["peer"], because=facts["because"],
            now=self._now, writer=WRITER, study_uid=facts["study_uid"], order_id=study.order_id,
            body=build.images_there(header, outbox.exam_of(study, order, self._settings.site)),
        )  # fmt: skip

    def _deleted(self, facts: dict[str, Any]) -> None:
        counts = Counter(series_uid for _, series_uid, _ in facts["instances"] if series_uid)
        self._session.execute(
            update(Study)
            .where(Study.study_uid == facts.get("study_uid"), Study.orthanc_id == facts.get("study_orthanc_id"))
            .values(instances=Study.instances - sum(counts.values()))
        )
        for series_uid, count in counts.items():
            self._session.execute(
                update(Series)
                .where(Series.series_uid == series_uid, Series.study_uid == facts["study_uid"])
                .values(instances=Series.instances - count)
            )

    def _study(self, study_uid: str) -> Study | None:
        query = select(Study).where(Study.study_uid == study_uid).order_by(Study.last_at.desc())
        return self._session.scalars(query).first()

    def _link(self, study: Study) -> Order | None:
        """The study's order: by Study UID, else by accession number and patient."""
        if study.order_id is not None:
            return self._session.get(Order, study.order_id)
        order = self._session.scalars(select(Order).where(Order.study_uid == study.study_uid)).first()
        if order is None and study.accession_number and study.patient_id:
            same = (
                select(Order)
                .join(Patient, Order.patient_key == Patient.id)
                .where(Order.accession_number == study.accession_number, Patient.patient_id == study.patient_id)
            )
            order = self._session.scalars(same).first()
        if order is None:
            return None
        study.order_id = order.id
        self._session.flush()
        audit.append(
            self._session, WRITER, "exam-changed", self._now, study_uid=study.study_uid, order=order.id,
            accession_number=order.accession_number, changed=["linked"],
        )  # fmt: skip
        if study.patient_id and order.patient.patient_id != study.patient_id:
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
