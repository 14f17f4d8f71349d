"""The proof of a move: two lists of every instance, what else the old index had, and a signed page that binds them.

A folder with `instances-before.tsv.gz` and `instances-after.tsv.gz` (Orthanc id, SOP Instance UID, bytes and MD5 of the
uncompressed file, a line each, in the order of ids), `others.jsonl.gz` and `proof.json`. The signature (Ed25519) is
over the canonical JSON of "proof", which names the SHA-256 of each list as it is unpacked.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from operations.moving.ledger import Ledger
from zambezi import durable, signing
from zambezi.signing import Register, Signer, canonical

FORMAT = "zambezi proof of a move 1"
PURPOSE = "proof"
BEFORE, AFTER, OTHERS = "instances-before.tsv.gz", "instances-after.tsv.gz", "others.jsonl.gz"
_BLOCK = 1 << 20


def write_lists(ledger: Ledger, folder: Path) -> dict[str, str]:
    """Write the lists; the SHA-256 of each, unpacked. What was left behind is in neither of the two of instances."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    where = "FROM instances WHERE state = 'proven' ORDER BY orthanc_id"
    before = ledger.database.execute(f"SELECT orthanc_id, sop_uid, size, md5 {where}")
    after = ledger.database.execute(f"SELECT orthanc_id, new_sop_uid, new_size, new_md5 {where}")
    others = ledger.database.execute(
        "SELECT level, orthanc_id, what, kind, value, carried FROM others ORDER BY orthanc_id, what, kind, value"
    )
    return {
        BEFORE: _write(folder / BEFORE, ("\t".join(map(str, row)) for row in before)),
        AFTER: _write(folder / AFTER, ("\t".join(map(str, row)) for row in after)),
        OTHERS: _write(folder / OTHERS, (json.dumps(row, ensure_ascii=False) for row in others)),
    }


def write(folder: Path, content: Mapping[str, Any], signer: Signer) -> str:
    """Sign and write the page; the SHA-256 of what was signed."""
    said = {"format": FORMAT, **content, "key_id": signer.key_id}
    body = canonical(said)
    whole = {
        "proof": said, "key_id": signer.key_id, "public_key": signer.public_key, "signature": signer.sign(body),
    }  # fmt: skip
    durable.replace(folder / "proof.json", json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False).encode())
    return hashlib.sha256(body).hexdigest()


def faults(folder: Path, known: Register | None) -> list[str]:
    """Everything that doesn't hold in a proof, in words; none if all does."""
    try:
        whole = json.loads((folder / "proof.json").read_bytes())
        said, public = whole["proof"], whole["public_key"]
        signature = base64.b64decode(whole["signature"], validate=True)
        named, lists, count = str(said["key_id"]), dict(said["lists"]), int(said["instances"])
        if said["format"] != FORMAT:
            return [f"this is not a proof in the format {FORMAT!r}"]
        shown = signing.key_id(public)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"this is not the folder of a proof: {error!r}"]
    found = []
    if not signing.holds(public, canonical(said), signature):
        found.append("the signature does not fit: the proof was changed after it was signed")
    if named != shown:
        found.append("the key that it shows is not the key that it names")
    state = known.state(named) if known else "unknown"
    if state not in ("current", "retired"):
        found.append(f"key {named}, with which it is signed, is {state} to this installation")
    for name in (BEFORE, AFTER, OTHERS):
        digest, lines = _read(folder / name)
        if digest != lists.get(name):
            found.append(f"{name} is not the list that was signed")
        elif name != OTHERS and lines != count:
            found.append(f"{name} has {lines} instances, the proof says {count}")
    if lists.get(BEFORE) != lists.get(AFTER):
        found.append("the lists before and after differ")
    return found


def _write(file: Path, lines: Iterator[str]) -> str:
    digest = hashlib.sha256()
    with file.open("wb") as out, gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
        for line in lines:
            content = line.encode() + b"\n"
            digest.update(content)
            packed.write(content)
    durable.sync(file)
    durable.sync(file.parent)
    return digest.hexdigest()


def _read(file: Path) -> tuple[str, int]:
    digest, lines = hashlib.sha256(), 0
    try:
        with gzip.open(file) as packed:
            while block := packed.read(_BLOCK):
                digest.update(block)
                lines += block.count(b"\n")
    except (OSError, EOFError):
        return "", 0
    return digest.hexdigest(), lines
