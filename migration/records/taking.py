"""One row of an old system, taken into the RIS, or kept whole with the reason why not (in the caller's transaction)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from migration.records import evaluating, matching
from migration.records.evaluating import Meant
from migration.records.mapping import Kind, Mapping, Records
from migration.records.matching import Candidate, Person
from migration.records.rows import Raw, of_kept
from zambezi import clock, identifiers, legacy, legacy_documents, orders
from zambezi.database.tables import LegacyImport, LegacyRow, Order, Patient

WRITER = "migration"
#: The largest file of a report.
LARGEST_FILE = 64 << 20
#: What stands in a row's key where the source has the key twice.
AGAIN = " again at "
#: States in which nothing of a row is in the RIS: it is read anew in each pass.
OUTSIDE = ("held", "waiting", "refused")


@dataclass(frozen=True)
class Bench:
    """What rows of an import are taken with; `folder` is where the files of reports are."""

    session: Session
    imported: LegacyImport
    mapping: Mapping
    folder: Path
    zone: ZoneInfo
    now: datetime
    who: str


class Untaken(Exception):
    """The row can't be taken now: its state and the reason; of a held patient, who may be meant."""

    def __init__(self, state: str, reason: str, candidates: Sequence[Candidate] = ()) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason
        self.candidates = [
            {"patient": one.patient, "score": one.score, "reasons": list(one.reasons)} for one in candidates
        ]


def take(bench: Bench, kind: Kind, records: Records, raw: Raw) -> str:
    """Take one row: `taken`, `same`, `changed`, `updated`, `held`, `waiting`, `refused`, `repeated` or `left-out`."""
    found = evaluating.meant(kind, records, raw, bench.zone, bench.now)
    row = _row(bench, kind, found.key)
    fault = "; ".join(found.faults)
    document: bytes | None = None
    if kind == "report" and not fault:
        try:
            document = _document(bench, found)
        except Untaken as untaken:
            fault = untaken.reason
    digest = evaluating.digest(found, document)
    if row is not None and row.pass_no == bench.imported.pass_no and not records.last_counts:
        if row.digest == digest:
            return "repeated"
        fault = f"the key stands at {row.place} already, with other content"
        key = f"{found.key[:120]}{AGAIN}{raw.place}"[:200]
        row = _row(bench, kind, key) or _new(bench, kind, key)
    row = row or _new(bench, kind, found.key)
    is_old_word = records.last_counts and _was_said_before(row, digest, bench.imported.pass_no)
    row.place, row.pass_no = raw.place[:200], bench.imported.pass_no
    if row.state == "left-out":
        return row.state
    if is_old_word:
        return "same" if row.state in ("taken", "changed") else row.state
    if row.state in ("taken", "changed"):
        return _again(bench, kind, records, row, raw, found, digest, document, fault)
    row.raw, row.digest = raw.kept(), digest
    row.subject = _subject(bench, found)
    if fault:
        return _settle(bench, row, "refused", fault)
    return _first(bench, row, kind, found, document)


def again(bench: Bench, kind: Kind, records: Records, row: LegacyRow) -> str:
    """Try a row that is kept once more, from what was kept of it."""
    raw = of_kept(row.place, row.raw)
    found = evaluating.meant(kind, records, raw, bench.zone, bench.now)
    if found.faults:
        return _settle(bench, row, "refused", "; ".join(found.faults))
    try:
        document = _document(bench, found) if kind == "report" else None
    except Untaken as untaken:
        return _settle(bench, row, untaken.state, untaken.reason)
    return _first(bench, row, kind, found, document)


def accept(bench: Bench, kind: Kind, records: Records, row: LegacyRow) -> None:
    """Take over what a changed row says now; ValueError where it can't be."""
    raw = of_kept(row.place, row.raw)
    found = evaluating.meant(kind, records, raw, bench.zone, bench.now)
    try:
        if found.faults:
            raise Untaken("refused", "; ".join(found.faults))
        document = _document(bench, found) if kind == "report" else None
        _update(bench, kind, row, found, document)
    except Untaken as untaken:
        raise ValueError(untaken.reason) from None
    row.digest = evaluating.digest(found, document)
    _settle(bench, row, "taken", "")


