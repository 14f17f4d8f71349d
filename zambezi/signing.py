"""Signing keys (Ed25519, RFC 8032): where they lie, what they sign, how one follows another.

`ZAMBEZI_HOME/signing/` (mode 0700) holds, for each purpose, the private key that signs now
(`<purpose>-<key id>.pem`, mode 0600) and the register of all public keys there ever were (`<purpose>.json`).
A key's id is the fingerprint of its public key: the first 32 hex digits of SHA-256 over its DER form.

The register is a list of statements, each of which names the digest of the one before and is signed: a key that
follows another by the one it follows, so that who knew an old key can trust the new one; the first, and one that had to
begin anew because the private key was lost or stolen, by itself, which the statement says. A revocation is signed by
the key that signs at that time. What a retired key signed stays good; what a revoked key signed never is, whatever
date it bears. Only the register is needed for verifying.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, durable, exceptions
from zambezi.database.tables import AuditEntry

#: What is signed with keys of its own.
PURPOSES = {
    "certificate": "certificates of migrations", "proof": "proofs of moves", "drill": "reports of restores",
    "audit": "checkpoints and segments of the audit trail",
}  # fmt: skip
FORMAT = "zambezi key statement 1"

State = Literal["current", "retired", "revoked", "unknown"]


class SigningFault(Exception):
    """Keys that can't be used or changed as asked; the text says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """A statement and its signature (base64, over the canonical JSON of the statement).

    `statement` has format, purpose, kind (first, rotated, restarted, revoked), key_id, public_key (PEM), at, by,
    reason, after (digest of the entry before, "" for the first) and signed_by (a key id).
    """

    statement: dict[str, str]
    signature: str

    @property
    def kind(self) -> str:
        return self.statement["kind"]

    @property
    def key_id(self) -> str:
        return self.statement["key_id"]

    @property
    def digest(self) -> str:
        """Lower-case hex SHA-256 over statement and signature."""
        return hashlib.sha256(canonical(self.statement) + self.signature.encode()).hexdigest()


@dataclass(frozen=True)
class PublicKey:
    """One key of the register, with the time in which it signed; `until` is "" while it does."""

    key_id: str
    public_key: str
    since: str
    until: str
    state: State
    kind: str


@dataclass(frozen=True)
class Register:
    """All public keys of one purpose, oldest first."""

    purpose: str
    entries: tuple[Entry, ...]

    @property
    def keys(self) -> list[PublicKey]:
        made = [entry for entry in self.entries if entry.kind != "revoked"]
        revoked = {entry.key_id for entry in self.entries if entry.kind == "revoked"}
        found = []
        for entry, following in zip(made, [*made[1:], None], strict=True):
            until = following.statement["at"] if following else ""
            state: State = "revoked" if entry.key_id in revoked else "retired" if following else "current"
            said = entry.statement
            found.append(PublicKey(entry.key_id, said["public_key"], said["at"], until, state, entry.kind))
        return found

    def key(self, key_id: str) -> PublicKey | None:
        return next((key for key in self.keys if key.key_id == key_id), None)

    def state(self, key_id: str) -> State:
        """Whether what this key signed may be trusted: it may where the state is current or retired."""
        found = self.key(key_id)
        return found.state if found else "unknown"

    @property
    def faults(self) -> list[str]:
        """Everything that doesn't hold in the register, in words; none if all does."""
        found = []
        before: Entry | None = None
        current: str = ""
        public: dict[str, str] = {}
        for number, entry in enumerate(self.entries, 1):
            said, place = entry.statement, f"statement {number} of the register for {self.purpose}"
            if entry.kind != "revoked":
                public[entry.key_id] = said["public_key"]
            signer = {"first": entry.key_id, "restarted": entry.key_id}.get(entry.kind, current)
            if said["format"] != FORMAT or said["purpose"] != self.purpose:
                found.append(f"{place} is one of another format or purpose")
            elif (entry.kind == "first") != (before is None) or said["after"] != (before.digest if before else ""):
                found.append(f"{place} doesn't follow the one before it")
            elif entry.key_id not in public or key_id(public[entry.key_id]) != entry.key_id:
                found.append(f"{place} names a key that is not the one it shows")
            elif said["signed_by"] != signer or not holds(
                public.get(signer, ""), canonical(said), base64.b64decode(entry.signature)
            ):
                found.append(f"{place} is not signed by the key that had to sign it")
            if entry.kind != "revoked":
                current = entry.key_id
            before = entry
        return found

    def to_json(self) -> bytes:
        """The register as a file: it holds nothing secret."""
        body = {
            "purpose": self.purpose,
            "entries": [{"statement": entry.statement, "signature": entry.signature} for entry in self.entries],
        }
        return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"

    @classmethod
    def from_json(cls, file: bytes) -> Register:
        """Read what `to_json` wrote; SigningFault where it is something else, or doesn't hold."""
        try:
            whole = json.loads(file)
            entries = tuple(Entry(dict(each["statement"]), str(each["signature"])) for each in whole["entries"])
            register = cls(str(whole["purpose"]), entries)
            faults = register.faults if entries else ["the register is empty"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SigningFault(f"this is not a register of signing keys: {error!r}") from error
        if faults:
            raise SigningFault("; ".join(faults))
        return register


@dataclass(frozen=True)
class Signer:
    """The key that signs now."""

    key_id: str
    public_key: str
    since: str
    private: Ed25519PrivateKey

    def sign(self, message: bytes) -> str:
        """The signature over the message, base64."""
        return base64.b64encode(self.private.sign(message)).decode()


def canonical(content: Mapping[str, Any]) -> bytes:
    """The bytes that are signed: JSON with sorted keys, without spaces, UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def key_id(public_key: str) -> str:
    """The fingerprint by which a public key (PEM) is known; ValueError where it is none."""
    der = _public(public_key).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def holds(public_key: str, message: bytes, signature: bytes) -> bool:
    """Whether this key (PEM) signed this message."""
    try:
        _public(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def register(folder: Path, purpose: str) -> Register | None:
    """The public keys of a purpose; None before the first was made. SigningFault where the file doesn't hold."""
    try:
        file = (folder / f"{purpose}.json").read_bytes()
    except FileNotFoundError:
        return None
    return Register.from_json(file)


def current(folder: Path, purpose: str, by: str, now: datetime) -> Signer:
    """The key that signs for a purpose, made where there is none yet; SigningFault where its private key is gone."""
    for _ in range(3):  # between looking at the register and reading the key it may have been rotated
        known = register(folder, purpose)
        if known is None:
            with _locked(folder):
                if register(folder, purpose) is None:
                    _add(folder, purpose, None, "first", by, "there was no key yet", now)
            continue
        key = known.keys[-1]
        try:
            found = load_pem_private_key(_private_file(folder, purpose, key.key_id).read_bytes(), None)
        except FileNotFoundError:
            continue
        if not isinstance(found, Ed25519PrivateKey) or _pem(found) != key.public_key:
            raise SigningFault(f"{_private_file(folder, purpose, key.key_id)} is not the key that its name says")
        return Signer(key.key_id, key.public_key, key.since, found)
    raise SigningFault(
        f"{_private_file(folder, purpose, key.key_id)} is not there: put it back from a copy, or, if there is none, "
        f"begin anew with `zambezi key rotate --lost`; what it has signed stays good"
    )


def rotate(folder: Path, purpose: str, by: str, reason: str, now: datetime, lost: bool = False) -> Register:
    """Let a new key sign from now on; the old private key is deleted, its public key is kept.

    `lost`: the old private key is gone, so that the new one can't be signed by it.
    """
    with _locked(folder):
        known = register(folder, purpose)
        if known is None:
            raise SigningFault(f"there is no key for {PURPOSES[purpose]} yet; the first is made when it is needed")
        old = None if lost else current(folder, purpose, by, now)
        return _add(folder, purpose, old, "restarted" if lost else "rotated", by, reason, now)


def revoke(folder: Path, purpose: str, key: str, by: str, reason: str, now: datetime) -> Register:
    """Declare that nothing this key signed may be trusted; if it signs now, another key begins anew first."""
    with _locked(folder):
        known = register(folder, purpose)
        state = known.state(key) if known else "unknown"
        if known is None or state == "unknown":
            raise SigningFault(f"no key {key} for {PURPOSES[purpose]}; `zambezi key list` shows them")
        if state == "revoked":
            raise SigningFault(f"key {key} is revoked already")
        if state == "current":
            known = _add(folder, purpose, None, "restarted", by, f"key {key} is revoked: {reason}", now)
        signer = current(folder, purpose, by, now)
        public = next(each.public_key for each in known.keys if each.key_id == key)
        return _append(folder, known, signer, "revoked", key, public, by, reason, now)


def record(session: Session, known: Register, writer: str) -> None:
    """Bring into the audit trail what the register says and the trail doesn't yet; a new beginning is an incident.

    The register is written first, in files; this makes it good after a crash, too.
    """
    told: dict[str, dict[str, Any]] = {}
    for payload in session.scalars(select(AuditEntry.payload).where(AuditEntry.event == "key-changed")):
        facts = json.loads(payload)
        if facts["key"] == known.purpose:
            told[facts["statement"]] = facts
    for digest in told.keys() - {entry.digest for entry in known.entries}:
        _set_back(session, known, writer, told[digest])
    for entry in known.entries:
        if entry.digest in told:
            continue
        said, at = entry.statement, clock.parse(entry.statement["at"])
        audit.append(
            session, writer, "key-changed", at, key=known.purpose, fingerprint=entry.key_id, change=entry.kind,
            who=said["by"], reason=said["reason"], statement=entry.digest,
        )  # fmt: skip
        if entry.kind in ("restarted", "revoked"):
            what = f"The signing key of {PURPOSES[known.purpose]} had to begin anew as {entry.key_id}"
            if entry.kind == "revoked":
                what = f"Signing key {entry.key_id} is revoked: nothing that it signed may be trusted"
            audit.append(session, writer, "incident", at, reason=f"{what}: {said['reason']}", who=said["by"])
            exceptions.wait(
                session, "keys", f"key {entry.key_id} {entry.kind}", what=f"{what}. {said['reason']}", now=at,
                kind=f"key-{entry.kind}", facts={"source": entry.key_id, "reason": said["reason"]},
                suggestion="Tell everybody who holds what it signed, and hand them the new key's fingerprint on paper.",
            )  # fmt: skip


def _set_back(session: Session, known: Register, writer: str, facts: Mapping[str, Any]) -> None:
    """The register lacks a statement: an old copy was put back, by a restore or to hide a revocation."""
    reference = f"key statement {facts['statement'][:32]}"
    if exceptions.is_known(session, "keys", reference):
        return
    about = f"{facts['fingerprint']}: {facts['change']}"
    what = f"The register of signing keys lacks what the audit trail says of key {about}"
    at = clock.parse(known.entries[-1].statement["at"])
    audit.append(session, writer, "incident", at, reason=what, key=known.purpose, statement=facts["statement"])
    exceptions.wait(
        session, "keys", reference, what=f"{what}, {facts['at'][:19]}. {facts['reason']}", now=at, kind="key-lacking",
        facts={"source": facts["fingerprint"], "change": facts["change"], "reason": facts["reason"]},
        suggestion="Was an old copy of signing/ put back? Revoke again what was revoked.",
    )  # fmt: skip


def _add(folder: Path, purpose: str, signer: Signer | None, kind: str, by: str, reason: str, now: datetime) -> Register:
    """Make a key and put it into the register, signed by `signer` or, where there is none, by itself."""
    known = register(folder, purpose) or Register(purpose, ())
    private = Ed25519PrivateKey.generate()
    public = _pem(private)
    fresh = key_id(public)
    # The private key is on disk before the register names it; one that is named nowhere is swept by the next change.
    durable.replace(
        _private_file(folder, purpose, fresh), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    made = _append(
        folder, known, signer or Signer(fresh, public, "", private), kind, fresh, public, by, reason, now
    )  # fmt: skip
    for file in folder.glob(f"{purpose}-*"):
        if file != _private_file(folder, purpose, fresh):
            file.unlink()
    return made


def _append(
    folder: Path, known: Register, signer: Signer, kind: str, about: str, public: str, by: str, reason: str,
    now: datetime,
) -> Register:  # fmt: skip
    statement = {
        "format": FORMAT, "purpose": known.purpose, "kind": kind, "key_id": about, "public_key": public,
        "at": clock.text(now), "by": by, "reason": reason, "after": known.entries[-1].digest if known.entries else "",
        "signed_by": signer.key_id,
    }  # fmt: skip
    made = Register(known.purpose, (*known.entries, Entry(statement, signer.sign(canonical(statement)))))
    durable.replace(folder / f"{known.purpose}.json", made.to_json())
    return made


def _private_file(folder: Path, purpose: str, of: str) -> Path:
    return folder / f"{purpose}-{of}.pem"


def _pem(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _public(pem: str) -> Ed25519PublicKey:
    found = load_pem_public_key(pem.encode())
    if not isinstance(found, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return found


def _locked(folder: Path) -> AbstractContextManager[int]:
    """One process at a time changes keys, in a folder that is its owner's alone whoever made it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    return durable.alone(folder)
