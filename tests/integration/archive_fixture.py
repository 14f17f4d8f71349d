"""A real archive for tests: Orthanc with our plugin, on free ports, in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import requests
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from demo.neighbours import free_ports
from zambezi import keys
from zambezi.chain import Sealed, first_broken
from zambezi.environment import PORTS, REPOSITORY, Environment
from zambezi.orthanc_client import OrthancClient

Found = TypeVar("Found")

PEERS = {"CT1": ["CT1", "127.0.0.1", 11112], "US1": ["US1", "127.0.0.1", 11113], "PACS2": ["PACS2", "127.0.0.1", 11114]}


#: Archives that were made, so that one whose test failed midway doesn't go on (conftest.py).
MADE: list[Archive] = []


#: Archives that were told to stop: that each does so well is looked at when the next tests run already (conftest.py).
LEAVING: list[Archive] = []


def end_those_behind(count: int) -> None:
    """Kill the archives that were made after the first `count`, if they still run and nobody told them to stop."""
    while len(MADE) > count:
        one = MADE.pop()
        if one.process and one.process.poll() is None and one not in LEAVING:
            one.kill()


def all_have_left() -> None:
    """Fails where an archive that was told to stop didn't, or not well."""
    for one in LEAVING:
        assert one.process is not None
        code = one.process.wait(60)
        assert code == 0, f"the archive in {one.home} ended with {code}:\n{one.log[-3000:]}"
    LEAVING.clear()


