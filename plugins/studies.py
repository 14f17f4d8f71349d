"""The studies of the journal as rules see them: their instances, what was read of these, and the circumstances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from plugins import routing
from plugins.attributes import Attributes, Reader, to_read
from plugins.conditions import Moment
from plugins.journal import Journal
from plugins.pushed import Announced
from plugins.routing import Candidate, Circumstances
from zambezi.config import Configuration

#: How the journal is read: as committed, or within a transaction.
Query = Callable[[str, Sequence[Any]], Sequence[Any]]

_CANDIDATES = (
    "SELECT orthanc_id, series_uid, sop_uid, modality, remote_aet, called_aet, cause"
    " FROM instances WHERE present = 1 AND "
)

#: Instances are found by the study they belong to, not by its UID: that would read all that there are.
_OF_UID = "study_orthanc_id IN (SELECT study_orthanc_id FROM studies WHERE study_uid = ?)"


class Studies:
    """Reads the journal on behalf of who decides, explains or tries."""

    def __init__(self, journal: Journal, attributes: Attributes, announced: Callable[[], Announced]) -> None:
        self._journal = journal
        self._attributes = attributes
        self._announced = announced

    def candidates(self, query: Query, where: str, value: str, rules: Configuration) -> list[Candidate]:
        """The instances of a study, with what is known of them of what these rules ask for."""
        rows = query(_CANDIDATES + where, (value,))
        study = [Candidate(*row) for row in rows]
        keywords = frozenset[str]().union(*(rule.when.keywords for rule in rules.zambezi.routing))
        return self._attributes.give(study, keywords)

    def circumstances(
        self, query: Query, rules: Configuration, orthanc_id: str, study_uid: str, now: datetime
    ) -> Circumstances:
        """What rules may ask for besides the instances. The order's priority: as announced, else as it was recorded."""
        site = rules.zambezi.site
        announced = self._announced().studies.get(study_uid)
        recorded = query("SELECT priority FROM studies WHERE study_orthanc_id = ?", (orthanc_id,))
        priority = (announced.priority if announced else "") or (recorded[0][0] if recorded else "")
        sites = {name: one.aets for name, one in rules.zambezi.access.sites.items()}
        return Circumstances(Moment(now, site.zone, site.holidays), sites, priority, study_uid)

    def judged(
        self, study_uid: str, rules: Configuration, reader: Reader, now: datetime
    ) -> tuple[list[Candidate], Circumstances] | None:
        """A study as these rules see it, with whatever they ask of it read; None if it isn't recorded."""
        query = self._journal.query
        found = query("SELECT study_orthanc_id FROM studies WHERE study_uid = ?", (study_uid,))
        study = self.candidates(query, _OF_UID, study_uid, rules)
        if not found or not study:
            return None
        circumstances = self.circumstances(query, rules, found[0][0], study_uid, now)
        for cause in {one.cause for one in study}:
            lacking = routing.lacking(study, cause, rules.zambezi.routing, circumstances)
            for orthanc_id, keywords in to_read(study, lacking).items():
                self._attributes.read(reader, [orthanc_id], keywords)
        return self.candidates(query, _OF_UID, study_uid, rules), circumstances

    def last_completed(self, before: int, limit: int) -> list[tuple[int, str, str]]:
        """Studies that became complete last: (entry, Study UID, payload), those before an entry, the newest first."""
        rows = self._journal.query(
            "SELECT seq, study_uid, payload FROM entries WHERE event = 'study-completed' AND seq < ?"
            " ORDER BY seq DESC LIMIT ?",
            (before, limit),
        )
        return [(seq, uid, payload) for seq, uid, payload in rows]


def went(query: Query, study_uid: str) -> set[tuple[str, str, str]]:
    """What rules sent of a study before: (rule, destination, Orthanc id)."""
    rows = query(
        "SELECT rule, destination, orthanc_id FROM routed JOIN instances USING (orthanc_id)"
        " WHERE study_orthanc_id IN (SELECT study_orthanc_id FROM studies WHERE study_uid = ?)",
        (study_uid,),
    )
    return set(rows)
