"""Orthanc's REST as far as a preview reads it (real HTTP), over files made from the rows of studies and series."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from sqlalchemy import select

from zambezi.database.engine import Sessions
from zambezi.database.tables import Series, Study
from zambezi.orthanc_client import numbered


def an_id(*parts: str) -> str:
    digest = hashlib.sha1("|".join(parts).encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[n : n + 8] for n in range(0, 40, 8))


class Archive:
    """One instance for each series; `filled` gives the rows the ids that the archive has."""

    def __init__(self) -> None:
        self.resources: dict[str, Any] = {}
        self.files: dict[str, bytes] = {}
        self.is_away = False

    def filled(self, sessions: Sessions) -> None:
        with sessions.begin() as session:
            for study in session.scalars(select(Study)):
                study.orthanc_id = an_id(study.patient_id, study.study_uid)
                rows = session.scalars(select(Series).where(Series.study_uid == study.study_uid)).all()
                for one in rows:
                    one.orthanc_id = an_id(study.patient_id, study.study_uid, one.series_uid)
                self._study(study, rows or [Series(series_uid=f"{study.study_uid}.1", modality=study.modalities)])

    def _study(self, study: Study, rows: Any) -> None:
        series_ids = []
        for row in rows:
            named = (study.patient_id, study.study_uid, row.series_uid)
            sop_uid = f"{row.series_uid}.1"
            series, instance = an_id(*named), an_id(*named, sop_uid)
            series_ids.append(series)
            tags = {"SeriesInstanceUID": row.series_uid, "Modality": row.modality}
            self.resources[f"/series/{series}"] = {"ID": series, "Instances": [instance], "MainDicomTags": tags,
                                                   "ParentStudy": study.orthanc_id}  # fmt: skip
            self.resources[f"/instances/{instance}"] = {"ID": instance, "ParentSeries": series}
            self.files[f"/instances/{instance}/file"] = written(study, row, sop_uid)
        self.resources[f"/studies/{study.orthanc_id}"] = {
            "ID": study.orthanc_id, "Series": series_ids, "MainDicomTags": {"StudyInstanceUID": study.study_uid},
            "PatientMainDicomTags": {"PatientID": study.patient_id},
        }  # fmt: skip

    def found(self, query: dict[str, Any]) -> list[Any]:
        wanted = query["Query"]
        studies = [one for path, one in self.resources.items() if path.startswith("/studies/")]
        return [
            one for one in studies
            if wanted.items() <= numbered({**one["MainDicomTags"], **one["PatientMainDicomTags"]}).items()
        ]  # fmt: skip

    @contextmanager
    def serving(self, port: int) -> Iterator[None]:
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if archive.is_away:
                    return self._answer(503, b"")
                content = archive.files.get(self.path)
                if content is not None:
                    return self._answer(200, content)
                told = archive.resources.get(self.path)
                return self._answer(200 if told else 404, json.dumps(told).encode())

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._answer(200, json.dumps(archive.found(asked)).encode())

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                return

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()


def written(study: Study, series: Series, sop_uid: str) -> bytes:
    """A small secondary capture that says what the rows say."""
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 192"
    made.SOPClassUID, made.SOPInstanceUID = SecondaryCaptureImageStorage, sop_uid
    made.StudyInstanceUID, made.SeriesInstanceUID = study.study_uid, series.series_uid
    made.PatientID, made.PatientName, made.PatientSex = study.patient_id, study.patient_name, study.sex
    made.PatientBirthDate, made.AccessionNumber = study.birth_date, study.accession_number
    made.StudyDate, made.StudyDescription, made.Modality = study.study_date, study.description, series.modality
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = made.SOPClassUID, sop_uid
    out = BytesIO()
    made.save_as(out, enforce_file_format=True)
    return out.getvalue()
