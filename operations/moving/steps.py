"""A move, step behind step. Each can be cut off at any moment; the same command goes on where it was.

The new archive grows in ZAMBEZI_HOME/move/. The old one is only read, until the new one has given back every instance
as it was; then the two change places, and the old one stays as orthanc-before-... until somebody lets it go.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from operations import archive, recovery
from operations.moving import central, copying, engines, proof, source
from operations.moving.engines import SQLITE, Engines
from operations.moving.ledger import PROCESS, Ledger
from operations.status import database_trouble
from zambezi import __version__, clock, config, crash, durable, signing
from zambezi.config import Configuration
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Deletion
from zambezi.environment import Environment

WRITER = "operations"


class MoveFault(Exception):
    """The move can't go on; each line says why and what to do. The old archive is as it was."""


@dataclass(frozen=True)
class Move:
    """One move: the installation, where the new archive grows, what there is, what is wanted, who asked for it."""

    environment: Environment
    target: Configuration
    there: Engines
    wanted: Engines
    old_database_url: str
    who: str
    tell: Callable[[str], None]

    @property
    def apart(self) -> Environment:
        return replace(self.environment, home=self.environment.home / "move")


def run(move: Move, environ: Mapping[str, str], leave_damaged: bool) -> Path:
    """All of it; the folder of the proof. Raises the faults of this package, of recovery, of archive and of signing."""
    # None while an Orthanc of an earlier, killed run still ends, either: it has the lock, too.
    with durable.alone(move.apart.home) as lock:
        changing = engines.phase_file(move.environment)
        if changing.exists():
            return _change_places(move, json.loads(changing.read_bytes()))
        with closing(Ledger(move.apart.home / "ledger.db")) as ledger:
            _check_target(move, ledger)
            began = ledger.fact("began") or clock.text(clock.now())
            ledger.note("began", began)
            others: dict[str, int] = {}
            if _index_moves(move):
                _list(move, ledger)
                _check_recorded(move, ledger)
                _check_deletions(move)
                others = _fill(move, ledger, environ, lock, leave_damaged)
            seen = _central(move, ledger)
            folder = move.environment.home / "proofs" / f"move-{clock.text(clock.now())[:19].replace(':', '')}"
            digest = _prove(move, ledger, folder, began, others, seen)
            if _index_moves(move):
                _for_the_journal(move, ledger, folder, digest)
        told = {"proof": str(folder), "before": f"orthanc-before-{folder.name}"}
        crash.point(PROCESS)
        durable.replace(changing, json.dumps(told).encode())
        crash.point(PROCESS)
        return _change_places(move, told)


def _index_moves(move: Move) -> bool:
    """Or it stays where it is, and the central database moves alone."""
    return move.there.index != move.wanted.index


def _check_target(move: Move, ledger: Ledger) -> None:
    """The new archive is this move's own: a folder that is empty, or was begun for the same index."""
    aim = f"{move.wanted.index} {move.wanted.index_at}"
    known = ledger.fact("aim")
    if known and known != aim:
        raise MoveFault(
            f"a move to {known} was begun; finish it, or take it back: remove {move.apart.home} and what it filled"
        )
    ledger.note("aim", aim)


def _list(move: Move, ledger: Ledger) -> None:
    move.tell("listing what the old archive has")
    with source.open_index(move.environment, _old_section(move)) as index:
        ledger.list_anew(index.instances(), index.others())
    move.tell(f"  {ledger.count():,} instances, {ledger.count('stored', 'proven'):,} of them copied already")


def _old_section(move: Move) -> dict[str, Any] | None:
    """The old index on PostgreSQL: as the archive was started with it last."""
    if move.there.index == SQLITE:
        return None
    return dict(config.load(move.environment.orthanc_config_dir, os.environ).orthanc["PostgreSQL"])


def _check_recorded(move: Move, ledger: Ledger) -> None:
    """What the journal hasn't recorded yet, routes may still follow from: the old archive must do that first."""
    journal = move.environment.journal_file
    unrecorded, lost = ledger.count(), 0
    if journal.exists():
        ledger.database.execute("ATTACH DATABASE ? AS journal", (str(journal),))
        ours = "SELECT orthanc_id FROM instances WHERE state <> 'gone'"
        theirs = "SELECT orthanc_id FROM journal.instances WHERE present = 1"
        count = "SELECT count(*) FROM ({} EXCEPT {})"
        unrecorded = int(ledger.database.execute(count.format(ours, theirs)).fetchone()[0])
        lost = int(ledger.database.execute(count.format(theirs, ours)).fetchone()[0])
        ledger.database.execute("DETACH DATABASE journal")
    if unrecorded or lost:
        raise MoveFault(
            f"{unrecorded:,} instances are not in the journal yet, and {lost:,} that it has are not in the index: start"
            " the archive with the configuration it had, wait until `zambezi status` says that it follows, then"
            " `zambezi down`"
        )


