"""Certificates of the front door: an authority of the hospital's own, and what it vouches for.

A hospital's network has names and addresses that no public authority vouches for. So the archive brings an
authority along: its certificate is put into every computer once, and the front door's certificate then comes from it.

Whoever stole the authority's key could stand between those computers and any site they visit. So the authority's
certificate says itself for which names and addresses it may vouch (RFC 5280 name constraints): by itself nothing but
a hospital's inner names and private addresses.

Nothing here reads a clock or writes a file.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from zambezi import clock

#: RSA, for modalities that know nothing newer: they are shown the same certificate over DICOM TLS.
_BITS = 3072
#: Long, for each computer must be told once of the next one.
AUTHORITY_YEARS = 10
#: Browsers take no server's certificate that is good for longer than 398 days.
SERVER_DAYS = 397
#: So long before its end a certificate is renewed, and a person told where we can't renew it.
RENEWAL = timedelta(days=30)
#: Clocks of modalities and old computers are wrong by hours.
_SLACK = timedelta(days=1)

#: Names that are never a public site's (RFC 6761, 6762, 8375 and ICANN's .internal), and private addresses.
INNER_DOMAINS = ("localhost", "local", "lan", "internal", "home.arpa")
INNER_NETWORKS = (
    "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "127.0.0.0/8", "169.254.0.0/16",
    "fc00::/7", "fe80::/10", "::1/128",
)  # fmt: skip
#: The console asks its own front door by these.
OF_THE_CONSOLE = ("localhost", "127.0.0.1")

_DOMAIN = re.compile(r"(?=.{1,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

Key = rsa.RSAPrivateKey
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class CertificateFault(ValueError):
    """A certificate can't be made or read; each line says what was found, what is allowed and what to do."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, both PEM."""

    certificate: bytes
    key: bytes


@dataclass(frozen=True)
class Held:
    """A certificate in a file: `what` it is in words, its names, who issued it, until when it is good (UTC)."""

    file: str
    what: str
    names: tuple[str, ...]
    issuer: str
    until: datetime
    fingerprint: str

    def days_left(self, now: datetime) -> int:
        """Whole days until its end; negative behind it."""
        return (self.until - now).days


@dataclass(frozen=True)
class Expiring:
    """A certificate whose end is near or past, as a sentence for a person; `days` are those that are left."""

    held: Held
    days: int
    sentence: str


