"""C-ECHO over TLS, to dcmtk's storescp, with certificates as `zambezi cert` makes them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from demo.neighbours import free_port
from operations import certificates, echoing
from operations.echoing import Echo
from operations.front_door import Certificate
from operations.modality_desk import Desk
from zambezi.config.safety import Modality
from zambezi.config.settings import DestinationTls, Zambezi
from zambezi.environment import REPOSITORY, Environment

#: `Host` of a peer of TLS in DicomModalities is an address of ours, at which nobody answers.
PEER = Modality("CT1", "CT1", "127.0.10.1", 104)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, int]]:
    """A folder with ca.crt, other.crt, front.crt and .key; and the port of a peer that wants to see a certificate."""
    folder, port, now = tmp_path_factory.mktemp("echoing"), free_port(), datetime.now(UTC)
    authority, other = (certificates.make_authority(name, now) for name in ("Hospital", "Other"))
    (folder / "ca.crt").write_bytes(authority.certificate)
    (folder / "other.crt").write_bytes(other.certificate)
    key = None
    for name, of in (("front", authority), ("ct1", authority), ("stranger", other)):
        made = certificates.issue(of, [f"{name}.lan"], now, key)
        key = made.key  # making one takes a second
        (folder / f"{name}.crt").write_bytes(made.certificate)
        (folder / f"{name}.key").write_bytes(made.key)
    files = [str(folder / name) for name in ("ct1.key", "ct1.crt")]
    command = [shutil.which("storescp", path="/usr/bin"), "+tls", *files, "+cf", folder / "ca.crt", "-od", folder, port]
    process = subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 10
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert time.monotonic() < until
        time.sleep(0.02)
    yield folder, port
    process.terminate()
    process.wait()


def front(folder: Path, name: str = "front") -> Certificate:
    return Certificate(folder / f"{name}.crt", folder / f"{name}.key")


def ask(home: tuple[Path, int], shown: Certificate | None, **how: Any) -> Echo:
    folder, port = home
    tls = DestinationTls(**{"ca_file": "ca.crt", "host": "127.0.0.1", "port": port, **how})
    return echoing.over_tls(PEER, tls, "ZAMBEZI", folder, shown, 3)


def test_a_peer_that_wants_our_certificate_is_shown_the_front_doors_or_the_one_that_is_named(home: Any):
    folder, _ = home
    assert ask(home, front(folder), server_name="ct1.lan") == Echo(True, "", "TLSv1.3")
    assert ask(home, front(folder, "stranger"), certificate_file="front.crt", key_file="front.key").answered


def test_the_console_calls_a_peer_of_tls_where_its_calls_say_and_shows_the_front_doors_certificate(
    home: Any, tmp_path: Path
):
    folder, port = home
    for name in ("10-orthanc.json", "20-plugins.json"):
        shutil.copy(REPOSITORY / "orthanc-config" / name, tmp_path / name)
    call = {"CaFile": str(folder / "ca.crt"), "Host": "127.0.0.1", "Port": port}
    both = {"CT1": ":".join(["AB"] * 20), "CT2": ":".join(["AC"] * 20)}
    section = {"DicomTls": {"Certificates": both, "Calls": {"CT1": call}}}
    peers = {"CT1": ["CT1", "127.0.10.1", 104], "CT2": ["CT2", "127.0.10.2", 104]}
    (tmp_path / "30-zambezi.json").write_text(json.dumps({"Zambezi": section}))
    (tmp_path / "40-peers.json").write_text(json.dumps({"DicomModalities": peers}))
    shutil.copytree(folder, tmp_path / "home" / "certificates")
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path / "home"), "ZAMBEZI_CONFIG": str(tmp_path)})
    nothing: Any = None  # neither the archive nor the database is asked
    desk = Desk(environment, nothing, nothing)
    assert desk.echo("CT1") == Echo(True, "", "TLSv1.3")
    assert desk.echo("CT2") == Echo(False, echoing.NOT_WRITTEN)


def test_who_is_not_reached_over_tls_is_told_of_in_words(home: Any):
    folder, port = home
    unknown, nothing = ask(home, front(folder, "stranger")), ask(home, None)
    assert not unknown.answered and "over TLS" in unknown.reason
    assert not nothing.answered and "over TLS" in nothing.reason
    place = f"no connection over TLS with 127.0.0.1:{port}"
    assert ask(home, None, ca_file="other.crt").reason == f"{place}: self-signed certificate in certificate chain"
    assert f"{place}: Hostname mismatch" in ask(home, front(folder), server_name="us1.lan").reason
    nobody = free_port()
    assert ask(home, None, port=nobody).reason == f"no connection over TLS with 127.0.0.1:{nobody}: Connection refused"
    gone = ask(home, None, ca_file="gone.crt").reason
    assert gone.startswith("the files of its Tls can't be used") and "No such file" in gone


def test_how_a_peer_is_called_is_said_by_its_calls_or_its_destination_and_nobody_guesses():
    certificate = ":".join(["AB"] * 20)
    settings = Zambezi.model_validate({
        "DicomTls": {
            "Certificates": {"CT1": certificate, "CT2": certificate},
            "Calls": {"CT1": {"CaFile": "ct1.crt", "Host": "10.1.0.21"}},
        },
        "Destinations": {"PACS": {"Tls": {"CaFile": "pacs.crt"}}, "OLD": {}},
    })  # fmt: skip
    called, pacs = echoing.way("CT1", settings), echoing.way("PACS", settings)
    assert isinstance(called, DestinationTls) and called.host == "10.1.0.21"
    assert isinstance(pacs, DestinationTls) and pacs.ca_file == "pacs.crt"
    assert echoing.way("CT2", settings) == Echo(False, echoing.NOT_WRITTEN)
    assert echoing.way("OLD", settings) is None