def _check_deletions(move: Move) -> None:
    """A deletion takes what had come when it was confirmed; in the new archive all has come later."""
    engine = connect(move.old_database_url or move.environment.database_url, PROCESS, reading=True)
    try:
        with sessions(engine, PROCESS)() as session:
            query = select(Deletion.id).where(Deletion.state.in_(("confirmed", "due", "deleting", "retrying")))
            open_ones = [str(one) for one in session.scalars(query.order_by(Deletion.id))]
    except SQLAlchemyError as error:
        raise MoveFault(f"the central database can't be read: {database_trouble(error)}") from error
    finally:
        engine.dispose()
    if open_ones:
        raise MoveFault(
            f"deletions {', '.join(open_ones)} are confirmed and not done: let them end, or withdraw them"
            " (`zambezi delete withdraw`), and ask anew after the move"
        )


def _fill(move: Move, ledger: Ledger, environ: Mapping[str, str], lock: int, leave_damaged: bool) -> dict[str, int]:
    program = archive.find_orthanc(environ)
    variables = archive.program_environment(environ, move.environment)

    @contextmanager
    def orthanc() -> Iterator[Callable[[], Any]]:
        with copying.a_new_orthanc(move.apart, move.target, program, variables, lock) as client:
            yield client

    storage = move.environment.storage_dir
    with orthanc() as client:
        there = int(client().get("/statistics")["CountInstances"])
        if there and not ledger.fact("filling"):
            raise MoveFault(
                f"the new index has {there:,} instances already, of another archive: give it an empty database"
            )
        ledger.note("filling", "yes")
        ledger.note("to orthanc", str(client().system()["Version"]))
        if there < ledger.count("stored", "proven"):
            ledger.doubt()  # a power cut took from the new index what it had not yet written
        copying.copy(ledger, storage, move.apart, client, move.tell)
        others = copying.carry(ledger, storage, client())
    # Read back from an Orthanc that has not just been given it, and from files that are on disk.
    os.sync()
    with orthanc() as client:
        copying.read_back(ledger, client, move.tell)
        there = int(client().get("/statistics")["CountInstances"])
    failed = ledger.failed()
    if failed and not leave_damaged:
        told = "\n".join(f"  {orthanc_id}: {reason}" for orthanc_id, reason in failed)
        raise MoveFault(
            f"{ledger.count('failed'):,} instances could not be moved, and the old archive stays in place:\n{told}\n"
            "bring their files back from the backup and run this again; or let them stay behind with --leave-damaged:"
            " they go to the hold, as they are, and an incident names them"
        )
    if there != ledger.count("proven"):
        raise MoveFault(f"the new archive has {there:,} instances, but {ledger.count('proven'):,} were copied")
    _hold_failed(move, ledger)
    return others


def _hold_failed(move: Move, ledger: Ledger) -> None:
    after = ""
    while rows := ledger.some("failed", after, 100):
        for row in rows:
            file = move.environment.storage_dir / row.uuid[:2] / row.uuid[2:4] / row.uuid
            if file.exists():
                reason = "the archive was moved, and this file is not what was recorded when it came"
                recovery.hold(move.environment, file.read_bytes(), "unreadable", reason, row.orthanc_id, clock.now())
        after = rows[-1].orthanc_id


def _central(move: Move, ledger: Ledger) -> dict[str, Any]:
    """The central database, where it moves, too; what was compared."""
    if not move.old_database_url:
        return {}
    if move.wanted.database == SQLITE and not ledger.fact("central"):
        _aside(move)
    is_ours = ledger.fact("central") == move.wanted.database_at
    ledger.note("central", move.wanted.database_at)
    return central.copy(move.old_database_url, move.environment.database_url, is_ours, move.tell)


def _aside(move: Move) -> None:
    """The SQLite file from before the way to PostgreSQL is not where the way back goes to."""
    file = Path(move.environment.database_url.removeprefix("sqlite:///"))
    stamp = clock.text(clock.now())[:19].replace(":", "")
    for end in ("", "-wal", "-shm"):
        old = file.with_name(file.name + end)
        if old.exists():
            old.rename(file.with_name(f"{file.name}.before-{stamp}{end}"))


