"""The first page over TLS: those who know the authority believe it, nobody else does, and a renewal counts at once.

Only the RIS and the front door run, each by `zambezi run`, as under systemd and in containers.
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest

from demo.hospital import wait_for
from demo.neighbours import free_port
from operations import self_check
from tests.conftest import CHROMIUM
from zambezi import keys
from zambezi.environment import PORTS, REPOSITORY, Environment

PAGE = "/session?lang=en"
ZAMBEZI = str(Path(sys.executable).parent / "zambezi")


@dataclass(frozen=True)
class Door:
    """An installation's front door over TLS."""

    environment: Environment
    variables: dict[str, str]

    def zambezi(self, *words: str) -> str:
        command = [ZAMBEZI, *words]
        done = subprocess.run(command, env=self.variables, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def authority(self) -> Path:
        return self.environment.home / "certificates" / "authority.crt"

    def curl(self, path: str, *how: str, name: str = "pacs.lan") -> subprocess.CompletedProcess[str]:
        port = self.environment.ports.https
        command = ["curl", "--silent", "--show-error", "--max-time", "20", "--resolve", f"{name}:{port}:127.0.0.1"]
        command += [*how, f"https://{name}:{port}{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def serial(self) -> str:
        """The serial number of the certificate that is shown now."""
        shown = ssl.get_server_certificate(("127.0.0.1", self.environment.ports.https))
        command = ["openssl", "x509", "-noout", "-serial"]
        return subprocess.run(command, input=shown, capture_output=True, text=True, check=True).stdout

    def handshake(self, *how: str) -> str:
        target = f"127.0.0.1:{self.environment.ports.https}"
        command = ["openssl", "s_client", "-connect", target, "-CAfile", str(self.authority), *how]
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False, timeout=20)
        return done.stdout + done.stderr

    def chromium(self, home: Path) -> str:
        """The page as Chromium shows it, with a profile and trusted authorities in `home`."""
        port = self.environment.ports.https
        command = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={home}/profile", "--host-resolver-rules=MAP pacs.lan 127.0.0.1", "--dump-dom", f"https://pacs.lan:{port}{PAGE}",
        ]  # fmt: skip
        environ = {**os.environ, "HOME": str(home)}
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=True, timeout=90).stdout


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    folder = Path(tempfile.mkdtemp(prefix="zambezi-test-"))
    folder.chmod(0o755)  # the processes run under an account of their own
    ports = {variable: str(free_port()) for variable, _ in PORTS.values()}
    variables = {**os.environ, **ports, "ZAMBEZI_HOME": str(folder / "home"), "PYTHONPATH": str(REPOSITORY)}
    variables |= {"ZAMBEZI_CONFIG": str(REPOSITORY / "orthanc-config"), "ZAMBEZI_DATABASE_URL": ""}
    made = Door(Environment.read(variables), variables)
    running: list[subprocess.Popen[bytes]] = []
    try:
        made.zambezi("prepare")
        made.zambezi("cert", "authority", "--organisation", "Hospital Central da Beira")
        assert "HTTPS listens" in made.zambezi("cert", "server", "pacs.lan", "10.1.0.5")
        made.zambezi("prepare")
        with (folder / "log").open("wb") as log:
            for process in ("ris", "front"):
                command = [ZAMBEZI, "run", process]
                running.append(subprocess.Popen(command, env=variables, cwd=REPOSITORY, stdout=log, stderr=log))
        wait_for("the first page", lambda: made.curl(PAGE, "--fail", "--insecure").returncode == 0, 240)
        yield made
    finally:
        for process_ in running:
            process_.terminate()
            process_.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_who_knows_the_authority_believes_the_first_page(door: Door):
    known = ["--cacert", str(door.authority)]
    assert 'action="/session' in door.curl(PAGE, *known).stdout
    assert door.curl(PAGE).returncode == 60, "curl: the peer's certificate can't be believed"
    assert door.curl(PAGE, *known, name="ris.lan").returncode == 60, "it is not for that name"


def test_only_tls_1_2_and_1_3_are_spoken(door: Door):
    for version in ("1_2", "1_3"):
        said = door.handshake(f"-tls{version}", "-verify_return_error")
        assert "Verify return code: 0 (ok)" in said, said[-500:]
    for version in ("1", "1_1"):
        said = door.handshake(f"-tls{version}", "-cipher", "ALL:@SECLEVEL=0")
        assert "alert protocol version" in said, said[-500:]


def test_sslscan_finds_nothing_weak_and_the_self_check_no_old_version(door: Door):
    command = ["sslscan", "--no-colour", "--xml=-", f"127.0.0.1:{door.environment.ports.https}"]
    said = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    found = ElementTree.fromstring(said)  # noqa: S314  # sslscan wrote it
    spoken = {(one.get("type"), one.get("version")) for one in found.iter("protocol") if one.get("enabled") == "1"}
    assert spoken == {("tls", "1.2"), ("tls", "1.3")}
    ciphers = list(found.iter("cipher"))
    assert len(ciphers) >= 5
    weak = [one.attrib for one in ciphers if one.get("strength") not in ("strong", "acceptable")]
    assert weak == []
    assert min(int(one.get("bits", 0)) for one in ciphers) >= 128
    assert [one.attrib for one in found.iter("compression") if one.get("supported") != "0"] == []
    assert [one.attrib for one in found.iter("heartbleed") if one.get("vulnerable") != "0"] == []
    renegotiation = [one.attrib for one in found.iter("renegotiation")]
    assert all(one["supported"] == "0" or one["secure"] == "1" for one in renegotiation), renegotiation
    tried = {one.tried: one for one in self_check.look(door.environment, keys.load(door.environment.keys_file))}
    assert tried["TLS 1.1"].is_well and tried["a compressed body"].answered == 415


def test_a_browser_is_made_to_trust_it_by_what_the_page_hands_out(door: Door, tmp_path: Path):
    page = door.curl("/certificate?lang=pt", "--insecure").stdout
    handed_out = door.curl("/certificate/zambezi-authority.crt", "--insecure", "--include").stdout
    assert "content-type: application/x-x509-ca-cert" in handed_out.lower()
    pem = handed_out[handed_out.index("-----BEGIN CERTIFICATE-----") :]
    fetched = tmp_path / "zambezi-authority.crt"
    fetched.write_text(pem)
    command = ["openssl", "x509", "-in", str(fetched), "-noout", "-fingerprint", "-sha256"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert told.partition("=")[2] in page
    assert "Peça ao administrador" in page
    stranger, knowing = tmp_path / "stranger", tmp_path / "knowing"
    database = knowing / ".pki" / "nssdb"
    stranger.mkdir()
    database.mkdir(parents=True)
    subprocess.run(["certutil", "-N", "--empty-password", "-d", f"sql:{database}"], check=True)
    trust = ["certutil", "-A", "-n", "Zambezi", "-t", "C,,", "-i", str(fetched), "-d", f"sql:{database}"]
    subprocess.run(trust, check=True)
    assert 'action="/session' not in door.chromium(stranger)
    assert 'action="/session' in door.chromium(knowing)


def test_a_renewal_counts_at_once_and_status_tells_the_days(door: Door):
    before = door.serial()
    door.zambezi("cert", "renew")
    assert door.serial() != before
    assert door.curl(PAGE, "--cacert", str(door.authority)).returncode == 0
    command = [ZAMBEZI, "status"]
    said = subprocess.run(
        command, env=door.variables, cwd=REPOSITORY, capture_output=True, text=True, check=False
    ).stdout
    assert "the front door's certificate (pacs.lan, localhost, 10.1.0.5, 127.0.0.1) is good for 39" in said
