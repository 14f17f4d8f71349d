"""Another Orthanc is asked whether it has what was sent: over HTTP and HTTPS, real sockets."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.orthanc_jobs import Jobs, PeerJobs
from gateway.sending import AttemptFailed, Instance, Shipment
from zambezi.config.safety import OrthancPeer
from zambezi.retries import ErrorClass

SHIPMENT = Shipment("1.2", (Instance("a", "1.2.3", "1.2.3.1"), Instance("b", "1.2.3", "1.2.3.2")))


class Other(BaseHTTPRequestHandler):
    """Has instance a of study 1.2, and lets `us` in alone."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_known = self.headers["Authorization"] == "Basic dXM6c2VjcmV0"
        has = ["a"] if (self.path, asked["Query"]) == ("/tools/find", {"0020,000d": "1.2"}) else []
        body = json.dumps(has).encode()
        self.send_response(200 if is_known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def peer(url: str, authorities: str = "", is_wrong: bool = False) -> PeerJobs:
    password = "wrong" if is_wrong else "secret"
    return PeerJobs(Jobs(None, "peers", "HARARE", threading.Event()), OrthancPeer(url, "us", password), authorities)


def test_what_it_doesnt_name_is_lacking():
    with serving() as url:
        assert [one.orthanc_id for one in peer(url).lacking(SHIPMENT)] == ["b"]


def test_a_wrong_password_is_for_a_person_and_silence_is_not():
    with serving() as url, pytest.raises(AttemptFailed, match="HTTP 401") as refused:
        peer(url, is_wrong=True).lacking(SHIPMENT)
    assert refused.value.kind is ErrorClass.CONFIGURATION
    with pytest.raises(AttemptFailed, match="ConnectionError") as away:
        peer(url).lacking(SHIPMENT)
    assert away.value.kind is ErrorClass.TRANSIENT


def test_over_https_its_certificate_is_checked_against_the_named_authorities(tmp_path: Path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=harare", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"],
        check=True, cwd=tmp_path, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "ca.pem", tmp_path / "key.pem")
    with serving(context) as url:
        assert len(peer(url, authorities=str(tmp_path / "ca.pem")).lacking(SHIPMENT)) == 1
        with pytest.raises(AttemptFailed) as refused:
            peer(url).lacking(SHIPMENT)
    assert refused.value.kind is ErrorClass.CONFIGURATION
