"""Where an installation's certificates lie, and their renewal: ZAMBEZI_HOME/certificates.

authority.crt and .key are the authority's, front.crt and .key what the front door shows. nginx reads the latter for
each connection anew, so what is written here counts at once. A renewal keeps the key: one file changes, whole.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from operations import certificates, front_door
from operations.certificates import CertificateFault, Expiring, Held, Pair
from zambezi import audit, durable
from zambezi.database.engine import Sessions
from zambezi.environment import Environment

WRITER = "operations"

FRONT = "the front door's certificate"
AUTHORITY = "the archive's own authority"
PEERS = "a certificate for DICOM over TLS"


@dataclass(frozen=True)
class Keeper:
    """An installation's certificates; `sessions` is the central database, to which each change is written first."""

    environment: Environment
    sessions: Sessions

    def make_authority(
        self, organisation: str, domains: Sequence[str], networks: Sequence[str], again: bool, who: str, now: datetime
    ) -> Pair:
        """A new authority; CertificateFault where there is one and nobody said `again`."""
        certificate, key = _files(self.environment, "authority")
        if certificate.exists() and not again:
            raise CertificateFault(
                f"{certificate} is there; computers believe it. A new one (--again) must be put into each of them"
            )
        made = certificates.make_authority(organisation, now, domains, networks)
        self._record(AUTHORITY, made, who, now)
        durable.replace(key, made.key)
        durable.replace(certificate, made.certificate)
        return made

    def issue(self, names: Sequence[str], who: str, now: datetime) -> Pair:
        """A new certificate and key for the front door, from our authority."""
        certificate, key = _files(self.environment, "front")
        if certificate.exists() and not self._is_ours(certificate):
            raise CertificateFault(f"{certificate} is from another authority; move it and {key} away first")
        made = certificates.issue(self._authority(), names, now)
        self._record(FRONT, made, who, now)
        durable.replace(key, made.key)
        durable.replace(certificate, made.certificate)
        return made

    def renew(self, who: str, now: datetime) -> Pair:
        """The same names and key, good for longer; CertificateFault where the front door's isn't from our authority."""
        certificate, key = _files(self.environment, "front")
        if not certificate.exists():
            raise CertificateFault(f"{certificate} is not there; zambezi cert server NAME ... makes it")
        if not self._is_ours(certificate):
            raise CertificateFault(f"{certificate} is from another authority; only that one can renew it")
        old = certificates.load(certificate.read_bytes())
        made = certificates.issue(self._authority(), certificates.names(old), now, key.read_bytes())
        self._record(FRONT, made, who, now)
        durable.replace(certificate, made.certificate)
        return made

    def renew_if_due(self, environ: Mapping[str, str], now: datetime) -> Pair | None:
        """Renew what ends within a month, if it is what the front door shows and ours to renew."""
        shown, (certificate, _) = front_door.certificate(self.environment, environ), _files(self.environment, "front")
        if shown is None or shown.chain != certificate or not self._is_ours(certificate):
            return None
        present = certificates.load(certificate.read_bytes())
        end, last = present.not_valid_after_utc, certificates.load(self._authority().certificate).not_valid_after_utc
        # Renewed while this machine's clock was ahead, it isn't good yet.
        if now >= present.not_valid_before_utc and (end - now >= certificates.RENEWAL or end >= last):
            return None
        return self.renew(WRITER, now)

    def _authority(self) -> Pair:
        certificate, key = _files(self.environment, "authority")
        try:
            return Pair(certificate.read_bytes(), key.read_bytes())
        except FileNotFoundError as missing:
            raise CertificateFault(f"{missing.filename} is not there; zambezi cert authority makes it") from None

    def _is_ours(self, certificate: Path) -> bool:
        authority, key = _files(self.environment, "authority")
        if not authority.exists() or not key.exists():
            return False
        own = certificates.load(authority.read_bytes())
        return certificates.is_from(certificates.load(certificate.read_bytes()), own)

    def _record(self, what: str, made: Pair, who: str, now: datetime) -> None:
        certificate = certificates.load(made.certificate)
        with self.sessions.begin() as session:
            audit.append(
                session, WRITER, "certificate-changed", now, who=who, certificate=what,
                fingerprint=certificates.fingerprint(certificate), names=list(certificates.names(certificate)),
            )  # fmt: skip


def authority_file(environment: Environment) -> Path:
    """The authority's certificate: what every computer of the house is given; nothing in it is secret."""
    return _files(environment, "authority")[0]


def known(environment: Environment, environ: Mapping[str, str]) -> list[Held]:
    """The certificates that this installation shows or believes; CertificateFault where one can't be read."""
    shown = front_door.certificate(environment, environ)
    peers, authority = environment.home / "certificates" / "dicom-peers.crt", authority_file(environment)
    found = certificates.held(shown.chain, FRONT)[:1] if shown else []
    if authority.exists():
        found += certificates.held(authority, AUTHORITY)
    if os.access(peers, os.R_OK):
        found += certificates.held(peers, PEERS)
    return found


def expiring(environment: Environment, environ: Mapping[str, str], now: datetime) -> list[Expiring]:
    """Those of this installation's certificates that end within a month or have ended."""
    return certificates.expiring(known(environment, environ), now)


def _files(environment: Environment, name: str) -> tuple[Path, Path]:
    folder = environment.home / "certificates"
    return folder / f"{name}.crt", folder / f"{name}.key"
