"""The front door's configuration: where it listens, and what nginx says to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from operations import front_door
from operations.front_door import Certificate
from zambezi import keys
from zambezi.environment import Environment, EnvironmentFault


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
    without = front_door.configuration("@LISTEN@", environment, "127.0.0.1", None)
    given = front_door.configuration("@LISTEN@", environment, "127.0.0.1", Certificate(Path("/c"), Path("/k")))
    assert without == "listen 127.0.0.1:8080;"
    assert "listen 0.0.0.0:8443 ssl" in given
    assert "ssl_certificate_key /k;" in given


def test_a_certificate_without_its_key_is_refused(environment: Environment):
    folder = environment.home / "certificates"
    folder.mkdir()
    (folder / "front.crt").write_text("PEM")
    with pytest.raises(EnvironmentFault, match=r"can't be read: .*front\.key"):
        front_door.certificate(environment, {})


def test_nginx_takes_what_is_written(environment: Environment):
    front_door.write(environment, keys.load_or_create(environment.keys_file), {})
    assert nginx_says(environment) == ""


def test_nginx_takes_it_with_a_certificate(environment: Environment):
    folder = environment.home / "certificates"
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", folder / "front.key", "-out", folder / "front.crt"],
        check=True, capture_output=True,
    )  # fmt: skip
    front_door.write(environment, keys.load_or_create(environment.keys_file), {})
    assert "the front door" not in nginx_says(environment)


def test_nothing_is_left_to_fill_in(environment: Environment):
    front_door.write(environment, keys.load_or_create(environment.keys_file), {})
    left = [file.name for file in environment.run_dir.glob("*.conf") if "@RUN@" in file.read_text()]
    assert left == []


def nginx_says(environment: Environment) -> str:
    """What `nginx -t` objects to; nothing is listened on."""
    run = environment.run_dir
    command = ["/usr/sbin/nginx", "-t", "-q", "-e", "stderr", "-p", str(run), "-c", str(run / "nginx.conf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return "\n".join(line for line in done.stderr.splitlines() if "warn" not in line)
