"""Documents of old reports on their way into the archive, where the mapping asks for it (ToArchive).

A PDF becomes an Encapsulated PDF instance of its study, a DICOM document is stored as it is, by the door through which
the RIS's own reports come (zambezi.study_documents), with the cause migration: nothing is routed, no one is told.
Killed at any moment, the next round finds what is there and stores it no second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, defer

from migration.records import reconciling
from migration.records.mapping import Mapping
from zambezi import announcing, causes, clock, exceptions, legacy, legacy_documents, study_documents
from zambezi.database.engine import Sessions
from zambezi.database.tables import LegacyReport, Study
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
    """A report whose document is to be stored, with its study."""

    report: LegacyReport
    document: bytes
    study: Study


def mark(session: Session, mapping: Mapping) -> None:
    """What the mapping wants in the archive is due, what was refused before is tried again; nothing else is due."""
    mine = (LegacyReport.source == mapping.name, LegacyReport.is_latest)
    if mapping.to_archive:
        fits = LegacyReport.media.in_((legacy_documents.PDF, legacy_documents.DICOM))
        waits = LegacyReport.archive_state.in_(("", "refused"))
        session.execute(update(LegacyReport).where(*mine, fits, waits).values(archive_state="due", archive_reason=""))
    of_import = (LegacyReport.source == mapping.name, LegacyReport.archive_state == "due")
    unwanted = of_import if not mapping.to_archive else (*of_import, ~LegacyReport.is_latest)
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
    state, reason, sop_uid = "due", "", report.sop_uid
    try:
        if report.document is None or not found:
            return state
        if len(found) > 1:
            raise CannotStore(f"{len(found)} studies are joined to it: nobody can say to which it belongs")
        sop_uid, file = _file(_Due(report, report.document, found[0]), orthanc, zone)
        state, reason = _put(sessions, orthanc, report, sop_uid, file, now)
    except NotThere:
        return state  # its images were here and aren't now, or are in another study: the journal will say so
    except CannotStore as why:
        state, reason = "refused", str(why)
    with sessions.begin() as session:
        row = session.get_one(LegacyReport, report_id)
        row.archive_state, row.archive_reason, row.sop_uid = state, reason, sop_uid
        row.archived_at = clock.text(now) if state != "refused" else None
        _tell(session, source, now)
    return state


def _file(wanted: _Due, orthanc: OrthancClient, zone: ZoneInfo) -> tuple[str, bytes]:
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
    if named.patient_id != attributes.get("PatientID", "").strip():
        raise CannotStore("the object names another patient than the study's images do")
    if not named.sop_uid:
        raise CannotStore("the object has no SOP Instance UID")
    return named.sop_uid, wanted.document


def _put(
    sessions: Sessions, orthanc: OrthancClient, report: LegacyReport, sop_uid: str, file: bytes, now: datetime
) -> tuple[str, str]:
    held = _held(orthanc, sop_uid)
    if not held:
        reference = f"{_REFERENCE}{report.source}"
        try:
            study_documents.hand_in(sessions, orthanc, sop_uid, file, causes.MIGRATION, reference, now)
        except OrthancRefused as refused:
            if refused.is_transient or refused.status in (403, 507):
                raise
            raise CannotStore(f"the archive does not take it: {refused.detail}") from refused
        held = _held(orthanc, sop_uid)
        if any(not _is_same(report, orthanc.file(one)) for one in held) or not held:
            raise CannotStore("read back from the archive it is not what was put there")
        return "stored", ""
    if all(_is_same(report, orthanc.file(one)) for one in held):
        return "stored", ""  # by a round that died before it could say so, or with the study's images
    if report.media == legacy_documents.DICOM:
        return "there", "the archive has an object under its SOP Instance UID, in other bytes"
    raise CannotStore(f"the archive has something else under the UID {sop_uid}")


def _held(orthanc: OrthancClient, sop_uid: str) -> list[str]:
    return orthanc.find("Instance", {"SOPInstanceUID": sop_uid})


def _is_same(report: LegacyReport, file: bytes) -> bool:
    """Whether the archive's file holds the report's document, byte for byte."""
    return (legacy_documents.inner_pdf(file) if report.media == legacy_documents.PDF else file) == report.document


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