def _was_said_before(row: LegacyRow, digest: str, pass_no: int) -> bool:
    """Whether an earlier pass met this very word at this place in the row's history, and a later one since.

    Messages about one key follow each other (preliminary, final, corrected). Read once more, they must not be taken
    for news: a pass goes along the history, and only what comes behind its end, or beside it, is new.
    """
    if row.pass_no != pass_no:
        row.met = 0
    if row.met and row.history[row.met - 1] == digest:
        return row.met < len(row.history)
    if row.met < len(row.history) and row.history[row.met] == digest:
        row.met += 1
        return row.met < len(row.history)
    if digest != row.digest or not row.history:
        row.history = [*row.history, digest]
    row.met = len(row.history)
    return False


def digest_of(bench: Bench, records: Records, row: LegacyRow) -> str:
    """The digest of what a kept row means now."""
    kind: Kind = row.kind  # type: ignore[assignment]  # the ledger's kinds are the mapping's
    found = evaluating.meant(kind, records, of_kept(row.place, row.raw), bench.zone, bench.now)
    return evaluating.digest(found, _document(bench, found) if kind == "report" and not found.faults else None)


def _first(bench: Bench, row: LegacyRow, kind: Kind, found: Meant, document: bytes | None) -> str:
    try:
        with bench.session.begin_nested():
            if kind == "patient":
                _take_patient(bench, row, found)
            elif kind == "exam":
                _take_exam(bench, row, found)
            else:
                _take_report(bench, row, found, document)
    except Untaken as untaken:
        row.candidates = untaken.candidates
        return _settle(bench, row, untaken.state, untaken.reason)
    except orders.OrderRefused as refused:
        return _settle(bench, row, "refused", str(refused))
    except IntegrityError:
        # On PostgreSQL somebody places an order with the same number at this moment: the next pass meets that order.
        return _settle(bench, row, "refused", "a number of it was taken by another entry at the same moment; run again")
    return _settle(bench, row, "taken", "; ".join(found.notes))


def _again(
    bench: Bench, kind: Kind, records: Records, row: LegacyRow, raw: Raw, found: Meant, digest: str,
    document: bytes | None, fault: str,
) -> str:  # fmt: skip
    """A row that is in the RIS already."""
    if digest == row.digest:
        if row.state == "changed":
            _settle(bench, row, "taken", "")  # the old system has taken its change back
        return "same"
    if records.last_counts and not fault:
        try:
            with bench.session.begin_nested():
                _update(bench, kind, row, found, document)
        except Untaken as untaken:
            row.raw = raw.kept()
            return _settle(bench, row, "changed", untaken.reason)
        row.raw, row.digest = raw.kept(), digest
        _settle(bench, row, "taken", "")
        return "updated"
    now_raw = raw.kept()
    if row.state != "changed" or row.raw != now_raw:
        names = sorted(name for name in {*now_raw, *row.raw} if now_raw.get(name) != row.raw.get(name))
        row.raw = now_raw
        why = f"it can't be taken as it is now: {fault}" if fault else "taken before, otherwise in the source now"
        _settle(bench, row, "changed", f"{why} ({', '.join(names) or 'the mapping means something else'})")
    return "changed"


def _take_patient(bench: Bench, row: LegacyRow, found: Meant) -> None:
    person = _person(bench, found)
    session = bench.session
    here = identifiers.find(session, person.patient_id, person.issuer)
    holder = identifiers.survivor_of(session, here) if here is not None else None
    if here is not None and holder is not None and here is not holder:
        row.patient_key = holder.id  # merged before: a person, or the HIS, has said whose it is
        return
    born = _born_that_day(session, person)
    decision = matching.decide(person, _known(holder) if holder else None, born)
    if decision.verdict == "hold":
        raise Untaken("held", decision.reason, decision.candidates)
    if decision.verdict == "same":
        row.patient_key = decision.patient
        return
    row.patient_key, row.is_ours = register(bench, person).id, True


