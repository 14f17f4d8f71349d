"""What must hold after any crash, kill or power cut (the issue's "after either").

Each check raises AssertionError with what was expected, what was seen, and which instances, deliveries or
messages it is about. ZAMBEZI_KEEP=1 keeps the installation's folder with its logs and databases.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from demo.hospital import Hospital
from gateway.effects import delivery_id
from tests.senders import sop_uids_in
from zambezi import outbox
from zambezi.database.tables import AuditEntry, Delivery, ExceptionItem, Message, Order, Report, Series
from zambezi.orthanc_client import OrthancUnreachable

DESTINATIONS = {"SECOND": "second", "BACKUP": "backup"}


def eventually(what: str, look: Callable[[], object], seconds: float = 120) -> None:
    """Wait until `look` finds nothing to complain about; AssertionError with its last complaint."""
    end = time.monotonic() + seconds
    while True:
        complaint = look()
        if not complaint:
            return
        assert time.monotonic() < end, f"{what}, after {seconds:.0f} s: {complaint}"
        time.sleep(0.3)


def some(uids: Collection[str], of: int) -> str:
    """How many of them, and the first three to look for in logs and databases."""
    return f"{len(uids)} of {of} ({', '.join(sorted(uids)[:3])}{' ...' if len(uids) > 3 else ''})"


def hold(
    hospital: Hospital,
    succeeded: Mapping[str, str],
    messages: Sequence[bytes],
    since: str,
    signed: Collection[str] = (),
) -> Figures:
    """Everything that must hold of these instances (SOP -> Study Instance UID), acknowledged messages and reports."""
    stored_once(hospital, succeeded)
    messages_once(hospital, messages)
    routed_once(hospital, succeeded)
    reports_once(hospital, signed)
    nobody_must_look(hospital, since)
    chains_hold(hospital)
    return figures(hospital, set(succeeded.values()))


def stored_once(hospital: Hospital, succeeded: Mapping[str, str]) -> None:
    """Every instance that was answered Success is in Orthanc, has one `stored` entry and is counted once in the RIS."""
    studies = set(succeeded.values())

    def entries() -> str:
        with hospital.database().begin() as session:
            counted = Counter(
                session.scalars(
                    select(AuditEntry.sop_uid).where(AuditEntry.event == "stored", AuditEntry.study_uid.in_(studies))
                )
            )
        doubled = [uid for uid in succeeded if counted[uid] > 1]
        assert not doubled, f"more than one stored entry: {some(doubled, len(succeeded))}"
        missing = [uid for uid in succeeded if not counted[uid]]
        return f"no stored entry: {some(missing, len(succeeded))}" if missing else ""

    eventually("instances in the audit trail", entries)
    eventually("the archive", lambda: _closed(hospital))
    held = set()
    for study_uid in studies:
        for instance in hospital.orthanc().find("Instance", {"StudyInstanceUID": study_uid}, expand=True):
            held.add(instance["MainDicomTags"]["SOPInstanceUID"])
    lost = set(succeeded) - held
    assert not lost, f"answered Success and not in Orthanc: {some(lost, len(succeeded))}"
    with hospital.database().begin() as session:
        in_ris = session.scalar(
            select(func.sum(Series.instances)).where(Series.study_uid.in_(studies), Series.modality == "CT")
        )
    assert in_ris == len(succeeded), f"the RIS counts {in_ris} instances, and there are {len(succeeded)}"


def _closed(hospital: Hospital) -> str:
    # HTTP alone would not do: the recovering Orthanc answers it, too, and what it brings back is not all there yet.
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", hospital.environment.ports.dicom)):
            return "its DICOM port is closed"
    try:
        hospital.orthanc().system()
    except OrthancUnreachable as error:
        return str(error)
    return ""


def routed_once(hospital: Hospital, succeeded: Mapping[str, str], seconds: float = 300) -> None:
    """What the archive decided has one delivery row each, all delivered; every receiver holds what it must."""
    studies = set(succeeded.values())

    def undelivered() -> str:
        with hospital.database().begin() as session:
            named = _routed_instances(_decided(session, studies))
            rows = session.scalars(select(Delivery).where(Delivery.study_uid.in_(studies))).all()
        for destination in DESTINATIONS:
            missing = set(succeeded) - set(named[destination])
            if missing:
                return f"no route to {destination} yet: {some(missing, len(succeeded))}"
        waiting = [row for row in rows if row.state != "delivered"]
        return "; ".join(f"{row.rule} to {row.destination} {row.state}: {row.outcome}" for row in waiting)

    eventually("deliveries", undelivered, seconds)
    with hospital.database().begin() as session:
        decided = _decided(session, studies)
        rules = {facts["rule"] for facts in decided}
        rows = session.scalars(select(Delivery).where(Delivery.study_uid.in_(studies), Delivery.rule.in_(rules))).all()
    expected, found = {delivery_id(facts) for facts in decided}, {row.id for row in rows}
    assert len(expected) == len(decided), "two decisions of the archive have one delivery id"
    assert not expected - found, f"decided, but no deliveries: {sorted(expected - found)}"
    assert not found - expected, f"deliveries that nobody decided: {sorted(found - expected)}"
    for destination, counted in _routed_instances(decided).items():
        doubled = [uid for uid, count in counted.items() if count > 1]
        assert not doubled, f"routed to {destination} more than once: {some(doubled, len(succeeded))}"
        strange = set(counted) - set(succeeded)
        assert not strange, f"no rule routes these to {destination}: {some(strange, len(counted))}"
    for destination, folder in DESTINATIONS.items():
        lacking = set(succeeded) - sop_uids_in(hospital.neighbours.folder / folder)
        assert not lacking, f"delivered, but {destination} does not hold them: {some(lacking, len(succeeded))}"
    _his_was_told(hospital, [row for row in rows if row.kind == "hl7"])


def _decided(session: Session, studies: Iterable[str]) -> list[dict[str, Any]]:
    """The facts of every route and trigger that the archive has recorded for these studies."""
    wanted = AuditEntry.event.in_(("routed", "hl7-triggered")), AuditEntry.study_uid.in_(studies)
    return [json.loads(payload) for payload in session.scalars(select(AuditEntry.payload).where(*wanted))]


def _routed_instances(decided: Iterable[dict[str, Any]]) -> dict[str, Counter[str]]:
    """Destination -> how often each SOP Instance UID was routed there."""
    named: dict[str, Counter[str]] = {destination: Counter() for destination in DESTINATIONS}
    for facts in decided:
        if facts["event"] == "routed":
            named[facts["destination"]].update(instance[2] for instance in facts["instances"])
    return named


def _his_was_told(hospital: Hospital, deliveries: Iterable[Delivery]) -> None:
    received = {file.stem.partition("-")[2] for file in hospital.neighbours.his_inbox.glob("*.hl7")}
    silent = [row.id for row in deliveries if outbox.control_id(row.id) not in received]
    assert not silent, f"delivered, but the HIS never got them: deliveries {silent}"


def reports_once(hospital: Hospital, signed: Collection[str]) -> None:
    """The report of each of these studies (Study Instance UIDs) is final, in the archive and sent, each once."""

    def unstored() -> str:
        with hospital.database().begin() as session:
            reports = session.scalars(select(Report).where(Report.study_uid.in_(signed))).all()
            stored = Counter(
                session.scalars(
                    select(AuditEntry.sop_uid).where(
                        AuditEntry.event == "stored", AuditEntry.sop_uid.in_([report.sop_uid for report in reports])
                    )
                )
            )
        wrong = {uid: n for uid, n in Counter(report.study_uid for report in reports).items() if n != 1}
        assert not wrong, f"studies and how many reports they have: {wrong}"
        assert max(stored.values(), default=1) == 1, f"recorded more than once: {stored.most_common(3)}"
        drafts = [report.study_uid for report in reports if report.state != "final"]
        assert not drafts, f"signed, and still drafts: {some(drafts, len(signed))}"
        lacking = set(signed) - {report.study_uid for report in reports if stored[report.sop_uid]}
        return f"reports that are not in the archive: {some(lacking, len(signed))}" if lacking else ""

    eventually("signed reports", unstored)
    with hospital.database().begin() as session:
        sent = session.scalars(
            select(Delivery).where(Delivery.study_uid.in_(signed), Delivery.rule == "report-is-final")
        ).all()
    wrong = Counter(signed)
    wrong.subtract(str(row.study_uid) for row in sent)
    assert not any(wrong.values()), f"reports that were sent never or twice: {+wrong} {-wrong}"
    _his_was_told(hospital, sent)


def messages_once(hospital: Hospital, acknowledged: Sequence[bytes]) -> None:
    """Every message that was acknowledged (all are orders) is in the RIS once, and so is what it ordered."""
    digests = [hashlib.sha256(message).hexdigest() for message in acknowledged]
    placers = [message.split(b"ORC|NW|")[1].split(b"\r")[0].decode() for message in acknowledged]
    with hospital.database().begin() as session:
        messages = Counter(session.scalars(select(Message.digest).where(Message.digest.in_(digests))))
        orders = Counter(session.scalars(select(Order.placer_number).where(Order.placer_number.in_(placers))))
    for what, keys, found in (("messages", digests, messages), ("orders", placers, orders)):
        wrong = {key: found[key] for key in keys if found[key] != 1}
        assert not wrong, f"acknowledged {what} and how often they are in the RIS: {wrong}"


def nobody_must_look(hospital: Hospital, since: str) -> None:
    """A crash that loses nothing is no incident, and nothing waits for a person because of it."""
    with hospital.database().begin() as session:
        incidents = session.scalars(
            select(AuditEntry.payload).where(AuditEntry.event == "incident", AuditEntry.at >= since)
        ).all()
        waiting = session.scalars(
            select(ExceptionItem).where(ExceptionItem.since >= since, ExceptionItem.decided_at.is_(None))
        ).all()
    assert not incidents, f"incidents: {[json.loads(payload).get('reason') for payload in incidents[:3]]}"
    assert not waiting, f"a person must look: {[f'{item.room} {item.reference}: {item.what}' for item in waiting[:3]]}"


def chains_hold(hospital: Hospital) -> None:
    """`zambezi audit verify` passes, the journal and the central copies included."""
    done = hospital.try_zambezi("audit", "verify")
    assert done.returncode == 0, done.stdout + done.stderr


@dataclass(frozen=True)
class Figures:
    """What a round has left behind, to be printed."""

    instances: int
    stored_again: int
    routes: int
    messages_out: int
    repeated: int

    def __str__(self) -> str:
        words = {"repeated": "deliveries tried more than once", "messages_out": "messages out"}
        return ", ".join(
            f"{getattr(self, one.name)} {words.get(one.name, one.name.replace('_', ' '))}" for one in fields(self)
        )


def figures(hospital: Hospital, studies: Collection[str]) -> Figures:
    """How much there was, and how often something had to be done again."""
    with hospital.database().begin() as session:
        entries = Counter(session.scalars(select(AuditEntry.event).where(AuditEntry.study_uid.in_(studies))))
        rows = session.scalars(select(Delivery).where(Delivery.study_uid.in_(studies))).all()
    kinds = Counter(row.kind for row in rows)
    return Figures(
        instances=entries["stored"], stored_again=entries["stored-again"], routes=kinds["dicom"],
        messages_out=kinds["hl7"], repeated=sum(row.fence > 1 for row in rows),
    )  # fmt: skip
