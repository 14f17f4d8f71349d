"""What following writes: entries for what was stored and deleted, the completeness clock, and decisions.

Every method that writes takes the transaction it writes in. Exactly one `stored` entry an instance,
unless a `deleted` one came between; an instance that is met again because the index lost its tail is
`stored-again`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from plugins import routing, triggers
from plugins.facts import Change, Instance
from plugins.journal import Journal, Transaction
from plugins.refusals import Refusals
from plugins.routing import Candidate
from plugins.rules import Rules
from plugins.spool import Spool, Taken
from zambezi import clock

#: So many places are kept to which following can go back.
ANCHORS = 1000
#: UIDs in one `deleted` entry.
PART = 2000

StudyFacts = Callable[[str], Mapping[str, Any]]


class Recorder:
    """Reads and writes the journal's tables on behalf of the follower."""

    def __init__(self, journal: Journal, rules: Rules, queries: Spool, incidents: Spool, refusals: Refusals) -> None:
        self._journal = journal
        self._rules = rules
        self._queries = queries
        self._incidents = incidents
        self._refusals = refusals

    # -- where following stands

    def anchors(self) -> list[Change]:
        """The cursor, and behind it the places following can go back to, newest first."""
        rows = self._journal.query("SELECT index_id, seq, orthanc_id, date FROM anchors ORDER BY n DESC")
        return [Change(*row) for row in rows]

    def set_cursor(self, transaction: Transaction, reach: Change) -> None:
        values = (reach.index_id, reach.seq, reach.orthanc_id, reach.date)
        added = transaction.execute(
            "INSERT INTO anchors (index_id, seq, orthanc_id, date) VALUES (?, ?, ?, ?)", values
        ).lastrowid
        transaction.execute("DELETE FROM anchors WHERE n <= ?", ((added or 0) - ANCHORS,))

    def doubt_after(self, found: Change) -> None:
        """The index went back to `found`: what was recorded behind it may be lost, deleted or about to come again."""
        with self._journal.transaction() as transaction:
            transaction.execute(
                "UPDATE instances SET unsure = 1 WHERE present = 1 AND (index_id <> ? OR change_seq > ?)",
                (found.index_id, found.seq),
            )
            transaction.execute("DELETE FROM anchors WHERE index_id <> ? OR seq > ?", (found.index_id, found.seq))

    def doubted(self) -> list[str]:
        return [row[0] for row in self._journal.query("SELECT orthanc_id FROM instances WHERE unsure = 1")]

    def trust_all(self, transaction: Transaction) -> None:
        transaction.execute("UPDATE instances SET unsure = 0 WHERE unsure = 1")

    # -- what is known

    def unknown(self, rows: Sequence[Change]) -> list[Change]:
        """Rows of one piece that were not recorded yet, or whose instance is doubtful."""
        if not rows:
            return []
        found = self._journal.query(
            "SELECT changes.index_id, seq, orthanc_id, date FROM changes JOIN instances USING (orthanc_id)"
            " WHERE changes.index_id = ? AND seq BETWEEN ? AND ? AND unsure = 0",
            (rows[0].index_id, rows[0].seq, rows[-1].seq),
        )
        known = {Change(*row) for row in found}
        return [row for row in rows if row not in known]

    def is_present(self, orthanc_id: str) -> bool:
        return bool(self._journal.query("SELECT 1 FROM instances WHERE orthanc_id = ? AND present = 1", (orthanc_id,)))

    def present_count(self) -> int:
        return int(self._journal.query("SELECT count(*) FROM instances WHERE present = 1")[0][0])

    def present_but(self, others: Collection[str]) -> list[str]:
        rows = self._journal.query("SELECT orthanc_id FROM instances WHERE present = 1")
        return [row[0] for row in rows if row[0] not in others]

    def present_in(self, resources: Iterable[str]) -> list[str]:
        """The recorded instances that are, or belong to, these instances, series or studies."""
        found: dict[str, None] = {}
        for one in resources:
            rows = self._journal.query(
                "SELECT orthanc_id FROM instances WHERE present = 1 AND orthanc_id = ?1"
                " UNION SELECT orthanc_id FROM instances WHERE present = 1 AND series_orthanc_id = ?1"
                " UNION SELECT orthanc_id FROM instances WHERE present = 1 AND study_orthanc_id = ?1",
                (one,),
            )
            found.update((row[0], None) for row in rows)
        return list(found)

    def unknown_studies(self, instances: Iterable[Instance]) -> dict[str, str]:
        """Studies that begin with these instances: Orthanc id of the study -> of its first instance."""
        first: dict[str, str] = {}
        for one in instances:
            first.setdefault(one.study_orthanc_id, one.orthanc_id)
        return {study: one for study, one in first.items() if self._journal.study_of("studies", study) is None}

    # -- what happened

    def record(
        self,
        transaction: Transaction,
        rows: Sequence[Change],
        instances: Mapping[str, Instance],
        now: datetime,
        study_facts: StudyFacts,
    ) -> None:
        """Rows of /changes, in their order, that tell of new instances; those not in `instances` are gone already."""
        seen = self._seen(transaction, rows)
        before = self._present(transaction, [row.orthanc_id for row in rows])
        transaction.executemany(
            "INSERT OR IGNORE INTO changes VALUES (?, ?, ?, ?)",
            [(row.index_id, row.seq, row.orthanc_id, row.date) for row in rows],
        )
        fresh: dict[str, tuple[Change, Instance]] = {}
        for row in rows:
            one = instances.get(row.orthanc_id)
            if row not in seen and one and row.orthanc_id not in before and row.orthanc_id not in fresh:
                fresh[row.orthanc_id] = (row, one)
                continue
            # Something is odd about this one: first what came before it, so that the order is kept.
            self._store(transaction, list(fresh.values()), now, study_facts)
            fresh = {}
            self._record_odd(transaction, row, one, row in seen, now, study_facts)
        self._store(transaction, list(fresh.values()), now, study_facts)

    def _seen(self, transaction: Transaction, rows: Sequence[Change]) -> set[Change]:
        if not rows:
            return set()
        numbers = [row.seq for row in rows]
        found = transaction.execute(
            "SELECT index_id, seq, orthanc_id, date FROM changes WHERE index_id = ? AND seq BETWEEN ? AND ?",
            (rows[0].index_id, min(numbers), max(numbers)),
        )
        return {Change(*row) for row in found}

    def _present(self, transaction: Transaction, orthanc_ids: Sequence[str]) -> set[str]:
        found = transaction.execute(
            "SELECT orthanc_id FROM instances WHERE present = 1 AND orthanc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(orthanc_ids),),
        )
        return {row[0] for row in found}

    def _record_odd(
        self,
        transaction: Transaction,
        row: Change,
        one: Instance | None,
        seen: bool,
        now: datetime,
        study_facts: StudyFacts,
    ) -> None:
        """A row that was recorded before, or tells of an instance that is gone or was there already."""
        if seen:
            transaction.execute("UPDATE instances SET unsure = 0 WHERE orthanc_id = ?", (row.orthanc_id,))
            return
        before = transaction.execute(
            "SELECT unsure, index_id FROM instances WHERE orthanc_id = ? AND present = 1", (row.orthanc_id,)
        ).fetchone()
        if one is None:
            if before is None:
                transaction.append(
                    "deleted", now, instances=[[row.orthanc_id, "", ""]], change=row.told, noticed="unread"
                )
            return
        if before is not None and (before[0] or before[1] != row.index_id):
            transaction.append("stored-again", now, one.orthanc_id, **one.told, change=row.told)
            transaction.execute(
                "UPDATE instances SET unsure = 0, index_id = ?, change_seq = ? WHERE orthanc_id = ?",
                (row.index_id, row.seq, row.orthanc_id),
            )
            return
        if before is not None:
            # Another row of the same index: it was deleted and stored anew before anybody looked.
            self._delete(transaction, [row.orthanc_id], now, "seen when it was stored anew")
        self._store(transaction, [(row, one)], now, study_facts)

    def _store(
        self,
        transaction: Transaction,
        fresh: Sequence[tuple[Change, Instance]],
        now: datetime,
        study_facts: StudyFacts,
    ) -> None:
        """Instances that are not there yet, and a new start for the clocks of their studies."""
        first: dict[str, Instance] = {}
        for _, one in fresh:
            first.setdefault(one.study_orthanc_id, one)
        for study, one in first.items():
            known = transaction.execute("SELECT 1 FROM studies WHERE study_orthanc_id = ?", (study,)).fetchone()
            if not known:
                told = dict(study_facts(study))
                told["issuer"] = told["issuer"] or self._rules.now.zambezi.site.issuer
                transaction.append("study-began", now, **told, cause=one.cause)
                transaction.execute(
                    "INSERT INTO studies (study_orthanc_id, study_uid) VALUES (?, ?)", (study, one.study_uid)
                )
        for row, one in fresh:
            transaction.append("stored", now, one.orthanc_id, **one.told, change=row.told)
        transaction.executemany(
            "INSERT OR REPLACE INTO instances (orthanc_id, study_orthanc_id, series_orthanc_id, study_uid, series_uid,"
            " sop_uid, modality, cause, remote_aet, called_aet, index_id, change_seq)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    one.orthanc_id, one.study_orthanc_id, one.series_orthanc_id, one.study_uid, one.series_uid,
                    one.sop_uid, one.modality, one.cause, one.remote_aet, one.called_aet, row.index_id, row.seq,
                )
                for row, one in fresh
            ],
        )  # fmt: skip
        transaction.executemany(
            "INSERT INTO clocks VALUES (?, ?, ?) ON CONFLICT (study_orthanc_id, cause)"
            " DO UPDATE SET last_at = excluded.last_at",
            [(study, cause, clock.text(now)) for study, cause in {(o.study_orthanc_id, o.cause) for _, o in fresh}],
        )

    def record_deleted(self, transaction: Transaction, gone: Mapping[str, str], now: datetime) -> None:
        """Instances that are not there any more. A deletion that nobody saw is an incident, too."""
        for noticed in dict.fromkeys(gone.values()):
            orthanc_ids = [one for one, how in gone.items() if how == noticed]
            self._delete(transaction, orthanc_ids, now, noticed)
            if noticed == "unseen":
                reason = (
                    f"{len(orthanc_ids)} instances that were stored are not in the archive any more, and their deletion"
                    " was not seen; the entries before this one name them"
                )
                transaction.append("incident", now, reason=reason, count=len(orthanc_ids))

    def _delete(self, transaction: Transaction, orthanc_ids: Sequence[str], now: datetime, noticed: str) -> None:
        studies: dict[tuple[str, str], list[list[str]]] = {}
        for orthanc_id in orthanc_ids:
            study, uid, series, sop = transaction.execute(
                "SELECT study_orthanc_id, study_uid, series_uid, sop_uid FROM instances WHERE orthanc_id = ?",
                (orthanc_id,),
            ).fetchone()
            studies.setdefault((study, uid), []).append([orthanc_id, series, sop])
            transaction.execute("UPDATE instances SET present = 0, unsure = 0 WHERE orthanc_id = ?", (orthanc_id,))
            # What comes again is new: it is routed anew.
            transaction.execute("DELETE FROM routed WHERE orthanc_id = ?", (orthanc_id,))
        for (study, uid), instances in studies.items():
            for n in range(0, len(instances), PART):
                transaction.append(
                    "deleted",
                    now,
                    study_uid=uid,
                    study_orthanc_id=study,
                    instances=instances[n : n + PART],
                    noticed=noticed,
                )
            left = transaction.execute(
                "SELECT 1 FROM instances WHERE study_orthanc_id = ? AND present = 1 LIMIT 1", (study,)
            ).fetchone()
            if not left:
                transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ?", (study,))

    # -- what follows from it

    def is_due(self, now: datetime) -> bool:
        """Whether a study has become complete."""
        return bool(self._journal.query("SELECT 1 FROM clocks WHERE last_at <= ? LIMIT 1", (self._quiet_since(now),)))

    def decide_due(self, transaction: Transaction, now: datetime) -> None:
        """Studies that were quiet for long enough are complete: record it, with the routes and triggers due."""
        due = transaction.execute(
            "SELECT study_orthanc_id, cause FROM clocks WHERE last_at <= ? ORDER BY last_at", (self._quiet_since(now),)
        ).fetchall()
        for study, cause in due:
            self._complete(transaction, study, cause, now)

    def open_studies(self) -> int:
        return int(self._journal.query("SELECT count(*) FROM clocks")[0][0])

    def _quiet_since(self, now: datetime) -> str:
        return clock.text(now - timedelta(seconds=self._rules.now.zambezi.completeness.quiet_seconds))

    def _complete(self, transaction: Transaction, study: str, cause: str, now: datetime) -> None:
        transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ? AND cause = ?", (study, cause))
        added = transaction.execute(
            "SELECT count(*) FROM instances"
            " WHERE study_orthanc_id = ? AND cause = ? AND present = 1 AND generation IS NULL",
            (study, cause),
        ).fetchone()[0]
        if not added:
            return
        study_uid, generation = transaction.execute(
            "UPDATE studies SET generation = generation + 1 WHERE study_orthanc_id = ? RETURNING study_uid, generation",
            (study,),
        ).fetchone()
        transaction.execute(
            "UPDATE instances SET generation = ? WHERE study_orthanc_id = ? AND cause = ? AND generation IS NULL",
            (generation, study, cause),
        )
        rules = self._rules.now
        common = {"study_uid": study_uid, "cause": cause, "generation": generation}
        candidates = _candidates(transaction.execute(_CANDIDATES + "study_orthanc_id = ?", (study,)).fetchall())
        transaction.append(
            "study-completed", now, **common, study_orthanc_id=study, instances=len(candidates), added=added,
            quiet_seconds=rules.zambezi.completeness.quiet_seconds,
        )  # fmt: skip
        common["configuration"] = rules.hash
        earlier = set(
            transaction.execute(
                "SELECT rule, destination, orthanc_id FROM routed JOIN instances USING (orthanc_id)"
                " WHERE study_orthanc_id = ?",
                (study,),
            )
        )
        for route in routing.decide(
            candidates, cause, rules.zambezi.routing, rules.zambezi.destinations, lambda *key: key in earlier
        ):
            parts = route.parts()
            for n, part in enumerate(parts, 1):
                transaction.append(
                    "routed", now, **common, rule=route.rule, destination=route.destination, proof=route.proof,
                    because=route.because, part=n if len(parts) > 1 else None,
                    instances=[[one.orthanc_id, one.series_uid, one.sop_uid] for one in part],
                )  # fmt: skip
            transaction.executemany(
                "INSERT INTO routed (orthanc_id, rule, destination) VALUES (?, ?, ?)",
                [(one.orthanc_id, route.rule, route.destination) for one in route.instances],
            )
        for one in triggers.on_study_completed(cause, generation, rules.zambezi.hl7.triggers):
            transaction.append(
                "hl7-triggered", now, **common, rule=one.rule, on=one.on, peer=one.peer, message=one.message,
                because=one.because,
            )  # fmt: skip

    def explain(self, study_uid: str) -> dict[str, Any] | None:
        """What the rules in force say of a study; None if it isn't recorded."""
        rows = self._journal.query(_CANDIDATES + "study_uid = ?", (study_uid,))
        if not rows:
            return None
        routed = set(
            self._journal.query(
                "SELECT rule, destination, orthanc_id FROM routed JOIN instances USING (orthanc_id)"
                " WHERE study_uid = ?",
                (study_uid,),
            )
        )
        open_for = self._journal.query(
            "SELECT cause, last_at FROM clocks JOIN studies USING (study_orthanc_id) WHERE study_uid = ?", (study_uid,)
        )
        rules = self._rules.now
        return {
            "study_uid": study_uid,
            "configuration": rules.hash,
            "waiting": [{"cause": cause, "last_at": last_at} for cause, last_at in open_for],
            "rules": routing.explain(_candidates(rows), rules.zambezi.routing, lambda *key: key in routed),
        }

    # -- what others wrote down

    def record_spooled(self, now: datetime) -> None:
        """Queries, incidents and refusals that were noted since, in one commit."""
        queries = self._lines(self._queries)
        incidents = self._lines(self._incidents)
        refused = self._refusals.take(now)
        if queries is None and incidents is None and not refused:
            return
        with self._journal.transaction() as transaction:
            for one in queries.lines if queries else ():
                transaction.append("queried", now, **_query(one))
            for one in incidents.lines if incidents else ():
                transaction.append("incident", now, **{k: v for k, v in one.items() if k not in _SEALED})
            for one in refused:
                transaction.append("refused", now, **one)
            for taken, what in ((queries, "queries"), (incidents, "incidents")):
                if taken and taken.left_out:
                    reason = f"{taken.left_out} lines of {what} could not be read and are not in the journal"
                    transaction.append("incident", now, reason=reason)
                if taken:
                    transaction.set_meta(taken.key, str(taken.number))
        if queries is not None:
            self._queries.forget()
        if incidents is not None:
            self._incidents.forget()

    def _lines(self, spool: Spool) -> Taken | None:
        return spool.take(int(self._journal.meta(spool.key) or 0))


_SEALED = ("journal", "seq", "prev", "event", "at")
_CANDIDATES = (
    "SELECT orthanc_id, series_uid, sop_uid, modality, remote_aet, called_aet, cause"
    " FROM instances WHERE present = 1 AND "
)


def _candidates(rows: Iterable[Sequence[str]]) -> list[Candidate]:
    return [Candidate(*row) for row in rows]


def _query(line: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a `queried` entry; how long a query may be is bounded."""
    asked = line.get("query")
    query = asked if isinstance(asked, dict) else {}
    level = str(query.get("0008,0052", "")).strip() or None
    cut = {
        str(tag): value if isinstance(value, (list, dict)) else str(value)[:256]
        for tag, value in list(query.items())[:100]
    }
    told = {name: str(line.get(name, ""))[:64] for name in ("aet", "ip", "called_aet", "kind")}
    return {**told, "level": level, "query": cut}
