"""How the audit trail stands: its collector and checkpoints, for the status, the health page and the alerts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.conditions import Condition
from operations.trail import shipping
from operations.trail.keeping import collector_name
from operations.trail.shipping import State
from zambezi.config.settings import Audit
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditCheckpoint


@dataclass(frozen=True)
class Standing:
    """The collector (None: none is configured), and the last checkpoint's number and moment (0 and "": none yet)."""

    collector: State | None
    checkpoint: int = 0
    checkpoint_at: str = ""

    @property
    def trouble(self) -> str:
        """What is wrong, as a sentence; "" where nothing is."""
        one = self.collector
        if one is None or not one.error:
            return ""
        return (
            f"the audit collector got nothing since {one.error_since[:19]}, {one.backlog:,} entries wait: {one.error}"
        )

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        signed = (
            f"checkpoint {self.checkpoint} of {self.checkpoint_at[:19]}" if self.checkpoint else "no checkpoint yet"
        )
        one = self.collector
        if one is None:
            return [f"Audit: {signed}; no collector gets it (Zambezi.Audit.Collector)"]
        told = f"last told {one.sent_at[:19]}" if one.sent_at else "told nothing yet"
        return [f"Audit: {signed}; collector {one.name}, {told}, {one.backlog:,} entries wait"]


def look(session: Session, settings: Audit) -> Standing:
    """How it stands now."""
    last = session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1)).first()
    name = collector_name(settings)
    collector = shipping.state(session, name) if name else None
    return Standing(collector, last.number, last.at) if last else Standing(collector)


def conditions(reading: Sessions, settings: Audit) -> list[Condition]:
    """Whether the collector takes nothing."""
    if not collector_name(settings):
        return []
    with reading() as session:
        found = shipping.state(session, collector_name(settings))
    if not found.error:
        return []
    facts: dict[str, str | int] = {
        "source": found.name, "since": found.error_since[:16].replace("T", " "), "reason": found.error,
        "backlog": found.backlog,
    }  # fmt: skip
    return [Condition("audit", found.name, "collector-away", facts)]