def make_authority(
    organisation: str,
    now: datetime,
    domains: Sequence[str] = (),
    networks: Sequence[str] = (),
    years: int = AUTHORITY_YEARS,
) -> Pair:
    """An authority that may vouch for `domains` (with all below them) and `networks` beside the inner ones."""
    faults = [f"the domain {one!r}: allowed are letters, digits, - and ." for one in domains if not _is_domain(one)]
    faults += [f"the network {one!r}: allowed is one like 196.28.4.0/24" for one in networks if _network(one) is None]
    if not organisation.strip() or len(organisation) > 64:
        faults.append(f"the organisation {organisation!r}: allowed are 1 to 64 letters")
    if faults:
        raise CertificateFault("\n".join(faults))
    key = rsa.generate_private_key(65537, _BITS)
    names: list[x509.GeneralName] = [x509.DNSName(one.lower()) for one in (*INNER_DOMAINS, *domains)]
    names += [x509.IPAddress(found) for one in (*INNER_NETWORKS, *networks) if (found := _network(one))]
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Zambezi {organisation}"[:64]),
        ]
    )
    made = (
        _builder(name, name, key, now, now + timedelta(days=365 * years))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.NameConstraints(names, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(_pem(made), _key_pem(key))


def issue(authority: Pair, names: Sequence[str], now: datetime, key: bytes | None = None) -> Pair:
    """The front door's certificate for names and addresses; with `key` for that one, so that only the file changes.

    It is shown to DICOM peers that we call, too.
    """
    parent = load(authority.certificate)
    wanted = list(dict.fromkeys([*(one.lower().rstrip(".") for one in names), *OF_THE_CONSOLE]))
    refused = [why for one in wanted if (why := _refusal(parent, one))]
    if now >= parent.not_valid_after_utc - _SLACK:
        refused.append(
            f"the authority's own certificate ended on {_day(parent.not_valid_after_utc)}; make a new authority"
        )
    if not names:
        refused.append("no name: give those by which browsers ask for the archive, such as pacs.lan and 10.1.0.5")
    if refused:
        raise CertificateFault("\n".join(refused))
    own = _load_key(key) if key else rsa.generate_private_key(65537, _BITS)
    until = min(now + timedelta(days=SERVER_DAYS), parent.not_valid_after_utc)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])])
    made = (
        _builder(subject, parent.subject, own, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName([_general(one) for one in wanted]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(_parent_key(parent), critical=False)
        .sign(_load_key(authority.key), hashes.SHA256())
    )
    return Pair(_pem(made), _key_pem(own))


def is_from(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether the authority signed it."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def pair_faults(chain: Path, key: Path, now: datetime) -> list[str]:
    """Why a server can't show this certificate; a browser would only say that there is no answer."""
    try:
        certificate, private = load(chain.read_bytes()), key.read_bytes()
        own = serialization.load_pem_private_key(private, None)
    except (CertificateFault, ValueError, TypeError) as fault:
        return [f"{chain} and {key}: PEM is allowed, a key without a password; {fault}"]
    faults = []
    if _public(own.public_key()) != _public(certificate.public_key()):
        faults.append(f"{key} is not the key of {chain}; put the two that belong together there")
    if now < certificate.not_valid_before_utc:
        faults.append(
            f"{chain} is not good before {_day(certificate.not_valid_before_utc)}; look at this machine's clock"
        )
    return faults


def load(pem: bytes) -> x509.Certificate:
    """The first certificate of a PEM file; CertificateFault where there is none."""
    found = _PEM.search(pem)
    if not found:
        raise CertificateFault("no certificate is in it (PEM)")
    try:
        return x509.load_pem_x509_certificate(found[0])
    except ValueError as error:
        raise CertificateFault(f"the certificate in it can't be read: {error}") from error


def held(file: Path, what: str) -> list[Held]:
    """Every certificate of a PEM file."""
    try:
        pem = file.read_bytes()
        certificates = [x509.load_pem_x509_certificate(found[0]) for found in _PEM.finditer(pem)]
    except (OSError, ValueError) as error:
        raise CertificateFault(f"{file} can't be read: {error}") from error
    return [
        Held(str(file), what, names(each), _common_name(each.issuer), each.not_valid_after_utc, fingerprint(each))
        for each in certificates
    ]


def expiring(known: Iterable[Held], now: datetime, within: timedelta = RENEWAL) -> list[Expiring]:
    """Those that end soon or have ended, the most pressing first."""
    found = []
    for each in known:
        if each.until - now >= within:
            continue
        days = each.days_left(now)
        end = f"ends on {_day(each.until)}, in {days} days" if now < each.until else f"ended on {_day(each.until)}"
        found.append(Expiring(each, days, f"{each.what} {end} ({each.file}); `zambezi cert show` says more"))
    return sorted(found, key=lambda one: one.days)


def names(certificate: x509.Certificate) -> tuple[str, ...]:
    """The names and addresses that a certificate is for; where it has none, its subject's name."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (_common_name(certificate.subject),)
    return (*found.get_values_for_type(x509.DNSName), *(str(one) for one in found.get_values_for_type(x509.IPAddress)))


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 as browsers show it: AB:CD:..."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def _refusal(parent: x509.Certificate, name: str) -> str:
    """Why the authority may not vouch for the name; "" where it may."""
    try:
        limits = parent.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        limits = []
    address = _address(name)
    if address is None and not _is_domain(name):
        return f"{name!r} is neither a name (letters, digits, - and .) nor an address"
    inside = False
    for limit in limits:
        if address is not None and isinstance(limit, x509.IPAddress):
            inside |= isinstance(limit.value, ipaddress.IPv4Network | ipaddress.IPv6Network) and address in limit.value
        elif address is None and isinstance(limit, x509.DNSName):
            inside |= name == limit.value or name.endswith(f".{limit.value}")
    if inside or not limits:
        return ""
    option = f"--network {address}/{address.max_prefixlen}" if address else f"--domain {name}"
    return (
        f"the authority may not vouch for {name}, so no browser would believe it; "
        f"make a new authority that may: zambezi cert authority --again {option} ..."
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SLACK)
        .not_valid_after(until)
    )


def _usage(**granted: bool) -> x509.KeyUsage:
    every = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
             "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(**{one: granted.get(one, False) for one in every})


def _parent_key(parent: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _general(name: str) -> x509.GeneralName:
    address = _address(name)
    return x509.IPAddress(address) if address else x509.DNSName(name)


def _address(name: str) -> _Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def _is_domain(name: str) -> bool:
    return _DOMAIN.fullmatch(name.lower()) is not None and _address(name) is None


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]  # every kind of public key has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _key_pem(key: Key) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(pem: bytes) -> Key:
    try:
        found = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise CertificateFault(f"the key can't be read: {error}") from error
    if not isinstance(found, rsa.RSAPrivateKey):
        raise CertificateFault("the key is not one of those made here (RSA)")
    return found


def _day(at: datetime) -> str:
    return clock.text(at)[:10]
