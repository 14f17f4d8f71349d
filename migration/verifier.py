"""Verifying a certificate of a migration, with nothing but the certificate. Also a program of its own:

    python3 verifier.py CERTIFICATE [--key-id FINGERPRINT]

It needs Python 3.11 or later and the package `cryptography`, no installation, no database, no archive.

A certificate is JSON lines, each in canonical form (sorted keys, no blanks, UTF-8):

1. the head: what was to come, what came, how far it is proven, the Merkle root; this line's bytes are signed;
2. for each study a line, followed by one for each of its instances;
3. the signature (Ed25519, RFC 8032; base64).

An instance's `check` is the beginning of SHA-256 over its line without it. A study's `root` is the Merkle root (RFC
6962) over the lines of its instances, its `chain` SHA-256 over the chain before it and its own line without `chain`.
The head's `merkle_root` is over the lines of all studies. So a changed byte is found, and the line is named; who makes
check, root and chain anew fails at the signature. Everything the head counts is counted here again.

A line's `extras` are labels, metadata and attachments that users of another Orthanc had put beside the images: what is
`carried` was read back from the archive with this SHA-256; of the others the state says why they are not.

Levels of proof of an instance: 1 set: the source names it and the archive holds it; 2 arrival: the file on the disk is,
by SHA-256, what the archive was given to store; 3 source: compared with the source itself, by its digest of its own
file, by the bytes that came from it, or by a second retrieve. Only level 3 compares with the source.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

FORMAT = "zambezi migration certificate 3"
CONFIDENCE = 0.95
#: More faults than these are not listed: the file is broken as a whole.
MOST_FAULTS = 50
_LONGEST = 64 << 20
_CHECK = 8


def canonical(content: Mapping[str, Any]) -> bytes:
    """One line, without its end."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Merkle:
    """The root over any number of leaves (RFC 6962, 2.1), in memory of its depth."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, bytes]] = []  # height and hash of whole trees, the highest first

    def add(self, leaf: bytes) -> None:
        height, made = 0, hashlib.sha256(b"\0" + leaf).digest()
        while self._stack and self._stack[-1][0] == height:
            made = hashlib.sha256(b"\1" + self._stack.pop()[1] + made).digest()
            height += 1
        self._stack.append((height, made))

    @property
    def root(self) -> str:
        """Lower-case hex; of no leaves, SHA-256 of nothing."""
        if not self._stack:
            return hashlib.sha256(b"").hexdigest()
        made = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            made = hashlib.sha256(b"\1" + left + made).digest()
        return made.hex()


def instance_line(fields: Mapping[str, Any]) -> bytes:
    """The line of an instance: what is None is left out."""
    said = {name: value for name, value in fields.items() if value is not None}
    return canonical({**said, "check": hashlib.sha256(canonical(said)).hexdigest()[:_CHECK]})


def study_line(fields: Mapping[str, Any], instances: Iterable[bytes], before: str) -> tuple[bytes, str]:
    """The line of a study whose instances' lines these are, and its chain; `before`: the chain of the one before."""
    merkle, count = Merkle(), 0
    for line in instances:
        merkle.add(line)
        count += 1
    said = {**fields, "instances": count, "root": merkle.root}
    chain = hashlib.sha256(before.encode() + canonical(said)).hexdigest()
    return canonical({**said, "chain": chain}), chain