def _prove(
    move: Move, ledger: Ledger, folder: Path, began: str, others: Mapping[str, int], seen: Mapping[str, Any]
) -> str:
    move.tell("writing the lists and signing the proof")
    now = clock.now()
    lists = proof.write_lists(ledger, folder)
    if lists[proof.BEFORE] != lists[proof.AFTER]:
        raise MoveFault(f"the lists before and after differ ({folder}): this must not happen; the old archive stays")
    directory = move.environment.signing_dir
    signer = signing.current(directory, proof.PURPOSE, move.who, now)
    total = ledger.database.execute("SELECT coalesce(sum(size), 0) FROM instances WHERE state = 'proven'").fetchone()
    content = {
        "began_at": began, "proven_at": clock.text(now), "by": move.who, "zambezi": __version__,
        "from": {"index": move.there.index, "database": move.there.database, "orthanc": _old_version(move)},
        "to": {"index": move.wanted.index, "database": move.wanted.database, "orthanc": ledger.fact("to orthanc")},
        "instances": ledger.count("proven"), "bytes": int(total[0]), "lists": lists, "others": dict(others),
        "left_behind": [list(one) for one in ledger.failed(1_000_000)], "central": dict(seen),
    }  # fmt: skip
    digest = proof.write(folder, content, signer)
    known = signing.register(directory, proof.PURPOSE)
    engine = connect(move.environment.database_url, WRITER)
    try:
        with sessions(engine, WRITER).begin() as session:
            if known:
                signing.record(session, known, WRITER)
    finally:
        engine.dispose()
    return digest


def _old_version(move: Move) -> str:
    """The Orthanc that the old archive ran with last, as the journal tells."""
    if not move.environment.journal_file.exists():
        return ""
    with closing(sqlite3.connect(f"file:{move.environment.journal_file}?mode=ro", uri=True)) as journal:
        sql = "SELECT payload FROM entries WHERE event = 'started' ORDER BY seq DESC LIMIT 1"
        found = journal.execute(sql).fetchone()
    return str(json.loads(found[0]).get("orthanc", "")) if found else ""


def _for_the_journal(move: Move, ledger: Ledger, folder: Path, digest: str) -> None:
    """What the plugin takes over at its first start with the new index."""
    index_id = uuid.uuid4().hex
    durable.replace(move.apart.index_id_file, index_id.encode())
    crash.point(PROCESS)
    facts = {
        "proof": folder.name, "digest": digest, "instances": ledger.count("proven"), "who": move.who,
        "from_index": move.there.index, "to_index": move.wanted.index,
    }  # fmt: skip
    file = move.apart.home / "moved.db"
    file.unlink(missing_ok=True)
    section = dict(move.target.orthanc["PostgreSQL"]) if move.wanted.index != SQLITE else None
    with closing(sqlite3.connect(file)) as made, source.open_index(move.apart, section) as index:
        made.execute("CREATE TABLE about (index_id TEXT, facts TEXT)")
        made.execute("CREATE TABLE arrivals (seq INTEGER PRIMARY KEY, orthanc_id TEXT, date TEXT)")
        made.execute("INSERT INTO about VALUES (?, ?)", (index_id, json.dumps(facts)))
        made.executemany("INSERT INTO arrivals VALUES (?, ?, ?)", index.arrivals())
        made.commit()
    move.environment.plugin_dir.mkdir(parents=True, exist_ok=True)
    durable.sync(file)
    file.replace(move.environment.moved_file)
    durable.sync(move.environment.plugin_dir)


def _change_places(move: Move, told: Mapping[str, str]) -> Path:
    """Old and new change places; cut off anywhere, it goes on here, and nothing starts in between (engines.faults)."""
    home, old = move.environment.home, move.environment.home / told["before"]
    if move.apart.orthanc_dir.exists():
        if move.environment.orthanc_dir.exists() and not old.exists():
            move.environment.orthanc_dir.rename(old)
            durable.sync(home)
        crash.point(PROCESS)
        move.apart.orthanc_dir.rename(move.environment.orthanc_dir)
        durable.sync(home)
        crash.point(PROCESS)
    engines.record(move.environment, move.wanted)
    crash.point(PROCESS)
    for one in move.apart.home.iterdir():
        if one != engines.phase_file(move.environment):
            one.unlink()  # the ledger, that no later move takes it for its own
    durable.sync(move.apart.home)
    crash.point(PROCESS)
    shutil.rmtree(move.apart.home)
    return Path(told["proof"])