def register(bench: Bench, person: Person) -> Patient:
    """A new patient with the old system's identifier."""
    return orders.register_patient(
        bench.session, patient_id=person.patient_id, issuer=person.issuer, family_name=person.family_name,
        given_name=person.given_name, birth_date=person.birth_date, sex=person.sex, now=bench.now, writer=WRITER,
        who=bench.who,
    )  # fmt: skip


def _take_exam(bench: Bench, row: LegacyRow, found: Meant) -> None:
    patient = _patient_of(bench, found)
    if patient is None:
        raise Untaken("refused", "nothing says whose exam it is")
    order, is_new = legacy.record_exam(
        bench.session, patient, _exam(bench, row, found), now=bench.now, writer=WRITER, who=bench.who
    )
    row.order_id, row.patient_key, row.is_ours = order.id, patient.id, is_new


def _take_report(bench: Bench, row: LegacyRow, found: Meant, document: bytes | None) -> None:
    patient = _patient_of(bench, found)
    report = _report(bench, row, found, document)
    row.report_id = legacy.record_report(bench.session, patient, report, now=bench.now).id
    row.patient_key = patient.id if patient else None


def _update(bench: Bench, kind: Kind, row: LegacyRow, found: Meant, document: bytes | None) -> None:
    if kind == "report":
        _take_report(bench, row, found, document)
    elif kind == "exam":
        if not row.is_ours:
            raise Untaken("changed", "the order is not the old system's: it was here before")
        order = bench.session.get_one(Order, row.order_id)
        legacy.change_exam(
            bench.session, order, _exam(bench, row, found), now=bench.now, writer=WRITER, who=bench.who
        )  # fmt: skip
    else:
        person, patient = _person(bench, found), bench.session.get_one(Patient, row.patient_key)
        if not row.is_ours or (patient.patient_id, patient.issuer) != (person.patient_id, person.issuer):
            raise Untaken("changed", "the patient was known here before: what is known here goes before")
        register(bench, person)


def _patient_of(bench: Bench, found: Meant) -> Patient | None:
    """Whose the row is: of a report, None where it names nobody. Untaken while that isn't settled."""
    patient_id = found.text("PatientID")
    if not patient_id:
        return None
    session, subject = bench.session, _subject(bench, found)
    blocking = session.scalars(
        select(LegacyRow).where(
            LegacyRow.import_id == bench.imported.id, LegacyRow.subject == subject, LegacyRow.kind == "patient",
            LegacyRow.state.in_((*OUTSIDE, "left-out")), LegacyRow.key.not_like(f"%{AGAIN}%"),
        )
    ).first()  # fmt: skip
    if blocking is not None:
        raise Untaken("waiting", f"for its patient (row {blocking.id}), which is {blocking.state}")
    issuer = found.text("Issuer") or bench.mapping.issuer
    patient = identifiers.find(session, patient_id, issuer)
    if patient is None:
        raise Untaken("waiting", f"no patient {patient_id} of {issuer} is known yet")
    return identifiers.survivor_of(session, patient)


def _person(bench: Bench, found: Meant) -> Person:
    family, given = evaluating.full_name(found)
    issuer = found.text("Issuer") or bench.mapping.issuer
    return Person(
        0, family[:64], given[:64], found.text("BirthDate"), found.text("Sex"), found.text("PatientID"), issuer[:64]
    )


def person_of(bench: Bench, records: Records, row: LegacyRow) -> Person:
    """The patient of a kept row, as the mapping reads it."""
    raw = of_kept(row.place, row.raw)
    return _person(bench, evaluating.meant("patient", records, raw, bench.zone, bench.now))


def _known(patient: Patient) -> Person:
    return Person(
        patient.id, patient.family_name, patient.given_name, patient.birth_date or "", patient.sex or "",
        patient.patient_id, patient.issuer,
    )  # fmt: skip


