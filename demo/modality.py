"""The demo's CT: asks for its worklist and sends images by dcmtk's programs, reports progress by MPPS.

dcmtk has no MPPS client; that one part is pynetdicom's.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep  # type: ignore[attr-defined]  # made at import

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


class ModalityRefused(Exception):
    """The archive or the RIS node did not do what the modality asked for; the text is its program's last words."""


@dataclass(frozen=True)
class Modality:
    """One modality: its AE title, and where the archive (`dicom_port`) and the RIS node (`mpps_port`) listen."""

    aet: str
    dicom_port: int
    mpps_port: int

    def worklist(self, port: int | None = None) -> list[Dataset]:
        """Today's worklist for this AE title (`findscu -W`), as the program wrote the answers to disk."""
        with tempfile.TemporaryDirectory() as folder:
            self._dcmtk(
                "findscu", "-W", "-X", "-od", folder, "-aet", self.aet, "-aec", "ZAMBEZI", "127.0.0.1",
                str(port or self.dicom_port),
                "-k", "PatientName", "-k", "PatientID", "-k", "PatientBirthDate", "-k", "PatientSex",
                "-k", "AccessionNumber", "-k", "StudyInstanceUID", "-k", "RequestedProcedureDescription",
                "-k", "ReferringPhysicianName", "-k", "SpecificCharacterSet",
                "-k", f"ScheduledProcedureStepSequence[0].ScheduledStationAETitle={self.aet}",
                "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartDate",
                "-k", "ScheduledProcedureStepSequence[0].Modality",
                "-k", "ScheduledProcedureStepSequence[0].ScheduledProcedureStepID",
            )  # fmt: skip
            answers: list[Dataset] = [
                pydicom.dcmread(file, force=True) for file in sorted(Path(folder).glob("rsp*.dcm"))
            ]
            for answer in answers:
                answer.decode()
            return answers

    def store(self, images: Iterable[Path], calling: str | None = None) -> None:
        """Send files by C-STORE (`storescu`); ModalityRefused where one was not answered Success."""
        self._dcmtk("storescu", "-R", "-aet", calling or self.aet, "-aec", "ZAMBEZI", "127.0.0.1",
                    str(self.dicom_port), *map(str, images))  # fmt: skip

    def begin(self, item: Dataset) -> str:
        """MPPS N-CREATE, IN PROGRESS, for a worklist item; the MPPS SOP Instance UID."""
        step = item.ScheduledProcedureStepSequence[0]
        scheduled = Dataset()
        scheduled.StudyInstanceUID = item.StudyInstanceUID
        scheduled.AccessionNumber = item.AccessionNumber
        scheduled.RequestedProcedureID = item.get("RequestedProcedureID", "")
        scheduled.ScheduledProcedureStepID = step.get("ScheduledProcedureStepID", "")
        created = Dataset()
        created.SpecificCharacterSet = item.get("SpecificCharacterSet", "ISO_IR 100")
        created.ScheduledStepAttributesSequence = [scheduled]
        created.PatientName = item.PatientName
        created.PatientID = item.PatientID
        created.PatientBirthDate = item.get("PatientBirthDate", "")
        created.PatientSex = item.get("PatientSex", "")
        created.PerformedProcedureStepID = f"P{step.get('ScheduledProcedureStepID', '')}"[:16]
        created.PerformedStationAETitle = self.aet
        created.PerformedProcedureStepStartDate = step.get("ScheduledProcedureStepStartDate", "20260101")
        created.PerformedProcedureStepStartTime = "080000"
        created.PerformedProcedureStepStatus = "IN PROGRESS"
        created.Modality = step.get("Modality", "CT")
        created.PerformedSeriesSequence = []
        created.PerformedProcedureStepEndDate = ""
        created.PerformedProcedureStepEndTime = ""
        sop_uid = generate_uid(None)
        self._mpps("N-CREATE", sop_uid, created)
        return sop_uid

    def complete(self, sop_uid: str, series_uid: str, images: Iterable[str]) -> None:
        """MPPS N-SET, COMPLETED, with what was made (SOP Instance UIDs of one CT series)."""
        series = Dataset()
        series.SeriesInstanceUID = series_uid
        series.ProtocolName = "Tórax"
        series.PerformingPhysicianName = ""
        series.OperatorsName = ""
        series.SeriesDescription = ""
        series.RetrieveAETitle = "ZAMBEZI"
        series.ReferencedNonImageCompositeSOPInstanceSequence = []
        series.ReferencedImageSequence = []
        for image in images:
            reference = Dataset()
            reference.ReferencedSOPClassUID = CT_IMAGE_STORAGE
            reference.ReferencedSOPInstanceUID = image
            series.ReferencedImageSequence.append(reference)
        changed = Dataset()
        changed.SpecificCharacterSet = "ISO_IR 100"
        changed.PerformedProcedureStepStatus = "COMPLETED"
        changed.PerformedProcedureStepEndDate = "20260101"
        changed.PerformedProcedureStepEndTime = "081500"
        changed.PerformedSeriesSequence = [series]
        self._mpps("N-SET", sop_uid, changed)

    def _mpps(self, service: str, sop_uid: str, dataset: Dataset) -> None:
        entity = AE(self.aet)
        entity.add_requested_context(ModalityPerformedProcedureStep)
        association = entity.associate("127.0.0.1", self.mpps_port, ae_title="ZAMBEZI")
        if not association.is_established:
            raise ModalityRefused(f"{service}: no association with port {self.mpps_port}")
        try:
            if service == "N-CREATE":
                status, _ = association.send_n_create(dataset, ModalityPerformedProcedureStep, sop_uid)
            else:
                status, _ = association.send_n_set(dataset, ModalityPerformedProcedureStep, sop_uid)
        finally:
            association.release()
        if "Status" not in status or status.Status != 0:
            raise ModalityRefused(f"{service}: status {status.get('Status', 'none')}")

    def _dcmtk(self, *arguments: str) -> None:
        done = subprocess.run(arguments, capture_output=True, text=True, errors="replace", timeout=120,
                              env={**os.environ, "TCP_NODELAY": "1"})  # fmt: skip
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()[-3:]
            raise ModalityRefused(f"{arguments[0]} ended with {done.returncode}: {' / '.join(words)}")
