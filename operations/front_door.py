"""The front door: nginx's configuration for this installation, from docker/nginx/nginx.conf.

One origin for pages, viewers and DICOMweb. Plain HTTP listens on loopback unless all addresses are asked
for by name (ZAMBEZI_PLAIN_HTTP=yes); HTTPS listens where a certificate is given.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from operations import certificates
from zambezi import clock
from zambezi.config import Configuration
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault
from zambezi.keys import Keys

TEMPLATE = REPOSITORY / "docker" / "nginx"
OHIF = REPOSITORY / ".ohif"
#: Debian's libnginx-mod-stream; it is loaded only where DICOM over TLS is asked for.
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
_DICOM_TLS = "dicom-tls.conf"
#: The largest body the front door takes, in megabytes: form posts and report uploads, never images.
_BODY_MEGABYTES = 8
#: Named by variables, the files are read for each connection: a renewed certificate counts at once, without a restart.
_CERTIFICATE = """map "" $front_chain {{ default {chain}; }}
  map "" $front_key {{ default {key}; }}"""


@dataclass(frozen=True)
class Certificate:
    """A server certificate with its chain, and its key (PEM)."""

    chain: Path
    key: Path


def certificate(environment: Environment, environ: Mapping[str, str]) -> Certificate | None:
    """What ZAMBEZI_TLS_CERTIFICATE and ZAMBEZI_TLS_KEY name, else certificates/front.crt and .key, else None."""
    named = environ.get("ZAMBEZI_TLS_CERTIFICATE"), environ.get("ZAMBEZI_TLS_KEY")
    folder = environment.home / "certificates"
    chain = Path(named[0]) if named[0] else folder / "front.crt"
    key = Path(named[1]) if named[1] else folder / "front.key"
    if not any(named) and not chain.exists() and not key.exists():
        return None
    unreadable = [str(file) for file in (chain, key) if not os.access(file, os.R_OK)]
    if unreadable:
        raise EnvironmentFault(f"the front door's certificate or key can't be read: {', '.join(unreadable)}")
    return Certificate(chain.absolute(), key.absolute())


@dataclass(frozen=True)
class DicomTls:
    """DICOM over TLS: our own certificate, what vouches for the peers' (PEM), and fingerprint -> address of each."""

    own: Certificate
    peers: Path
    addresses: Mapping[str, str]


def dicom_tls(environment: Environment, configuration: Configuration, own: Certificate | None) -> DicomTls | None:
    """What Zambezi.DicomTls asks for; None where no peer has a certificate."""
    asked = configuration.zambezi.dicom_tls.certificates
    if not asked:
        return None
    peers = environment.home / "certificates" / "dicom-peers.crt"
    faults = []
    if own is None:
        faults.append("Zambezi.DicomTls: it shows the front door's certificate, and there is none; see docs/install.md")
    if not os.access(peers, os.R_OK):
        faults.append(
            f"Zambezi.DicomTls: {peers} can't be read; put the peers' certificates there, or their CA's (PEM)"
        )
    if not STREAM.exists():
        faults.append(f"Zambezi.DicomTls: {STREAM} is not there; as root: apt-get install libnginx-mod-stream")
    if faults or own is None:
        raise EnvironmentFault("\n".join(faults))
    known = configuration.modalities
    addresses = {text.replace(":", "").lower(): known[name].host for name, text in asked.items()}
    return DicomTls(own, peers, addresses)


def plain_address(environ: Mapping[str, str]) -> str:
    """Where plain HTTP listens: loopback, or everywhere if that is asked for by name."""
    asked = environ.get("ZAMBEZI_PLAIN_HTTP", "no")
    if asked not in ("yes", "no"):
        raise EnvironmentFault(f"ZAMBEZI_PLAIN_HTTP: found {asked!r}, allowed are yes and no")
    return "0.0.0.0" if asked == "yes" else "127.0.0.1"


def filled(
    template: str, environment: Environment, address: str, given: Certificate | None, over_tls: DicomTls | None = None
) -> str:
    """A file of docker/nginx/ with the installation's values filled in."""
    listens = [f"listen {address}:{environment.ports.http};"]
    if given:
        listens += [
            f"listen 0.0.0.0:{environment.ports.https} ssl http2;",
            "ssl_certificate $front_chain;",
            "ssl_certificate_key $front_key;",
        ]
    values = {
        "RUN": str(environment.run_dir),
        "LISTEN": "\n    ".join(listens),
        "CERTIFICATE": _CERTIFICATE.format(chain=given.chain, key=given.key) if given else "",
        "ORTHANC": _upstream(environment),
        "RIS": "; server ".join(f"127.0.0.1:{port}" for port in (environment.ports.ris, *environment.ris_others)),
        "OHIF": str(OHIF),
        "PARTS": str(TEMPLATE),
        "BODY": f"{_BODY_MEGABYTES}m",
    }
    if over_tls:
        values |= {
            "MODULES": f"load_module {STREAM};",
            "DICOM_OVER_TLS": f"include {environment.run_dir}/dicom-tls.conf;",
            "PEER_ADDRESSES": "\n    ".join(f"{one} {address};" for one, address in over_tls.addresses.items()),
            "DICOM": str(environment.ports.dicom),
            "DICOM_TLS": str(environment.ports.dicom_tls),
            "MPPS": str(environment.ports.mpps),
            "MPPS_TLS": str(environment.ports.mpps_tls),
            "PEERS": str(over_tls.peers),
        }
    else:
        values |= {"MODULES": "", "DICOM_OVER_TLS": ""}
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def _upstream(environment: Environment) -> str:
    """Orthanc's address. Of several nodes the first is asked; another one where it doesn't answer, for ten seconds."""
    if not environment.nodes:
        return f"127.0.0.1:{environment.ports.orthanc_http}"
    first, *others = (f"{node.host}:{node.orthanc_http}" for node in environment.nodes)
    return "; server ".join([f"{first} max_fails=1 fail_timeout=10s", *(f"{other} backup" for other in others)])


def write(environment: Environment, configuration: Configuration, keys: Keys, environ: Mapping[str, str]) -> None:
    """Write nginx.conf and its parts to ZAMBEZI_HOME/run, and the front door's password for Orthanc (mode 0600)."""
    run = environment.run_dir
    for folder in ("body", "proxy", "fastcgi", "uwsgi", "scgi", "door"):
        (run / "nginx" / folder).mkdir(parents=True, exist_ok=True)
    address, given = plain_address(environ), certificate(environment, environ)
    # nginx reads them with the first connection only, and would then say nothing but that it failed.
    faults = certificates.pair_faults(given.chain, given.key, clock.now()) if given else []
    if faults:
        raise EnvironmentFault("\n".join(faults))
    over_tls = dicom_tls(environment, configuration, given)
    (run / _DICOM_TLS).unlink(missing_ok=True)
    for part in TEMPLATE.glob("*.conf"):
        if over_tls or part.name != _DICOM_TLS:
            (run / part.name).write_text(filled(part.read_text(), environment, address, given, over_tls))
    basic = base64.b64encode(":".join(keys.basic("front")).encode()).decode()
    secret = run / "front-authorization.conf"
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(f'proxy_set_header Authorization "Basic {basic}";\n')
