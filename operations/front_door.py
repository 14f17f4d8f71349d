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

from zambezi.environment import REPOSITORY, Environment, EnvironmentFault
from zambezi.keys import Keys

TEMPLATE = REPOSITORY / "docker" / "nginx"
OHIF = REPOSITORY / ".ohif"
#: The largest body the front door takes, in megabytes: form posts and report uploads, never images.
_BODY_MEGABYTES = 8


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


def plain_address(environ: Mapping[str, str]) -> str:
    """Where plain HTTP listens: loopback, or everywhere if that is asked for by name."""
    asked = environ.get("ZAMBEZI_PLAIN_HTTP", "no")
    if asked not in ("yes", "no"):
        raise EnvironmentFault(f"ZAMBEZI_PLAIN_HTTP: found {asked!r}, allowed are yes and no")
    return "0.0.0.0" if asked == "yes" else "127.0.0.1"


def configuration(template: str, environment: Environment, address: str, given: Certificate | None) -> str:
    """A file of docker/nginx/ with the installation's values filled in."""
    listens = [f"listen {address}:{environment.ports.http};"]
    if given:
        listens += [
            f"listen 0.0.0.0:{environment.ports.https} ssl http2;",
            f"ssl_certificate {given.chain};",
            f"ssl_certificate_key {given.key};",
        ]
    values = {
        "RUN": str(environment.run_dir),
        "LISTEN": "\n    ".join(listens),
        "ORTHANC": f"127.0.0.1:{environment.ports.orthanc_http}",
        "RIS": f"127.0.0.1:{environment.ports.ris}",
        "OHIF": str(OHIF),
        "PARTS": str(TEMPLATE),
        "BODY": f"{_BODY_MEGABYTES}m",
    }
    for name, value in values.items():
        template = template.replace(f"@{name}@", value)
    return template


def write(environment: Environment, keys: Keys, environ: Mapping[str, str]) -> None:
    """Write nginx.conf and its parts to ZAMBEZI_HOME/run, and the front door's password for Orthanc (mode 0600)."""
    run = environment.run_dir
    for folder in ("body", "proxy", "fastcgi", "uwsgi", "scgi", "door"):
        (run / "nginx" / folder).mkdir(parents=True, exist_ok=True)
    address, given = plain_address(environ), certificate(environment, environ)
    for part in TEMPLATE.glob("*.conf"):
        (run / part.name).write_text(configuration(part.read_text(), environment, address, given))
    basic = base64.b64encode(":".join(keys.basic("front")).encode()).decode()
    secret = run / "front-authorization.conf"
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(f'proxy_set_header Authorization "Basic {basic}";\n')
