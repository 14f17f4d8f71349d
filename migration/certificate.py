"""Issuing the certificate of a migration: what was to come, what is there, how far each instance is proven; signed.

What a certificate looks like, and how it is verified without database or archive: migration.verifier. Its lines are
written piece by piece, into the database, so that ten million instances are never in memory, nor in one transaction.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from migration import extras, ledger
from migration.verifier import FORMAT, Merkle, Tally, canonical, instance_line, rank, study_line
from zambezi import __version__, audit, clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import (
    Certificate,
    CertificatePart,
    ExceptionItem,
    MigrationExtra,
    MigrationInstance,
    MigrationProject,
    MigrationSample,
    MigrationStudy,
)
from zambezi.signing import Signer

PURPOSE = "certificate"
#: As in the table; what has another was issued before the first release.
_FORMAT = 3
#: Studies read in one transaction, and bytes of lines in one part.
_STUDIES, _PART = 200, 1 << 20


class NotFinished(ValueError):
    """The project has studies that are still under way, or was changed meanwhile; the text says how it is."""


def issue(
    sessions: Sessions, project_id: int, signer: Signer, versions: Mapping[str, str], who: str, now: datetime
) -> int:
    """Write the certificate of a finished project; its id. NotFinished where studies are still under way."""
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        before = _at_rest(session, project)
        _sweep(session, now)
        made = Certificate(project_id=project.id, issued_at=clock.text(now), document=b"", signature="",
                           public_key=signer.public_key, format=_FORMAT)  # fmt: skip
        session.add(made)
        session.flush()
        certificate_id = made.id
    try:
        return _issue(sessions, certificate_id, before, signer, versions, who, now)
    except BaseException:  # whatever it was: lines without a head are nothing, and it goes on to the caller
        with sessions.begin() as session:
            if _begun(session, certificate_id, now):
                session.execute(delete(CertificatePart).where(CertificatePart.certificate_id == certificate_id))
                session.execute(delete(Certificate).where(Certificate.id == certificate_id))
        raise


def _issue(
    sessions: Sessions, certificate_id: int, before: dict[str, int], signer: Signer, versions: Mapping[str, str],
    who: str, now: datetime,
) -> int:  # fmt: skip
    with sessions.begin() as session:
        made = session.get_one(Certificate, certificate_id)
        drawn = session.get(MigrationSample, made.project_id)
        project_id = made.project_id
    tally, merkle, chain, lines = Tally(), Merkle(), "", 0
    parts = _Parts(sessions, certificate_id, now)
    for study, instances in _studies(sessions, project_id, drawn):
        written = []
        for said in instances:
            tally.instance(said)
            written.append(instance_line(said))
        line, chain = study_line(study, written, chain)
        tally.study(study)
        merkle.add(line)
        lines += 1 + len(written)
        parts.write(line, *written)
    parts.flush()
    with sessions.begin() as session:
        project = session.get_one(MigrationProject, project_id)
        if _at_rest(session, project) != before:
            raise NotFinished(f"studies of {project.name} changed while its certificate was written; issue it again")
        made = _ours(session, certificate_id, now)
        seq, head_hash = audit.locked_head(session, ledger.WRITER)
        head = canonical({
            "format": FORMAT, "project": project.name, "source": project.source, "issued_at": clock.text(now),
            "issued_by": who, "inventoried_at": project.created_at, "versions": dict(versions),
            "coverage": project.coverage, "level": str(project.plan.get("Level", "source")),
            "counts": tally.counts, "lines": lines, "merkle_root": merkle.root, "chain": chain,
            "sample": _sample(drawn, tally), "audit": {"journal": ledger.WRITER, "seq": seq, "hash": head_hash},
            "key_id": signer.key_id, "public_key": signer.public_key,
        })  # fmt: skip
        made.document, made.signature = head, signer.sign(head)
        project.state, project.updated_at = "certified", clock.text(now)
        audit.append(
            session, ledger.WRITER, "migration-certified", now, project=project.name, who=who, key=signer.key_id,
            digest=hashlib.sha256(head).hexdigest(),
        )  # fmt: skip
    return certificate_id


def _sweep(session: Session, now: datetime) -> None:
    """What a process that died while it issued has left behind."""
    dead = select(Certificate.id).where(
        Certificate.signature == "", Certificate.issued_at < clock.text(now - timedelta(days=1))
    )
    session.execute(delete(CertificatePart).where(CertificatePart.certificate_id.in_(dead)))
    session.execute(delete(Certificate).where(Certificate.id.in_(dead)))


def _begun(session: Session, certificate_id: int, now: datetime) -> Certificate | None:
    """The row that was begun at this moment; None where another process has cleared it away.

    One takes it for a dead one's where the clock has jumped by a day, and its number may be given anew.
    """
    made = session.get(Certificate, certificate_id)
    return made if made is not None and made.issued_at == clock.text(now) and not made.signature else None


def _ours(session: Session, certificate_id: int, now: datetime) -> Certificate:
    made = _begun(session, certificate_id, now)
    if made is None:
        raise NotFinished("another certificate was issued while this one was written, and cleared it away; try again")
    return made


def _at_rest(session: Session, project: MigrationProject) -> dict[str, int]:
    counts = ledger.states(session, project.id)
    under_way = sum(count for state, count in counts.items() if state not in ledger.AT_REST)
    if under_way or project.state not in ("finished", "certified"):
        raise NotFinished(f"{under_way} studies of {project.name} are still under way; the project is {project.state}")
    return counts


def _sample(drawn: MigrationSample | None, tally: Tally) -> dict[str, Any] | None:
    if drawn is None:
        return None
    return {
        "asked": drawn.asked, "seed": drawn.seed, "threshold": drawn.threshold, "population": drawn.population,
        "drawn_at": drawn.drawn_at, "drawn_by": drawn.drawn_by, **tally.sampled,
    }  # fmt: skip


def _studies(
    sessions: Sessions, project_id: int, drawn: MigrationSample | None
) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Every study with its instances, in the order of UIDs; the instances of one in memory at once."""
    after = ""
    with sessions.begin() as session:  # most migrations have none: then nobody asks study by study
        has_extras = session.scalars(select(MigrationExtra.study_id).limit(1)).first() is not None
    while True:
        with sessions.begin() as session:
            studies = session.scalars(
                select(MigrationStudy)
                .where(MigrationStudy.project_id == project_id, MigrationStudy.study_uid > after)
                .order_by(MigrationStudy.study_uid)
                .limit(_STUDIES)
            ).all()
            decided = _decisions(session, [study.study_uid for study in studies])
        if not studies:
            return
        after = studies[-1].study_uid
        for study in studies:
            with sessions.begin() as session:
                beside = extras.of_study(session, study.id) if has_extras else []
                instances = _instances(session, study, beside)
            yield _study(study, decided.get(study.study_uid, []), drawn, beside), instances