class Tally:
    """Counts that whoever issues a certificate and whoever verifies it derive from the same lines."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in (
                "studies_by_state", "studies_by_level", "studies_by_modality", "studies_by_year",
                "instances_by_verdict", "instances_by_level", "bytes_by_level", "transfer_syntaxes", "coerced",
            )
        }  # fmt: skip
        self._studies = self._instances = self._bytes = 0
        self._extras: Counter[str] = Counter()
        self._drawn = self._compared = self._differing = 0
        self._first, self._last = "", ""
        self._is_different = False

    def instance(self, said: Mapping[str, Any]) -> None:
        level, size = str(said["level"]), int(said.get("size", 0))
        self._instances += 1
        self._bytes += size
        self._counts["instances_by_verdict"][said["verdict"]] += 1
        self._counts["instances_by_level"][level] += 1
        self._counts["bytes_by_level"][level] += size
        if "syntax" in said:
            self._counts["transfer_syntaxes"][said["syntax"]] += 1
        self._counts["coerced"].update(said.get("coerced", ()))
        self._extra(said)
        self._is_different |= said["verdict"] == "different"

    def study(self, said: Mapping[str, Any]) -> None:
        """A study, after all of its instances."""
        self._studies += 1
        self._counts["studies_by_state"][said["state"]] += 1
        self._counts["studies_by_level"][str(said["level"])] += 1
        self._counts["studies_by_modality"][said["modalities"] or "unknown"] += 1
        self._counts["studies_by_year"][said["date"][:4] or "undated"] += 1
        if said["verified_at"]:
            self._first = min(self._first or said["verified_at"], said["verified_at"])
            self._last = max(self._last, said["verified_at"])
        if said.get("sampled"):
            self._drawn += 1
            self._compared += said["level"] == 3 or self._is_different
            self._differing += self._is_different
        self._is_different = False
        self._extra(said)

    def _extra(self, said: Mapping[str, Any]) -> None:
        self._extras.update(f"{one['kind']} {one['state']}" for one in said.get("extras", ()))

    @property
    def counts(self) -> dict[str, Any]:
        return {
            "studies": self._studies, "instances": self._instances, "bytes": self._bytes,
            **{name: dict(sorted(found.items())) for name, found in self._counts.items()},
            "first_verified_at": self._first, "last_verified_at": self._last,
            **({"extras": dict(sorted(self._extras.items()))} if self._extras else {}),
        }  # fmt: skip

    @property
    def sampled(self) -> dict[str, Any]:
        """What the comparison of the drawn studies gave, and what it says of all."""
        found = {"drawn": self._drawn, "compared": self._compared, "differing": self._differing}
        return {**found, "confidence": CONFIDENCE, "bound": round(bound(self._differing, self._compared), 6)}


def rank(seed: str, study_uid: str) -> str:
    """Where the draw puts a study: the lowest are drawn; lower-case hex."""
    return hashlib.sha256(f"{seed}/{study_uid}".encode()).hexdigest()


def bound(differing: int, compared: int) -> float:
    """With CONFIDENCE the share of all studies that differ is not above this (Clopper and Pearson 1934, one-sided)."""
    if differing >= compared:
        return 1.0
    low, high = differing / compared, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(differing, compared, middle) > 1 - CONFIDENCE:
            low = middle
        else:
            high = middle
    return high


def _at_most(found: int, tries: int, share: float) -> float:
    """How likely `found` or fewer of `tries` are where each is with this chance."""
    if share >= 1:
        return 0.0
    total = math.lgamma(tries + 1)
    return sum(
        math.exp(total - math.lgamma(n + 1) - math.lgamma(tries - n + 1)
                 + n * math.log(share) + (tries - n) * math.log1p(-share))
        for n in range(found + 1)
    )  # fmt: skip


@dataclass
class Examined:
    """What a certificate says (`head`, empty if it is none), and everything that is wrong with it, in words."""

    head: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def fault(self, text: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)


def instances(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The instances of a certificate that holds, each with its `study`."""
    study = ""
    for line in file:
        said = json.loads(line)
        study = said.get("study", study)
        if "instance" in said:
            yield {**said, "study": study}


def examine(file: IO[bytes]) -> Examined:
    """Everything that can be said of a certificate from itself; whose the key is, is for the caller to know."""
    found = Examined()
    try:
        _examine(file, found)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        found.fault(f"this is not a certificate of a migration: {error}")
    return found


def _examine(file: IO[bytes], found: Examined) -> None:
    lines = _lines(file)
    _, first = next(lines, (1, b""))
    head = json.loads(first)
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        found.fault(f"this is not a certificate in the format {FORMAT!r}")
        return
    found.head = head
    walk = _Walk(head, found)
    last = b""
    for number, line in lines:
        if last:
            walk.take(number - 1, last)
        last = line
    walk.end()
    _signature(first, last, head, found)


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        if not line.endswith(b"\n"):
            raise ValueError(f"line {number} has no end: the file is cut off")
        yield number, line[:-1]


