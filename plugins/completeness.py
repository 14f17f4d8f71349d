"""When a study is complete, and what is due then: its routes and HL7 triggers.

The completeness clock is ours (Orthanc's StableStudy doesn't survive a restart): it starts anew with each
store (plugins.recorder) and runs out after the quiet seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from plugins import routing
from plugins.journal import Journal, Transaction
from plugins.routing import Candidate
from plugins.rules import Rules
from zambezi import clock, triggers


class Completeness:
    """Looks at the journal's clocks on behalf of the follower, and decides."""

    def __init__(self, journal: Journal, rules: Rules) -> None:
        self._journal = journal
        self._rules = rules

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
        happened = triggers.completed(cause, generation, {one.modality for one in candidates})
        for one in triggers.decide(happened, rules.zambezi.hl7.triggers):
            transaction.append("hl7-triggered", now, **common, **one.told)

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


_CANDIDATES = (
    "SELECT orthanc_id, series_uid, sop_uid, modality, remote_aet, called_aet, cause"
    " FROM instances WHERE present = 1 AND "
)


def _candidates(rows: Iterable[Sequence[str]]) -> list[Candidate]:
    return [Candidate(*row) for row in rows]
