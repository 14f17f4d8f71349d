"""What another Orthanc holds of a study besides images: labels, and the metadata and attachments that users put there.

Carried once the study is verified, where the plan says so (Carry). What is going to be put is written down before, and
what was put is read back and compared: a death in between leaves no doubt whose it is. What the archive has under the
same name with other content stays; that, and what the archive can't hold, is told to a person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import ledger
from migration.desk import Desk
from migration.ledger import Claim
from migration.source import Study, Trouble
from zambezi import exceptions
from zambezi.database.tables import MigrationExtra, MigrationProject, MigrationStudy
from zambezi.leases import Keeper
from zambezi.orthanc_client import OrthancClient, OrthancRefused
from zambezi.retries import ErrorClass

Level = Literal["patient", "study", "series", "instance"]
Kind = Literal["label", "metadata", "attachment"]
#: What a plan may name in Carry, and the kind it means.
KINDS: dict[str, Kind] = {"labels": "label", "metadata": "metadata", "attachments": "attachment"}
#: An attachment is in memory as a whole; larger ones are named and left (bytes).
LARGEST = 256 << 20
#: States in which something stays behind, and a person is told.
BEHIND = ("other", "left")
_STAYS = "the archive has another one under this number, which stays"
#: States of what we put ourselves, or were about to.
_OURS = ("due", "carried", "rolled-back")


@dataclass(frozen=True)
class Extra:
    """One thing at the source. `uid`: of its study, series or instance, "" of the patient; `name`: the label itself,
    or the number (the name, where the source tells no number). `fetch` gives its bytes, or raises Trouble.
    """

    level: Level
    uid: str
    kind: Kind
    name: str
    fetch: Callable[[], bytes] = bytes
    size: int = 0

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.level, self.uid, self.kind, self.name


@runtime_checkable
class Bearing(Protocol):
    """A source that holds such things."""

    def extras(self, study_uid: str, kinds: Collection[Kind]) -> Iterable[Extra]:
        """All of these kinds that it holds of a study. Trouble of kind object where it can't be said of which."""


def decide(known: str, put_before: str | None, here: str | None, wanted: str) -> str:
    """What becomes of one: put, carried (it is ours, and there), there (the archive had the same), other.

    `known`: its state in the ledger ("" if it is new); the others are SHA-256 of what we put there before, of what the
    archive has now, and of what the source has now.
    """
    is_ours = known in _OURS
    if here is None or (is_ours and here == put_before != wanted):
        return "put"
    if here != wanted:
        return "other"
    return "carried" if is_ours else "there"


def carry(desk: Desk, held: Claim, study: Study, keeper: Keeper) -> None:
    """Bring what the plan names of a verified study; the ledger says of each what became of it.

    Raises as a move does: Trouble (transient) and OrthancError where the same can be tried again.
    """
    if not isinstance(desk.source, Bearing):
        return
    with desk.looking.begin() as session:
        row = session.get_one(MigrationStudy, held.study_id)
        kinds = [KINDS[name] for name in session.get_one(MigrationProject, row.project_id).plan.get("Carry", ())]
        if not kinds:
            return
        known = {(one.level, one.uid, one.kind, one.name): one for one in of_study(session, held.study_id)}
    archive = _Archive(desk.client, study)
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    coming: list[_Coming] = []
    try:
        for extra in desk.source.extras(study.uid, kinds):
            keeper.check()
            desk.check_open()
            path = archive.path(extra)
            if why := archive.refusal(extra, path):
                found[extra.key] = {"state": "left", "reason": why}
                continue
            here = archive.value(path, extra)
            found[extra.key] = (
                {"state": "due", "reason": ""} if here is None else _beside(known.get(extra.key), here, extra)
            )
            if found[extra.key]["state"] == "due":
                coming.append(_Coming(extra, path, here.etag if here else ""))
    except Trouble as trouble:
        if trouble.kind is not ErrorClass.OBJECT:
            raise
        found["study", study.uid, "any", ""] = {"state": "left", "reason": str(trouble)}
    _keep(desk, held, found)
    for one in coming:
        keeper.check()
        desk.check_open()
        found[one.extra.key] = _put(archive, one, desk.used)
    _keep(desk, held, {one.extra.key: found[one.extra.key] for one in coming})
    if any(one["state"] in BEHIND for one in found.values()):
        _tell(desk, held)


def of_study(session: Session, study_id: int) -> list[MigrationExtra]:
    """What the ledger knows of a study, by level, UID, kind and name."""
    extra = MigrationExtra
    query = select(extra).where(extra.study_id == study_id)
    return list(session.scalars(query.order_by(extra.level, extra.uid, extra.kind, extra.name)))


@dataclass(frozen=True)
class _Here:
    """What the archive has under a name, and its version (of a label none)."""

    content: bytes
    etag: str = ""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class _Coming:
    """What is going to be put: where, and in the place of which version ("": of none)."""

    extra: Extra
    path: str
    etag: str = ""


def _beside(known: MigrationExtra | None, here: _Here, extra: Extra) -> dict[str, Any]:
    """The archive has something under this name."""
    content = extra.fetch()
    sha256 = hashlib.sha256(content).hexdigest()
    state = decide(known.state if known else "", known.sha256 if known else None, here.sha256, sha256)
    if state == "put":
        return {"state": "due", "reason": ""}
    reason = _STAYS if state == "other" else ""
    return {"state": state, "sha256": sha256, "size": len(content), "reason": reason}


