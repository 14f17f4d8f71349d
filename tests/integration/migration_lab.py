"""A legacy PACS (Debian's dcmqrscp), a plain Orthanc as the archive, and a migration's office between them."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pydicom
import requests
from pydicom.data import get_testdata_file
from sqlalchemy import select, update

from demo.neighbours import free_ports
from migration import inventory
from migration.desk import Desk
from migration.office import Office, open_office
from tests.schema import upgraded
from zambezi import config, keys
from zambezi.database.tables import Breaker, MigrationInstance, MigrationProject, MigrationStudy
from zambezi.environment import PORTS, REPOSITORY, Environment

#: What the legacy PACS is loaded with: CT, RLE-compressed MR, JPEG 2000 US, an ECG; more where a test needs it.
SAMPLES = ("CT_small.dcm", "MR_small_RLE.dcm", "examples_jpeg2k.dcm", "waveform_ecg.dcm")

STATUS_ROUTE = """
import json
import orthanc


def status(output, uri, **request):
    output.AnswerBuffer(json.dumps({"announced_generation": 1000000}), "application/json")


orthanc.RegisterRestCallback("/zambezi/status", status)
"""

_CLASSES = {
    "CTImageStorage": "Uncompressed", "MRImageStorage": "RLE", "UltrasoundImageStorage": "J2K",
    "TwelveLeadECGWaveformStorage": "Uncompressed", "SecondaryCaptureImageStorage": "Uncompressed",
    "UltrasoundMultiframeImageStorage": "J2K", "MultiframeTrueColorSecondaryCaptureImageStorage": "Uncompressed",
}  # fmt: skip
_SYNTAXES = {
    "Uncompressed": ("LittleEndianExplicit", "BigEndianExplicit", "LittleEndianImplicit"),
    "RLE": ("RLELossless",),
    "J2K": ("JPEG2000LosslessOnly",),
}


def association_profiles() -> str:
    """dcmqrscp can't decompress, and sends on the first context accepted for a class: one context, one syntax each."""
    services = ("Verification", "FINDStudyRoot", "MOVEStudyRoot", "GETStudyRoot")
    names = ["VerificationSOPClass", *(f"{name}QueryRetrieveInformationModel" for name in services[1:])]
    lines = ["[[TransferSyntaxes]]"]
    for name, syntaxes in _SYNTAXES.items():
        lines += [f"[{name}]", *_numbered("TransferSyntax", syntaxes)]
    lines += ["[Any]", *_numbered("TransferSyntax", [s for group in reversed(_SYNTAXES.values()) for s in group])]
    lines += ["[[PresentationContexts]]", "[Out]"]
    lines += _numbered("PresentationContext", [f"{name}\\{syntax}" for name, syntax in _CLASSES.items()])
    lines += ["[In]"]
    lines += _numbered(
        "PresentationContext", [*(f"{n}\\Uncompressed" for n in names), *(f"{n}\\Any" for n in _CLASSES)]
    )
    lines += ["[[SCPSCURoleSelection]]", "[Both]", *_numbered("Role", [f"{name}\\both" for name in _CLASSES])]
    lines += ["[[Profiles]]", "[Send]", "PresentationContexts = Out", "[Receive]", "PresentationContexts = In"]
    return "\n".join([*lines, "SCPSCURoleSelection = Both", ""])


def _numbered(key: str, values: Any) -> list[str]:
    return [f"{key}{n} = {value}" for n, value in enumerate(values, 1)]


