"""Documents of old reports on their way into the archive, where the mapping asks for it (ToArchive).

A PDF becomes an Encapsulated PDF instance of its study, a DICOM document is stored as it is, by the door through which
the RIS's own reports come (zambezi.study_documents), with the cause migration: nothing is routed, no one is told.
Killed at any moment, the next round finds what is there and stores it no second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, defer

from migration.records import mapping, reconciling
from zambezi import announcing, causes, clock, exceptions, legacy, legacy_documents, study_documents
from zambezi.coercion import declared
from zambezi.coercion.steps import CoercionFailed
from zambezi.database.engine import Sessions
from zambezi.database.tables import LegacyReport, MigrationProject, MigrationStudy, Study
from zambezi.digest import Unreadable
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.study_documents import NotThere, Sheet

WRITER = "migration"
#: Reports looked at in one round.
ROUND = 200
#: Series Number of a report's first version; those of the RIS begin at 9000.
_SERIES = 8000
#: Begins the reference of what is stored; the import's name follows.
_REFERENCE = "records "
#: By then the journal has recorded what was announced, or it is announced anew.
_TOLD_FOR = timedelta(hours=1)
_LONGEST_TITLE = 64  # a Series Description (LO, PS3.5 6.2)


class CannotStore(Exception):
    """The document can't be put into the archive as things are; the text says why."""


@dataclass(frozen=True)
class _Due:
    """A report whose document is to be stored, with its study.

    `changes`: what the plan of the migration that brought the study has changed in its images, by keyword; `project`
    names it, and `source_patient` is the patient's identifier before.
    """

    report: LegacyReport
    document: bytes
    study: Study
    changes: Mapping[str, str] = field(default_factory=dict)
    project: str = ""
    source_patient: str = ""


def mark(session: Session, wanted: mapping.Mapping) -> None:
    """What the mapping wants in the archive is due, what was refused before is tried again; nothing else is due."""
    mine = (LegacyReport.source == wanted.name, LegacyReport.is_latest)
    if wanted.to_archive:
        fits = LegacyReport.media.in_((legacy_documents.PDF, legacy_documents.DICOM))
        waits = LegacyReport.archive_state.in_(("", "refused"))
        session.execute(update(LegacyReport).where(*mine, fits, waits).values(archive_state="due", archive_reason=""))
    of_import = (LegacyReport.source == wanted.name, LegacyReport.archive_state == "due")
    unwanted = of_import if not wanted.to_archive else (*of_import, ~LegacyReport.is_latest)
    session.execute(update(LegacyReport).where(*unwanted).values(archive_state=""))


def store_all(
    sessions: Sessions, reading: Sessions, orthanc: OrthancClient, zone: ZoneInfo, may_go_on: Callable[[], bool]
) -> int:  # fmt: skip
    """Store every document that is due, some at a time, as long as one may; how many were settled.

    Raises OrthancError and NotAnnounced; what is left then is left for the next time.
    """
    settled, after = 0, 0
    while may_go_on():
        with reading() as session:
            some = due(session, after)
        if not some:
            break
        announce(sessions, some, clock.now())
        for report_id in some:
            if not may_go_on():
                break
            settled += store(sessions, orthanc, report_id, zone, clock.now()) != "due"
        after = some[-1]
    return settled


def due(session: Session, after: int = 0) -> list[int]:
    """Reports whose document is due and whose study is here, by id, some at a time."""
    report = LegacyReport
    query = select(report.id).where(report.archive_state == "due", report.is_latest, report.id > after)
    return list(session.scalars(query.where(reconciling.has_study()).order_by(report.id).limit(ROUND)))


def announce(sessions: Sessions, ids: list[int], now: datetime) -> None:
    """Tell the archive of all of these at once (one by one each would be waited for), and no more of older ones."""
    coming: dict[str, dict[str, str]] = {}
    with sessions.begin() as session:
        announcing.forget_instances(session, causes.MIGRATION, _REFERENCE, now - _TOLD_FOR)
        query = select(LegacyReport).where(LegacyReport.id.in_(ids)).options(defer(LegacyReport.document))
        for report in session.scalars(query):
            if sop_uid := _sop_uid(report):
                coming.setdefault(report.source, {})[sop_uid] = ""
        for source, uids in sorted(coming.items()):
            announcing.announce_instances(session, uids, causes.MIGRATION, f"{_REFERENCE}{source}", now)


def _sop_uid(report: LegacyReport) -> str:
    if report.media == legacy_documents.DICOM:
        return report.sop_uid or ""
    origin = f"{report.source}/{report.source_key}/{report.version}/{report.document_sha256}"
    return study_documents.derived_uid(origin, "old report")


def store(sessions: Sessions, orthanc: OrthancClient, report_id: int, zone: ZoneInfo, now: datetime) -> str:
    """Store one document and read it back; the state it has now.

    Raises OrthancError and NotAnnounced: then it stays due, and the next round tries again.
    """
    with sessions.begin() as session:
        report = session.get_one(LegacyReport, report_id)
        found = legacy.studies_of(session, report)
        source = report.source
        wanted = _wanted(session, report, found[0]) if len(found) == 1 else None
    state, reason, sop_uid = "due", "", report.sop_uid
    try:
        if report.document is None or not found:
            return state
        if wanted is None:
            raise CannotStore(f"{len(found)} studies are joined to it: nobody can say to which it belongs")
        sop_uid, file = _file(wanted, orthanc, zone, now)
        state, reason = _put(sessions, orthanc, wanted, sop_uid, file, now)
    except NotThere:
        return state  # its images were here and aren't now, or are in another study: the journal will say so
    except (CannotStore, CoercionFailed) as why:
        state, reason = "refused", str(why)
    with sessions.begin() as session:
        row = session.get_one(LegacyReport, report_id)
        row.archive_state, row.archive_reason, row.sop_uid = state, reason, sop_uid
        row.archived_at = clock.text(now) if state != "refused" else None
        _tell(session, source, now)
    return state


