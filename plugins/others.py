"""What the other nodes recorded, in this node's own tables; and taking back what this one recorded too late.

The gateway brings the entries that are in the central database (gateway.nodes). From them come the same tables as
from following: so the door knows each study, an arrival meets what another node stored, and this node can go on
where the other one stopped. `take` and `take_back` work within a transaction of the caller.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from plugins.facts import joined
from plugins.journal import Journal, Transaction
from zambezi import clock

#: The journal's `meta` row of each of the others: how far its entries are in our tables.
_APPLIED = "applied:"
#: Up to which entry our own were taken back.
_TAKEN_BACK = "taken-back"
#: No clock of a rule runs longer (Completeness.QuietSeconds is at most a day).
_RUN_OUT = timedelta(days=2)
#: So many places of a batch are kept that following may go back to.
_ANCHORS = 50

Facts = Mapping[str, Any]


class Others:
    """Reads and writes the journal's tables on behalf of plugins.standing."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def applied(self) -> dict[str, int]:
        """How far each of the other journals is in our tables."""
        rows = self._journal.query("SELECT key, value FROM meta WHERE key LIKE ?", (f"{_APPLIED}%",))
        return {key.removeprefix(_APPLIED): int(value) for key, value in rows}

    def take(self, transaction: Transaction, entries: Sequence[Facts], through: Mapping[str, int]) -> None:
        """Entries of other journals, each journal's in its order; `through` says how far they go. Twice is no harm."""
        applied = self.applied()
        fresh = [one for one in entries if one["seq"] > applied.get(one["journal"], 0)]
        does = {
            "study-began": _began, "stored": _stored, "stored-again": _stored, "study-completed": _completed,
            "routed": _routed, "deleted": _deleted,
        }  # fmt: skip
        for one in fresh:
            does[one["event"]](transaction, one)
        told = [one for one in fresh if one["event"] == "stored" and one["change"]["seq"]]
        transaction.executemany(
            "INSERT INTO anchors (index_id, seq, orthanc_id, date) VALUES (?, ?, ?, ?)",
            [_place(one) for one in told[-_ANCHORS:]],
        )
        for journal, seq in through.items():
            transaction.set_meta(_APPLIED + journal, str(max(seq, applied.get(journal, 0))))

    def take_back(self, transaction: Transaction, ranges: Iterable[tuple[int, int | None]]) -> None:
        """What we recorded in these ranges of our own journal doesn't hold: another node records it, or did.

        What was stored comes again by the other node's entries, or by following.
        """
        done = int(self._journal.meta(_TAKEN_BACK) or 0)
        for first, last in ranges:
            rows = transaction.execute(
                "SELECT payload FROM entries WHERE seq >= ? AND seq <= ? ORDER BY seq DESC",
                (max(first, done + 1), self._journal.head[0] if last is None else last),
            ).fetchall()
            for (payload,) in rows:
                self._undo(transaction, json.loads(payload))
        transaction.set_meta(_TAKEN_BACK, str(self._journal.head[0]))

    def is_clean(self) -> bool:
        """Whether nothing of ours is behind what was taken back."""
        return int(self._journal.meta(_TAKEN_BACK) or 0) >= self._journal.head[0]

    def _undo(self, transaction: Transaction, one: Facts) -> None:
        event = one["event"]
        if event in ("stored", "stored-again"):
            place = _place(one)
            transaction.execute(
                "DELETE FROM changes WHERE index_id = ? AND seq = ? AND orthanc_id = ? AND date = ?", place
            )
            transaction.execute("DELETE FROM instances WHERE orthanc_id = ?", (one["orthanc_id"],))
            transaction.execute("DELETE FROM anchors WHERE index_id = ? AND seq >= ?", place[:2])
        elif event == "study-began":
            transaction.execute("DELETE FROM studies WHERE study_orthanc_id = ?", (one["study_orthanc_id"],))
            transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ?", (one["study_orthanc_id"],))
        elif event == "study-completed":
            study, cause, generation = one["study_orthanc_id"], one["cause"], one["generation"]
            transaction.execute(
                "UPDATE studies SET generation = ? WHERE study_orthanc_id = ? AND generation = ?",
                (generation - 1, study, generation),
            )
            transaction.execute(
                "UPDATE instances SET generation = NULL WHERE study_orthanc_id = ? AND cause = ? AND generation = ?",
                (study, cause, generation),
            )
            _clock(transaction, study, cause, one["at"])
        elif event == "routed":
            transaction.executemany(
                "DELETE FROM routed WHERE orthanc_id = ? AND rule = ? AND destination = ?",
                [(orthanc_id, one["rule"], one["destination"]) for orthanc_id, *_ in one["instances"]],
            )
        elif event == "deleted" and one.get("noticed") != "seen":
            # It may have been stored meanwhile: who records next looks.
            transaction.executemany(
                "UPDATE instances SET present = 1, unsure = 1 WHERE orthanc_id = ?",
                [(orthanc_id,) for orthanc_id, *_ in one["instances"]],
            )


