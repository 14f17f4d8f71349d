"""What a person says of rows that the import would not decide: whose patient, which word counts, what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration.records import archiving, importing, taking
from migration.records.importing import Job
from migration.records.taking import WRITER
from zambezi import audit, clock, patients
from zambezi.database.tables import LegacyRow, Patient

Verb = Literal["same-as", "register", "accept", "keep", "leave-out", "bring-back"]

#: Which verbs a state allows.
ALLOWED: dict[str, tuple[Verb, ...]] = {
    "held": ("same-as", "register", "leave-out"),
    "changed": ("accept", "keep"),
    "refused": ("leave-out",),
    "waiting": ("leave-out",),
    "left-out": ("bring-back",),
    "taken": (),
}


class CannotDecide(ValueError):
    """What was decided can't be done with this row; the text says why and what can be."""


def decide(
    job: Job, row_id: int, verb: Verb, because: str, patient: int | None = None, decided_by_rule: str = ""
) -> None:
    """Carry one decision out, with who and why; CannotDecide where it doesn't fit."""
    if not because.strip():
        raise CannotDecide("a decision needs its reason")
    with job.sessions.begin() as session:
        imported = importing.find(session, job.mapping.name)
        row = session.get(LegacyRow, row_id, with_for_update=True)
        if row is None or row.import_id != imported.id:
            raise CannotDecide(f"{imported.name} has no row {row_id}")
        if verb not in ALLOWED[row.state]:
            can = ", ".join(ALLOWED[row.state]) or "nothing"
            raise CannotDecide(f"row {row_id} is {row.state}: what can be decided is {can}")
        before, bench = row.state, job.bench(session, imported)
        _carry_out(bench, row, verb, because, patient)
        if row.kind == "report":
            archiving.mark(session, job.mapping)
        at = clock.text(bench.now)
        row.decided_by, row.decided_at, row.updated_at = job.who[:80], at, at
        row.decision = f"{verb}: {because}"[:2000]
        audit.append(
            session, WRITER, "records-decided", bench.now, source=imported.name, row=row.id, kind=row.kind,
            before=before, state=row.state, decision=verb, reason=because, patient=row.patient_key, who=job.who,
            **({"rule": decided_by_rule} if decided_by_rule else {}),
        )  # fmt: skip
        subject = row.subject
    importing.settle(job, subject)


def likely(session: Session, name: str, at_least: float) -> Sequence[LegacyRow]:
    """Held patients with exactly one candidate, at least so likely: what one rule may decide."""
    imported = importing.find(session, name)
    rows = session.scalars(
        select(LegacyRow)
        .where(LegacyRow.import_id == imported.id, LegacyRow.kind == "patient", LegacyRow.state == "held")
        .order_by(LegacyRow.id)
    )
    return [row for row in rows if len(row.candidates) == 1 and row.candidates[0]["score"] >= at_least]


def _carry_out(bench: taking.Bench, row: LegacyRow, verb: Verb, because: str, patient: int | None) -> None:
    records = bench.mapping.of(row.kind)  # type: ignore[arg-type]  # the ledger's kinds are the mapping's
    if records is None:
        raise CannotDecide(f"the mapping has no section for {row.kind}s any more")
    if verb == "same-as":
        row.patient_key = _same(bench, row, because, patient)
        row.state, row.reason = "taken", ""
    elif verb == "register":
        person = taking.person_of(bench, records, row)
        if patients.find(bench.session, person.patient_id, person.issuer) is not None:
            raise CannotDecide(
                f"{person.patient_id} of {person.issuer} is another patient's identifier here; give this one another "
                "(Prefix in the mapping) and import again"
            )
        row.patient_key, row.is_ours = taking.register(bench, person).id, True
        row.state, row.reason = "taken", ""
    elif verb == "accept":
        try:
            taking.accept(bench, row.kind, records, row)  # type: ignore[arg-type]  # as above
        except ValueError as error:
            raise CannotDecide(str(error)) from None
    elif verb == "keep":
        row.digest = taking.digest_of(bench, records, row)
        row.state, row.reason = "taken", "kept as it was taken before"
    elif verb == "leave-out":
        row.state = "left-out"
    else:
        row.state, row.reason = "waiting", "brought back"


def _same(bench: taking.Bench, row: LegacyRow, because: str, patient: int | None) -> int:
    """The old system's identifier is this patient's from now on: a merge, by the one way there is for that."""
    session = bench.session
    chosen = patient if patient is not None else row.candidates[0]["patient"] if len(row.candidates) == 1 else None
    holder = session.get(Patient, chosen) if chosen is not None else None
    if holder is None:
        raise CannotDecide(f"name the patient by number; candidates: {[one['patient'] for one in row.candidates]}")
    survivor = patients.survivor_of(session, holder)
    patient_id, _, issuer = row.subject.rpartition("@")
    if (survivor.patient_id, survivor.issuer) == (patient_id, issuer):
        return survivor.id
    prior = patients.known_or_stub(session, patient_id, issuer, bench.now)
    try:
        patients.merge(
            session, prior=prior, survivor=survivor, now=bench.now, writer=WRITER, who=bench.who, reason=because
        )
    except patients.MergeRefused as refused:
        raise CannotDecide(str(refused)) from refused
    return survivor.id
