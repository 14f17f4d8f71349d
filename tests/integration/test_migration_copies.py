"""Studies from another Orthanc, by its REST API and as DICOMweb behind nginx, into a real Orthanc."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pydicom
import pytest
import requests
from click.testing import CliRunner, Result
from pydicom.uid import generate_uid
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from demo.neighbours import free_port
from migration import extras, inventory, settling, transfer, worker
from migration.copying import Offer
from migration.desk import Closed, Desk
from migration.dicomweb_source import DicomWebSource
from migration.extras import Extra
from migration.office import open_office
from migration.orthanc_source import OrthancSource
from migration.service import Migrations
from migration.source import Checked, Given, Named, Request, Study, Trouble
from migration.wire import Server
from operations import certificates
from operations.certificate_commands import cert
from operations.configuring import config
from tests.integration.migration_lab import Lab, a_lab, listens, sample, wait_for
from tests.misbehaving_web import Asked, Said, serving
from tests.samples import FILES, OBJECTS, WITHOUT_UID
from zambezi import clock, digest, digests, hold, legacy, legacy_documents
from zambezi.config.safety import ClientCertificate
from zambezi.config.settings import Window
from zambezi.database.tables import (
    Breaker,
    ExceptionItem,
    Held,
    LegacyReport,
    MigrationInstance,
    MigrationProject,
    MigrationStudy,
)
from zambezi.database.tables import Study as TheStudy

#: Keeps no lease.
NOBODY: Any = SimpleNamespace(check=lambda: None)
_PLUGINS = "/usr/share/orthanc/plugins/"


class Certificates:
    """A hospital's own authority, as `zambezi cert authority` makes it, and what it vouches for: files (PEM)."""

    def __init__(self, folder: Path) -> None:
        self._folder, now = folder, clock.now()
        long_ago = now - timedelta(days=500)
        made = certificates.make_authority("Hospital Central", long_ago)
        good = certificates.issue(made, ["127.0.0.1"], now)
        expired = certificates.issue(made, ["127.0.0.1"], long_ago, good.key)
        self.authority = self._write("authority", made)
        self.servers = {"good": folder / "good", "expired": folder / "expired", "old": folder / "good"}
        for name, pair in (("good", good), ("expired", expired)):
            self._write(name, pair)
        self.client, self.client_key = self._client("client", "authority")
        self.stranger, self.stranger_key = self._client("stranger", "")

    def _write(self, name: str, pair: certificates.Pair) -> Path:
        (self._folder / f"{name}.key").write_bytes(pair.key)
        file = self._folder / f"{name}.crt"
        file.write_bytes(pair.certificate)
        return file

    def _client(self, name: str, authority: str) -> tuple[Path, Path]:
        """One for us, its key locked by a password; from this authority, or from nobody."""
        asked, certificate, key = (self._folder / f"{name}.{ending}" for ending in ("csr", "crt", "key"))
        new = f"req -newkey rsa:2048 -subj /CN=zambezi -passout pass:opened -keyout {key}"
        commands = [f"{new} -x509 -out {certificate}"]
        if authority:
            signed = f"-CA {self._folder}/{authority}.crt -CAkey {self._folder}/{authority}.key -out {certificate}"
            commands = [f"{new} -out {asked}", f"x509 -req -in {asked} {signed}"]
        for command in commands:
            subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
        return certificate, key


