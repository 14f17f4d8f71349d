"""What this installation answers to whoever tries its doors: asked for real at each start and by `zambezi self-check`.

Settings may say the right thing and the running program another: a default account (Orthanc 1.10.1 makes
orthanc:orthanc where none is configured), a script door, a body that unpacks to gigabytes (CVE-2026-5437 and after),
an old TLS.
`judge` is pure; `look` asks. What can't be asked (nothing listens there) is no finding.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import urlsplit

from zambezi.environment import Environment
from zambezi.keys import Keys

_SECONDS = 5
#: What must be answered, by the name of what is tried; 0 stands for "nothing answered", which harms nobody.
WANTED: dict[str, tuple[frozenset[int], str]] = {
    "a default account": (frozenset({401}), "Orthanc lets orthanc:orthanc in"),
    "no account": (frozenset({401}), "Orthanc answers whoever has no password"),
    "no token": (frozenset({403}), "the filter inside Orthanc lets the front door's user in without a person's token"),
    "a script": (frozenset({403}), "Orthanc would run a script that is sent to it (ExecuteLuaEnabled)"),
    "a reset": (frozenset({403}), "a service may reset Orthanc"),
    "from the network": (frozenset({0, 401, 403}), "Orthanc's own HTTP answers on an address of the network"),
    "a compressed body": (frozenset({415}), "the front door takes compressed bodies, which may unpack to anything"),
    "a body of 1 GB": (frozenset({413}), "the front door takes bodies of any size"),
    "the plugin's paths": (frozenset({404}), "the plugin's own paths are reached through the front door"),
    "TLS 1.1": (frozenset({0}), "the front door speaks a version of TLS that is broken"),
}


@dataclass(frozen=True)
class Finding:
    """One door that was tried: what was answered (an HTTP status; 1 for a handshake), and whether that is well."""

    tried: str
    answered: int
    fault: str = ""

    @property
    def is_well(self) -> bool:
        return not self.fault


def judge(answers: Mapping[str, int]) -> list[Finding]:
    """Each door and its fault; pure."""
    found = []
    for tried, answered in answers.items():
        wanted, fault = WANTED[tried]
        is_well = answered in wanted or answered == 0
        found.append(Finding(tried, answered, "" if is_well else f"{fault} (answered {answered})"))
    return found


def look(environment: Environment, keys: Keys) -> list[Finding]:
    """Try every door of this installation, in some seconds."""
    front_user, operations = keys.basic("front"), keys.basic("operations")
    orthanc, front = environment.orthanc_url, environment.front_url
    answers = {
        "a default account": _status(orthanc, "/system", account=("orthanc", "orthanc")),
        "no account": _status(orthanc, "/system"),
        "no token": _status(orthanc, "/system", account=front_user),
        "a script": _status(orthanc, "/tools/execute-script", "POST", b"print(1)", account=operations),
        "a reset": _status(orthanc, "/tools/reset", "GET", account=operations),
        "a compressed body": _status(front, "/session", "POST", b"x", {"Content-Encoding": "gzip"}),
        "a body of 1 GB": _status(front, "/session", "POST", None, {"Content-Length": str(2**30)}),
        "the plugin's paths": _status(front, "/zambezi/status"),
        "TLS 1.1": _old_handshake(environment.ports.https),
    }
    own = _own_address()
    if own:
        answers["from the network"] = _status(f"http://{own}:{urlsplit(orthanc).port}", "/system", account=operations)
    return judge(answers)


def _status(
    url: str, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None,
    account: tuple[str, str] | None = None,
) -> int:  # fmt: skip
    split = urlsplit(url)
    given = dict(headers or {})
    if account:
        given["Authorization"] = "Basic " + base64.b64encode(":".join(account).encode()).decode()
    try:
        with closing(http.client.HTTPConnection(split.hostname or "", split.port, timeout=_SECONDS)) as connection:
            connection.request(method, path, body, given)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0


def _old_handshake(port: int) -> int:
    """1 where TLS 1.1 is spoken at this port, 0 where it is not, or nothing listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", port), timeout=_SECONDS) as raw, context.wrap_socket(raw):
            return 1
    except (OSError, ValueError):
        return 0


def _own_address() -> str:
    """This machine's address in its network; nothing is sent to find it out. "" where it has none."""
    try:
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
            probe.connect(("192.0.2.1", 9))
            own = str(probe.getsockname()[0])
    except OSError:
        return ""
    return "" if own.startswith("127.") else own
