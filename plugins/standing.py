"""Which of several nodes records what is stored: this one, or another.

All nodes have one index, so one of them follows /changes for all. The gateway grants that right, with an epoch, and
brings to the others what was recorded. Whoever holds the right writes its name and epoch beside the index, where all
nodes see it: it goes on, however long the gateway is away, until a higher epoch stands there. So a lease's time binds
the gateway alone: no sooner may it grant another node the right (docs/decisions/0015).

`offer` is called by Orthanc's threads, everything else by the follower's.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from plugins.journal import Journal
from plugins.others import Others
from plugins.replaced import Replaced
from zambezi import durable

log = logging.getLogger("zambezi.standing")

#: Beside the index, which all nodes share.
FILE = "zambezi-recorder.json"
_EPOCH = "epoch"


class OfferRefused(ValueError):
    """What the gateway brought can't be read; the text says why."""


@dataclass(frozen=True)
class Offer:
    """Who records, by the gateway's word, and what the others recorded.

    `heads` is how far the other journals go centrally, `through` how far `entries` bring our tables; `fenced` are
    ranges of our own journal that don't hold.
    """

    holder: str
    epoch: int
    heads: Mapping[str, int] = field(default_factory=dict)
    through: Mapping[str, int] = field(default_factory=dict)
    entries: tuple[Mapping[str, Any], ...] = ()
    fenced: tuple[tuple[int, int | None], ...] = ()
    all_know: bool = False

    @classmethod
    def read(cls, told: Any) -> Offer:
        try:
            return cls(
                holder=str(told["holder"]), epoch=int(told["epoch"]),
                heads={str(j): int(n) for j, n in told["heads"].items()},
                through={str(j): int(n) for j, n in told["through"].items()},
                entries=tuple(json.loads(one) for one in told["entries"]),
                fenced=tuple((int(first), None if last is None else int(last)) for first, last in told["fenced"]),
                all_know=bool(told["all_know"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OfferRefused(f"found something else than who records and what the others did: {error!r}") from error


class Standing:
    """This node's standing. A node without a name is the only one, and records."""

    def __init__(
        self, journal: Journal, node: str, shared: Path, deleted: Callable[[str, Collection[str]], None]
    ) -> None:
        """`deleted` is told what others deleted: study_uid, and Orthanc ids. Our Orthanc doesn't hear of that."""
        self._journal = journal
        self._deleted = deleted
        self._file = shared / FILE
        self._offered: Offer | None = None
        self._offering = threading.Lock()
        self.others = Others(journal)
        self.replaced = Replaced()
        self.node = node
        self.epoch = int(journal.meta(_EPOCH) or 0)
        self.records = not node
        #: Whether all that others recorded, and the central database has, is in our tables.
        self.knows_others = not node
        #: Whether every node knows what every other has recorded: what was kept for those that don't may go.
        self.all_know = False
        #: The gateway granted it to another by this epoch, whether that one has begun or not.
        self._relieved = 0
        self._mark = ("", 0)

    @property
    def told(self) -> dict[str, Any]:
        """For `GET /zambezi/status`."""
        return {
            "node": self.node, "records": self.records, "epoch": self.epoch, "applied": self.others.applied(),
            "marked": self._mark[1], "refused_studies": self.replaced.refused,
        }  # fmt: skip

    def offer(self, offer: Offer) -> None:
        """Kept until the follower's thread takes it; a newer one takes the place of an older."""
        with self._offering:
            self._offered = offer

    def step(self, now: datetime) -> list[tuple[str, str]]:
        """Take what was offered and look who records. SOP UID and Orthanc id of what another node's entries told."""
        if not self.node:
            return []
        with self._offering:
            offer, self._offered = self._offered, None
        came: list[tuple[str, str]] = []
        if offer:
            came = self._take(offer)
            self.knows_others = self._knows(offer)
            self.all_know = offer.all_know
            self._relieved = offer.epoch if offer.holder != self.node else 0
            if offer.holder == self.node and offer.epoch > self.epoch and self.knows_others:
                self._begin(offer.epoch, now)
        self._mark = self._marked()
        records = self._mark == (self.node, self.epoch) and self._relieved <= self.epoch
        if records != self.records:
            log.warning("node %s %s", self.node, f"records, epoch {self.epoch}" if records else "doesn't record")
        self.records = records
        return came

    def _take(self, offer: Offer) -> list[tuple[str, str]]:
        # What another gateway said before it knew of our epoch comes late: it relieves nobody.
        relieved = offer.epoch > self.epoch
        back = bool(offer.fenced) and relieved and not self.others.is_clean()
        applied = self.others.applied()
        news = offer.entries or any(seq > applied.get(journal, 0) for journal, seq in offer.through.items())
        if back or news:
            with self._journal.transaction() as transaction:
                if back:
                    self.others.take_back(transaction, offer.fenced)
                if news:
                    self.others.take(transaction, offer.entries, offer.through)
            for one in offer.entries:
                if one["event"] == "deleted" and one["seq"] > applied.get(one["journal"], 0):
                    self._deleted(one.get("study_uid", ""), [orthanc_id for orthanc_id, *_ in one["instances"]])
        return [(one["sop_uid"], one["orthanc_id"]) for one in offer.entries if one["event"] == "stored"]

    def _knows(self, offer: Offer) -> bool:
        applied = self.others.applied()
        return all(applied.get(journal, 0) >= seq for journal, seq in offer.heads.items())

    def _begin(self, epoch: int, now: datetime) -> None:
        """Record from here on. The mark first: from then on the one before us stops."""
        name, before = self._marked()
        if before > epoch or (before == epoch and name != self.node):
            return
        if before < epoch:
            durable.replace(self._file, json.dumps({"node": self.node, "epoch": epoch}).encode())
        with self._journal.transaction() as transaction:
            transaction.append("lease-taken", now, node=self.node, epoch=epoch)
            transaction.set_meta(_EPOCH, str(epoch))
        self.epoch = epoch

    def _marked(self) -> tuple[str, int]:
        try:
            told = json.loads(self._file.read_bytes())
        except FileNotFoundError:
            return "", 0
        return str(told["node"]), int(told["epoch"])
