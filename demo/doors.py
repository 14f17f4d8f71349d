"""Play step 7: what a stranger gets (nothing), and what a changed byte in the audit trail does (it is named)."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import tempfile
import time
from pathlib import Path

import requests
from sqlalchemy import insert, select

from demo import images
from demo.hospital import Hospital, Run, StepFailed, must
from demo.modality import Modality, ModalityRefused
from demo.neighbours import free_port
from zambezi.database.engine import connect
from zambezi.database.tables import AuditEntry, Base, ChainHead

#: Paths of Orthanc, as they are on its own port and (with the prefix that stands there) at the front door.
ORTHANC_PATHS = (
    "/system", "/patients", "/studies", "/series", "/instances", "/changes", "/statistics", "/jobs", "/modalities",
    "/tools/metrics-prometheus", "/app/explorer.html", "/dicom-web/studies", "/dicom-web/servers",
    "/wado?requestType=WADO", "/web-viewer/app/viewer.html", "/zambezi/status", "/zambezi/journal?since=0",
    "/zambezi/door",
)  # fmt: skip
FRONT_PATHS = (
    "/orthanc/system", "/orthanc/studies", "/orthanc/app/explorer.html", "/dicom-web/studies", "/dicom-web/instances",
    "/wado?requestType=WADO&studyUID=1.2.3", "/web-viewer/app/viewer.html?series=x", "/web-viewer/series/x",
    "/zambezi/status", "/zambezi/door", "/zambezi/journal?since=0", "/studies-that-nobody-owns",
)  # fmt: skip
RIS_PATHS = (
    "/", "/orders/new", "/orders/1", "/studies", "/studies/1.2.3", "/studies/1.2.3/report", "/deliveries",
    "/exceptions", "/audit", "/users", "/migrations", "/health",
)  # fmt: skip


def strangers_get_nothing(hospital: Hospital, run: Run) -> str:
    """No token, no data: on Orthanc's own port, at the front door, at the RIS; an unknown AE title can't store."""
    tried = 0
    for path in ORTHANC_PATHS:
        for credentials in (None, ("orthanc", "orthanc"), ("front", "wrong")):
            answer = requests.get(hospital.environment.orthanc_url + path, auth=credentials, timeout=30)
            must(answer.status_code == 401, f"Orthanc answers a stranger {answer.status_code} on {path}")
            tried += 1
    for method, path in (("POST", "/tools/find"), ("POST", "/instances"), ("DELETE", "/changes")):
        answer = requests.request(method, hospital.environment.orthanc_url + path, data=b"{}", timeout=30)
        must(answer.status_code == 401, f"Orthanc answers a stranger {answer.status_code} on {method} {path}")
        tried += 1
    secrets = (run.accession_number, run.patient_id, "Conceição", "Concei")
    for base, paths in (
        (hospital.environment.front_url, FRONT_PATHS + RIS_PATHS),
        (hospital.environment.ris_url, RIS_PATHS),
    ):
        for path in paths:
            answer = requests.get(base + path, timeout=30, allow_redirects=False)
            allowed = answer.status_code in (401, 403, 404) or (
                answer.status_code in (302, 303) and "/session" in answer.headers.get("Location", "")
            )
            must(allowed, f"a stranger gets {answer.status_code} on {path}")
            must(
                not any(secret in answer.text for secret in secrets),
                f"the answer to a stranger on {path} names a patient",
            )
            tried += 1
    return f"{tried} requests without a token: nothing; {_unknown_ae(hospital, run)}; {_without_plugin(hospital)}"


def tampering_is_named(hospital: Hospital, run: Run) -> str:
    """`zambezi audit verify` passes; with one byte changed (in a copy) in each of three places it names the place."""
    seen = hospital.zambezi("audit", "verify").strip().splitlines()[-1]
    named = []
    with hospital.database().begin() as session:
        entry = session.scalars(
            select(AuditEntry).where(AuditEntry.event == "stored", AuditEntry.study_uid == run.exam.study_uid)
        ).first()
    assert entry is not None  # step 4 has counted them
    places = {
        "journal": ("plugin/journal.db", "UPDATE entries SET payload = ? WHERE seq = ?"),
        "sealed payload": ("zambezi.db", "UPDATE audit_entry SET payload = ? WHERE journal = :journal AND seq = ?"),
        "central table": ("zambezi.db", "UPDATE audit_entry SET sop_uid = '1.2.3' WHERE journal = ? AND seq = ?"),
    }
    for place, (file, statement) in places.items():
        with tempfile.TemporaryDirectory() as folder:
            copy = _copy_of_databases(hospital, Path(folder))
            payload = entry.payload.replace(b'"stored"', b'"stoned"', 1)
            arguments = (entry.journal, entry.seq) if place == "central table" else (payload, entry.seq)
            with sqlite3.connect(copy / file) as database:
                changed = database.execute(statement.replace(":journal", f"'{entry.journal}'"), arguments).rowcount
            database.close()
            must(changed == 1, f"{place}: the byte to change was not there")
            done = hospital.try_zambezi("audit", "verify", ZAMBEZI_HOME=str(copy), ZAMBEZI_DATABASE_URL="")
            said = done.stdout + done.stderr
            must(done.returncode != 0, f"{place}: a changed byte was not noticed")
            must(str(entry.seq) in said, f"{place}: entry {entry.seq} is not named: {said[-300:]}")
            named.append(place)
    return f"{seen}; a changed byte was named in {', '.join(named)}"


def nothing_unnamed(hospital: Hospital, studies: list[str]) -> None:
    """Steps 5 and 6 caused no route and no message by a rule that names other causes (DESIGN rule 2)."""
    with hospital.database().begin() as session:
        entries = session.scalars(
            select(AuditEntry).where(AuditEntry.event.in_(("routed", "hl7-triggered"))).order_by(AuditEntry.seq)
        ).all()
    for entry in entries:
        facts = json.loads(entry.payload)
        # What the gateway's triggers act on (an exam, a rejection) has no cause of a store; what it set off is named.
        must(
            facts.get("cause") == "modality" or "entry" in facts,
            f"rule {facts['rule']} acted on cause {facts.get('cause')}, which it does not name",
        )
        must(facts["study_uid"] not in studies, f"rule {facts['rule']} acted on a migrated study")


def _unknown_ae(hospital: Hospital, run: Run) -> str:
    with tempfile.TemporaryDirectory() as folder:
        image = images.ct_slices(run.exam, 1, Path(folder))
        for calling in ("STRANGER", "BACKUP"):  # unknown; known, but not allowed to store
            try:
                Modality(calling, hospital.environment.ports.dicom, hospital.environment.ports.mpps).store(image)
            except ModalityRefused:
                continue
            raise StepFailed(f"AE title {calling} could store")
        hospital.ct.store(image)  # stored long ago: Orthanc says Success and keeps what it has
    return "unknown AE title refused, CT1 accepted"


def _without_plugin(hospital: Hospital) -> str:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config"
        shutil.copytree(hospital.environment.orthanc_config_dir, config)
        plugins = next(file for file in config.glob("*.json") if '"PythonScript"' in file.read_text())
        plugins.unlink()
        port = free_port()
        variables = {**hospital.variables(), "ZAMBEZI_HOME": folder, "ZAMBEZI_ORTHANC_HTTP_PORT": str(port),
                     "ZAMBEZI_DICOM_PORT": str(free_port())}  # fmt: skip
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(["/usr/sbin/Orthanc", str(config)], env=variables, stdout=log, stderr=log)
            try:
                for path in ("/system", "/instances", "/studies"):
                    must(_first_answer(port, path) == 401, f"Orthanc without our plugin answers a stranger on {path}")
            finally:
                process.terminate()
                process.wait(30)
    return "Orthanc without our plugin is closed, too"


def _first_answer(port: int, path: str) -> int:
    for _ in range(150):
        try:
            return requests.get(f"http://127.0.0.1:{port}{path}", timeout=10).status_code
        except requests.ConnectionError:
            time.sleep(0.1)
    raise StepFailed("Orthanc without our plugin did not start")


def _copy_of_databases(hospital: Hospital, folder: Path) -> Path:
    home = hospital.environment.home
    (folder / "plugin").mkdir()
    shutil.copy(hospital.environment.keys_file, folder)
    shutil.copytree(hospital.environment.orthanc_config_dir, folder / "orthanc" / "config")
    source, copy = sqlite3.connect(home / "plugin/journal.db"), sqlite3.connect(folder / "plugin/journal.db")
    source.backup(copy)
    source.close()
    copy.close()
    # The central database may be PostgreSQL; what is verified of it is its chains.
    central = connect(f"sqlite:///{folder}/zambezi.db", "demo")
    Base.metadata.create_all(central)
    with hospital.database().begin() as session, central.begin() as made:
        for table in (ChainHead.__table__, AuditEntry.__table__):
            rows = [dict(row) for row in session.execute(select(table)).mappings()]
            made.execute(insert(table), rows)
    central.dispose()
    return folder