def _born_that_day(session: Session, person: Person) -> list[Person]:
    # Two of one issuer are two: that is what a number is for. Nobody is merged by an import.
    if not person.birth_date:
        return []
    query = select(Patient).where(
        Patient.birth_date == person.birth_date, Patient.issuer != person.issuer, Patient.merged_into.is_(None)
    )
    return [_known(patient) for patient in session.scalars(query)]


def _exam(bench: Bench, row: LegacyRow, found: Meant) -> legacy.PastExam:
    text = found.text
    return legacy.PastExam(
        source=bench.mapping.name, key=row.key, performed_at=text("PerformedAt"), status=text("Status") or "completed",
        accession_number=text("AccessionNumber"), study_uid=text("StudyUID"), placer_number=text("PlacerNumber"),
        filler_number=text("FillerNumber"), procedure_code=text("ProcedureCode"),
        procedure_text=text("ProcedureText"), modality=text("Modality"), priority=text("Priority") or "ROUTINE",
        referring_physician=text("ReferringPhysician"), clinical_information=text("ClinicalInformation"),
    )  # fmt: skip


def _report(bench: Bench, row: LegacyRow, found: Meant, document: bytes | None) -> legacy.PastReport:
    text = found.text
    words, media, sop_uid, study_uid = text("Text"), legacy_documents.TEXT, "", text("StudyUID")
    if document is None and words.lstrip().startswith("{\\rtf"):
        document = words.encode("latin-1", "backslashreplace")
        words = ""
    if document is not None:
        read = legacy_documents.read(document)
        media, sop_uid, study_uid = read.media, read.sop_uid, study_uid or read.study_uid
        words = words or read.text
    return legacy.PastReport(
        source=bench.mapping.name, key=row.key, text=words, media=media, document=document, sop_uid=sop_uid,
        study_uid=study_uid, accession_number=text("AccessionNumber"), title=text("Title"), author=text("Author"),
        written_at=text("WrittenAt"), status=text("Status")[:64],
    )  # fmt: skip


def _document(bench: Bench, found: Meant) -> bytes | None:
    """The report's file, from the row or the folder; None where it is text alone. Untaken where it is none."""
    content = found.values.get("Content")
    name = found.text("File")
    if name:
        content = _file(bench.folder, name)
    if not isinstance(content, bytes):
        return None
    try:
        legacy_documents.read(content)
    except legacy_documents.NoDocument as error:
        raise Untaken("refused", f"{name or 'its document'}: {error}") from None
    return content


def _file(folder: Path, name: str) -> bytes:
    # As the old system's own machine wrote it: C:\reports\7.pdf is reports/7.pdf of what was copied here.
    relative = name.replace("\\", "/").removeprefix("file://")
    relative = relative.partition(":")[2].lstrip("/") if relative[1:2] == ":" else relative
    base = folder.resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise Untaken("refused", f"{name[:200]} lies outside of the folder {folder}")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise Untaken("refused", f"{name[:200]} has more than {LARGEST_FILE >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise Untaken("refused", f"{name[:200]}: {error.strerror}") from None


def _subject(bench: Bench, found: Meant) -> str:
    patient_id = found.text("PatientID")
    return f"{patient_id}@{found.text('Issuer') or bench.mapping.issuer}"[:140] if patient_id else ""


def _row(bench: Bench, kind: Kind, key: str) -> LegacyRow | None:
    query = select(LegacyRow).where(
        LegacyRow.import_id == bench.imported.id, LegacyRow.kind == kind, LegacyRow.key == key[:200]
    )
    return bench.session.scalars(query).first()


def _new(bench: Bench, kind: Kind, key: str) -> LegacyRow:
    at = clock.text(bench.now)
    row = LegacyRow(
        import_id=bench.imported.id, kind=kind, key=key[:200], place="", state="refused", digest="", history=[],
        met=0, created_at=at, updated_at=at,
    )  # fmt: skip
    bench.session.add(row)
    return row


def _settle(bench: Bench, row: LegacyRow, state: str, reason: str) -> str:
    row.state, row.reason, row.updated_at = state, reason[:2000], clock.text(bench.now)
    bench.session.flush()
    return state
