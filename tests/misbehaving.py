"""DICOM receivers that behave as one is told, written with pynetdicom; and an Orthanc that hands out files."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE, evt

from demo.neighbours import free_port
from gateway.associations import COMMITMENT, FIND
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable

CLASSES = (CTImageStorage, MRImageStorage, SecondaryCaptureImageStorage)
_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"
#: What a receiver does with an image: (event, number of the image since the start, from 1) -> status, None to keep it.
Does = Callable[[Any, int], int | None]


@dataclass
class Receiver:
    """Keeps what it is sent, answers queries and commits itself, unless it is told to do otherwise."""

    does: Does = lambda event, number: None
    classes: tuple[str, ...] = CLASSES
    syntaxes: tuple[str, ...] = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    aet: str = "PACS"  # empty: it answers to any
    port: int = field(default_factory=free_port)
    #: What is said of an image that it has, when it is asked to commit itself: None, or a Failure Reason.
    commits: Callable[[str], int | None] = lambda sop_uid: None
    reports_to: tuple[str, int] | None = None  # AE title and port; None: on the association of the question
    reports: bool = True
    has: dict[str, Dataset] = field(default_factory=dict)
    offered: Counter[str] = field(default_factory=Counter)  # SOP Instance UID -> how often
    callers: list[str] = field(default_factory=list)
    #: Told of each request before it is answered: store, find, commit.
    meets: Callable[[str], None] = lambda request: None
    rejects: tuple[int, int, int] | None = None
    tls: Any = None
    associations: int = 0

    @contextmanager
    def listening(self) -> Iterator[Receiver]:
        ae = AE(self.aet or "ANY")
        ae.require_called_aet = bool(self.aet)
        ae.network_timeout = 30
        for sop_class in self.classes:
            ae.add_supported_context(sop_class, list(self.syntaxes))
        ae.add_supported_context(FIND)
        ae.add_supported_context(COMMITMENT)
        handlers: list[Any] = [
            (evt.EVT_REQUESTED, self._requested), (evt.EVT_C_STORE, self._stored), (evt.EVT_C_FIND, self._found),
            (evt.EVT_N_ACTION, self._asked),
        ]  # fmt: skip
        server: Any = ae.start_server(
            ("127.0.0.1", self.port), block=False, evt_handlers=handlers, ssl_context=self.tls
        )
        try:
            yield self
        finally:
            server.shutdown()

    def _requested(self, event: Any) -> None:
        self.associations += 1
        self.callers.append(str(event.assoc.requestor.primitive.calling_ae_title).strip())
        if self.rejects is not None:
            event.assoc.acse.send_reject(*self.rejects)
            event.assoc.kill()

    def _stored(self, event: Any) -> int:
        self.meets("store")
        sop_uid = str(event.request.AffectedSOPInstanceUID)
        self.offered[sop_uid] += 1
        status = self.does(event, self.offered.total())
        if status is None or status in (0xB000, 0xB006, 0xB007):
            dataset = event.dataset
            dataset.file_meta = event.file_meta
            self.has[sop_uid] = dataset
        return status or 0

    def _found(self, event: Any) -> Iterator[tuple[int, Dataset | None]]:
        self.meets("find")
        asked = event.identifier
        for sop_uid, dataset in list(self.has.items()):
            if dataset.SeriesInstanceUID == asked.SeriesInstanceUID:
                answer = Dataset()
                answer.QueryRetrieveLevel = "IMAGE"
                answer.StudyInstanceUID, answer.SeriesInstanceUID = asked.StudyInstanceUID, asked.SeriesInstanceUID
                answer.SOPInstanceUID = sop_uid
                yield 0xFF00, answer
        yield 0, None

    def _asked(self, event: Any) -> tuple[int, Dataset | None]:
        self.meets("commit")
        information = event.action_information
        report = Dataset()
        report.TransactionUID = information.TransactionUID
        report.ReferencedSOPSequence, report.FailedSOPSequence = [], []
        for one in information.ReferencedSOPSequence:
            sop_uid = str(one.ReferencedSOPInstanceUID)
            reason = 0x0112 if sop_uid not in self.has else self.commits(sop_uid)
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.ReferencedSOPClassUID, sop_uid
            if reason is None:
                report.ReferencedSOPSequence.append(item)
            else:
                item.FailureReason = reason
                report.FailedSOPSequence.append(item)
        if self.reports:
            threading.Thread(target=self._report, args=(event.assoc, report)).start()
        return 0, None

    def _report(self, association: Any, report: Dataset) -> None:
        kind = 2 if report.FailedSOPSequence else 1
        if self.reports_to is None:
            time.sleep(0.05)  # behind the answer to the question
            with suppress(RuntimeError):  # who asked may have died meanwhile
                association.send_n_event_report(report, kind, COMMITMENT, _COMMITMENT_INSTANCE)
            return
        self.report_to(report, kind, *self.reports_to)

    def report_to(self, report: Dataset, kind: int, aet: str, port: int) -> int | None:
        """Report on an association of its own (PS3.4 J.3.3); the status."""
        from pynetdicom import build_role

        ae = AE(self.aet)
        ae.add_requested_context(COMMITMENT)
        role = build_role(COMMITMENT, scu_role=False, scp_role=True)
        made: Any = ae.associate("127.0.0.1", port, ae_title=aet, ext_neg=[role])
        if not made.is_established:
            return None
        try:
            status, _ = made.send_n_event_report(report, kind, COMMITMENT, _COMMITMENT_INSTANCE)
            return int(status.Status) if "Status" in status else None
        finally:
            made.release()


@dataclass
class Shelf:
    """An Orthanc with these files, by orthanc_id; its own jobs are not to be had here."""

    files: dict[str, bytes]
    metadata: dict[str, dict[str, str]]
    away: bool = False
    fetched: list[str] = field(default_factory=list)

    def contents(self, orthanc_ids: list[str]) -> list[dict[str, Any]]:
        self._answers()
        return [{"ID": id, "Metadata": self.metadata[id]} for id in orthanc_ids if id in self.metadata]

    def file(self, orthanc_id: str) -> bytes:
        self._answers()
        if orthanc_id not in self.files:
            raise OrthancRefused("GET", f"/instances/{orthanc_id}/file", 404, "")
        self.fetched.append(orthanc_id)
        return self.files[orthanc_id]

    def start_store(self, name: str, _orthanc_ids: list[str], _kind: str) -> str:
        raise AssertionError(f"a job to {name}: these tests are about our own sender")

    def _answers(self) -> None:
        if self.away:
            raise OrthancUnreachable("GET /instances: ConnectionError")