class Legacy:
    """A plain Orthanc with DICOMweb, and nginx before that; `url` is its REST API."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self.port, self.web_port = lab, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (lab.folder / "legacy-orthanc.json").write_text(
            json.dumps(
                {
                    "Name": "legacy", "StorageDirectory": str(lab.folder / "legacy-orthanc"), "HttpPort": self.port,
                    "DicomServerEnabled": False, "MaximumStorageCacheSize": 0, "RegisteredUsers": {"reader": "secret"},
                    "HttpCompressionEnabled": True, "Plugins": [_PLUGINS + "libOrthancDicomWeb.so"],
                    "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
                }
            )
        )  # fmt: skip
        self.certificates = Certificates(lab.folder)
        self.tls = {name: free_port() for name in ("good", "expired", "old")}
        (lab.folder / "nginx.conf").write_text(
            f"daemon off; pid {lab.folder}/nginx.pid; error_log {lab.folder}/nginx-error.log;\n"
            "events {} http { access_log off; gzip on; gzip_types *; proxy_max_temp_file_size 0;\n"
            + "".join(f"{kind}_temp_path {lab.folder}/nginx-{kind};\n" for kind in
                      ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
            + f"server {{ listen 127.0.0.1:{self.web_port};\n"
            f"location /pacs/ {{ proxy_pass {self.url}/dicom-web/; proxy_set_header Host $host; }}\n"
            f"location /rest/ {{ proxy_pass {self.url}/; access_log {lab.folder}/asked.log; }} }}\n"
            + "".join(self._over_tls(name, port) for name, port in self.tls.items()) + "}\n"
        )  # fmt: skip
        lab.start("legacy-orthanc", ["/usr/sbin/Orthanc", str(lab.folder / "legacy-orthanc.json")])
        lab.start("legacy-nginx", ["/usr/sbin/nginx", "-c", str(lab.folder / "nginx.conf")])
        (lab.folder / "config" / "45-sources.json").write_text(
            json.dumps(
                {
                    "HttpsCACertificates": str(self.certificates.authority),
                    "OrthancPeers": {
                        "old": [f"http://127.0.0.1:{self.web_port}/rest/", "reader", "secret"],
                        "old-tls": self._secure("rest"),
                    },
                }
            )
        )
        self._write_plugins()
        sources = {
            "ORTHANC": {"Kind": "orthanc", "Peer": "old"}, "WEB": {"Kind": "dicomweb", "Peer": "old-web"},
            "LEGACY": {"Peer": "legacy"}, "SECURE": {"Kind": "orthanc", "Peer": "old-tls"},
            "SECURE-WEB": {"Kind": "dicomweb", "Peer": "web-tls"},
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
                '"WadoRoot": "/wado",',
                '"WadoRoot": "/wado", "Servers": '
                + json.dumps({"old-web": server, "web-tls": self._secure("pacs")})
                + ",",
            )
        )

    def _secure(self, path: str) -> dict[str, str]:
        """An entry of OrthancPeers or DicomWeb.Servers, as Orthanc itself has it."""
        return {
            "Url": f"https://127.0.0.1:{self.tls['good']}/{path}/", "Username": "reader", "Password": "secret",
            "CertificateFile": str(self.certificates.client), "CertificateKeyFile": str(self.certificates.client_key),
            "CertificateKeyPassword": "opened",
        }  # fmt: skip

    def _over_tls(self, name: str, port: int) -> str:
        shown, trusted = self.certificates.servers[name], self.certificates.authority
        safe = "ssl_protocols TLSv1.1; ssl_ciphers ALL:@SECLEVEL=0;" if name == "old" else ""
        return (
            f"server {{ listen 127.0.0.1:{port} ssl; listen 127.0.0.2:{port} ssl; {safe}\n"
            f"ssl_certificate {shown}.crt; ssl_certificate_key {shown}.key;\n"
            f"ssl_client_certificate {trusted}; ssl_verify_client on;\n"
            f"location /pacs/ {{ proxy_pass {self.url}/dicom-web/; proxy_set_header Host $host; }}\n"
            f"location /rest/ {{ proxy_pass {self.url}/; }} }}\n"
        )

    def secure(self, name: str = "good", scheme: str = "https", host: str = "127.0.0.1", **how: Any) -> Server:
        """The legacy Orthanc by one of its addresses over TLS, with what is believed and shown as it should be."""
        own = ClientCertificate(str(self.certificates.client), str(self.certificates.client_key), "opened")
        as_it_should_be = {"authorities": str(self.certificates.authority), "certificate": own}
        return Server(f"{scheme}://{host}:{self.tls[name]}/rest", "reader", "secret", **{**as_it_should_be, **how})

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

    def fetched(self) -> Counter[str]:
        """How often each object's bytes were given through nginx, by Orthanc id there."""
        log = (self.lab.folder / "asked.log").read_text()
        return Counter(re.findall(r'"GET /rest/instances/(\S+)/file HTTP/1.1" 200', log))

    def file_of(self, content: bytes) -> Path:
        """Where it keeps these bytes."""
        kept = (file for file in (self.lab.folder / "legacy-orthanc").rglob("*") if file.is_file())
        return next(file for file in kept if file.read_bytes() == content)

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


