"""Decisions about exceptions to come: a person makes a rule, the process operations carries it out, by the day's limit.

Only kinds in zambezi.exception_kinds.RULED can be ruled, a rule ends by itself, and every decision it takes is an
entry of the audit trail that names the rule and who made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import audit, clock, exceptions
from zambezi.database.tables import ExceptionRule
from zambezi.exception_kinds import RULED

LONGEST_DAYS = 366
LARGEST_DAILY_LIMIT = 1000


class RuleRefused(ValueError):
    """A rule can't be made so; `field` is what is wrong, the text what was found and what is allowed."""

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field


@dataclass(frozen=True)
class NewRule:
    """A rule as a person writes it: decide exceptions of `kind` (in `room`, from `source`, older than so many days)."""

    name: str
    kind: str
    decision: str
    reason: str
    days: int
    daily_limit: int
    room: str = ""
    source: str = ""
    older_days: int = 0


def make(session: Session, new: NewRule, *, who: str, now: datetime, writer: str) -> ExceptionRule:
    """Write the rule down; RuleRefused where it can't be."""
    _check(session, new)
    rule = ExceptionRule(
        name=new.name.strip(), kind=new.kind, room=new.room, source=new.source.strip(), older_days=new.older_days,
        decision=new.decision.strip(), reason=new.reason.strip(), daily_limit=new.daily_limit, made_by=who,
        made_at=clock.text(now), expires_at=clock.text(now + timedelta(days=new.days)),
    )  # fmt: skip
    session.add(rule)
    session.flush()
    audit.append(
        session, writer, "exception-rule-changed", now, who=who, rule=rule.name, change="made", kind=rule.kind,
        room=rule.room, source=rule.source, older_days=rule.older_days, decision=rule.decision, reason=rule.reason,
        daily_limit=rule.daily_limit, expires=rule.expires_at,
    )  # fmt: skip
    return rule


def _check(session: Session, new: NewRule) -> None:
    for field, text, longest in (
        ("name", new.name, 80), ("decision", new.decision, 1000), ("reason", new.reason, 1000),
    ):  # fmt: skip
        if not text.strip() or len(text) > longest:
            raise RuleRefused(field, f"found {len(text.strip())} characters, allowed are 1 to {longest}")
    if new.kind not in RULED:
        raise RuleRefused("kind", f"found {new.kind!r}, a rule may decide only {', '.join(sorted(RULED))}")
    for field, number, least, most in (
        ("days", new.days, 1, LONGEST_DAYS), ("daily_limit", new.daily_limit, 1, LARGEST_DAILY_LIMIT),
        ("older_days", new.older_days, 0, 3660),
    ):  # fmt: skip
        if not least <= number <= most:
            raise RuleRefused(field, f"found {number}, allowed is {least} to {most}")
    if session.scalars(select(ExceptionRule).where(ExceptionRule.name == new.name.strip())).first():
        raise RuleRefused("name", f"there is a rule {new.name.strip()!r} already; a name is never used again")


def end(session: Session, rule_id: int, *, who: str, now: datetime, writer: str) -> bool:
    """Switch the rule off; False where it is unknown or was switched off before."""
    rule = session.get(ExceptionRule, rule_id, with_for_update=True)
    if rule is None or rule.ended_at is not None:
        return False
    rule.ended_at, rule.ended_by = clock.text(now), who
    audit.append(session, writer, "exception-rule-changed", now, who=who, rule=rule.name, change="switched off")
    return True


@dataclass(frozen=True)
class Quota:
    """How many items the rule may decide now, and why it is none: "", ended, expired, limit, not-ruled."""

    left: int
    because: str = ""


def quota(rule: ExceptionRule, now: datetime, zone: tzinfo) -> Quota:
    """What the rule may still decide on this day of the site."""
    if rule.ended_at is not None:
        return Quota(0, "ended")
    if rule.expires_at <= clock.text(now):
        return Quota(0, "expired")
    if rule.kind not in RULED:  # it was when the rule was made; the list wins
        return Quota(0, "not-ruled")
    used = rule.decided_on_day if rule.day == _day(now, zone) else 0
    left = max(0, rule.daily_limit - used)
    return Quota(left, "" if left else "limit")


def selection(rule: ExceptionRule | NewRule) -> exceptions.Selection:
    """Which items the rule is about."""
    return exceptions.Selection(room=rule.room, kind=rule.kind, source=rule.source, older_days=rule.older_days)


def carry_out(session: Session, rule_id: int, now: datetime, zone: tzinfo, writer: str) -> int:
    """Decide what the rule says, at most a batch and the day's limit; how many. Call it again while it is a batch."""
    rule = session.get(ExceptionRule, rule_id, with_for_update=True)
    if rule is None:
        return 0
    left = quota(rule, now, zone).left
    if not left:
        return 0
    items, _ = exceptions.found(session, selection(rule), now, min(left, exceptions.BATCH))
    decided = exceptions.decide_items(
        session, [item.id for item in items], who=f"rule {rule.id}", decision=rule.decision, now=now, writer=writer,
        rule=rule,
    )  # fmt: skip
    today = _day(now, zone)
    rule.decided_on_day = len(decided) + (rule.decided_on_day if rule.day == today else 0)
    rule.day = today
    rule.decided_total += len(decided)
    return len(decided)


def _day(now: datetime, zone: tzinfo) -> str:
    return now.astimezone(zone).date().isoformat()