def sample(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


@dataclass
class Lab:
    """Everything a test needs; `folder` holds it all."""

    folder: Path
    legacy_port: int
    environ: dict[str, str]
    office: Office
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def load(self, *files: Path) -> None:
        """Store files into the legacy PACS, an association each."""
        for file in files:
            subprocess.run(
                ["dcmsend", "-aet", "OLDCT", "-aec", "LEGACY", "127.0.0.1", str(self.legacy_port), str(file)],
                check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"},
            )  # fmt: skip

    def load_together(self, *files: Path) -> None:
        """The same in one association, where the files are of one class and syntax."""
        subprocess.run(
            ["dcmsend", "-aet", "OLDCT", "-aec", "LEGACY", "127.0.0.1", str(self.legacy_port), *map(str, files)],
            check=True, capture_output=True, env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip

    def altered(self, name: str, change: Callable[[pydicom.Dataset], None]) -> Path:
        """A sample with something changed, as a new file."""
        dataset = pydicom.dcmread(sample(name))
        change(dataset)
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        file = self.folder / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(file)
        return file

    def store(self, file: Path) -> str:
        """Put a file straight into the archive; its Orthanc id."""
        return str(self.office.client().store(file.read_bytes())["ID"])

    def inventory(self, name: str = "p") -> MigrationProject:
        project = inventory.take(self.office.sessions, self.office.source("LEGACY"), name, "LEGACY", datetime.now(UTC))
        with self.office.sessions.begin() as session:
            project = session.get_one(MigrationProject, project.id)
            project.state = "running"
        return project

    def desk(self, **how: Any) -> Desk:
        desk = self.office.desk("LEGACY")
        return Desk(**{**vars(desk), "settle_seconds": 0.5, **how})

    def studies(self) -> dict[str, MigrationStudy]:
        with self.office.sessions.begin() as session:
            return {study.study_uid: study for study in session.scalars(select(MigrationStudy)).all()}

    def instances(self) -> dict[str, MigrationInstance]:
        with self.office.sessions.begin() as session:
            return {row.sop_uid: row for row in session.scalars(select(MigrationInstance)).all()}

    def let_time_pass(self) -> None:
        """Every wait and pause is over and every lease has run out."""
        with self.office.sessions.begin() as session:
            session.execute(update(MigrationStudy).values(next_at="", lease_until=""))
            session.execute(update(Breaker).values(probe_at=None))

    def put_clock(self, **ahead: float) -> None:
        """Have all clocks of ours stand off by so much, where ZAMBEZI_CLOCK names `ahead` in the folder."""
        made = self.folder / "ahead.new"
        made.write_text(str(timedelta(**ahead).total_seconds()))
        made.rename(self.folder / "ahead")

    def moves(self) -> int:
        """How many C-MOVE jobs Orthanc has run."""
        return self.asked_for().total()

    def asked_for(self) -> Counter[str]:
        """How many of these jobs there were for each study, whole or in parts."""
        jobs = self.office.client().get("/jobs", expand="")
        moved = (job["Content"]["Query"] for job in jobs if job["Type"] == "DicomMoveScu")
        return Counter(part["0020,000d"] for parts in moved for part in parts)

    def start(self, name: str, command: list[str], **environ: str) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        with log:
            self.processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=REPOSITORY, env={**self.environ, **environ}
            )
        return self.processes[name]

    def stop(self) -> None:
        """All that was started."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=60)

    def start_service(self, name: str = "migration") -> subprocess.Popen[bytes]:
        """The migration process itself; several, where each has a name."""
        return self.start(name, [sys.executable, "-m", "zambezi.starting", "migration.service"])


@contextmanager
def a_lab(
    folder: Path, monkeypatch: Any, has_legacy: bool = True, database_url: str = "", **source: Any
) -> Iterator[Lab]:
    """Start the legacy PACS (or leave its port to the test) and the archive; stop what was started.

    `source`: more settings of the one source.
    """
    legacy_port, *others = free_ports(1 + len(PORTS))
    ports = {variable: str(port) for (variable, _), port in zip(PORTS.values(), others, strict=True)}
    environ = {
        **os.environ, **ports, "PYTHONPATH": str(REPOSITORY),
        "ZAMBEZI_HOME": str(folder / "home"), "ZAMBEZI_CONFIG": str(folder / "config"),
        "ZAMBEZI_DATABASE_URL": database_url,
        "ZAMBEZI_REPOSITORY": str(REPOSITORY), "TCP_NODELAY": "1",
    }  # fmt: skip
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    _configure(folder, legacy_port, source)
    environment = Environment.read(environ)
    secrets = keys.load_or_create(environment.keys_file)
    upgraded(environment.database_url)
    lab = Lab(folder, legacy_port, environ, open_office())
    try:
        if has_legacy:
            start_legacy(lab, environment.ports.dicom)
        _start_archive(lab, environment, secrets)
        yield lab
    finally:
        lab.stop()


def wait_for(what: str, condition: Callable[[], bool], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"waited {seconds} s for {what}"
        time.sleep(0.1)


def _configure(folder: Path, legacy_port: int, more: dict[str, Any]) -> None:
    (folder / "config").mkdir()
    for name in ("10-orthanc.json", "20-plugins.json"):
        shutil.copy(REPOSITORY / "orthanc-config" / name, folder / "config")
    peer = {
        "AET": "LEGACY", "Host": "127.0.0.1", "Port": legacy_port, "AllowStore": True, "AllowEcho": True,
        "AllowFind": False, "AllowGet": False, "AllowMove": False,
    }  # fmt: skip
    source = {"Peer": "legacy", "Aet": "ZAMBEZI_MIG", "StudyDeadlineSeconds": 30, **more}
    (folder / "config" / "40-peers.json").write_text(json.dumps({"DicomModalities": {"legacy": peer}}))
    (folder / "config" / "30-zambezi.json").write_text(
        json.dumps({"Zambezi": {"Migration": {"Sources": {"LEGACY": source}}}})
    )


def start_legacy(lab: Lab, dicom_port: int) -> None:
    (lab.folder / "legacy").mkdir()
    (lab.folder / "profiles.cfg").write_text(association_profiles())
    (lab.folder / "legacy.cfg").write_text(
        f"NetworkTCPPort = {lab.legacy_port}\nMaxPDUSize = 65536\nMaxAssociations = 16\n"
        f"HostTable BEGIN\nzambezi = (ZAMBEZI, 127.0.0.1, {dicom_port})\nHostTable END\n"
        "VendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nLEGACY {lab.folder / 'legacy'} RW (500, 1024mb) ANY\nAETable END\n"
    )
    lab.start("legacy-server", ["dcmqrscp", "-v", "-c", str(lab.folder / "legacy.cfg"),
                         "-xf", str(lab.folder / "profiles.cfg"), "Receive", "Send"])  # fmt: skip
    wait_for("the legacy PACS", lambda: listens(lab.legacy_port))


def _start_archive(lab: Lab, environment: Environment, secrets: keys.Keys) -> None:
    orthanc = config.load(environment.config_dir, lab.environ).orthanc
    script = lab.folder / "status_route.py"
    script.write_text(STATUS_ROUTE)
    file = lab.folder / "archive.json"
    file.write_text(
        json.dumps(
            {
                **{key: value for key, value in orthanc.items() if key not in ("Zambezi", "LuaScripts")},
                "RegisteredUsers": secrets.services,
                "Plugins": ["/usr/share/orthanc/plugins/libOrthancPython.so"],
                "PythonScript": str(script),
            }
        )
    )
    lab.start("archive", ["/usr/sbin/Orthanc", str(file)], PYTHONNOUSERSITE="1")

    def answers() -> bool:
        try:
            return requests.get(environment.orthanc_url + "/system", auth=secrets.basic("migration"), timeout=2).ok
        except requests.RequestException:
            return False

    wait_for("Orthanc", answers)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