def _wanted(session: Session, report: LegacyReport, study: Study) -> _Due:
    brought = session.execute(
        select(MigrationStudy, MigrationProject.name)
        .join(MigrationProject, MigrationProject.id == MigrationStudy.project_id)
        .where(MigrationStudy.study_uid == study.study_uid)
        .order_by(MigrationStudy.id.desc())
    ).first()
    due = _Due(report, report.document or b"", study)
    if brought is None:
        return due
    return replace(due, changes=brought[0].changes, project=brought[1], source_patient=brought[0].patient_id)


def _file(wanted: _Due, orthanc: OrthancClient, zone: ZoneInfo, now: datetime) -> tuple[str, bytes]:
    """SOP Instance UID and bytes of what is stored."""
    report, study = wanted.report, wanted.study
    attributes = study_documents.attributes_of(orthanc, study)
    if report.media == legacy_documents.PDF:
        title = (report.title or "Report")[:_LONGEST_TITLE]
        at = clock.parse(report.written_at).astimezone(zone) if report.written_at else None
        sheet = Sheet(
            wanted.document, _sop_uid(report), title, title, report.version, _SERIES + report.version, at,
            is_verified=False,
        )  # fmt: skip
        return sheet.sop_uid, study_documents.encapsulated(sheet, attributes)
    named = legacy_documents.names(wanted.document)
    if named.study_uid != study.study_uid:
        raise CannotStore(f"the object is of study {named.study_uid}, its report of study {study.study_uid}")
    if not named.sop_uid:
        raise CannotStore("the object has no SOP Instance UID")
    file, patient_id = wanted.document, attributes.get("PatientID", "").strip()
    if named.patient_id != patient_id and named.patient_id == wanted.source_patient and wanted.changes:
        # The plan has decided who this is: what it declares for the study's images it declares for this object.
        file = declared.coerced(file, wanted.changes, wanted.project, now)
        named = legacy_documents.names(file)
    if named.patient_id != patient_id:
        raise CannotStore("the object names another patient than the study's images do")
    return named.sop_uid, file


def _put(
    sessions: Sessions, orthanc: OrthancClient, wanted: _Due, sop_uid: str, file: bytes, now: datetime
) -> tuple[str, str]:
    report, held = wanted.report, _held(orthanc, sop_uid)
    if not held:
        reference = f"{_REFERENCE}{report.source}"
        try:
            study_documents.hand_in(sessions, orthanc, sop_uid, file, causes.MIGRATION, reference, now)
        except OrthancRefused as refused:
            if refused.is_transient or refused.status in (403, 507):
                raise
            raise CannotStore(f"the archive does not take it: {refused.detail}") from refused
        held = _held(orthanc, sop_uid)
        if any(not _is_same(wanted, orthanc.file(one)) for one in held) or not held:
            raise CannotStore("read back from the archive it is not what was put there")
        return "stored", ""
    if all(_is_same(wanted, orthanc.file(one)) for one in held):
        return "stored", ""  # by a round that died before it could say so, or with the study's images
    if report.media == legacy_documents.DICOM:
        return "there", "the archive has an object under its SOP Instance UID, in other bytes"
    raise CannotStore(f"the archive has something else under the UID {sop_uid}")


def _held(orthanc: OrthancClient, sop_uid: str) -> list[str]:
    return orthanc.find("Instance", {"SOPInstanceUID": sop_uid})


def _is_same(wanted: _Due, file: bytes) -> bool:
    """Whether the archive's file holds the report's document, byte for byte but for what the study's plan declares."""
    if wanted.report.media == legacy_documents.PDF:
        return legacy_documents.inner_pdf(file) == wanted.document
    if file == wanted.document or not wanted.changes:
        return file == wanted.document
    try:
        return not declared.differences(wanted.document, file, wanted.changes, wanted.project, clock.now())
    except (CoercionFailed, Unreadable):
        return False


def _tell(session: Session, source: str, now: datetime) -> None:
    """One item of an import for all that was refused."""
    reference = f"documents {source}"
    query = select(func.count()).where(LegacyReport.source == source, LegacyReport.archive_state == "refused")
    count = session.scalars(query).one()
    if not count:
        exceptions.decide(session, "migration", reference, who=WRITER, decision="all are in the archive", now=now,
                          writer=WRITER)  # fmt: skip
        return
    exceptions.wait(
        session, "migration", reference, kind="documents-refused", now=now, facts={"source": source, "count": count},
        what=f"{count} documents of {source} could not be put into the archive; they are kept with their reports.",
        suggestion="Each report's page says why. Mend what it names, then import again: it is tried once more.",
        actions=[{"label": "Open the import", "href": f"/migrations/records/{source}"}],
    )  # fmt: skip
