"""What an attacker sends to the front door, byte for byte: refused, and the archive stays as it was."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from demo.hospital import Hospital
from operations import self_check
from tests.asking import Asker
from zambezi import keys

#: Nothing but these may be answered; 0 is a connection that was closed without a word.
REFUSED = {0, 400, 401, 403, 404, 405, 411, 413, 414, 415, 431, 494, 501, 505}
INNER = b"GET /instances HTTP/1.1\r\nHost: x\r\n\r\n"

ATTACKS: dict[str, bytes] = {
    "length and chunks (request smuggling)": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + INNER,
    "two lengths": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 37\r\n\r\n" + INNER,
    "an unknown transfer encoding": b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n"
    b"\r\n0\r\n\r\n",
    "a negative length": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a length beyond numbers": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "Orthanc's overflow (CVE-2026-5440)": b"POST /orthanc/instances HTTP/1.1\r\nHost: x\r\n"
    b"Content-Length: 4294967290\r\n\r\n",
    "a compressed body": b"POST /orthanc/instances HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "compressed twice": b"POST /session HTTP/1.1\r\nHost: x\r\nContent-Encoding: identity, gzip\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "compressed, spelled otherwise": b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\ncontent-ENCODING: deflate\r\n"
    b"Content-Length: 1\r\n\r\nx",
    "a body that never ends": b"POST /session HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"100000\r\n" + b"x" * 0x100000 + b"\r\n" + (b"100000\r\n" + b"x" * 0x100000 + b"\r\n") * 9,
    "wait until I go on": b"POST /session HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
    b"Content-Length: 1073741824\r\n\r\n",
    "a proxy's request": b"GET http://127.0.0.1:8042/system HTTP/1.1\r\nHost: x\r\n\r\n",
    "a tunnel": b"CONNECT 127.0.0.1:8042 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an upgrade": b"GET /orthanc/system HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "HTTP/2 without TLS": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a trace": b"TRACE /session HTTP/1.1\r\nHost: x\r\n\r\n",
    "a zero in the path": b"GET /orthanc/system\x00.html HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded zero": b"GET /orthanc/system%00.html HTTP/1.1\r\nHost: x\r\n\r\n",
    "a newline in the path": b"GET /orthanc/%0d%0aX-Real-IP:%201 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path out of the folder": b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "the same, encoded twice": b"GET /%252e%252e/%252e%252e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path as long as a book": b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header as long as a book": b"GET /session HTTP/1.1\r\nHost: x\r\nX-Zambezi-Token: "
    + b"a" * 200_000 + b"\r\n\r\n",
    "thousands of headers": b"GET /orthanc/system HTTP/1.1\r\nHost: x\r\n" + b"".join(
        b"X-%d: 1\r\n" % n for n in range(5000)
    ) + b"\r\n",
    "no host": b"GET /orthanc/system HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /orthanc/system HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "the plugin's user": b"GET /orthanc/system HTTP/1.1\r\nHost: x\r\n"
    b"Authorization: Basic b3J0aGFuYzpvcnRoYW5j\r\n\r\n",
    "an override of the method": b"POST /orthanc/tools/shutdown HTTP/1.1\r\nHost: x\r\n"
    b"X-HTTP-Method-Override: GET\r\nContent-Length: 0\r\n\r\n",
    "not HTTP at all": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n",
    "an association at the wrong door": b"\x01\x00\x00\x00\x00\xcd\x00\x01" + b"\x00" * 200 + b"\r\n\r\n",
}  # fmt: skip


def sent(port: int, raw: bytes) -> tuple[int, bytes]:
    """(status of the first answer or 0, all that came) for bytes on a connection of their own."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        came = b""
        try:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                came += more
                connection.settimeout(0.5)  # nginx lingers for what else would come; a second answer comes at once
        except OSError:  # it hung up on us
            pass
    parts = came.split(b" ", 2)
    return (int(parts[1]) if came.startswith(b"HTTP/") and parts[1].isdigit() else 0), came


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(hospital: Hospital, attack: str):
    status, came = sent(hospital.environment.ports.http, ATTACKS[attack])
    assert status in REFUSED, came[:300]
    assert came.count(b"HTTP/1.1 200") == 0
    for told in (b"root:", b'"Version"', b"ApiVersion", b"CountInstances", b"Traceback"):
        assert told not in came


def test_after_all_of_them_the_door_works_and_the_archive_is_as_it_was(hospital: Hospital):
    assert Asker(hospital.environment.front_url).ask("/session").status == 200
    before = hospital.orthanc().get("/statistics")["CountInstances"]
    for attack in ATTACKS.values():
        sent(hospital.environment.ports.http, attack)
    assert hospital.orthanc().get("/statistics")["CountInstances"] == before
    assert Asker(hospital.environment.front_url).ask("/session").status == 200


def test_the_self_check_finds_every_door_of_a_real_installation_shut(hospital: Hospital):
    found = self_check.look(hospital.environment, keys.load(hospital.environment.keys_file))
    assert [one for one in found if not one.is_well] == []
    answered = {one.tried: one.answered for one in found}
    assert answered["a default account"] == 401 and answered["a script"] == 403
    assert answered["a compressed body"] == 415 and answered["a body of 1 GB"] == 413
    assert answered["no token"] == 403 and answered["the plugin's paths"] == 404
    said = hospital.zambezi("self-check")
    assert "a default account     refused" in said