def _place(one: Facts) -> tuple[str, int, str, str]:
    change = one["change"]
    return change["index"], change["seq"], one["orthanc_id"], change["date"]


def _clock(transaction: Transaction, study: str, cause: str, at: str) -> None:
    transaction.execute(
        "INSERT INTO clocks VALUES (?, ?, ?) ON CONFLICT (study_orthanc_id, cause)"
        " DO UPDATE SET last_at = max(last_at, excluded.last_at)",
        (study, cause, at),
    )


def _began(transaction: Transaction, one: Facts) -> None:
    transaction.execute(
        "INSERT OR IGNORE INTO studies (study_orthanc_id, study_uid, priority) VALUES (?, ?, ?)",
        (one["study_orthanc_id"], one["study_uid"], one.get("priority", "")),
    )


def _stored(transaction: Transaction, one: Facts) -> None:
    transaction.execute("INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?)", _place(one))
    transaction.execute(
        "INSERT OR REPLACE INTO instances (orthanc_id, study_orthanc_id, series_orthanc_id, study_uid, series_uid,"
        " sop_uid, modality, cause, reference, remote_aet, called_aet, index_id, change_seq, sha256)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            one["orthanc_id"], one["study_orthanc_id"], one["series_orthanc_id"], one["study_uid"],
            one["series_uid"], one["sop_uid"], one.get("modality", ""), one["cause"], one.get("reference", ""),
            one.get("remote_aet", ""), one.get("called_aet", ""), one["change"]["index"], one["change"]["seq"],
            one.get("sha256"),
        ),
    )  # fmt: skip
    if one.get("came_sha256"):
        told = (one["orthanc_id"], one["came_sha256"], joined(one.get("changed")))
        transaction.execute("INSERT OR REPLACE INTO came VALUES (?, ?, ?)", told)
    _began(transaction, one)
    _clock(transaction, one["study_orthanc_id"], one["cause"], one["at"])


def _completed(transaction: Transaction, one: Facts) -> None:
    study, cause = one["study_orthanc_id"], one["cause"]
    if one.get("waiting"):
        # Rules with a clock of their own still wait; should this node go on in their stead, they run out here.
        transaction.execute(
            "INSERT OR REPLACE INTO fired SELECT study_orthanc_id, cause, '', last_at FROM clocks"
            " WHERE study_orthanc_id = ? AND cause = ?",
            (study, cause),
        )
    else:
        transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ? AND cause = ?", (study, cause))
    # That the others ran out, nobody told: after so long they have.
    transaction.execute(
        "DELETE FROM clocks WHERE last_at < ?"
        " AND (study_orthanc_id, cause) IN (SELECT study_orthanc_id, cause FROM fired)",
        (clock.text(clock.parse(one["at"]) - _RUN_OUT),),
    )
    transaction.execute(
        "UPDATE studies SET generation = max(generation, ?) WHERE study_orthanc_id = ?", (one["generation"], study)
    )
    transaction.execute(
        "UPDATE instances SET generation = ? WHERE study_orthanc_id = ? AND cause = ? AND generation IS NULL",
        (one["generation"], study, cause),
    )


def _routed(transaction: Transaction, one: Facts) -> None:
    transaction.executemany(
        "INSERT OR IGNORE INTO routed (orthanc_id, rule, destination) VALUES (?, ?, ?)",
        [(orthanc_id, one["rule"], one["destination"]) for orthanc_id, *_ in one["instances"]],
    )


def _deleted(transaction: Transaction, one: Facts) -> None:
    gone = [(orthanc_id,) for orthanc_id, *_ in one["instances"]]
    transaction.executemany("UPDATE instances SET present = 0, unsure = 0 WHERE orthanc_id = ?", gone)
    transaction.executemany("DELETE FROM routed WHERE orthanc_id = ?", gone)
    transaction.executemany("DELETE FROM came WHERE orthanc_id = ?", gone)
    study = one.get("study_orthanc_id")
    left = transaction.execute(
        "SELECT 1 FROM instances WHERE study_orthanc_id = ? AND present = 1 LIMIT 1", (study,)
    ).fetchone()
    if study and not left:
        transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ?", (study,))
        transaction.execute("DELETE FROM fired WHERE study_orthanc_id = ?", (study,))
        transaction.execute("DELETE FROM studies WHERE study_orthanc_id = ?", (study,))
