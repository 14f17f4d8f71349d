"""The certificate of a migration: what was expected, what is there, how far each instance is proven; signed.

Levels of proof of an instance: 1 set: the source names it and the archive holds it; 2 arrival: the file is
still, byte for byte, what Orthanc recorded on arrival (MD5); 3 source: a second, independent retrieve from
the source gave the same canonical digest (zambezi.digest). Only level 3 compares with the source.

A certificate is one JSON object {"certificate", "key_id", "public_key", "signature"}; the signature (Ed25519, in
base64) is over the canonical JSON of "certificate", which names the key, too. It is verified without database or
archive; whose key it is, the register of public keys says (zambezi.signing).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import ledger
from zambezi import __version__, audit, clock, signing
from zambezi.database.tables import Certificate, MigrationInstance, MigrationProject, MigrationStudy
from zambezi.signing import Register, Signer, canonical, key_id

FORMAT = "zambezi migration certificate 2"
PURPOSE = "certificate"
_LEVELS = {"equal": 3, "different": 1, "stored": 1}


class NotFinished(ValueError):
    """The project has studies that are still under way; the text says how many."""


def issue(
    session: Session, project: MigrationProject, signer: Signer, versions: Mapping[str, str], who: str,
    now: datetime,
) -> Certificate:  # fmt: skip
    """Write the certificate of a finished project; NotFinished where studies are still under way."""
    counts = ledger.states(session, project.id)
    under_way = sum(count for state, count in counts.items() if state not in ledger.AT_REST)
    if under_way or project.state not in ("finished", "certified"):
        raise NotFinished(f"{under_way} studies of {project.name} are still under way; the project is {project.state}")
    body = canonical({**document(session, project, versions, who, now), "key_id": signer.key_id})
    made = Certificate(
        project_id=project.id, issued_at=clock.text(now), document=body,
        signature=signer.sign(body), public_key=signer.public_key,
    )  # fmt: skip
    session.add(made)
    project.state, project.updated_at = "certified", clock.text(now)
    audit.append(
        session, ledger.WRITER, "migration-certified", now, project=project.name, who=who, key=signer.key_id,
        digest=hashlib.sha256(body).hexdigest(),
    )  # fmt: skip
    session.flush()
    return made


def document(
    session: Session, project: MigrationProject, versions: Mapping[str, str], who: str, now: datetime
) -> dict[str, Any]:
    """What is certified, as plain JSON."""
    studies = session.scalars(
        select(MigrationStudy).where(MigrationStudy.project_id == project.id).order_by(MigrationStudy.study_uid)
    ).all()
    listed = []
    for study in studies:
        rows = session.scalars(
            select(MigrationInstance)
            .where(MigrationInstance.study_id == study.id)
            .order_by(MigrationInstance.series_uid, MigrationInstance.sop_uid)
        ).all()
        listed.append(_study(study, [_instance(row) for row in rows]))
    return {
        "format": FORMAT, "project": project.name, "source": project.source, "issued_at": clock.text(now),
        "issued_by": who, "inventoried_at": project.created_at, "versions": dict(versions),
        "coverage": project.coverage, **summary(listed), "studies": listed,
    }  # fmt: skip


def _study(study: MigrationStudy, instances: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "study_uid": study.study_uid, "date": study.study_date, "modalities": study.modalities, "state": study.state,
        "reason": study.reason, "verified_at": study.verified_at, "instances": instances,
    }  # fmt: skip


def _instance(row: MigrationInstance) -> dict[str, Any]:
    return {
        "series_uid": row.series_uid, "sop_uid": row.sop_uid, "verdict": row.verdict,
        "level": _LEVELS.get(row.verdict, 0), "source_digest": row.source_digest, "stored_digest": row.stored_digest,
        "stored_md5": row.stored_md5,
    }  # fmt: skip


def summary(studies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts and the Merkle root, derived from the list of studies alone: an auditor can derive them again."""
    listed = list(studies)
    instances = [instance for study in listed for instance in study["instances"]]
    return {
        "counts": {
            "studies": len(listed),
            "instances": len(instances),
            "studies_by_state": _counted(study["state"] for study in listed),
            "studies_by_modality": _counted(study["modalities"] or "unknown" for study in listed),
            "studies_by_year": _counted(study["date"][:4] or "undated" for study in listed),
            "instances_by_verdict": _counted(instance["verdict"] for instance in instances),
            "instances_by_level": _counted(str(instance["level"]) for instance in instances),
        },
        "exceptions": [
            {"study_uid": study["study_uid"], "state": study["state"], "reason": study["reason"]}
            for study in listed
            if study["state"] != "verified"
        ],
        "merkle_root": merkle_root(
            f"{study['study_uid']}/{instance['sop_uid']}/{instance['verdict']}/{instance['stored_digest'] or ''}"
            for study in listed
            for instance in study["instances"]
        ),
    }


def merkle_root(leaves: Iterable[str]) -> str:
    """The root over every instance, in order (as RFC 6962 hashes: leaves and nodes differ); hex."""
    level = [hashlib.sha256(b"\0" + leaf.encode()).digest() for leaf in leaves]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [level[n : n + 2] for n in range(0, len(level), 2)]
        level = [hashlib.sha256(b"\1" + b"".join(pair)).digest() if len(pair) == 2 else pair[0] for pair in pairs]
    return level[0].hex()


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))


def to_file(made: Certificate) -> bytes:
    """The certificate as it is handed over."""
    whole = {
        "certificate": json.loads(made.document), "key_id": key_id(made.public_key), "public_key": made.public_key,
        "signature": made.signature,
    }  # fmt: skip
    return json.dumps(whole, sort_keys=True, indent=1, ensure_ascii=False).encode() + b"\n"


def faults(file: bytes, known: Register | None = None) -> list[str]:
    """Everything that is wrong with a certificate, in words; none if it holds.

    With a register of public keys, a key that is not in it, or was revoked, is a fault; a retired one is none.
    """
    try:
        whole = json.loads(file)
        content, public, named = whole["certificate"], whole["public_key"], whole["key_id"]
        signature = base64.b64decode(whole["signature"], validate=True)
        if content["format"] != FORMAT:
            return [f"this is not a certificate in the format {FORMAT!r}"]
        is_named = named == content["key_id"] == key_id(public)
        derived = summary(content["studies"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"this is not a certificate of a migration: {error}"]
    found = []
    if not signing.holds(public, canonical(content), signature):
        found.append("the signature does not fit: the certificate was changed after it was signed")
    if not is_named:
        found.append("the key that it shows is not the key that it names")
    state = known.state(named) if known else "current"
    if state == "unknown":
        found.append(f"key {named}, with which it is signed, is not one of the installation's")
    if state == "revoked":
        found.append(f"key {named}, with which it is signed, was revoked: nothing that it signed may be trusted")
    found += [
        f"{part} is not what the list of instances gives" for part in derived if content.get(part) != derived[part]
    ]
    found += [
        f"instance {instance['sop_uid']} is called equal, but its digests differ"
        for study in content["studies"]
        for instance in study["instances"]
        if instance["verdict"] == "equal"
        and (not instance["source_digest"] or instance["source_digest"] != instance["stored_digest"])
    ]
    return found


def versions(orthanc: Mapping[str, Any], configuration_hash: str) -> dict[str, str]:
    """What the certificate names as the programs that made it."""
    return {
        "zambezi": __version__, "orthanc": str(orthanc.get("Version", "")), "configuration": configuration_hash
    }  # fmt: skip
