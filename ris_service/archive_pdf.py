"""Signed reports in the archive: each PDF as an Encapsulated PDF instance of its study (DICOM PS3.3 A.45.1).

The SOP Instance UID was chosen when the report was signed, and everything else derives from it: storing twice,
after a crash between the archive's answer and our note of it, is storing the same thing once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo

from zambezi import causes, clock, reports, studies, study_documents
from zambezi.database.engine import Sessions
from zambezi.database.tables import Report
from zambezi.orthanc_client import OrthancClient, OrthancError
from zambezi.study_documents import NotAnnounced, NotThere, Sheet, attributes_of

log = logging.getLogger(__name__)


def encapsulated(report: Report, study: dict[str, str], zone: ZoneInfo) -> bytes:
    """The DICOM file; `study` holds the attributes that the study's images carry (study_documents.COPIED)."""
    if report.pdf is None or report.sop_uid is None or report.signed_at is None:
        raise ValueError(f"version {report.version} of the report is not signed")
    described = {"pt": "Relatório", "en": "Report"}.get(report.language, "Report")
    sheet = Sheet(
        report.pdf, report.sop_uid, described, f"{described} {report.version}", report.version, 9000 + report.version,
        clock.parse(report.signed_at).astimezone(zone), is_verified=True,
    )  # fmt: skip
    return study_documents.encapsulated(sheet, study)


def store_one(sessions: Sessions, orthanc: OrthancClient, report_id: int, zone: ZoneInfo, now: datetime) -> None:
    """Store one signed version and note it; raises OrthancError, NotThere or NotAnnounced, and then it stays due."""
    with sessions.begin() as session:
        report = session.get_one(Report, report_id)
        study = studies.of_report(session, report)
    if study is None:
        raise NotThere(f"no images under study {report.study_uid} are known to be those of the report")
    file = encapsulated(report, attributes_of(orthanc, study), zone)
    told = f"report {report.study_uid} version {report.version}"
    study_documents.hand_in(sessions, orthanc, str(report.sop_uid), file, causes.REPORT, told, now)
    with sessions.begin() as session:
        session.get_one(Report, report_id).stored_at = clock.text(now)


class Storing(threading.Thread):
    """Stores what was signed, again and again until it is there; a restart goes on where it was."""

    def __init__(
        self, sessions: Sessions, connect: Callable[[], OrthancClient], zone: ZoneInfo, stop: threading.Event,
        every_s: float = 2,
    ) -> None:  # fmt: skip
        super().__init__(name="storing", daemon=True)
        self._sessions = sessions
        self._connect = connect
        self._zone = zone
        self._stop_asked = stop
        self._every_s = every_s
        self.last_error = ""
        self.waiting = 0
        #: Of reports that couldn't be stored: (seconds to wait next time, not before).
        self._patience: dict[int, tuple[float, float]] = {}

    def run(self) -> None:
        orthanc = self._connect()
        while not self._stop_asked.wait(self._every_s):
            try:
                self._round(orthanc)
            except Exception as error:  # the edge of the thread: it must never end by itself
                self.last_error = f"signed reports can't be stored: {type(error).__name__}"
                log.exception("signed reports can't be stored")

    def _round(self, orthanc: OrthancClient) -> None:
        with self._sessions.begin() as session:
            due = reports.unstored(session)
        self._patience = {report_id: wait for report_id, wait in self._patience.items() if report_id in due}
        for report_id in due:
            wait_s, not_before = self._patience.get(report_id, (self._every_s, 0.0))
            if self._stop_asked.is_set() or time.monotonic() < not_before:
                continue
            try:
                store_one(self._sessions, orthanc, report_id, self._zone, clock.now())
                log.info("report %s is in the archive", report_id)
                self._patience.pop(report_id, None)
            except (OrthancError, NotThere, NotAnnounced, ValueError) as error:
                # Each report waits for itself: one whose study is not there keeps no other waiting.
                self._patience[report_id] = (min(60, wait_s * 2), time.monotonic() + wait_s)
                self.last_error = f"report {report_id} can't be stored yet: {error}"
                log.warning("%s", self.last_error)
        self.waiting = len(self._patience)
        self.last_error = self.last_error if self._patience else ""
