"""What following writes: entries for what was stored and deleted.

Every method that writes takes the transaction it writes in. Exactly one `stored` entry an instance,
unless a `deleted` one came between; an instance that is met again because the index lost its tail is
`stored-again`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from plugins import callers
from plugins.facts import Change, Instance, joined
from plugins.journal import Journal, Transaction
from plugins.rules import Rules
from zambezi import clock, triggers
from zambezi.causes import CORRECTION, RESTORE, Because

#: So many places are kept to which following can go back.
ANCHORS = 1000
#: UIDs in one `deleted` entry.
PART = 2000

StudyFacts = Callable[[str], Mapping[str, Any]]


class Recorder:
    """Reads and writes the journal's tables on behalf of the follower."""

    def __init__(
        self, journal: Journal, rules: Rules, deleted: Callable[[str, Collection[str]], None] = lambda *_: None
    ) -> None:
        """`deleted` is told of each deletion that is recorded: study_uid, and the Orthanc ids of what went."""
        self._journal = journal
        self._rules = rules
        self._deleted = deleted

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

    def causes(self, orthanc_ids: Sequence[str]) -> dict[str, Because]:
        """Why these were stored, as far as it is recorded: also of those that were lost since."""
        if not orthanc_ids:
            return {}
        rows = self._journal.query(
            "SELECT orthanc_id, cause, reference FROM instances WHERE orthanc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(orthanc_ids),),
        )
        return {orthanc_id: Because(cause, reference) for orthanc_id, cause, reference in rows}

    def present_count(self) -> int:
        return int(self._journal.query_all("SELECT count(*) FROM instances WHERE present = 1")[0][0])

    def present_but(self, others: Collection[str]) -> list[str]:
        rows = self._journal.query_all("SELECT orthanc_id FROM instances WHERE present = 1")
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

    def parents_of_present(self, orthanc_ids: Sequence[str]) -> set[str]:
        """Series and studies of those of these instances that are recorded as there."""
        rows = self._journal.query(
            "SELECT series_orthanc_id, study_orthanc_id FROM instances"
            " WHERE present = 1 AND orthanc_id IN (SELECT value FROM json_each(?))",
            (json.dumps(orthanc_ids),),
        )
        return {one for row in rows for one in row}

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
                "UPDATE instances SET unsure = 0, index_id = ?, change_seq = ?, sha256 = ? WHERE orthanc_id = ?",
                (row.index_id, row.seq, one.sha256, row.orthanc_id),
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
            known = transaction.execute("SELECT priority FROM studies WHERE study_orthanc_id = ?", (study,)).fetchone()
            if not known:
                told = dict(study_facts(study))
                told["issuer"] = told["issuer"] or self._rules.now.zambezi.site.issuer
                transaction.append(
                    "study-began", now, **told, cause=one.cause, reference=one.reference or None,
                    priority=one.priority or None,
                )  # fmt: skip
                self._trigger(transaction, one, now)
                transaction.execute(
                    "INSERT INTO studies (study_orthanc_id, study_uid, priority) VALUES (?, ?, ?)",
                    (study, one.study_uid, one.priority),
                )
            elif one.priority and one.priority != known[0]:
                transaction.execute("UPDATE studies SET priority = ? WHERE study_orthanc_id = ?", (one.priority, study))
        for row, one in fresh:
            transaction.append("stored", now, one.orthanc_id, **one.told, change=row.told)
        transaction.executemany(
            "INSERT OR REPLACE INTO instances (orthanc_id, study_orthanc_id, series_orthanc_id, study_uid, series_uid,"
            " sop_uid, modality, cause, reference, remote_aet, called_aet, index_id, change_seq, sha256)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    one.orthanc_id, one.study_orthanc_id, one.series_orthanc_id, one.study_uid, one.series_uid,
                    one.sop_uid, one.modality, one.cause, one.reference, one.remote_aet, one.called_aet, row.index_id,
                    row.seq, one.sha256,
                )
                for row, one in fresh
            ],
        )  # fmt: skip
        transaction.executemany(
            "INSERT OR REPLACE INTO came VALUES (?, ?, ?)",
            [(one.orthanc_id, one.came.sha256, joined(one.came.changed)) for _, one in fresh if one.came],
        )
        self._tell_second_copies(transaction, [one for _, one in fresh], now)
        transaction.executemany(
            "INSERT INTO clocks VALUES (?, ?, ?) ON CONFLICT (study_orthanc_id, cause)"
            " DO UPDATE SET last_at = excluded.last_at",
            [(study, cause, clock.text(now)) for study, cause in {(o.study_orthanc_id, o.cause) for _, o in fresh}],
        )

    def _trigger(self, transaction: Transaction, first: Instance, now: datetime) -> None:
        """The HL7 triggers that the first image of a study sets off."""
        rules = self._rules.now
        for one in triggers.decide([triggers.received(first.cause, first.modality)], rules.zambezi.hl7.triggers):
            transaction.append(
                "hl7-triggered", now, study_uid=first.study_uid, study_orthanc_id=first.study_orthanc_id,
                cause=first.cause, configuration=rules.hash, **one.told,
            )  # fmt: skip

    def _tell_second_copies(self, transaction: Transaction, fresh: Sequence[Instance], now: datetime) -> None:
        """Instances that are in the archive under another patient, study or series, too: Orthanc has both now.

        Not so where we put an instance in another's place ourselves: custody deletes the other one, before or after.
        """
        found = transaction.execute(
            "SELECT new.orthanc_id, old.orthanc_id, old.study_uid, old.study_orthanc_id, old.sha256"
            " FROM instances AS new JOIN instances AS old USING (sop_uid)"
            " WHERE new.orthanc_id IN (SELECT value FROM json_each(?)) AND old.orthanc_id <> new.orthanc_id"
            " AND old.present = 1",
            (json.dumps([one.orthanc_id for one in fresh]),),
        ).fetchall()
        place = {one.orthanc_id: n for n, one in enumerate(fresh)}
        for new, old, study_uid, study_orthanc_id, sha256 in sorted(found, key=lambda row: (place[row[0]], row[1])):
            one = fresh[place[new]]
            if place.get(old, -1) > place[new] or one.cause in (CORRECTION, RESTORE):
                continue  # where both are new, the later one tells
            transaction.append(
                "conflict", now, one.orthanc_id, sop_uid=one.sop_uid, study_uid=one.study_uid,
                study_orthanc_id=one.study_orthanc_id, sha256=one.sha256, other_orthanc_id=old,
                other_study_uid=study_uid, other_study_orthanc_id=study_orthanc_id, other_sha256=sha256,
                reason="the archive has this SOP Instance UID twice, under another patient, study or series",
            )  # fmt: skip

    def record_seen(self, transaction: Transaction, instances: Iterable[Instance]) -> None:
        """When each sender was seen last: its silence is worth an alert."""
        seen: dict[str, str] = {}
        images: dict[tuple[str, str], str] = {}
        for one in instances:
            if one.remote_aet:
                seen[one.remote_aet] = max(seen.get(one.remote_aet, ""), one.received_at)
                caller = one.remote_aet, one.remote_ip
                images[caller] = max(images.get(caller, ""), one.received_at)
        for aet, at in seen.items():
            transaction.set_later(f"seen {aet}", at)
        for (aet, ip), at in images.items():
            callers.note(transaction, aet, ip, "image", at)

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
            transaction.execute("DELETE FROM came WHERE orthanc_id = ?", (orthanc_id,))
        for (study, uid), instances in studies.items():
            self._deleted(uid, [one[0] for one in instances])
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
                transaction.execute("DELETE FROM fired WHERE study_orthanc_id = ?", (study,))
                # Should images of it come again, who it is about must be told again: others have forgotten it by then.
                transaction.execute("DELETE FROM studies WHERE study_orthanc_id = ?", (study,))
