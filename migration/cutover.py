"""Cut-over: what has to hold before the old archive is switched off, each line with yes or no and why.

`checklist` is pure. Nothing here switches anything: that is done by people, at the modalities and at the old archive.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration import certificate, delta, ledger
from zambezi import causes, clock
from zambezi.database.tables import Certificate, MigrationProject, Study

#: So many passes in a row must have found nothing, the last of them within `FRESH`.
QUIET_PASSES = 3
FRESH = timedelta(hours=24)


@dataclass(frozen=True)
class Line:
    """One thing that has to hold; `name` is for pages (their catalogue), `facts` fill its words."""

    name: str
    holds: bool
    facts: dict[str, Any]


@dataclass(frozen=True)
class Facts:
    """What the checklist is decided from. `quiet`: whether each ended pass found nothing, the latest first."""

    doubts: int
    quiet: Sequence[bool]
    last_pass: datetime | None
    under_way: int
    waiting: int
    held: int
    arriving: int  # studies that modalities sent to this archive since `FRESH`
    certified: datetime | None
    is_certificate_last: bool  # it says of the studies what the ledger says now


def checklist(facts: Facts, now: datetime) -> list[Line]:
    """Every line; cut-over may begin when all hold."""
    in_a_row = next((n for n, quiet in enumerate(facts.quiet) if not quiet), len(facts.quiet))
    is_fresh = facts.last_pass is not None and now - facts.last_pass <= FRESH
    certified_at = clock.text(facts.certified) if facts.certified else ""
    return [
        Line("coverage", facts.doubts == 0, {"count": facts.doubts}),
        Line("passes", in_a_row >= QUIET_PASSES, {"count": in_a_row, "wanted": QUIET_PASSES}),
        Line("fresh", is_fresh, {"time": clock.text(facts.last_pass) if facts.last_pass else ""}),
        Line("at-rest", facts.under_way == 0, {"count": facts.under_way}),
        Line("decided", facts.waiting == 0, {"count": facts.waiting}),
        Line("matched", facts.held == 0, {"count": facts.held}),
        Line("routes", facts.arriving > 0, {"count": facts.arriving}),
        Line("certificate", facts.is_certificate_last, {"time": certified_at}),
    ]


def facts(session: Session, project: MigrationProject, now: datetime) -> Facts:
    """As the ledger has them."""
    counts = ledger.states(session, project.id)
    ended = [one for one in delta.passes(session, project.id) if one.ended_at]
    arriving = session.scalar(
        select(func.count())
        .select_from(Study)
        .where(Study.cause == causes.MODALITY, Study.first_at >= clock.text(now - FRESH))
    )
    certified = certificate.latest(session, project.id)
    return Facts(
        doubts=len(project.coverage.get("doubts", ())),
        quiet=[not (one.new_studies or one.new_instances or one.doubts) for one in ended],
        last_pass=clock.parse(ended[0].ended_at or "") if ended else None,
        under_way=sum(counts.get(state, 0) for state in ledger.UNDER_WAY),
        waiting=sum(counts.get(state, 0) for state in ledger.FOR_A_PERSON), held=counts.get("held", 0),
        arriving=arriving or 0, certified=clock.parse(certified.issued_at) if certified else None,
        is_certificate_last=certified is not None and _is_last(certified, project, counts),
    )  # fmt: skip


def _is_last(certified: Certificate, project: MigrationProject, counts: Mapping[str, int]) -> bool:
    """Whether nothing has come since, and nothing was decided: by what it counts. Times tell nothing where the clock
    was put back in between."""
    said = json.loads(certified.document)["counts"]["studies_by_state"]
    return project.state == "certified" and said == counts
