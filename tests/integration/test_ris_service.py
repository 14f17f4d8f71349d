"""The process `ris` as it runs: pages over HTTP, a sign of life, the PDF in a real Orthanc, an orderly end."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
import requests
from pydicom.data import get_testdata_file

from demo.neighbours import free_ports
from tests.integration.migration_lab import STATUS_ROUTE
from tests.unit.ris_service.seeding import HTML, OURS, Clock, seeded
from zambezi import clock, keys, reports
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ProcessState, Report, Study
from zambezi.environment import REPOSITORY, Environment
from zambezi.orthanc_client import OrthancClient, OrthancError

#: The process with the page sets of this room alone: the others have their own tests.
ALONE = f"""
from zambezi import composition
composition.PAGE_SETS = {OURS!r}
from ris_service import service
service.main()
"""


@dataclass
class Running:
    home: Path
    environment: Environment
    processes: dict[str, subprocess.Popen[bytes]]

    def url(self, path: str) -> str:
        return self.environment.ris_url + path


def wait_for(what: Callable[[], object], seconds: float = 30) -> object:
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = what()
        except (requests.RequestException, OrthancError):
            found = None
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A seeded hospital, its process, and ports for an Orthanc that is not there yet."""
    ris, orthanc, dicom = free_ports(3)
    home = tmp_path / "home"
    made = seeded(home, moving=Clock(clock.now()))
    ports = {"ZAMBEZI_RIS_PORT": str(ris), "ZAMBEZI_ORTHANC_HTTP_PORT": str(orthanc), "ZAMBEZI_DICOM_PORT": str(dicom)}
    variables = {**made.environment.variables(), **ports}
    process = subprocess.Popen([sys.executable, "-c", ALONE], env={**os.environ, **variables}, cwd=REPOSITORY)
    found = Running(home, Environment.read(variables), {"ris": process})
    yield found
    for one in found.processes.values():
        one.kill()
        one.wait()


def start_orthanc(found: Running, password: str) -> None:
    """An Orthanc without our plugin, whose place a script takes that knows all announcements."""
    ports = found.environment.ports
    script = found.home / "status.py"
    script.write_text(STATUS_ROUTE)
    settings = {
        "StorageDirectory": str(found.home / "orthanc"), "IndexDirectory": str(found.home / "orthanc"),
        "HttpPort": ports.orthanc_http, "DicomPort": ports.dicom, "RegisteredUsers": {"ris": password},
        "AuthenticationEnabled": True, "RemoteAccessAllowed": False, "OverwriteInstances": False,
        "Plugins": ["/usr/share/orthanc/plugins/libOrthancPython.so"], "PythonScript": str(script),
    }  # fmt: skip
    file = found.home / "orthanc.json"
    file.write_text(json.dumps(settings))
    found.processes["orthanc"] = subprocess.Popen(
        ["/usr/sbin/Orthanc", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_the_process_serves_pages_tells_that_it_lives_and_stops_when_asked(running):
    assert wait_for(lambda: requests.get(running.url("/session"), timeout=5).ok)
    refused = requests.get(running.url("/"), timeout=5)
    assert refused.status_code == 401
    led = requests.get(running.url("/?q=a"), headers=HTML, timeout=5, allow_redirects=False)
    assert led.headers["Location"] == "/session?next=%2F%3Fq%3Da"
    made = seeded_sessions(running)

    def lives() -> ProcessState | None:
        with made.begin() as session:
            return session.get(ProcessState, "ris")

    assert wait_for(lives).details["reports_to_store"] >= 0
    process = running.processes["ris"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(15) == 0


def test_a_signed_report_waits_for_the_archive_and_is_stored_once_by_two_processes(running, tmp_path):
    made = seeded_sessions(running)
    variables = {**os.environ, **running.environment.variables(), "ZAMBEZI_RIS_PORT": str(free_ports(1)[0])}
    running.processes["another"] = subprocess.Popen([sys.executable, "-c", ALONE], env=variables, cwd=REPOSITORY)
    image = Path(get_testdata_file("CT_small.dcm"))
    ct = pydicom.dcmread(image)
    now = clock.now()
    kept = keys.load(running.environment.keys_file)
    start_orthanc(running, kept.services["ris"])
    orthanc = OrthancClient(running.environment, kept, "ris")
    stored = wait_for(lambda: orthanc.store(image.read_bytes()))
    with made.begin() as session:
        uid, at = str(ct.StudyInstanceUID), clock.text(now)
        session.add(
            Study(
                study_uid=uid, orthanc_id=stored["ParentStudy"], cause="modality", patient_id=str(ct.PatientID),
                first_at=at, last_at=at, instances=1,
            )
        )  # fmt: skip
        draft = reports.begin(session, uid, None, author="radiologist", language="pt", now=now, writer="ris")
        text = reports.Text("", "Sem alterações.", "Normal.")
        reports.save(session, uid, 1, draft.edits, text, who="radiologist", now=now, writer="ris")
        pdf = b"%PDF-1.4\n%odd"
        signed = reports.sign(
            session, uid, 1, 1, who="radiologist", name="Dr.ª Amélia", now=now, settings=Zambezi(),
            make_pdf=lambda _report: pdf, writer="ris",
        )  # fmt: skip
        number = signed.id

    def is_stored() -> str | None:
        with made.begin() as session:
            return session.get_one(Report, number).stored_at

    assert wait_for(is_stored, 90)
    found = orthanc.find("Instance", {"SOPInstanceUID": signed.sop_uid})
    assert len(found) == 1
    raw = orthanc.file(found[0])
    read = pydicom.dcmread(io.BytesIO(raw))
    assert (read.StudyInstanceUID, read.PatientID, read.PatientName) == (uid, ct.PatientID, ct.PatientName)
    assert orthanc.get(f"/instances/{found[0]}/study")["ID"] == stored["ParentStudy"]
    (tmp_path / "report.dcm").write_bytes(raw)
    subprocess.run(["dcm2pdf", tmp_path / "report.dcm", tmp_path / "report.pdf"], check=True)  # DCMTK reads it, too
    assert (tmp_path / "report.pdf").read_bytes()[: len(pdf)] == pdf


def seeded_sessions(running: Running) -> Sessions:
    return sessions(connect(running.environment.database_url, "test"), "test")