def instances(study: MigrationStudy) -> Select[tuple[MigrationInstance]]:
    return select(MigrationInstance).where(MigrationInstance.study_id == study.id)


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


def altered(name: str, change: Callable[[pydicom.Dataset], None]) -> bytes:
    dataset = pydicom.dcmread(sample(name))
    change(dataset)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.get("SOPInstanceUID", "1.2.3")
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def another(dataset: pydicom.Dataset) -> None:
    dataset.SOPInstanceUID = generate_uid()


def darker(dataset: pydicom.Dataset) -> None:
    dataset.PixelData = bytes([dataset.PixelData[0] ^ 1]) + dataset.PixelData[1:]


def test_another_object_under_the_same_uids_is_a_conflict_and_both_sides_are_said(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    legacy.load(altered("CT_small.dcm", darker), altered("CT_small.dcm", another))
    client = lab.office.client()
    client.store(sample("CT_small.dcm").read_bytes())
    project = migrated(lab, "ORTHANC", "conflict")
    with lab.office.sessions.begin() as session:
        (study,) = studies(session, project)
        before = "the archive had 1 instances before, under the same UIDs, with other content, in (7fe0,0010)"
        assert (study.state, study.reason) == ("conflict", before)
        rows = {row.verdict: row for row in session.scalars(instances(study))}
        assert rows.keys() == {"equal", "different"}
        assert rows["equal"].source_md5 == rows["equal"].stored_md5
        different = rows["different"]
        assert different.source_digest != different.stored_digest
        assert different.source_md5 in legacy.md5s().values()
        assert different.stored_md5 == digests.orthanc_md5(sample("CT_small.dcm"))


def test_what_is_there_is_not_fetched_again_and_a_stopped_study_goes_on(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    legacy.load(*(altered("CT_small.dcm", another) for _ in range(30)))
    made = inventory.take(lab.office.sessions, lab.office.source("ORTHANC"), "again", "ORTHANC", clock.now())
    desk, client = lab.office.desk("ORTHANC"), lab.office.client()
    fetched: list[str] = []

    class Counting(OrthancSource):
        def _offer(self, sop_uid: str, copy: Any) -> Offer:
            whole = super()._offer(sop_uid, copy)

            def fetch() -> bytes:
                fetched.append(sop_uid)
                if len(fetched) == 10:
                    desk.stop.set()  # as `zambezi` does when it is told to stop
                return whole.fetch()

            return replace(whole, fetch=fetch)

    source = Counting(Server(legacy.url, "reader", "secret"), 4)
    with pytest.raises(Closed):
        worker.work(replace(desk, source=source), made)
    there = len(client.get("/instances"))
    assert 10 <= there < 30
    desk.stop.clear()
    assert worker.work(replace(desk, source=Counting(Server(legacy.url, "reader", "secret"), 4)), made)
    with lab.office.sessions.begin() as session:
        assert [study.state for study in studies(session, made)] == ["verified"]
    assert len(fetched) == len(set(fetched)) == 30  # the source's own MD5s told of those that were there
    assert len(client.get("/instances")) == 30


@pytest.mark.parametrize("source", ["SECURE", "SECURE-WEB"])
def test_over_tls_a_hospitals_own_authority_is_believed_and_our_certificate_shown(
    copies: tuple[Lab, Legacy], source: str
) -> None:
    lab, legacy = copies
    legacy.load(*(altered("CT_small.dcm", another) for _ in range(3)))
    project = migrated(lab, source, f"tls-{source}")
    with lab.office.sessions.begin() as session:
        assert [(study.state, study.level) for study in studies(session, project)] == [("verified", 3)]
    client = lab.office.client()
    assert {one: client.md5(one) for one in client.get("/instances")} == legacy.md5s()


def test_what_is_wrong_with_tls_is_said_in_words_and_pauses_a_migration(
    copies: tuple[Lab, Legacy],
) -> None:
    lab, legacy = copies
    stranger = ClientCertificate(str(legacy.certificates.stranger), str(legacy.certificates.stranger_key), "opened")
    wrong_key = ClientCertificate(str(legacy.certificates.client), str(legacy.certificates.stranger_key), "opened")
    asked = [
        (legacy.secure("expired"), "its certificate has expired: have it renewed there"),
        (legacy.secure(authorities=""), "its certificate comes from an authority that is not known here"),
        (legacy.secure(host="127.0.0.2"), "its certificate is for another name or address"),
        (legacy.secure("old"), "it speaks no TLS that is safe (1.2 or 1.3)"),
        (legacy.secure(scheme="http"), "it speaks TLS at this port: write https:// in the Url"),
        (replace(legacy.secure(), url=f"https://127.0.0.1:{legacy.web_port}"), "it does not speak TLS at this port"),
        (legacy.secure(certificate=None), "it asks for a certificate of ours: write one into CertificateFile"),
        (legacy.secure(certificate=stranger), "it does not take our certificate: look at CertificateFile"),
        (legacy.secure(certificate=wrong_key), "don't belong together; put the key of this very certificate there"),
        (legacy.secure(certificate=ClientCertificate("/no/such.crt")), "CertificateFile: not there: /no/such.crt"),
        (legacy.secure(authorities="/no/ca.crt"), "HttpsCACertificates: not there: /no/ca.crt"),
    ]
    for server, words in asked:
        can, said = OrthancSource(server, 1).probe().abilities["REST API"]
        assert (can, words in said) == (False, True), said

    def run(*words: str) -> Result:
        return CliRunner().invoke(config if words[0] == "check" else cert, words)

    assert run("check").exit_code == 0
    shown = [one["what"] for one in json.loads(run("show", "--json").output)]
    assert shown == [f"the certificate that the legacy archive {name} is shown" for name in ("SECURE", "SECURE-WEB")]
    away = legacy.certificates.client_key.rename(lab.folder / "away.key")
    try:
        assert f"Migration.Sources.SECURE: CertificateFile: not there: {legacy.certificates.client_key}" in str(
            run("check").exception
        )
    finally:
        away.rename(legacy.certificates.client_key)

    web = DicomWebSource(legacy.secure("expired"), 1).probe().abilities["QIDO-RS"]
    assert "its certificate has expired" in web[1]

    legacy.load(altered("CT_small.dcm", another))
    made = inventory.take(lab.office.sessions, lab.office.source("SECURE"), "expires", "SECURE", clock.now())
    desk = replace(lab.office.desk("SECURE"), source=OrthancSource(legacy.secure("expired"), 1))
    assert worker.work(desk, made)
    with lab.office.sessions.begin() as session:
        project = session.get_one(MigrationProject, made.id)
        assert (project.state, "its certificate has expired" in project.note) == ("paused", True)
        assert [(study.state, study.attempts) for study in studies(session, project)] == [("ready", 0)]
        session.query(Breaker).delete()


def test_what_the_archive_cannot_store_waits_whole_in_the_hold_and_holds_nothing_up(copies: tuple[Lab, Legacy]) -> None:
    lab, _ = copies
    good, other = altered("CT_small.dcm", another), altered("CT_small.dcm", another)

    def nameless(dataset: pydicom.Dataset) -> None:
        del dataset.SeriesInstanceUID

    bad = {"unreadable": b"no DICOM at all", "no-identity": altered("MR_small.dcm", nameless)}
    sent = [good, bad["unreadable"], bad["no-identity"], b"PK\x03\x04 a ZIP archive", other]
    uid = pydicom.dcmread(BytesIO(good)).StudyInstanceUID
    named = {pydicom.dcmread(BytesIO(one)).SOPInstanceUID: Named("1.2.3") for one in (good, other)}
    desk = lab.office.desk("WEB")
    with serving(lambda asked: multipart_of(sent)) as web, lab.office.sessions.begin() as session:
        source = DicomWebSource(Server(web.url), 2)
        given, checked = carried(replace(desk, source=source), uid, named)
        assert given.keys() >= named.keys()
        assert {one.verdict for one in checked.compared.values()} == {"equal"}
        assert sorted(checked.troubles) == [
            "an object without a SOP Instance UID: it can't be read as a DICOM file; it is in the hold",
            "an object without a SOP Instance UID: it is a ZIP archive; it is in the hold",
        ]
        without_series = str(pydicom.dcmread(sample("MR_small.dcm")).SOPInstanceUID)
        asked = len(web.asked)
        with pytest.raises(Trouble, match=r"it lacks a Study, Series or SOP Instance UID, .*; it is in the hold"):
            source.bring(desk, Request("Instance", (uid, "1.2.3", without_series)), NOBODY)
        assert len(web.asked) == asked
        held = session.scalars(select(Held)).all()
        assert sorted(one.why for one in held) == ["no-identity", "unreadable", "unreadable"]
        assert {hold.get(desk.hold_dir, one.sha256) for one in held} == set(sent) - {good, other}
        assert {
            item.kind for item in session.scalars(select(ExceptionItem).where(ExceptionItem.room == "hold"))
        } == set(bad)


def carried(desk: Desk, study_uid: str, named: dict[str, Named]) -> tuple[dict[str, Given], Checked]:
    """One study brought and compared."""
    desk.source.prepare(desk, study_uid, NOBODY)
    given = desk.source.bring(desk, Request("Study", (study_uid,)), NOBODY)
    held = transfer.stored(desk, study_uid)
    study = Study(study_uid, named, held, {})
    return given, desk.source.check(desk, study, [uid for uid in named if uid in held], NOBODY, lambda results: None)


def multipart_of(bodies: list[bytes], cut_after: int | None = None) -> Said:
    whole = b"".join(b"\r\n--x\r\nContent-Type: application/dicom\r\n\r\n" + body for body in bodies) + b"\r\n--x--"
    return Said(body=whole, headers={"Content-Type": "multipart/related; boundary=x"}, cut_after=cut_after)


def test_a_study_whose_stream_breaks_at_one_object_comes_but_for_that(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    objects = {str(pydicom.dcmread(BytesIO(one)).SOPInstanceUID): one
               for one in (altered("CT_small.dcm", another) for _ in range(4))}  # fmt: skip
    bad = list(objects)[1]
    legacy.load(*objects.values())

    def answer(asked: Asked) -> Said:
        """As the legacy Orthanc, but its WADO-RS breaks within one object."""
        accept = {"Accept": asked.headers.get("Accept", "")}
        if "json" in accept["Accept"]:
            found = legacy.ask("GET", "/dicom-web" + asked.path, params=asked.query, headers=accept)
            return Said(found.status_code, found.content)
        wanted = [uid for uid in objects if asked.path.endswith(uid)] or list(objects)
        said = multipart_of([objects[uid] for uid in wanted])
        return replace(said, cut_after=said.body.index(objects[bad]) + 1000 if bad in wanted else None)

    with serving(answer) as web:
        source = DicomWebSource(Server(web.url), 2)
        made = inventory.take(lab.office.sessions, source, "broken", "WEB", clock.now())
        assert worker.work(replace(lab.office.desk("WEB"), source=source), made)
    with lab.office.sessions.begin() as session:
        (study,) = studies(session, made)
        assert (study.state, study.reason[:29]) == ("retrying", "1 instances did not arrive (S"), study.reason
        assert {row.sop_uid: row.verdict for row in session.scalars(instances(study))} == {
            uid: "missing" if uid == bad else "equal" for uid in objects
        }


def test_each_object_is_paid_for_on_a_line_with_a_cap(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    legacy.load(*(altered("CT_small.dcm", another) for _ in range(4)))
    made = inventory.take(lab.office.sessions, lab.office.source("ORTHANC"), "capped", "ORTHANC", clock.now())
    desk = lab.office.desk("ORTHANC")
    capped = desk.settings.model_copy(update={"windows": (Window(kilobits_per_second=800),)})
    began = time.monotonic()
    assert worker.work(replace(desk, settings=capped), made)
    # Four times 39 KB at 100 KB a second, of which the first 100 are free; the wait behind the last is nobody's.
    assert 0.15 < time.monotonic() - began < 5
    with lab.office.sessions.begin() as session:
        assert [study.state for study in studies(session, made)] == ["verified"]


def test_damage_at_the_source_is_told_and_one_uid_under_two_patients_comes_twice(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies

    def other_patient(dataset: pydicom.Dataset) -> None:
        dataset.PatientID = "OTHER"

    legacy.load(sample("CT_small.dcm").read_bytes(), altered("CT_small.dcm", other_patient))
    lost, spoilt = altered("MR_small.dcm", another), altered("MR_small.dcm", another)
    legacy.load(sample("MR_small.dcm").read_bytes(), lost, spoilt)
    legacy.file_of(lost).unlink()
    legacy.file_of(spoilt).write_bytes(spoilt[:-500] + bytes([spoilt[-500] ^ 1]) + spoilt[-499:])
    project = migrated(lab, "ORTHANC", "damaged")
    with lab.office.sessions.begin() as session:
        found = {study.modalities: study for study in studies(session, project)}
        assert found["CT"].state == "verified"
        assert found["MR"].state == "divergent", found["MR"].reason
        assert "what the source sent is not what it recorded of its file" in found["MR"].reason
        verdicts = {row.sop_uid: row.verdict for row in session.scalars(instances(found["MR"]))}
    names = [str(pydicom.dcmread(BytesIO(one)).SOPInstanceUID) for one in (lost, spoilt)]
    assert [verdicts.pop(name) for name in names] == ["missing", "different"]
    assert list(verdicts.values()) == ["equal"]
    stored = {one: lab.office.client().md5(one) for one in lab.office.client().get("/instances")}
    assert sum(md5 == digests.orthanc_md5(sample("CT_small.dcm")) for md5 in stored.values()) == 1
    assert len(stored) == 4  # both patients' CT, and two of the MR
    assert list(project.coverage["duplicates"].values()) == [["1CT1", "OTHER"]]


def test_the_probe_says_what_a_source_can_and_what_is_not_carried(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies
    legacy.load(sample("CT_small.dcm").read_bytes())
    said = lab.office.source("ORTHANC").probe().abilities
    assert all(can for can, _ in said.values()), said
    assert said["REST API"][1].startswith("Orthanc 1.")
    said = lab.office.source("WEB").probe().abilities
    assert {name: can for name, (can, _) in said.items()} == {
        "QIDO-RS": True, "pages (limit, offset)": True, "names instances": True, "WADO-RS as it is": True,
    }  # fmt: skip
    (study,) = legacy.ask("GET", "/studies").json()
    legacy.ask("PUT", f"/studies/{study}/attachments/1025", data=b"a note").raise_for_status()
    assert lab.office.source("ORTHANC").probe().abilities["everything of a study is carried"] == (
        False, "1 of the 1 studies looked at have attachments of users: carried where the plan's Carry names them",
    )  # fmt: skip


class Labelled(OrthancSource):
    """What Orthanc 1.12 tells, and 1.10 can't: one label more."""

    def extras(self, study_uid: str, kinds: Any) -> Iterator[Extra]:
        yield Extra("study", study_uid, "label", "teaching")
        yield from super().extras(study_uid, kinds)


def test_what_users_put_beside_images_comes_where_the_plan_says_so_once_and_over_nobodys(
    copies: tuple[Lab, Legacy],
) -> None:
    lab, legacy = copies
    content = altered("CT_small.dcm", another)
    legacy.load(content)
    (image,), (series,), (study,) = (legacy.ask("GET", f"/{one}").json() for one in ("instances", "series", "studies"))
    beside = {
        f"/studies/{study}/metadata/1025": b"  a note\n", f"/series/{series}/attachments/1030": b"\0\1" * 9000,
        f"/instances/{image}/metadata/2000": "seen by Dr. Muianga ç".encode(),
        f"/studies/{study}/metadata/1026": b"the source's", f"/studies/{study}/attachments/4301": b"a plugin's",
    }  # fmt: skip
    for path, value in beside.items():
        legacy.ask("PUT", path, data=value).raise_for_status()

    def runs(name: str, **plan: Any) -> dict[tuple[str, str, str], str]:
        made = inventory.take(lab.office.sessions, lab.office.source("ORTHANC"), name, "ORTHANC", clock.now())
        with lab.office.sessions.begin() as session:
            made = session.get_one(MigrationProject, made.id)
            made.plan = plan
        return again(made)

    def again(made: MigrationProject) -> dict[tuple[str, str, str], str]:
        peer = lab.office.configuration.orthanc_peers["old"]
        desk = replace(lab.office.desk("ORTHANC"), source=Labelled(Server(peer.url, peer.user, peer.password), 2))
        while worker.work(desk, made):
            pass
        with lab.office.sessions.begin() as session:
            (row,) = studies(session, made)
            assert row.state == "verified", row.reason
            return {(one.level, one.kind, one.name): one.state for one in extras.of_study(session, row.id)}

    client = lab.office.client()
    assert runs("plain") == {}
    assert "1025" not in client.get(f"/studies/{study}/metadata")
    client.request("PUT", f"/studies/{study}/metadata/1026", data=b"ours")
    holds_labels = tuple(map(int, client.system()["Version"].split(".")[:2])) >= (1, 12)
    named = runs("all", Carry=["labels", "metadata", "attachments"])
    assert named == {
        ("study", "label", "teaching"): "carried" if holds_labels else "left", ("study", "metadata", "1025"): "carried",
        ("study", "metadata", "1026"): "other", ("series", "attachment", "1030"): "carried",
        ("instance", "metadata", "2000"): "carried",
    }  # fmt: skip
    for path, value in list(beside.items())[:3]:
        assert client.request("GET", path + ("/data" if "attachments" in path else "")).content == value
    assert client.request("GET", f"/studies/{study}/metadata/1026").content == b"ours"
    with lab.office.sessions.begin() as session:
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == "all")).one()
        (row,) = studies(session, project)
        left = {one.name: one.reason for one in extras.of_study(session, row.id) if one.state == "left"}
        assert left == {} if holds_labels else "which holds no labels" in left["teaching"]
        assert (
            session.scalars(select(ExceptionItem).where(ExceptionItem.kind == "extras-left")).one().decided_at is None
        )
        # As a worker leaves it that died before it could say what it had put; of one thing not even that was done.
        settling.decide(session, project, row, "retry", "", "ana", clock.now())
        for one in extras.of_study(session, row.id):
            one.state = "due" if one.state == "carried" else one.state
    client.request("DELETE", f"/studies/{study}/metadata/1025")
    legacy.ask("PUT", f"/series/{series}/attachments/1030", data=b"drawn anew").raise_for_status()
    assert again(project) == named
    assert client.request("GET", f"/studies/{study}/metadata/1025").content == b"  a note\n"
    assert client.request("GET", f"/series/{series}/attachments/1030/data").content == b"drawn anew", "ours: it follows"


def test_a_server_that_writes_pixels_anew_has_not_sent_its_object(copies: tuple[Lab, Legacy]) -> None:
    lab, _ = copies
    content = altered("CT_small.dcm", another)
    dataset = pydicom.dcmread(BytesIO(content))
    named = {str(dataset.SOPInstanceUID): Named("1.2.3", syntax="1.2.840.10008.1.2.4.90")}
    with serving(lambda asked: multipart_of([content])) as web:
        desk = replace(lab.office.desk("WEB"), source=DicomWebSource(Server(web.url), 2))
        (compared,) = carried(desk, dataset.StudyInstanceUID, named)[1].compared.values()
    assert compared.verdict == "different"
    assert compared.differs_in == (
        "sent in transfer syntax 1.2.840.10008.1.2.1, though the source has it in 1.2.840.10008.1.2.4.90",
    )


def test_killed_in_the_middle_no_byte_that_is_there_is_fetched_again(copies: tuple[Lab, Legacy]) -> None:
    lab, legacy = copies

    for _ in range(16):
        uids = generate_uid(), generate_uid()

        def another_study(dataset: pydicom.Dataset, uids: tuple[str, str] = uids) -> None:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids
            another(dataset)

        legacy.load(*(altered("CT_small.dcm", another_study) for _ in range(3)))
    notes = {one: f"note of {one}".encode() for one in legacy.ask("GET", "/studies").json()}
    for one, note in notes.items():
        legacy.ask("PUT", f"/studies/{one}/metadata/1025", data=note).raise_for_status()
    before = legacy.fetched()
    made = inventory.take(lab.office.sessions, lab.office.source("ORTHANC"), "killed", "ORTHANC", clock.now())
    with lab.office.sessions.begin() as session:
        row = session.get_one(MigrationProject, made.id)
        row.state, row.plan = "running", {"Carry": ["metadata"]}

    def verified() -> int:
        with lab.office.sessions.begin() as session:
            return sum(study.state == "verified" for study in studies(session, made))

    service = lab.start_service()
    wait_for("a study to be verified", lambda: verified() >= 1)
    service.kill()
    service.wait()
    assert verified() < 16
    there = len(lab.office.client().get("/instances"))
    lab.let_time_pass()
    service = lab.start_service()
    wait_for("the rest", lambda: verified() == 16, 90)
    service.terminate()
    assert service.wait(30) == 0
    client = lab.office.client()
    assert {one: client.request("GET", f"/studies/{one}/metadata/1025").content for one in notes} == notes
    with lab.office.sessions.begin() as session:
        beside = [extras.of_study(session, study.id) for study in studies(session, made)]
    assert [[one.state for one in of_one] for of_one in beside] == [["carried"]] * 16, "ours, whoever died when"
    times = (legacy.fetched() - before).values()
    assert len(times) == len(lab.office.client().get("/instances")) == 48
    assert there < 48
    assert sum(times) <= 48 + 4  # those that were on their way in this moment


def test_the_service_puts_documents_of_old_reports_beside_their_images(copies: tuple[Lab, Legacy]) -> None:
    lab, _ = copies
    client, pdf = lab.office.client(), b"%PDF-1.4 of an old RIS"
    content = altered("CT_small.dcm", another)
    ct = pydicom.dcmread(BytesIO(content))
    at, orthanc_id = clock.text(clock.now()), client.store(content)["ParentStudy"]
    report = legacy.PastReport("old", "1", "", legacy_documents.PDF, pdf, study_uid=str(ct.StudyInstanceUID))
    with lab.office.sessions.begin() as session:
        session.add(TheStudy(study_uid=str(ct.StudyInstanceUID), orthanc_id=orthanc_id, cause="migration",
                             patient_id=str(ct.PatientID), instances=1, first_at=at, last_at=at))  # fmt: skip
        number = legacy.record_report(session, None, report, now=clock.now()).id
        session.get_one(LegacyReport, number).archive_state = "due"
    migrations = Migrations(lab.office)
    migrations.stop.set()
    migrations.documents()
    assert len(client.get(f"/studies/{orthanc_id}/instances")) == 1, "a process that stops begins nothing"
    migrations.stop.clear()
    migrations.documents()
    with lab.office.sessions.begin() as session:
        stored = session.get_one(LegacyReport, number)
        assert (stored.archive_state, stored.archive_reason) == ("stored", "")
    (found,) = client.find("Instance", {"SOPInstanceUID": str(stored.sop_uid)}, expand=True)
    assert legacy_documents.inner_pdf(client.file(found["ID"])) == pdf
    assert client.get(f"/instances/{found['ID']}/study")["ID"] == orthanc_id