def _study(
    study: MigrationStudy, decided: list[dict[str, str]], drawn: MigrationSample | None, beside: list[MigrationExtra]
) -> dict[str, Any]:
    said: dict[str, Any] = {
        "study": study.study_uid, "date": study.study_date, "modalities": study.modalities, "state": study.state,
        "reason": study.reason, "verified_at": study.verified_at, "level": study.level, "batch": study.batch,
    }  # fmt: skip
    if study.changes:
        said["changed"] = sorted(study.changes)
    if decided:
        said["decisions"] = decided
    if drawn is not None and rank(drawn.seed, study.study_uid) <= drawn.threshold:
        said["sampled"] = True
    if named := [_extra(one) for one in beside if one.level != "instance"]:
        said["extras"] = named
    return said


def _decisions(session: Session, uids: list[str]) -> dict[str, list[dict[str, str]]]:
    """Who decided what of these studies, and when; no decision of ours."""
    rows = session.scalars(
        select(ExceptionItem)
        .where(ExceptionItem.room == "migration", ExceptionItem.reference.in_(uids))
        .order_by(ExceptionItem.id)
    )
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        said = {"kind": row.kind, "since": row.since, "by": row.decided_by, "at": row.decided_at,
                "decision": row.decision}  # fmt: skip
        found.setdefault(row.reference, []).append({name: value for name, value in said.items() if value})
    return found


