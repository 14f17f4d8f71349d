"""Bringing instances to the new archive through its own store, and reading each of them back."""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from operations import recovery
from operations.moving import source
from operations.moving.ledger import Ledger
from operations.moving.source import Row
from operations.progress import Progress
from zambezi.config import Configuration
from zambezi.environment import Environment
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable

#: Stores and reads at once: more than one pays on either engine, more than four on neither.
WORKERS = 4
#: Instances between two commits of the ledger.
BATCH = 200
#: The user of the new Orthanc while it is filled; what it stores has no modality for a cause (plugins.facts).
USER = "move"
#: Room that must be left on the disk beside the images.
_SPARE = 2 * 1024**3
_POSTGRESQL = "libOrthancPostgreSQLIndex.so"
#: What the new archive must not do with images that were taken in long ago.
_LEFT_OUT = ("PythonScript", "LuaScripts", "IngestTranscoding", "DicomModalities", "Zambezi")

T = TypeVar("T")
U = TypeVar("U")


class CopyFault(Exception):
    """The copy can't go on; the text says why and what to do. What is copied stays copied."""


@contextmanager
def a_new_orthanc(
    apart: Environment, configuration: Configuration, program: str, variables: Mapping[str, str], lock: int
) -> Iterator[Callable[[], OrthancClient]]:
    """Orthanc over the new archive, on loopback only, without DICOM, with one user; a maker of connections to it.

    It holds the descriptor `lock` open: as long as it runs, no second run begins.
    """
    apart = recovery.on_a_port_of_its_own(apart)
    keys = Keys("", {USER: secrets.token_urlsafe(24)})
    folder = apart.orthanc_dir / "moving-config"
    folder.mkdir(parents=True, exist_ok=True)
    for made in (apart.storage_dir, apart.index_dir, apart.orthanc_dir / "tmp"):
        made.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in configuration.orthanc.items() if name not in _LEFT_OUT}
    plugins = [name for name in configuration.orthanc.get("Plugins", []) if Path(name).name == _POSTGRESQL]
    content = {
        **kept, "Plugins": plugins, "DicomServerEnabled": False, "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True, "RegisteredUsers": keys.services, "HttpPort": apart.ports.orthanc_http,
        "StorageDirectory": str(apart.storage_dir), "IndexDirectory": str(apart.index_dir),
        "TemporaryDirectory": str(apart.orthanc_dir / "tmp"), "OverwriteInstances": False,
        "StoreMD5ForAttachments": True,
    }  # fmt: skip
    file = folder / "orthanc.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps(content))
    with recovery.running(program, folder, variables, pass_fds=(lock,), log=apart.home / "orthanc.log"):
        recovery.wait_until_up(OrthancClient(apart, keys, USER))
        yield lambda: OrthancClient(apart, keys, USER, timeout_s=300)
    shutil.rmtree(folder)


def copy(
    ledger: Ledger, storage: Path, apart: Environment, client: Callable[[], OrthancClient], tell: Callable[[str], None]
) -> None:
    """Store every instance that is due; the ledger says which failed, and why."""
    room, needed = shutil.disk_usage(apart.home).free, ledger.bytes_due()
    if room < needed + _SPARE:
        raise CopyFault(
            f"the copy needs {needed / 1e9:.1f} GB and 2 GB to spare, {apart.home} has {room / 1e9:.1f} GB; the old "
            "archive stays until the new one is proven, so both must find room"
        )
    _take_away(ledger, client())
    with ledger.database:
        ledger.database.execute("UPDATE instances SET state = 'due', reason = '' WHERE state = 'failed'")

    def one(row: Row, orthanc: OrthancClient) -> tuple[str, str, str, str]:
        try:
            content = source.content(storage, row.uuid, row.compression)
        except (OSError, zlib.error) as error:
            return "failed", f"its file can't be read: {type(error).__name__}", row.md5, row.orthanc_id
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if len(content) != row.size or md5 != (row.md5 or md5):
            return "failed", "its file is not what the old archive recorded", row.md5, row.orthanc_id
        try:
            stored = orthanc.store(content)
        except OrthancRefused as refused:
            if refused.is_transient or refused.status >= 507:
                raise CopyFault(f"Orthanc takes no more (HTTP {refused.status}); is the disk full?") from refused
            return "failed", f"Orthanc refuses it: HTTP {refused.status}", md5, row.orthanc_id
        if stored["ID"] != row.orthanc_id:
            return "failed", f"Orthanc knows it as {stored['ID']} now", md5, row.orthanc_id
        return "stored", "", md5, row.orthanc_id

    _each(ledger, "due", "copying", one, ledger.set_states, client, tell)


