"""When a study is complete, and what is due then: its routes and HL7 triggers.

The completeness clock is ours (Orthanc's StableStudy doesn't survive a restart): it starts anew with each
store (plugins.recorder) and runs out by a sign or after the quiet seconds (plugins.readiness). A rule may go by
a way of its own; so a clock runs until it has run out for the archive and for every such rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any

from plugins import readiness, routing
from plugins.attributes import Attributes, Reader, to_read
from plugins.journal import Journal, Transaction
from plugins.priors import Earlier, Study
from plugins.pushed import Announced
from plugins.readiness import Open, Sign
from plugins.routing import Candidate, Circumstances, Decided, Fetch
from plugins.rules import Rules
from plugins.studies import Query, Studies, went
from zambezi import clock, triggers
from zambezi.config import Configuration
from zambezi.config.settings import Completeness as How
from zambezi.config.settings import Route

#: So many instances are read in one round: following goes on in between.
READ_AT_ONCE = 200
#: So many studies are decided upon in one round, and in one commit: after a long absence there may be thousands.
DECIDED_AT_ONCE = 50
#: What images may tell of how many there are (PS3.3 C.3.1 and C.3.2 name them for queries; some modalities write them).
_OF_STUDY, _OF_SERIES = "NumberOfStudyRelatedInstances", "NumberOfSeriesRelatedInstances"

#: What the gateway told, by Study Instance UID and sort of sign.
Signs = Mapping[str, Mapping[str, Sign]]


@dataclass(frozen=True)
class Due:
    """A clock that has run out for the rules that go by `how` (empty: the archive's own way), and why."""

    study: str
    study_uid: str
    cause: str
    last_at: str
    how: str
    because: str


class Completeness:
    """Looks at the journal's clocks on behalf of the follower, and decides."""

    def __init__(
        self, journal: Journal, rules: Rules, signs: Callable[[], Signs] = dict,
        announced: Callable[[], Announced] = Announced,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._rules = rules
        self._signs = signs
        self._attributes = Attributes()
        self.studies = Studies(journal, self._attributes, announced)
        #: Studies whose images were asked how many they are, with the last store of then.
        self._counting: dict[str, str] = {}
        self._earlier = Earlier(journal, self._attributes, lambda: rules.now.zambezi.site.issuer)

    def is_due(self, now: datetime) -> bool:
        """Whether a study has become complete for some rule, or the clock was put back."""
        ahead = self._journal.query("SELECT 1 FROM clocks WHERE last_at > ? LIMIT 1", (clock.text(now),))
        return bool(ahead) or next(self._due(self._journal.query, now), None) is not None

    def prepare(self, reader: Reader, now: datetime) -> bool:
        """Read what the rules ask of studies that are complete, a part at a time; True when nothing is lacking."""
        left = READ_AT_ONCE
        for orthanc_id, keywords in islice(self._wanted(now), left + 1):
            if not left:
                return False
            self._attributes.read(reader, [orthanc_id], keywords)
            left -= 1
        self._look_for_priors(reader, now)
        return True

    def decide_due(self, transaction: Transaction, now: datetime) -> bool:
        """Studies that are complete: record it, with the routes and triggers due. What lacks something waits.

        True if there may be more of them.
        """

        def query(sql: str, values: Sequence[Any]) -> Sequence[Any]:
            return transaction.execute(sql, values).fetchall()

        # The machine's clock was put back: what ran by the time before would wait until that comes again.
        transaction.execute("UPDATE clocks SET last_at = ?1 WHERE last_at > ?1", (clock.text(now),))
        transaction.execute("UPDATE fired SET last_at = ?1 WHERE last_at > ?1", (clock.text(now),))
        rules = self._rules.now
        first = list(islice(self._due(query, now), DECIDED_AT_ONCE))
        for due in first:
            study = self.studies.candidates(query, "study_orthanc_id = ?", due.study, rules)
            circumstances = self.studies.circumstances(query, rules, due.study, due.study_uid, now)
            routes = _routes(rules, due.how)
            lacks = routing.lacking(study, due.cause, routes, circumstances)
            if not (lacks or self._lacks_priors(due, study, routes, circumstances)):
                self._carry_out(transaction, due, study, routes, circumstances, now)
        return len(first) == DECIDED_AT_ONCE

    def stored(self, orthanc_ids: Iterable[str]) -> None:
        """These came, or came anew: what was read of them before is no longer so."""
        self._attributes.forget(orthanc_ids)

    def open_studies(self) -> int:
        return int(self._journal.query("SELECT count(*) FROM clocks")[0][0])

    def _wanted(self, now: datetime) -> Iterator[tuple[str, set[str]]]:
        """Which attributes must be read of which instances for what is due, or may be by its count."""
        rules, query = self._rules.now, self._journal.query
        for key, how in _hows(rules).items():
            for study, _uid, _cause, last_at in self._waiting(query, how, now, key) if "count" in how.by else ():
                if self._counting.get(study) != last_at:
                    found = self.studies.candidates(query, "study_orthanc_id = ?", study, rules)
                    mine = {one.orthanc_id: {_OF_STUDY, _OF_SERIES} for one in found}
                    yield from self._unread(to_read(found, mine))
                    self._counting[study] = last_at
        for due in islice(self._due(query, now), DECIDED_AT_ONCE):
            found = self.studies.candidates(query, "study_orthanc_id = ?", due.study, rules)
            circumstances = self.studies.circumstances(query, rules, due.study, due.study_uid, now)
            yield from self._unread(
                to_read(found, routing.lacking(found, due.cause, _routes(rules, due.how), circumstances))
            )

    def _unread(self, wanted: Mapping[str, set[str]]) -> Iterator[tuple[str, set[str]]]:
        for orthanc_id, keywords in wanted.items():
            if keywords - self._attributes.of(orthanc_id).keys():
                yield orthanc_id, keywords

    def _look_for_priors(self, reader: Reader, now: datetime) -> None:
        """What the rules want of a patient's earlier studies, where one of them takes what came."""
        rules = self._rules.now
        if not any(rule.priors for rule in rules.zambezi.routing):
            return
        for due in list(islice(self._due(self._journal.query, now), DECIDED_AT_ONCE)):
            study = self.studies.candidates(self._journal.query, "study_orthanc_id = ?", due.study, rules)
            circumstances = self.studies.circumstances(self._journal.query, rules, due.study, due.study_uid, now)
            if self._lacks_priors(due, study, _routes(rules, due.how), circumstances):
                self._earlier.look(due.study, due.study_uid, study, reader)

    def _lacks_priors(
        self, due: Due, study: Sequence[Candidate], routes: Sequence[Route], circumstances: Circumstances
    ) -> bool:
        wanting = [rule for rule in routes if rule.priors]
        if not wanting or self._earlier.is_known(due.study):
            return False
        zambezi, by = self._rules.now.zambezi, due.cause
        return bool(
            routing.decide(study, by, wanting, zambezi.destinations, lambda *_: False, circumstances)
            or routing.fetches(study, by, wanting, lambda *_: False, circumstances)
        )

    # -- which clocks have run out

    def _due(self, query: Query, now: datetime) -> Iterator[Due]:
        for key, how in _hows(self._rules.now).items():
            for study, uid, cause, last_at in self._waiting(query, how, now, key):
                because = readiness.ready(how, self._open(query, how, study, uid, last_at), now)
                if because:
                    yield Due(study, uid, cause, last_at, key, because)

    def _waiting(self, query: Query, how: How, now: datetime, key: str = "") -> Sequence[Any]:
        """Clocks that may have run out for those that go by `how`: (study, UID, cause, last store)."""
        soonest = min(how.quiet_seconds, how.settle_seconds) if how.by else how.quiet_seconds
        return query(
            "SELECT study_orthanc_id, study_uid, cause, last_at FROM clocks JOIN studies USING (study_orthanc_id)"
            " WHERE last_at <= ? AND NOT EXISTS (SELECT 1 FROM fired WHERE fired.study_orthanc_id ="
            " clocks.study_orthanc_id AND fired.cause = clocks.cause AND how = ? AND fired.last_at = clocks.last_at)"
            " ORDER BY last_at",
            (clock.text(now - timedelta(seconds=soonest)), key),
        )

    def _open(self, query: Query, how: How, study: str, uid: str, last_at: str) -> Open:
        signs = self._signs().get(uid, {}) if how.by else {}
        counts = "count" in how.by
        if not (counts or signs):
            return Open(last_at)
        rows = query(
            "SELECT orthanc_id, series_uid FROM instances WHERE present = 1 AND study_orthanc_id = ?", (study,)
        )
        return Open(last_at, len(rows), signs, self._counted(rows) if counts else None)

    def _counted(self, rows: Sequence[Any]) -> int | None:
        """How many instances there are by what the images tell; None where they don't."""
        first: dict[str, str] = {}
        for orthanc_id, series_uid in sorted(rows):
            first.setdefault(series_uid, orthanc_id)
        if not first:
            return None
        told = self._number(min(first.values()), _OF_STUDY)
        of_series = [self._number(orthanc_id, _OF_SERIES) for orthanc_id in first.values()]
        return told or (sum(n for n in of_series if n) if all(of_series) else None)

    def _number(self, orthanc_id: str, keyword: str) -> int:
        said = self._attributes.of(orthanc_id).get(keyword, ())
        return int(said[0]) if said and said[0].isdigit() else 0

    # -- what follows

    def _carry_out(
        self, transaction: Transaction, due: Due, study: Sequence[Candidate], routes: Sequence[Route],
        circumstances: Circumstances, now: datetime,
    ) -> None:  # fmt: skip
        waiting = self._ran_out(transaction, due)
        rules = self._rules.now
        common: dict[str, Any] = {"study_uid": due.study_uid, "cause": due.cause}
        if due.how == "" and not self._complete(transaction, due, study, common, waiting, now):
            self._earlier.forget(due.study)
            return
        common |= {"configuration": rules.hash, "generation": _generation(transaction, due)}

        def query(sql: str, values: Sequence[Any]) -> Sequence[Any]:
            return transaction.execute(sql, values).fetchall()

        earlier = went(query, due.study_uid)
        wanting = {rule.name: rule.priors for rule in routes if rule.priors}
        for route in routing.decide(
            study, due.cause, routes, rules.zambezi.destinations, lambda *key: key in earlier, circumstances
        ):
            because = f"{route.because}; {due.because}" if due.how else route.because
            _route(transaction, now, replace(route, because=because), common)
            how = wanting.get(route.rule)
            for prior in self._earlier.chosen(due.study, how) if how else ():
                before, way = went(query, prior.study_uid), (route.rule, route.destination)
                new = tuple(one for one in prior.instances if (*way, one.orthanc_id) not in before)
                if new:
                    along = f"rule {route.rule}: {len(new)} instances of an earlier study go along with {due.study_uid}"
                    _route(
                        transaction, now, replace(route, because=along, instances=new),
                        {**common, "study_uid": prior.study_uid, "generation": None},
                    )  # fmt: skip
        for fetch in routing.fetches(study, due.cause, routes, lambda *key: key in earlier, circumstances):
            _fetch(transaction, now, fetch, self._earlier.study(due.study), common)
        self._earlier.forget(due.study)
        if due.how == "":
            happened = triggers.completed(due.cause, common["generation"], {one.modality for one in study})
            for one in triggers.decide(happened, rules.zambezi.hl7.triggers):
                transaction.append("hl7-triggered", now, **common, study_orthanc_id=due.study, **one.told)

    def _ran_out(self, transaction: Transaction, due: Due) -> bool:
        """Remember that this clock has run out for these rules; whether it goes on for others."""
        others = set(_hows(self._rules.now)) - {due.how}
        if others:
            rows = transaction.execute(
                "SELECT how FROM fired WHERE study_orthanc_id = ? AND cause = ? AND last_at = ?",
                (due.study, due.cause, due.last_at),
            )
            others -= {how for (how,) in rows}
        if others:
            transaction.execute(
                "INSERT OR REPLACE INTO fired VALUES (?, ?, ?, ?)", (due.study, due.cause, due.how, due.last_at)
            )
            return True
        self._counting.pop(due.study, None)
        of_this = (due.study, due.cause)
        transaction.execute("DELETE FROM clocks WHERE study_orthanc_id = ? AND cause = ?", of_this)
        transaction.execute("DELETE FROM fired WHERE study_orthanc_id = ? AND cause = ?", of_this)
        return False

    def _complete(
        self, transaction: Transaction, due: Due, study: Sequence[Candidate], common: Mapping[str, Any], waiting: bool,
        now: datetime,
    ) -> bool:  # fmt: skip
        """The archive's own clock has run out: a new generation, if there is anything new."""
        added = transaction.execute(
            "SELECT count(*) FROM instances"
            " WHERE study_orthanc_id = ? AND cause = ? AND present = 1 AND generation IS NULL",
            (due.study, due.cause),
        ).fetchone()[0]
        if not added:
            return False
        (generation,) = transaction.execute(
            "UPDATE studies SET generation = generation + 1 WHERE study_orthanc_id = ? RETURNING generation",
            (due.study,),
        ).fetchone()
        transaction.execute(
            "UPDATE instances SET generation = ? WHERE study_orthanc_id = ? AND cause = ? AND generation IS NULL",
            (generation, due.study, due.cause),
        )
        how = self._rules.now.zambezi.completeness
        transaction.append(
            "study-completed", now, **common, generation=generation, study_orthanc_id=due.study, instances=len(study),
            added=added, quiet_seconds=how.quiet_seconds, because=due.because if how.by else None,
            waiting=waiting or None,
        )  # fmt: skip
        return True

    # -- for people, and for who tries other rules

    def explain(self, study_uid: str, reader: Reader, now: datetime) -> dict[str, Any] | None:
        """What the rules in force say of a study; None if it isn't recorded."""
        rules, query = self._rules.now, self._journal.query
        study = self.studies.judged(study_uid, rules, reader, now)
        if study is None:
            return None
        candidates, circumstances = study
        routed = went(query, study_uid)
        told = routing.explain(candidates, rules.zambezi.routing, lambda *key: key in routed, circumstances)
        clocks = query(
            "SELECT study_orthanc_id, cause, last_at FROM clocks JOIN studies USING (study_orthanc_id)"
            " WHERE study_uid = ?",
            (study_uid,),
        )
        for rule, said in zip(rules.zambezi.routing, told, strict=True):
            how = rule.completeness or rules.zambezi.completeness
            said["waits"] = [
                _awaited(how, self._open(query, how, orthanc_id, study_uid, last_at), now)
                for orthanc_id, _, last_at in clocks
            ]
        return {
            "study_uid": study_uid,
            "configuration": rules.hash,
            "priority": circumstances.priority,
            "waiting": [{"cause": cause, "last_at": last_at} for _, cause, last_at in clocks],
            "rules": told,
        }


def _hows(rules: Configuration) -> dict[str, How]:
    """How studies become complete: the archive's own way (the empty key), and what rules go by instead of it."""
    own = rules.zambezi.completeness
    hows = {"": own}
    for rule in rules.zambezi.routing:
        if rule.completeness and rule.completeness != own:
            hows[_key(rule.completeness)] = rule.completeness
    return hows


def _routes(rules: Configuration, key: str) -> list[Route]:
    """The rules that go by this way."""
    own = rules.zambezi.completeness
    return [
        rule
        for rule in rules.zambezi.routing
        if (_key(rule.completeness) if rule.completeness and rule.completeness != own else "") == key
    ]


def _key(how: How) -> str:
    return f"{how.quiet_seconds:g} {' '.join(sorted(how.by))} {how.settle_seconds:g}"


def _generation(transaction: Transaction, due: Due) -> int:
    """Which generation this belongs to: the last one, or the one that is being gathered."""
    (generation,) = transaction.execute(
        "SELECT generation FROM studies WHERE study_orthanc_id = ?", (due.study,)
    ).fetchone()
    gathering = transaction.execute(
        "SELECT 1 FROM instances"
        " WHERE study_orthanc_id = ? AND cause = ? AND present = 1 AND generation IS NULL LIMIT 1",
        (due.study, due.cause),
    ).fetchone()
    return int(generation) + (1 if gathering else 0)


def _route(transaction: Transaction, now: datetime, route: Decided, common: Mapping[str, Any]) -> None:
    """Record a route, in parts that fit an entry, and what went by it."""
    parts = route.parts()
    for n, part in enumerate(parts, 1):
        transaction.append(
            "routed", now, **common, rule=route.rule, destination=route.destination, proof=route.proof,
            because=route.because, part=n if len(parts) > 1 else None, priority=route.priority or None,
            instances=[[one.orthanc_id, one.series_uid, one.sop_uid] for one in part],
        )  # fmt: skip
    transaction.executemany(
        "INSERT OR IGNORE INTO routed (orthanc_id, rule, destination) VALUES (?, ?, ?)",
        [(one.orthanc_id, route.rule, route.destination) for one in route.instances],
    )


def _fetch(transaction: Transaction, now: datetime, fetch: Fetch, study: Study, common: Mapping[str, Any]) -> None:
    """Record that earlier studies are wanted, and whose: the gateway asks for them, whatever happens here meanwhile."""
    how = fetch.rule.priors
    assert how is not None  # fetches() gives no other
    transaction.append(
        "priors-wanted", now, **common, rule=fetch.rule.name, source=fetch.source, because=fetch.because,
        priority=fetch.priority or None, patient_id=study.patient_id, issuer=study.issuer, birth_date=study.birth_date,
        study_date=study.date, modalities=sorted(study.modalities), parts=sorted(study.parts),
        how=how.of_each_other,
    )  # fmt: skip
    transaction.executemany(
        "INSERT OR IGNORE INTO routed (orthanc_id, rule, destination) VALUES (?, ?, ?)",
        [(fetch.mark.orthanc_id, fetch.rule.name, fetch.way)],
    )


def _awaited(how: How, study: Open, now: datetime) -> str:
    """What a rule waits for, in words."""
    because = readiness.ready(how, study, now)
    if because:
        return f"it is complete: {because}"
    signs = f"{' or '.join(how.by)}, or " if how.by else ""
    return f"it waits for {signs}a quiet of {how.quiet_seconds:g} s since {study.last_at[:19]}"