def _put(archive: _Archive, one: _Coming, used: Callable[[int], None]) -> dict[str, Any]:
    """`used` is told how many bytes came over the source's line."""
    extra = one.extra
    try:
        content = extra.fetch()
        used(len(content))
        archive.put(one, content)
    except Trouble as trouble:
        if trouble.kind is not ErrorClass.OBJECT:
            raise
        return {"state": "left", "reason": f"the source does not give it: {trouble}"}
    except OrthancRefused as refused:
        if refused.is_transient or refused.status == 507:
            raise
        if refused.status == 409:  # somebody has changed it since it was looked at
            return {"state": "other", "reason": _STAYS}
        if extra.kind != "label" and not extra.name.isdigit():
            section = "UserMetadata" if extra.kind == "metadata" else "UserContentType"
            words = f"the archive knows nothing of this name: enter it in {section} with its number, then retry"
            return {"state": "left", "reason": words}
        return {"state": "left", "reason": f"the archive does not take it: {refused.detail}"}
    back, sha256 = archive.value(one.path, extra), hashlib.sha256(content).hexdigest()
    if back is None or back.sha256 != sha256:
        return {"state": "left", "reason": "read back from the archive it is not what was put there"}
    return {"state": "carried", "sha256": sha256, "size": len(content), "reason": ""}


class _Archive:
    """Where in the archive the things of one study belong, and what is there."""

    def __init__(self, client: OrthancClient, study: Study) -> None:
        self._client, self._study = client, study
        self._system = client.system()
        self._paths: dict[tuple[str, str], str] | None = None

    def path(self, extra: Extra) -> str:
        """The resource's path; "" where there is none, or more than one."""
        if extra.level == "instance":
            ids = self._study.held.get(extra.uid, ())
            return f"/instances/{ids[0]}" if len(ids) == 1 else ""
        if self._paths is None:
            self._paths = self._placed()
        return self._paths.get((extra.level, extra.uid), "")

    def _placed(self) -> dict[tuple[str, str], str]:
        found = self._client.find("Study", {"StudyInstanceUID": self._study.uid}, expand=True)
        if len(found) != 1:
            return {}
        study = found[0]
        placed = {("patient", ""): f"/patients/{study['ParentPatient']}",
                  ("study", self._study.uid): f"/studies/{study['ID']}"}  # fmt: skip
        for series in self._client.get(f"/studies/{study['ID']}/series"):
            placed["series", series["MainDicomTags"]["SeriesInstanceUID"]] = f"/series/{series['ID']}"
        return placed

    def refusal(self, extra: Extra, path: str) -> str:
        """Why it can't be put there; "" if it can."""
        if not path:
            return f"the archive has no such {extra.level}, or has it under two patients"
        if extra.kind == "label" and not self._system.get("HasLabels"):
            return f"the archive is Orthanc {self._system.get('Version', '')}, which holds no labels; 1.12 and later do"
        if extra.size > LARGEST:
            return f"it has {extra.size} bytes; carried are attachments of at most {LARGEST >> 20} MB"
        return ""

    def value(self, path: str, extra: Extra) -> _Here | None:
        """What is there under this name; of a label nothing but that it is there."""
        if extra.kind == "label":
            return _Here(b"") if extra.name in self._client.get(f"{path}/labels") else None
        where = f"{path}/metadata/{extra.name}" if extra.kind == "metadata" else f"{path}/attachments/{extra.name}/data"
        try:
            found = self._client.request("GET", where)
            return _Here(found.content, found.headers.get("ETag", ""))
        except OrthancRefused as refused:
            if refused.status in (400, 404):  # nothing under this number, or a name that this archive doesn't know
                return None
            raise

    def put(self, one: _Coming, content: bytes) -> None:
        """In the place of the version that was seen, and of no other."""
        what = {"label": "labels", "metadata": "metadata", "attachment": "attachments"}[one.extra.kind]
        headers = {"If-Match": one.etag} if one.etag else {}
        self._client.request("PUT", f"{one.path}/{what}/{one.extra.name}", data=content, headers=headers)


def _keep(desk: Desk, held: Claim, found: Mapping[tuple[str, str, str, str], Mapping[str, Any]]) -> None:
    if not found:
        return
    with desk.sessions.begin() as session:
        ledger.set_verdicts(session, held, {})  # if it is still ours
        for (level, uid, kind, name), columns in found.items():
            session.merge(MigrationExtra(study_id=held.study_id, level=level, uid=uid, kind=kind, name=name, **columns))


def _tell(desk: Desk, held: Claim) -> None:
    with desk.sessions.begin() as session:
        project = session.scalars(select(MigrationProject).where(MigrationProject.name == held.project)).one()
        exceptions.wait(
            session, "migration", f"extras {project.name}", kind="extras-left", now=desk.now(),
            what=f"Labels, metadata or attachments of studies of {project.name} could not be carried.",
            suggestion="Each is named, with the reason, on the page of its study and on the certificate.",
            facts={"source": project.name},
            actions=[{"label": "Open the migration", "href": f"/migrations/{project.id}"}],
        )  # fmt: skip