def until(look: Callable[[], Found], seconds: float = 20) -> Found:
    """What `look` finds as soon as it is something; fails when the time is up."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"did not happen within {seconds} s"
        time.sleep(0.05)


@dataclass
class Archive:
    """One installation of the archive room alone."""

    home: Path
    rules: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        ports = dict(zip((name for name, _ in PORTS.values()), free_ports(len(PORTS)), strict=True))
        self.variables = {
            **{name: str(port) for name, port in ports.items()},
            "ZAMBEZI_HOME": str(self.home),
            "ZAMBEZI_REPOSITORY": str(REPOSITORY),
            "ZAMBEZI_DATABASE_URL": "",  # its own, where the hospital of the same run has everything in PostgreSQL
            **self.variables,
        }
        self.environment = Environment.read(self.variables)
        self.keys = keys.load_or_create(self.environment.keys_file)
        self.configure(self.rules)
        MADE.append(self)

    def configure(self, rules: dict[str, Any]) -> None:
        """Write the snapshot of the configuration that Orthanc starts with."""
        folder = self.environment.orthanc_config_dir
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("10-orthanc.json", "20-plugins.json"):
            shutil.copy(REPOSITORY / "orthanc-config" / name, folder / name)
        zambezi = {"Completeness": {"QuietSeconds": 1}, **rules}
        (folder / "30-zambezi.json").write_text(json.dumps({"Zambezi": zambezi}))
        (folder / "40-peers.json").write_text(json.dumps({"DicomModalities": PEERS}))
        (folder / "99-secrets.json").write_text(json.dumps({"RegisteredUsers": self.keys.services}))
        for made in (self.environment.storage_dir, self.environment.index_dir, self.environment.orthanc_dir / "tmp"):
            made.mkdir(parents=True, exist_ok=True)

    def start(self, wait: bool = True) -> Archive:
        log = (self.home / "orthanc.log").open("ab")
        environ = {**os.environ, **self.variables, "PYTHONPATH": str(REPOSITORY)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zambezi.starting", "operations.archive"], env=environ, stdout=log, stderr=log
        )
        log.close()
        if wait:
            until(self.is_up, 60)
        return self

    def is_up(self) -> bool:
        """Whether the DICOM port answers and the plugin follows."""
        assert self.process is not None
        assert self.process.poll() is None, f"the archive ended:\n{self.log[-3000:]}"
        if not self.listens():
            return False
        try:
            status = self.get("/zambezi/status").json()
        except (requests.RequestException, ValueError):
            return False
        return status["follower"]["lag"] == 0

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.environment.ports.dicom)) == 0

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            code = self.process.wait(60)
            assert code == 0, f"the archive ended with {code}:\n{self.log[-3000:]}"

    def leave(self) -> None:
        """As `stop`, at the end of a test: Orthanc sleeps its way through four seconds, and nobody waits for them."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            LEAVING.append(self)

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def cut_power(self) -> None:
        """kill -9, and what the index had not yet synced is gone."""
        self.kill()
        for end in ("-wal", "-shm"):
            (self.environment.index_dir / f"index{end}").unlink(missing_ok=True)

    @property
    def log(self) -> str:
        return (self.home / "orthanc.log").read_text(errors="replace")

    def as_service(self, name: str = "gateway") -> OrthancClient:
        return OrthancClient(self.environment, self.keys, name)

    def get(self, path: str, service: str = "gateway", **how: Any) -> requests.Response:
        return requests.get(self.environment.orthanc_url + path, auth=self.keys.basic(service), timeout=30, **how)

    def put(self, path: str, body: Any, service: str = "gateway") -> requests.Response:
        url = self.environment.orthanc_url + path
        return requests.put(url, json=body, auth=self.keys.basic(service), timeout=30)

    def post(self, path: str, body: Any, service: str = "gateway") -> requests.Response:
        url = self.environment.orthanc_url + path
        return requests.post(url, json=body, auth=self.keys.basic(service), timeout=30)

    def delete(self, path: str, service: str) -> requests.Response:
        return requests.delete(self.environment.orthanc_url + path, auth=self.keys.basic(service), timeout=30)

    def entries(self) -> list[dict[str, Any]]:
        """The whole journal, as its readers get it; its chain is checked."""
        found: list[Sealed] = []
        since, head = 0, ""
        while True:
            answer = self.get(f"/zambezi/journal?since={since}&hash={head}&limit=2000")
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += [Sealed(page["journal"], e["seq"], e["hash"], e["payload"].encode()) for e in page["entries"]]
            if not page["entries"]:
                assert first_broken(found) is None
                return [one.facts for one in found]
            since, head = found[-1].seq, found[-1].hash

    def events(self, event: str, **facts: Any) -> list[dict[str, Any]]:
        """Journal entries of one kind with these facts."""
        return [
            one for one in self.entries() if one["event"] == event and all(one.get(k) == v for k, v in facts.items())
        ]

    def journal_rows(self, sql: str) -> list[Any]:
        """Look into the journal's file (from outside, as a test may)."""
        database = sqlite3.connect(self.environment.journal_file)
        try:
            return database.execute(sql).fetchall()
        finally:
            database.close()

    def send(self, *images: Dataset, aet: str = "CT1", called: str = "ZAMBEZI") -> list[int | None]:
        """C-STORE; the status of each, None where none came."""
        sender = AE(ae_title=aet)
        sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
        association = sender.associate("127.0.0.1", self.environment.ports.dicom, ae_title=called)
        if not association.is_established:
            return [None for _ in images]
        statuses: list[int | None] = []
        try:
            for one in images:
                # pynetdicom's thread, when it wakes late from the last exchange, would take this one's answer away.
                while association._is_paused and association.is_alive():
                    time.sleep(0.0005)
                try:
                    statuses.append(association.send_c_store(one).get("Status", None))
                except RuntimeError:
                    statuses.append(None)
        finally:
            association.release()
        return statuses


def image(study: str | None = None, series: str | None = None, **tags: Any) -> Dataset:
    """A small CT image; tags by keyword."""
    dataset = Dataset()
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = study or generate_uid()
    dataset.SeriesInstanceUID = series or generate_uid(entropy_srcs=["series", dataset.StudyInstanceUID])
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P1", "Teste^Ana", "CT"
    dataset.Rows = dataset.Columns = 8
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 7, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = bytes(64)
    for name, value in tags.items():
        setattr(dataset, name, value)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    return dataset


def written(dataset: Dataset) -> bytes:
    """The image as a DICOM file."""
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()
