"""A study as pages and reports speak of it: images, the order behind them, the patient, in one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import abort
from sqlalchemy import select
from sqlalchemy.orm import Session

from ris_service.parts import parts
from ris_service.people import me
from zambezi import deletions, identifiers, opening
from zambezi.database.tables import Order, Report, Series, Study


@dataclass(frozen=True)
class Exam:
    """One study of one patient. What the order says of the patient goes before what the images say."""

    study: Study
    order: Order | None
    former: Sequence[str] = ()  # IDs of patients that were merged into the order's

    @property
    def patient_name(self) -> str:
        if self.order:
            return shown_name(self.order.patient.family_name, self.order.patient.given_name)
        family, _, given = self.study.patient_name.partition("^")
        return shown_name(family, given.replace("^", " "))

    @property
    def patient_id(self) -> str:
        return self.order.patient.patient_id if self.order else self.study.patient_id

    @property
    def birth_date(self) -> str:
        return (self.order.patient.birth_date if self.order else None) or self.study.birth_date

    @property
    def sex(self) -> str:
        return (self.order.patient.sex if self.order else None) or self.study.sex

    @property
    def accession_number(self) -> str:
        return self.order.accession_number if self.order else self.study.accession_number

    @property
    def description(self) -> str:
        return (self.order.procedure_text if self.order else "") or self.study.description

    @property
    def modalities(self) -> str:
        return self.study.modalities.replace("\\", ", ")

    @property
    def is_of_another_patient(self) -> bool:
        """Whether the images carry another patient ID than the order that they are linked to, and no former one."""
        if self.order is None:
            return False
        return self.study.patient_id not in (self.order.patient.patient_id, *self.former)


def shown_name(family: str, given: str) -> str:
    """`Machava, José` ; what is missing leaves no comma."""
    return ", ".join(part for part in (family.strip(), given.strip()) if part)


def person_name(text: str) -> str:
    """A name as HL7 and DICOM write it (`Machava^José`), as people do; one that was typed here stays as it is."""
    family, _, given = text.partition("^")
    return shown_name(family, given.replace("^", " "))


def of_study(database: Session, study_uid: str) -> list[Exam]:
    """The studies under this UID: one, or several where different patients' images carry the same UID.

    One whose images went to another (a correction that is being carried out) doesn't count beside it.
    """
    rows = database.execute(
        select(Study, Order)
        .outerjoin(Order, Order.id == Study.order_id)
        .where(Study.study_uid == study_uid)
        .order_by(Study.first_at)
    )
    former = identifiers.former_ids(database)
    found = [Exam(study, order, former.get(order.patient_key, ()) if order else ()) for study, order in rows]
    return [exam for exam in found if exam.study.instances > 0] or found


def is_in_part(exam: Exam) -> bool:
    """Whether the study lies in the part of the site that this person sees."""
    return me().sees(opening.part_of_study(parts().settings.access, exam.study, exam.order))


def is_visible(database: Session, exam: Exam) -> bool:
    """Whether this person may see the study: within their part, named by their token, or opened in an emergency."""
    person, study = me(), exam.study
    if person.studies and study.study_uid in person.studies:
        return True
    if is_in_part(exam):
        return True
    now_s = int(parts().clock().timestamp())
    return person.token is not None and opening.broken_open(database, person.token.session, study.study_uid, now_s)


def seen_of_study(database: Session, study_uid: str) -> list[Exam]:
    """The studies under this UID if this person may see all of them, else none: a viewer would show them together."""
    found = of_study(database, study_uid)
    return found if all(is_visible(database, exam) for exam in found) else []


def one(database: Session, study_uid: str) -> Exam:
    """The study, for pages where it must be one patient's: 404 if there is none or it is not for this person,
    409 if two patients' images carry this UID.
    """
    found = seen_of_study(database, study_uid)
    if not found:
        abort(404)
    if len(found) > 1:
        abort(409)
    return found[0]


def series_of(database: Session, study: Study) -> Sequence[Series]:
    """The study's series."""
    query = select(Series).where(Series.study_uid == study.study_uid).order_by(Series.modality, Series.series_uid)
    return database.scalars(query).all()


def signed_reports(database: Session, study_uid: str) -> Sequence[Report]:
    """Signed versions, newest first."""
    query = select(Report).where(Report.study_uid == study_uid, Report.state == "final")
    return database.scalars(query.order_by(Report.version.desc())).all()


def leaving(database: Session, study_uid: str) -> dict[str, Any]:
    """What study_deletions.html shows: deletions of the study's images, how many went, and its legal holds."""
    found = deletions.of_study(database, study_uid)
    return {
        "deletions": found,
        "gone": deletions.gone_counts(database, [one.id for one in found]),
        "legal_holds": deletions.standing_holds(database, study_uid),
    }


def others_of_patient(database: Session, exam: Exam) -> list[Exam]:
    """The same patient's other studies with images that this person may see, the newest first."""
    if not exam.study.patient_id:
        return []
    rows = database.execute(
        select(Study, Order)
        .outerjoin(Order, Order.id == Study.order_id)
        .where(Study.patient_id == exam.study.patient_id, Study.study_uid != exam.study.study_uid, Study.instances > 0)
        .order_by(Study.study_date.desc())
        .limit(50)
    )
    return [one for one in (Exam(study, order) for study, order in rows) if is_visible(database, one)]


def priors(database: Session, exam: Exam) -> list[tuple[Exam, Report]]:
    """The same patient's other studies with their newest signed report, newest study first."""
    if not exam.study.patient_id:
        return []
    rows = database.execute(
        select(Study, Order, Report)
        .outerjoin(Order, Order.id == Study.order_id)
        .join(Report, Report.study_uid == Study.study_uid)
        .where(
            Study.patient_id == exam.study.patient_id,
            Study.study_uid != exam.study.study_uid,
            Report.state == "final",
        )
        .order_by(Study.study_date.desc(), Study.study_uid, Report.version.desc())
    )
    newest: dict[str, tuple[Exam, Report]] = {}
    for study, order, report in rows:
        if is_visible(database, Exam(study, order)):
            newest.setdefault(study.study_uid, (Exam(study, order), report))
    return list(newest.values())[:20]