def read_back(ledger: Ledger, client: Callable[[], OrthancClient], tell: Callable[[str], None]) -> None:
    """Let the new archive answer every instance, and hold it against what the old archive's file was."""

    def one(row: Row, orthanc: OrthancClient) -> tuple[str, str, str | None, int | None, str | None, str]:
        try:
            said = orthanc.get(f"/instances/{row.orthanc_id}")
            content = orthanc.file(row.orthanc_id)
        except OrthancRefused as refused:
            reason = f"the new archive doesn't give it: HTTP {refused.status}"
            return "failed", reason, None, None, None, row.orthanc_id
        sop_uid = str(said["MainDicomTags"].get("SOPInstanceUID", ""))
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if (sop_uid, len(content), md5) == (row.sop_uid, row.size, row.md5):
            return "proven", "", sop_uid, len(content), md5, row.orthanc_id
        # It goes, so that the next run stores it anew.
        orthanc.request("DELETE", f"/instances/{row.orthanc_id}")
        reason = "the new archive has other bytes; they were taken away, and are copied again by the next run"
        return "failed", reason, sop_uid, len(content), md5, row.orthanc_id

    _each(ledger, "stored", "reading back", one, ledger.set_found, client, tell)


def carry(ledger: Ledger, storage: Path, orthanc: OrthancClient) -> dict[str, int]:
    """Bring users' metadata and attachments, and labels; how many of each kind went, and how many could not.

    Orthanc's own metadata (RemoteAET, ReceptionDate ...) nobody can set: they stand in the proof's list.
    """
    counts: dict[str, int] = {}
    sql = "SELECT rowid, level, orthanc_id, what, kind, value FROM others WHERE what = 'label' OR kind >= ?"
    for rowid, level, orthanc_id, what, kind, value in ledger.database.execute(sql, (source.USERS,)).fetchall():
        path = f"/{level}/{orthanc_id}"
        try:
            if what == "label":
                orthanc.request("PUT", f"{path}/labels/{value}")
            elif what == "metadata":
                _put(orthanc, f"{path}/metadata/{kind}", value.encode())
            else:
                uuid, compression = value.split()
                _put(orthanc, f"{path}/attachments/{kind}", source.content(storage, uuid, int(compression)))
            carried = "yes"
        except (OrthancRefused, OSError, zlib.error):
            carried = "no"
        name = f"{what}, {'carried over' if carried == 'yes' else 'left behind'}"
        counts[name] = counts.get(name, 0) + 1
        with ledger.database:
            ledger.database.execute("UPDATE others SET carried = ? WHERE rowid = ?", (carried, rowid))
    return counts


def _put(orthanc: OrthancClient, path: str, content: bytes) -> None:
    # What is there already (an earlier run) has a revision, and wants to hear it.
    try:
        orthanc.request("PUT", path, data=content)
    except OrthancRefused:
        orthanc.request("DELETE", path)
        orthanc.request("PUT", path, data=content)


def _take_away(ledger: Ledger, orthanc: OrthancClient) -> None:
    """What the old archive has no more, because it was used between two runs, goes from the new one, too."""
    while gone := ledger.some("gone", "", BATCH):
        for row in gone:
            try:
                orthanc.request("DELETE", f"/instances/{row.orthanc_id}")
            except OrthancRefused as refused:
                if refused.status != 404:
                    raise CopyFault(f"the new archive doesn't let {row.orthanc_id} go: {refused.status}") from refused
        ledger.forget([row.orthanc_id for row in gone])


def _each(
    ledger: Ledger,
    state: str,
    what: str,
    one: Callable[[Row, OrthancClient], U],
    keep: Callable[[list[U]], None],
    client: Callable[[], OrthancClient],
    tell: Callable[[str], None],
) -> None:
    """Do one thing with every instance in a state, some at a time; commit after each batch."""
    total = ledger.count(state)
    progress, done, failed, after = Progress(what, total, tell), 0, 0, ""
    clients = [client() for _ in range(WORKERS)]

    def share(rows: list[Row], orthanc: OrthancClient) -> list[U]:
        return [one(row, orthanc) for row in rows]

    with ThreadPoolExecutor(WORKERS) as pool:
        while rows := ledger.some(state, after, BATCH):
            try:
                shares = [pool.submit(share, rows[n::WORKERS], orthanc) for n, orthanc in enumerate(clients)]
                outcomes = [outcome for each in shares for outcome in each.result()]
            except OrthancUnreachable as error:
                raise CopyFault(f"the new Orthanc stopped answering ({error}); its log is move/orthanc.log") from error
            keep(outcomes)
            after = rows[-1].orthanc_id
            done, failed = done + len(rows), ledger.count("failed")
            progress.at(done, failed)
    tell(progress.line(done, failed))
