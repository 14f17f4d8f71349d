"""Following /changes: what was stored becomes entries, and what is due becomes decisions.

One thread. Each round reads a piece of /changes and the facts of the new instances over loopback HTTP,
and then commits entries, decisions and cursor in one transaction of the journal. After a crash it goes
on from the cursor: the normal path and the crash path are the same code.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from plugins import facts, place, priority
from plugins.arrivals import Arrivals
from plugins.completeness import Completeness
from plugins.facts import Change, Instance, Sender
from plugins.journal import Journal
from plugins.noted import Noted
from plugins.pushed import Announced
from plugins.recorder import Recorder
from plugins.standing import Standing
from zambezi import clock

log = logging.getLogger("zambezi.follower")

#: Changes read at once; a piece becomes one commit.
PIECE = 1000
#: Instances listed at once in a full inventory.
LISTED = 10000
#: Rounds begin so far apart: a short wait for readers ...
ROUND_S = 0.1
#: ... but while instances pour in (a round had so many), one commit and one request are for many of them. Each
#: commit waits for the disk that Orthanc writes the images to, and each batch is one commit of the gateway's, too.
BUSY_ROUND_S = 1.0
BUSY = 10
#: Without a call from Orthanc (events are lost in a crash, and may be), a round comes by itself.
IDLE_S = 0.5
#: On PostgreSQL a change may be committed after one with a higher number: so many behind the cursor are looked at
#: again, until so many seconds after the last new one.
BACK, BACK_S = 400, 10.0
#: A node that doesn't record sees a deletion before it is told of the store; it looks again for so long.
UNTOLD_S = 60.0
#: Series and studies that are remembered between rounds: those that were asked for last.
_PARENTS = 20000


class Archive(Protocol):
    """What following needs of Orthanc (plugins.orthanc_rest)."""

    def changes(self, since: int, limit: int) -> dict[str, Any]: ...
    def contents(self, orthanc_ids: list[str]) -> dict[str, dict[str, Any]]: ...
    def instance_ids(self, since: int, limit: int) -> list[str]: ...
    def instance_count(self) -> int: ...
    def issuer(self, orthanc_id: str) -> str: ...
    def sha256(self, orthanc_id: str) -> str | None: ...
    def tags(self, orthanc_id: str) -> dict[str, Any]: ...
    def studies_of(self, patient_id: str) -> list[str]: ...
    def sender(self, orthanc_id: str) -> Sender | None: ...


class Follower:
    """The thread and what it knows. `rounds` are steps that others may take, too (tests do, with their own time)."""

    def __init__(
        self,
        archive: Archive,
        journal: Journal,
        recorder: Recorder,
        completeness: Completeness,
        noted: Noted,
        arrivals: Arrivals,
        index_id: str,
        announced: Callable[[], Announced],
        begin: Callable[[], None],
        recovering: bool = False,
        standing: Standing | None = None,
        commits_late: bool = False,
    ) -> None:
        self._archive = archive
        self._journal = journal
        self._recorder = recorder
        self._completeness = completeness
        self._noted = noted
        self._arrivals = arrivals
        self._index_id = index_id
        self._announced = announced
        self._begin = begin
        self._parents: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._cursor: Change | None = None
        self._to_check: set[str] = set()
        self._asked: set[str] = set()  # looked at in each round until one is committed: Orthanc tells of each but once
        self._checking = threading.Lock()
        # While lost files are being ingested again, what is missing is about to come.
        self._compared = recovering
        self._inventory: set[str] | None = None
        self._taken = 0
        self._standing = standing
        self._recorded = standing is None  # whether this node recorded in the round before
        self._commits_late = commits_late
        self._looked_back = 0.0
        self._untold: dict[str, float] = {}
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zambezi-follower", daemon=True)
        self.lag = -1
        self.error = ""

    @property
    def change(self) -> int:
        """The number of the last change that is committed."""
        return self._cursor.seq if self._cursor else 0

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something changed in Orthanc."""
        self._wake.set()

    def check_deleted(self, orthanc_id: str) -> None:
        """Orthanc says that a resource was deleted: look whether it is still gone, and record it."""
        with self._checking:
            self._to_check.add(orthanc_id)
        self._wake.set()

    def stop(self) -> None:
        """Do a last round and end."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def round(self, now: datetime) -> bool:
        """One step; True if there is more to do at once."""
        if self._standing is not None:
            came = self._standing.step(now)
            self._arrivals.settled(came)
            self._completeness.stored(orthanc_id for _, orthanc_id in came)
            if not self._standing.records:
                return self._stand_by(now)
            if not self._recorded:  # another one did until now: from where its entries end
                self._recorded, self._cursor, self._compared, self._inventory = True, None, False, None
        if self._cursor is None:
            self._cursor = self._find_place()
        cursor = self._cursor
        answer = self._archive.changes(cursor.seq, PIECE)
        rows = [self._change(row) for row in answer["Changes"]]
        new = [self._change(row) for row in answer["Changes"] if row["ChangeType"] == "NewInstance"]
        new = self._late(cursor, bool(rows)) + new
        done = bool(answer["Done"])
        self._taken = len(new)
        self.lag = 0 if done else max(1, int(answer["Last"]) - cursor.seq)
        with self._checking:
            self._asked |= self._to_check
            self._to_check = set()
        fresh = [row.orthanc_id for row in self._recorder.unknown(new)]
        # What was deleted, or comes again, may be about somebody else now: it is read anew.
        again = self._recorder.parents_of_present(fresh)
        for orthanc_id in (*self._asked, *again):
            self._parents.pop(orthanc_id, None)
        instances = self._instances(fresh)
        self._ask_issuers(instances, again)
        reach = rows[-1] if rows else cursor
        deleted = self._deleted(instances) if done else {}
        self._completeness.stored(instances)
        has_more = False
        is_prepared = self._completeness.prepare(self._archive, now) if done else True
        if new or rows or self._completeness.is_due(now) or deleted:
            with self._journal.transaction() as transaction:
                self._recorder.record(transaction, new, instances, now, _facts_of(self._parents))
                self._recorder.record_deleted(transaction, deleted, now)
                self._recorder.record_seen(transaction, instances.values())
                if reach != cursor:
                    self._recorder.set_cursor(transaction, reach)
                if done:
                    has_more = self._completeness.decide_due(transaction, now)
            self._cursor = reach
            self._arrivals.recorded(instances.values())
        if done:
            self._asked.clear()
            self._arrivals.caught_up(self._standing is None or self._standing.all_know)
        if done and not self._compared:
            self._compare(now)
        self._noted.record(now)
        self._forget_oldest()
        return not done or not is_prepared or has_more

    def _late(self, cursor: Change, is_busy: bool) -> list[Change]:
        """New instances whose rows were committed behind the cursor after it had passed their numbers."""
        now = time.monotonic()
        if is_busy:
            self._looked_back = now + BACK_S
        if not self._commits_late or not cursor.seq or now > self._looked_back:
            return []
        answer = self._archive.changes(max(0, cursor.seq - BACK), BACK)
        rows = [self._change(row) for row in answer["Changes"] if row["ChangeType"] == "NewInstance"]
        return self._recorder.unknown([row for row in rows if row.seq <= cursor.seq])

    def _stand_by(self, now: datetime) -> bool:
        """Another node records. What only this one sees is recorded here: what it deleted, queries, refusals."""
        self._recorded, self.lag = False, -1
        self._parents.clear()  # what another one deletes, nobody tells us
        with self._checking:
            asked, self._to_check = self._to_check, set()
        until = time.monotonic()
        self._untold = {one: end for one, end in self._untold.items() if end > until}
        for one in asked:
            self._untold.setdefault(one, until + UNTOLD_S)
        candidates = self._recorder.present_in(self._untold)
        gone = dict.fromkeys(self._gone(candidates), "seen")
        if gone:
            with self._journal.transaction() as transaction:
                self._recorder.record_deleted(transaction, gone, now)
        if self._standing is not None and self._standing.knows_others:
            self._arrivals.caught_up(False)
        self._noted.record(now)
        return False

    def _run(self) -> None:
        failures, begun = 0, False
        priority.lower()
        while True:
            began = time.monotonic()
            last = self._stop.is_set()
            more = False
            self._wake.clear()
            try:
                if not begun:
                    self._begin()
                    begun = True
                more = self.round(clock.now())
                self.error, failures = "", 0
            except Exception as error:  # edge of the thread: it goes on from its cursor; status and log say why
                failures += 1
                self.error = f"{type(error).__name__}: {error}"
                log.warning("following failed (%s), trying again", self.error, exc_info=failures == 1)
            if last and (not more or failures):
                return
            if failures:
                self._stop.wait(min(5.0, 0.2 * failures))
            elif not more and not self._stop.is_set():
                self._wake.wait(IDLE_S)
                pause = BUSY_ROUND_S if self._taken >= BUSY else ROUND_S
                self._stop.wait(max(0.0, pause - (time.monotonic() - began)))

    def _change(self, row: Mapping[str, Any]) -> Change:
        return Change(self._index_id, int(row["Seq"]), str(row["ID"]), str(row["Date"]))

    def _read(self, since: int, limit: int) -> list[Change]:
        return [self._change(row) for row in self._archive.changes(since, limit)["Changes"]]

    def _find_place(self) -> Change:
        anchors = self._recorder.anchors()
        found = place.find(anchors, self._index_id, self._read)
        if anchors and found != anchors[0]:
            log.warning("the index is not where it was: following goes back from %d to %d", anchors[0].seq, found.seq)
            self._recorder.doubt_after(found)
        return found

    def _instances(self, orthanc_ids: list[str]) -> dict[str, Instance]:
        found = self._archive.contents(orthanc_ids)
        self._fetch_parents([one["ParentSeries"] for one in found.values()])
        series = {one["ParentSeries"]: self._parents.get(one["ParentSeries"]) for one in found.values()}
        self._fetch_parents([one["ParentStudy"] for one in series.values() if one])
        announced = self._announced()
        recovered = [one for one, what in found.items() if what["Metadata"].get("HttpUsername") in facts.AGAIN]
        recorded = self._recorder.causes(recovered)
        instances = {}
        for orthanc_id, one in found.items():
            parent = series[one["ParentSeries"]]
            study = self._parents.get(parent["ParentStudy"]) if parent else None
            if parent and study:
                on_behalf = one["Metadata"].get("HttpUsername") == facts.ON_BEHALF
                instances[orthanc_id] = facts.instance(
                    one, parent, study, announced, recorded.get(orthanc_id), self._digest, self._arrivals.came,
                    self._archive.sender(orthanc_id) if on_behalf else None,
                )  # fmt: skip
        return instances

    def _digest(self, sop_uid: str, orthanc_id: str, size: int) -> str | None:
        """Of what came by another node nobody here saw the bytes: of several nodes, the one that records reads them."""
        known = self._arrivals.digest(sop_uid, orthanc_id, size)
        return known if known or self._standing is None else self._archive.sha256(orthanc_id)

    def _fetch_parents(self, orthanc_ids: list[str]) -> None:
        """These are known from now on until _forget_oldest, but for those that are gone from the archive."""
        wanted = dict.fromkeys(orthanc_ids)
        self._parents.update(self._archive.contents([one for one in wanted if one not in self._parents]))
        for one in wanted:
            if one in self._parents:
                self._parents.move_to_end(one)

    def _forget_oldest(self) -> None:
        # Only between rounds: what a round has asked for it goes on asking for, and what it lacks it takes for gone.
        while len(self._parents) > _PARENTS:
            self._parents.popitem(last=False)

    def _ask_issuers(self, instances: Mapping[str, Instance], again: Collection[str] = ()) -> None:
        """The issuer of the Patient ID, of the first image of each study that begins with these, or may `again`."""
        began = self._recorder.unknown_studies(instances.values())
        for one in instances.values():
            if one.study_orthanc_id in again:
                began.setdefault(one.study_orthanc_id, one.orthanc_id)
        for study, first in began.items():
            self._parents[study]["Issuer"] = self._archive.issuer(first)

    def _deleted(self, new: Mapping[str, Instance]) -> dict[str, str]:
        """Which of the resources that Orthanc deleted are still gone, with how that is known.

        `new`: the instances that are recorded in this very round.
        """
        candidates = dict.fromkeys(self._recorder.present_in(self._asked))
        candidates |= dict.fromkeys(
            one.orthanc_id
            for one in new.values()
            if not self._asked.isdisjoint((one.orthanc_id, one.series_orthanc_id, one.study_orthanc_id))
        )
        return dict.fromkeys(self._gone(list(candidates)), "seen")

    def _gone(self, orthanc_ids: Sequence[str]) -> list[str]:
        gone: list[str] = []
        for n in range(0, len(orthanc_ids), PIECE):
            piece = list(orthanc_ids[n : n + PIECE])
            there = self._archive.contents(piece)
            gone += [one for one in piece if one not in there]
        return gone

    def _compare(self, now: datetime) -> None:
        """Once after a start, when following has caught up: is all that is recorded there, and all there recorded?"""
        if self._inventory is None:
            self._settle(now, self._gone(self._recorder.doubted()), [])
            if self._archive.instance_count() == self._recorder.present_count():
                self._compared = True
            else:
                self._inventory = self._list()  # judged when following has passed what it holds: in the next round
            return
        strange = [one for one in self._inventory if not self._recorder.is_present(one)]
        self._settle(now, self._gone(self._recorder.present_but(self._inventory)), strange)
        self._inventory, self._compared = None, True

    def _settle(self, now: datetime, missing: Sequence[str], strange: Sequence[str]) -> None:
        for n in range(0, len(strange), PIECE):
            instances = self._instances(list(strange[n : n + PIECE]))
            self._ask_issuers(instances)
            with self._journal.transaction() as transaction:
                # No change number: their rows are not in /changes.
                rows = [Change(self._index_id, 0, orthanc_id, "") for orthanc_id in instances]
                self._recorder.record(transaction, rows, instances, now, _facts_of(self._parents))
            self._forget_oldest()
        if missing or self._recorder.doubted():
            with self._journal.transaction() as transaction:
                self._recorder.record_deleted(transaction, dict.fromkeys(missing, "unseen"), now)
                self._recorder.trust_all(transaction)

    def _list(self) -> set[str]:
        found: set[str] = set()
        while page := self._archive.instance_ids(len(found), LISTED):
            before = len(found)
            found.update(page)
            if len(found) == before:
                break
        return found


def _facts_of(studies: Mapping[str, Mapping[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """Who a study is about, by its Orthanc id; with the issuer of the Patient ID where its first image was asked."""
    return lambda orthanc_id: facts.study_facts(studies[orthanc_id], studies[orthanc_id].get("Issuer", ""))