def _instances(session: Session, study: MigrationStudy, beside: list[MigrationExtra]) -> list[dict[str, Any]]:
    rows = session.scalars(
        select(MigrationInstance)
        .where(MigrationInstance.study_id == study.id)
        .order_by(MigrationInstance.series_uid, MigrationInstance.sop_uid)
    ).all()
    of_instance: dict[str, list[dict[str, Any]]] = {}
    for one in beside:
        if one.level == "instance":
            of_instance.setdefault(one.uid, []).append(_extra(one))
    return [_instance(row, of_instance.get(row.sop_uid)) for row in rows]


def _extra(row: MigrationExtra) -> dict[str, Any]:
    """A label, metadata or attachment of the source: what became of it; of which level and resource it is."""
    said = {"kind": row.kind, "name": row.name, "state": row.state, "size": row.size, "sha256": row.sha256,
            "reason": row.reason or None}  # fmt: skip
    if row.level != "instance":
        said |= {"level": row.level, "of": row.uid or None}
    return {name: value for name, value in said.items() if value is not None}


def _instance(row: MigrationInstance, beside: list[dict[str, Any]] | None) -> dict[str, Any]:
    """A digest of the source stands there only where it says something that those of the archive don't."""
    said = {
        "instance": row.sop_uid, "series": row.series_uid, "verdict": row.verdict, "level": row.level,
        "size": row.size, "syntax": row.stored_syntax, "sha256": row.arrived_sha256 if row.level >= 2 else None,
        "md5": row.stored_md5, "source_md5": row.source_md5 or row.given_md5, "digest": row.stored_digest,
        "source_digest": row.source_digest, "coerced": row.coerced.split() if row.coerced else None,
        "extras": beside,
    }  # fmt: skip
    return {name: value for name, value in said.items() if value is not None}


class _Parts:
    """Lines on their way into the database."""

    def __init__(self, sessions: Sessions, certificate_id: int, now: datetime) -> None:
        self._sessions, self._id, self._begun_at = sessions, certificate_id, now
        self._number, self._size, self._lines = 0, 0, list[bytes]()

    def write(self, *lines: bytes) -> None:
        self._lines += lines
        self._size += sum(map(len, lines))
        if self._size >= _PART:
            self.flush()

    def flush(self) -> None:
        if not self._lines:
            return
        content = zlib.compress(b"".join(line + b"\n" for line in self._lines), 6)
        with self._sessions.begin() as session:
            _ours(session, self._id, self._begun_at)
            session.add(CertificatePart(certificate_id=self._id, number=self._number, content=content))
        self._number, self._size, self._lines = self._number + 1, 0, []


def latest(session: Session, project_id: int) -> Certificate | None:
    """The newest that was signed."""
    return session.scalars(
        select(Certificate)
        .where(Certificate.project_id == project_id, Certificate.format == _FORMAT, Certificate.signature != "")
        .order_by(Certificate.id.desc())
        .limit(1)
    ).first()


def lines(sessions: Sessions, certificate_id: int) -> Iterator[bytes]:
    """The certificate as it is handed over, piece by piece."""
    with sessions.begin() as session:
        made = session.get_one(Certificate, certificate_id)
    yield made.document + b"\n"
    number = 0
    while True:
        with sessions.begin() as session:
            part = session.get(CertificatePart, (certificate_id, number))
        if part is None:
            break
        yield zlib.decompress(part.content)
        number += 1
    yield canonical({"signature": made.signature}) + b"\n"


def versions(orthanc: Mapping[str, Any], configuration_hash: str) -> dict[str, str]:
    """What the certificate names as the programs that made it."""
    return {
        "zambezi": __version__, "orthanc": str(orthanc.get("Version", "")), "configuration": configuration_hash
    }  # fmt: skip
