"""Studies from another Orthanc, by its REST API and as DICOMweb behind nginx, into a real Orthanc."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
import requests
from pydicom.uid import generate_uid
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import inventory, worker
from migration.office import open_office
from tests.integration.migration_lab import Lab, a_lab, free_port, listens, wait_for
from tests.samples import FILES, OBJECTS, WITHOUT_UID
from zambezi import clock, digest
from zambezi.database.tables import MigrationProject, MigrationStudy

_PLUGINS = "/usr/share/orthanc/plugins/"


class Legacy:
    """A plain Orthanc with DICOMweb, and nginx before that; `url` is its REST API."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.port, self.web_port = lab, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (lab.folder / "legacy-orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "legacy", "StorageDirectory": str(lab.folder / "legacy-orthanc"), "HttpPort": self.port,
                    "DicomServerEnabled": False, "RegisteredUsers": {"reader": "secret"},
                    "HttpCompressionEnabled": True, "Plugins": [_PLUGINS + "libOrthancDicomWeb.so"],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )  # fmt: skip
        (lab.folder / "nginx.conf").write_text(
            f"daemon off; pid {lab.folder}/nginx.pid; error_log {lab.folder}/nginx-error.log;\n"
            "events {} http { access_log off; gzip on; gzip_types *;\n"
            + "".join(f"{kind}_temp_path {lab.folder}/nginx-{kind};\n" for kind in
                      ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"server {{ listen 127.0.0.1:{self.web_port};\n"
            f"location /pacs/ {{ proxy_pass {self.url}/dicom-web/; proxy_set_header Host $host; }} }} }}\n"
        )  # fmt: skip
        lab.start("legacy-orthanc", ["/usr/sbin/Orthanc", str(lab.folder / "legacy-orthanc.json")])
        lab.start("legacy-nginx", ["/usr/sbin/nginx", "-c", str(lab.folder / "nginx.conf")])
        (lab.folder / "config" / "45-sources.json").write_text(
            json.dumps({"OrthancPeers": {"old": [self.url + "/", "reader", "secret"]}})
        )
        self._write_plugins()
        sources = {
            "ORTHANC": {"Kind": "orthanc", "Peer": "old"}, "WEB": {"Kind": "dicomweb", "Peer": "old-web"},
            "LEGACY": {"Peer": "legacy"},
        }  # fmt: skip
        (lab.folder / "config" / "30-zambezi.json").write_text(
            json.dumps({"Zambezi": {"Migration": {"Sources": sources}}})
        )
        lab.office = open_office()
        wait_for("the legacy Orthanc", lambda: listens(self.port) and listens(self.web_port))

    def _write_plugins(self) -> None:
        file = self.lab.folder / "config" / "20-plugins.json"
        text = file.read_text()
        server = {"Url": f"http://127.0.0.1:{self.web_port}/pacs/", "Username": "reader", "Password": "secret"}
        assert '"WadoRoot": "/wado",' in text
        file.write_text(
            text.replace(
                '"WadoRoot": "/wado",', '"WadoRoot": "/wado", "Servers": ' + json.dumps({"old-web": server}) + ","
            )
        )

    def ask(self, method: str, path: str, **how: Any) -> requests.Response:
        return requests.request(method, self.url + path, auth=("reader", "secret"), timeout=30, **how)

    def load(self, *files: bytes) -> int:
        """Store files; how many it took."""
        with requests.Session() as session:
            session.auth = ("reader", "secret")
            said = [session.post(self.url + "/instances", data=file, timeout=30).json() for file in files]
            return sum(one.get("Status") == "Success" for one in said)

    def empty(self) -> None:
        self.ask("POST", "/tools/bulk-delete", json={"Resources": self.ask("GET", "/patients").json()})

    def md5s(self) -> dict[str, str]:
        """By Orthanc id."""
        return {
            one: self.ask("GET", f"/instances/{one}/attachments/dicom/md5").text
            for one in self.ask("GET", "/instances").json()
        }


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Legacy]]:
    with pytest.MonkeyPatch.context() as patch, a_lab(tmp_path_factory.mktemp("copies"), patch) as lab:
        yield lab, Legacy(lab)


@pytest.fixture
def copies(running: tuple[Lab, Legacy]) -> Iterator[tuple[Lab, Legacy]]:
    yield running
    lab, legacy = running
    legacy.empty()
    client = lab.office.client()
    client.request("POST", "/tools/bulk-delete", json={"Resources": client.get("/patients")})


def studies(session: Session, project: MigrationProject) -> list[MigrationStudy]:
    return list(session.scalars(select(MigrationStudy).where(MigrationStudy.project_id == project.id)))


def migrated(lab: Lab, source: str, name: str) -> MigrationProject:
    made = inventory.take(lab.office.sessions, lab.office.source(source), name, source, clock.now())
    desk = lab.office.desk(source)
    while worker.work(desk, made):
        pass
    return made


def test_another_orthanc_gives_every_object_as_it_is(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    assert legacy.load(*(file.read_bytes() for file in FILES.values())) > 100
    project = migrated(lab, "ORTHANC", "rest")
    client = lab.office.client()
    states = {study.study_uid: (study.state, study.reason) for study in lab.studies().values()}
    assert {state for state, _ in states.values()} == {"verified"}, states
    assert {one: client.md5(one) for one in client.get("/instances")} == legacy.md5s()
    assert {row.verdict for row in lab.instances().values()} == {"equal"}
    assert project.coverage["doubts"] == []


def load_one_of_each_syntax(legacy: Legacy) -> set[str]:
    """Into the source the smallest sample that Orthanc stores of each transfer syntax; the syntaxes."""
    loaded: set[str] = set()
    for file in sorted((FILES[name] for name in OBJECTS if name not in WITHOUT_UID), key=lambda f: f.stat().st_size):
        syntax = digest.fingerprint(file).transfer_syntax
        if syntax and syntax not in loaded and legacy.load(renamed(file)):
            loaded.add(syntax)
    return loaded


def renamed(file: Path) -> bytes:
    """The sample under a SOP Instance UID of its own (many share theirs), with the other two, which some lack."""
    dataset = pydicom.dcmread(file)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, dataset.get(keyword) or generate_uid())
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def test_dicomweb_behind_nginx_gives_every_object_in_its_own_syntax(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    syntaxes = load_one_of_each_syntax(legacy)
    assert len(syntaxes) == 12
    project = migrated(lab, "WEB", "web")
    client = lab.office.client()
    with lab.office.sessions.begin() as session:
        found = [(study.state, study.reason) for study in studies(session, project)]
    assert {state for state, _ in found} == {"verified"}, found
    assert {one: client.md5(one) for one in client.get("/instances")} == legacy.md5s()
    kept = {client.request("GET", f"/instances/{one}/metadata/TransferSyntax").text for one in client.get("/instances")}
    assert kept == syntaxes
    assert project.coverage["doubts"] == []
