"""The installation's own secrets: the session key and one Orthanc password a service.

They are made at the first start, lie in `ZAMBEZI_HOME/keys.json` (mode 0600) and never in the
repository. Standard library only: the plugin reads them, too.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from zambezi import durable

#: Who signs in to Orthanc, each with a password of its own; Orthanc keeps the name (HttpUsername) with what it stores.
SERVICES = ("front", "ris", "gateway", "migration", "operations", "recovery", "custody")


@dataclass(frozen=True)
class Keys:
    """`session_key` signs tokens (hex, 32 bytes); `services` maps a service to its Orthanc password."""

    session_key: str
    services: dict[str, str]

    def basic(self, service: str) -> tuple[str, str]:
        """User and password of a service for Orthanc's own authentication."""
        return service, self.services[service]


def load(file: Path) -> Keys:
    """Read the keys; FileNotFoundError before the first start."""
    found = json.loads(file.read_text())
    return Keys(found["session_key"], found["services"])


def load_or_create(file: Path) -> Keys:
    """Read the keys, making them (mode 0600) at the first start and adding passwords for new services."""
    try:
        keys = load(file)
    except FileNotFoundError:
        keys = Keys(secrets.token_hex(32), {})
    missing = [name for name in SERVICES if name not in keys.services]
    if missing:
        keys = Keys(keys.session_key, {**keys.services, **{name: secrets.token_urlsafe(24) for name in missing}})
        durable.replace(file, json.dumps(asdict(keys), indent=2).encode())
    return keys
