"""Senders that behave like good modalities and a good HIS: what got no Success, or no ACK, is sent again."""

from __future__ import annotations

import itertools
import socket
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE

from demo import images


def small_study(patient_id: str, instances: int, study_uid: str = "") -> list[Dataset]:
    """A study of small CT slices (about 9 KB each) with UIDs that were never used."""
    study_uid = study_uid or f"2.25.{uuid.uuid4().int}"
    series_uid = f"2.25.{uuid.uuid4().int}"
    made = []
    for number in range(1, instances + 1):
        slice_ = images.sample("MR_small.dcm")
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        slice_.Modality = "CT"
        slice_.PatientID = patient_id
        slice_.PatientName = "Teste^Envio"
        slice_.AccessionNumber = ""
        slice_.StudyInstanceUID, slice_.SeriesInstanceUID = study_uid, series_uid
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID = f"2.25.{uuid.uuid4().int}"
        slice_.InstanceNumber = number
        made.append(slice_)
    return made


@dataclass
class Sender:
    """A modality (CT1) that keeps on until every instance was answered Success."""

    port: int
    aet: str = "CT1"
    succeeded: dict[str, str] = field(default_factory=dict)  # SOP Instance UID -> Study Instance UID
    resent: int = 0

    def send(self, instances: Sequence[Dataset], deadline_s: float = 300) -> None:
        """Send all; TimeoutError if the archive doesn't take them in time."""
        end = time.monotonic() + deadline_s
        waiting = list(instances)
        while waiting:
            if time.monotonic() > end:
                raise TimeoutError(f"{len(waiting)} instances were never answered Success")
            sent = self._send_some(waiting)
            waiting = waiting[sent:]
            if waiting:
                self.resent += 1
                time.sleep(0.3)

    def offer(self, instance: Dataset) -> int | None:
        """Offer one instance once; the status it was answered, or None where nothing was."""
        entity = AE(self.aet)
        entity.add_requested_context(instance.SOPClassUID, instance.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self.port, ae_title="ZAMBEZI")
        if not association.is_established:
            return None
        try:
            status = association.send_c_store(instance).get("Status")
        finally:
            association.release()
        return None if status is None else int(status)

    def _send_some(self, waiting: Sequence[Dataset]) -> int:
        """How many of them, from the first on, were answered Success before something went wrong."""
        entity = AE(self.aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 20
        first = waiting[0]
        entity.add_requested_context(first.SOPClassUID, first.file_meta.TransferSyntaxUID)
        association = entity.associate("127.0.0.1", self.port, ae_title="ZAMBEZI")
        if not association.is_established:
            return 0
        sent = 0
        try:
            association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for instance in waiting:
                status = association.send_c_store(instance)
                if "Status" not in status or status.Status != 0:
                    break
                self.succeeded[instance.SOPInstanceUID] = instance.StudyInstanceUID
                sent += 1
        except RuntimeError:  # the association died under us
            pass
        finally:
            if association.is_established:
                association.release()
            else:
                association.abort()
        return sent


_control = itertools.count(1)


def order_message(number: str, patient_id: str, accession_number: str, modality: str = "CT") -> bytes:
    """An ORM^O01 that orders an exam for tomorrow, of the demo's HIS, with a control id of its own."""
    control = f"{number}N{next(_control)}"
    segments = [
        f"MSH|^~\\&|HIS|HCZ|ZAMBEZI|HCZ|20260101080000||ORM^O01^ORM_O01|{control}|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||{patient_id}^^^HCZ^PI||Teste^Encomenda||19800101|F",
        "PV1|1|O",
        f"ORC|NW|P{number}",
        f"OBR|1|P{number}||RX^Exame" + "|" * 14 + accession_number + "|" * 6 + modality,
    ]
    return ("\r".join(segments) + "\r").encode()


def send_message(port: int, message: bytes, deadline_s: float = 120) -> str:
    """Send one message over MLLP again and again until it is answered; the answer's MSA-1 (AA, AE or AR)."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(b"\x0b" + message + b"\x1c\r")
                answer = b""
                while not answer.endswith(b"\x1c\r"):
                    more = connection.recv(65536)
                    if not more:
                        raise ConnectionError("hung up before the ACK")
                    answer += more
        except OSError:
            time.sleep(0.3)
            continue
        return answer.decode(errors="replace").split("MSA|")[1][:2]
    raise TimeoutError("the message was never answered")


def sop_uids_in(folder: Path) -> set[str]:
    """The SOP Instance UIDs of all DICOM files below a folder (a receiver's store)."""
    found = set()
    for file in folder.rglob("*"):
        if file.is_file() and file.name != "index.dat":
            found.add(str(dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"]).SOPInstanceUID))
    return found
