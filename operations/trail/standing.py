"""How the audit trail stands: its collector and checkpoints, for the status, the health page and the alerts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from operations.conditions import Condition
from operations.trail import shipping
from operations.trail.keeping import collector_name, mail_name
from operations.trail.shipping import State
from zambezi.config.settings import Audit
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditCheckpoint


@dataclass(frozen=True)
class Standing:
    """The collector and who gets checkpoints by mail (None: none is configured), and the last checkpoint's number and
    moment (0 and "": none yet)."""

    collector: State | None
    mail: State | None = None
    checkpoint: int = 0
    checkpoint_at: str = ""

    @property
    def trouble(self) -> str:
        """What is wrong, in sentences; "" where nothing is."""
        found, one, mail = [], self.collector, self.mail
        if one and one.error:
            since = one.error_since[:19]
            found.append(f"the audit collector got nothing since {since}, {one.backlog:,} entries wait: {one.error}")
        if mail and mail.error:
            found.append(
                f"no checkpoint of the audit trail went out by mail since {mail.error_since[:19]}: {mail.error}"
            )
        return "; ".join(found)

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        signed = (
            f"checkpoint {self.checkpoint} of {self.checkpoint_at[:19]}" if self.checkpoint else "no checkpoint yet"
        )
        one = self.collector
        told = f"last told {one.sent_at[:19]}" if one and one.sent_at else "told nothing yet"
        collected = (
            f"collector {one.name}, {told}, {one.backlog:,} entries wait"
            if one
            else "no collector gets it (Zambezi.Audit.Collector)"
        )
        found = [f"Audit: {signed}; {collected}"]
        if self.mail:
            found.append(f"       checkpoints by {self.mail.name}, the last {self.mail.sent_at[:19] or 'not yet'}")
        return found


def look(session: Session, settings: Audit) -> Standing:
    """How it stands now."""
    last = session.scalars(select(AuditCheckpoint).order_by(AuditCheckpoint.number.desc()).limit(1)).first()
    collector, mail = (
        shipping.state(session, name) if name else None for name in (collector_name(settings), mail_name(settings))
    )
    return Standing(collector, mail, last.number, last.at) if last else Standing(collector, mail)


def conditions(reading: Sessions, settings: Audit) -> list[Condition]:
    """Whether the collector takes nothing, and whether checkpoints can't be mailed."""
    names = {"collector-away": collector_name(settings), "checkpoint-not-mailed": mail_name(settings)}
    with reading() as session:
        found = {kind: shipping.state(session, name) for kind, name in names.items() if name}
    return [
        Condition(
            "audit", one.name, kind,
            {"source": one.name, "since": one.error_since[:16].replace("T", " "), "reason": one.error,
             "backlog": one.backlog},
        )
        for kind, one in found.items()
        if one.error
    ]  # fmt: skip
