"""The front door's configuration: where it listens, and what nginx says to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from operations import front_door
from operations.front_door import Certificate
from zambezi import config, keys
from zambezi.config import Configuration
from zambezi.config.settings import Zambezi
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault

DELIVERED = config.load(REPOSITORY / "orthanc-config", {})


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    made = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    made.run_dir.mkdir()
    return made


def test_plain_http_stays_on_this_machine_unless_asked_for_by_name():
    assert front_door.plain_address({}) == "127.0.0.1"
    assert front_door.plain_address({"ZAMBEZI_PLAIN_HTTP": "yes"}) == "0.0.0.0"
    with pytest.raises(EnvironmentFault, match="allowed are yes and no"):
        front_door.plain_address({"ZAMBEZI_PLAIN_HTTP": "1"})


def test_https_listens_only_with_a_certificate(environment: Environment):
    without = front_door.filled("@LISTEN@", environment, "127.0.0.1", None)
    given = front_door.filled("@LISTEN@", environment, "127.0.0.1", Certificate(Path("/c"), Path("/k")))
    assert without == "listen 127.0.0.1:8080;"
    assert "listen 0.0.0.0:8443 ssl" in given
    assert "default /k;" in front_door.filled(
        "@CERTIFICATE@", environment, "127.0.0.1", Certificate(Path("/c"), Path("/k"))
    )


def test_a_certificate_without_its_key_is_refused(environment: Environment):
    folder = environment.home / "certificates"
    folder.mkdir()
    (folder / "front.crt").write_text("PEM")
    with pytest.raises(EnvironmentFault, match=r"can't be read: .*front\.key"):
        front_door.certificate(environment, {})


def test_nginx_takes_what_is_written(environment: Environment):
    front_door.write(environment, DELIVERED, keys.load_or_create(environment.keys_file), {})
    assert nginx_says(environment) == ""


def test_nginx_takes_it_with_a_certificate(environment: Environment):
    folder = environment.home / "certificates"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", folder / "front.key", "-out", folder / "front.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    front_door.write(environment, DELIVERED, keys.load_or_create(environment.keys_file), {})
    assert "the front door" not in nginx_says(environment)


def with_a_peer_of_tls() -> Configuration:
    """The delivered configuration with one peer that has a certificate."""
    orthanc = {**DELIVERED.orthanc, "DicomModalities": {"CT": ["CT", "127.0.10.1", 104]}}
    ours = Zambezi.model_validate({"DicomTls": {"Certificates": {"CT": ":".join(["AB"] * 20)}}})
    return Configuration(orthanc, ours, "hash")


def test_dicom_over_tls_says_all_that_it_lacks(environment: Environment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(front_door, "STREAM", Path("/nowhere/ngx_stream_module.so"))
    with pytest.raises(EnvironmentFault) as refused:
        front_door.dicom_tls(environment, with_a_peer_of_tls(), None)
    said = str(refused.value).splitlines()
    assert len(said) == 3
    assert "apt-get install libnginx-mod-stream" in said[2]


def test_without_peers_of_tls_nothing_of_it_is_needed(environment: Environment):
    assert front_door.dicom_tls(environment, DELIVERED, None) is None
    front_door.write(environment, DELIVERED, keys.load_or_create(environment.keys_file), {})
    assert "load_module" not in (environment.run_dir / "nginx.conf").read_text()
    assert not (environment.run_dir / "dicom-tls.conf").exists()


def test_nothing_is_left_to_fill_in(environment: Environment):
    front_door.write(environment, DELIVERED, keys.load_or_create(environment.keys_file), {})
    left = [file.name for file in environment.run_dir.glob("*.conf") if "@RUN@" in file.read_text()]
    assert left == []


def nginx_says(environment: Environment) -> str:
    """What `nginx -t` objects to; nothing is listened on."""
    run = environment.run_dir
    command = ["/usr/sbin/nginx", "-t", "-q", "-e", "stderr", "-p", str(run), "-c", str(run / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if "warn" not in line)