class _Walk:
    """Through the lines between head and signature."""

    def __init__(self, head: Mapping[str, Any], found: Examined) -> None:
        self._head, self._found = head, found
        self._tally, self._merkle, self._chain, self._lines = Tally(), Merkle(), "", 0
        self._study: dict[str, Any] | None = None
        self._of_study, self._left, self._at = Merkle(), 0, 0

    def take(self, number: int, line: bytes) -> None:
        self._lines += 1
        try:
            said = json.loads(line)
            if canonical(said) != line:
                raise ValueError("it is not written in the canonical form")
            if "instance" in said:
                self._instance(number, line, said)
            else:
                self._end_study()
                self._begin_study(number, line, said)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._found.fault(f"line {number} is not what was written: {error!r}")

    def _instance(self, number: int, line: bytes, said: dict[str, Any]) -> None:
        self._of_study.add(line)
        self._left -= 1
        check = said.pop("check")
        if hashlib.sha256(canonical(said)).hexdigest()[:_CHECK] != check:
            self._found.fault(f"line {number}, instance {said['instance']}: it was changed")
        for why in _overstated(said, self._study or {}):
            self._found.fault(f"line {number}, instance {said['instance']}: {why}")
        self._tally.instance(said)

    def _begin_study(self, number: int, line: bytes, said: dict[str, Any]) -> None:
        self._merkle.add(line)
        self._study, self._at = said, number
        self._of_study, self._left = Merkle(), int(said["instances"])
        chain = said.pop("chain")
        if hashlib.sha256(self._chain.encode() + canonical(said)).hexdigest() != chain:
            text = f"line {number}, study {said['study']}: it was changed, or lines before it were taken out"
            self._found.fault(text)
        self._chain = chain
        sample = self._head["sample"]
        is_drawn = bool(sample) and rank(sample["seed"], said["study"]) <= sample["threshold"]
        if is_drawn != bool(said.get("sampled")):
            self._found.fault(f"line {number}, study {said['study']}: the draw of the sample says otherwise")

    def _end_study(self) -> None:
        if self._study is None:
            return
        about = f"line {self._at}, study {self._study['study']}"
        if self._left:
            self._found.fault(f"{about}: {abs(self._left)} instances too {'few' if self._left > 0 else 'many'}")
        elif self._of_study.root != self._study["root"]:
            self._found.fault(f"{about}: its instances are not those that were certified")
        self._tally.study(self._study)
        self._study = None

    def end(self) -> None:
        self._end_study()
        head = self._head
        derived: dict[str, Any] = {
            "lines": self._lines, "merkle_root": self._merkle.root, "chain": self._chain, "counts": self._tally.counts
        }  # fmt: skip
        for name, value in derived.items():
            if head[name] != value:
                self._found.fault(f"{name} is not what the lines give")
        sample = head["sample"]
        if sample and any(sample[name] != value for name, value in self._tally.sampled.items()):
            self._found.fault("sample is not what the lines give")


def _overstated(said: Mapping[str, Any], study: Mapping[str, Any]) -> Iterator[str]:
    """Why an instance can't be proven as far as its line says."""
    level, coerced = said["level"], said.get("coerced", ())
    if level == 2 and "sha256" not in said:
        yield "it is called proven by its arrival, without a digest of what arrived"
    if level == 3:
        sides = {said.get("source_digest"), said.get("digest")}, {said.get("source_md5"), said.get("md5")}
        if said["verdict"] != "equal" or not (coerced or any(len(one) == 1 and None not in one for one in sides)):
            yield "it is called equal to the source, but no two of its digests say so"
    if coerced and not study.get("changed"):
        yield "it was changed on its way, but nothing was declared for its study"


def _signature(first: bytes, last: bytes, head: Mapping[str, Any], found: Examined) -> None:
    said = json.loads(last)["signature"]
    if canonical({"signature": said}) != last or base64.b64encode(base64.b64decode(said)).decode() != said:
        found.fault("the last line is not a signature as it was written")
    if not _holds(head["public_key"], first, base64.b64decode(said)):
        found.fault("the signature does not fit: the head was changed after it was signed")
    if key_id(head["public_key"]) != head["key_id"]:
        found.fault("the key that it shows is not the key that it names")


def key_id(public_key: str) -> str:
    """The fingerprint by which a key (PEM) is known: the first 32 digits of SHA-256 over its DER form."""
    der = load_pem_public_key(public_key.encode()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()[:32]


def _holds(public_key: str, message: bytes, signature: bytes) -> bool:
    key = load_pem_public_key(public_key.encode())
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
            return True
    except InvalidSignature:
        pass
    return False


def in_words(head: Mapping[str, Any]) -> str:
    """What a certificate that holds says, in two lines."""
    counts, sample = head["counts"], head["sample"]
    levels = counts["instances_by_level"]
    verified = counts["studies_by_state"].get("verified", 0)
    said = (
        f"The certificate holds: {counts['studies']} studies ({verified} verified), {counts['instances']} instances; "
        f"level 3 (source): {levels.get('3', 0)}, level 2 (arrival): {levels.get('2', 0)}, "
        f"level 1 (set): {levels.get('1', 0)}, not proven: {levels.get('0', 0)}."
    )
    if sample:
        said += (
            f"\nSample: {sample['compared']} of {sample['drawn']} drawn studies compared with the source, "
            f"{sample['differing']} differ; with 95 % confidence at most {100 * sample['bound']:.2f} % of all do."
        )
    return said


def main() -> int:
    """The program of its own."""
    parser = argparse.ArgumentParser(description="Verify the certificate of a migration.")
    parser.add_argument("file")
    parser.add_argument("--key-id", help="the fingerprint that the hospital has told you on paper")
    asked = parser.parse_args()
    with Path(asked.file).open("rb") as file:
        found = examine(file)
    signed_with = found.head.get("key_id")
    if asked.key_id and signed_with != asked.key_id:
        found.fault(f"it is signed with key {signed_with}, not with {asked.key_id}")
    known = "" if asked.key_id else ": compare it with the fingerprint that the hospital gave you on paper"
    said = [f"FAULT: {fault}" for fault in found.faults]
    said = said or [in_words(found.head), f"Signed with key {signed_with}{known}."]
    sys.stdout.write("\n".join([*said, ""]))
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
