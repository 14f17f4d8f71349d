"""`zambezi exceptions`: what waits for a person, at the console."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from typing import Any

import click
from sqlalchemy import select

from zambezi import clock, config, exception_kinds, exception_rules, exceptions
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import ExceptionItem, ExceptionRule
from zambezi.environment import Environment
from zambezi.exceptions import Selection

CHAIN = "ris"
#: Who decided, in the audit trail: the account of the machine at whose console it was typed.
BY = "console"


def _database() -> Sessions:
    return sessions(connect(Environment.read().database_url, "console"), "console")


@click.group("exceptions")
def exceptions_group() -> None:
    """What waits for a person, and the rules that decide some of it."""


@exceptions_group.command("list")
@click.option("--room", default="", help="Only of this room: archive, hl7, mpps, delivery, migration, hold ...")
@click.option("--kind", default="", help="Only of this kind.")
@click.option("--study", default="", help="Only about this Study Instance UID.")
@click.option("--source", default="", help="Only from this peer, station, destination or project.")
@click.option("--older-days", default=0, type=click.IntRange(0, 3660), help="Only what waits longer.")
@click.option("--text", default="", help="Only with these words.")
@click.option("--decided", is_flag=True, help="What was decided, the last first.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(
    room: str, kind: str, study: str, source: str, older_days: int, text: str, decided: bool, limit: int, as_json: bool
) -> None:
    """List what waits, the longest waiting first."""
    now = clock.now()
    chosen = Selection(room, kind, study, source, older_days, text, decided)
    with _database().begin() as session:
        rows, more = exceptions.found(session, chosen, now, limit)
        total = exceptions.count(session, chosen, now)
    if as_json:
        click.echo(json.dumps({"total": total, "exceptions": [document(row) for row in rows]}, indent=2))
        return
    for row in rows:
        click.echo(f"{row.id:>7}  {age(row.since, now):>5}  {row.room:<10} {row.kind:<18} {_what(row)}")
        if row.decided_at:
            click.echo(f"{'':>16}decided {row.decided_at[:19]} by {row.decided_by}: {row.decision}")
    if more:
        click.echo(f"{'':>16}{len(rows)} of {total} are shown; --limit shows more")


@exceptions_group.command("show")
@click.argument("item_id", metavar="ID", type=int)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(item_id: int, as_json: bool) -> None:
    """Show one: what, why, since when, and what was decided."""
    with _database().begin() as session:
        row = session.get(ExceptionItem, item_id)
    if row is None:
        raise click.ClickException(f"no exception {item_id}; `zambezi exceptions list` shows what waits")
    told = document(row)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for name, value in told.items():
        if value not in (None, "", [], {}):
            click.echo(f"{name:<12} {json.dumps(value) if isinstance(value, dict | list) else value}")


@exceptions_group.command("decide")
@click.argument("item_ids", metavar="ID...", type=int, nargs=-1, required=True)
@click.option("--decision", required=True, help="What was decided, in words; it stands in the audit trail.")
def decide(item_ids: tuple[int, ...], decision: str) -> None:
    """Record one decision for one or several."""
    if len(item_ids) > exceptions.BATCH:
        raise click.ClickException(f"found {len(item_ids)} numbers, at most {exceptions.BATCH} at once")
    if not 0 < len(decision.strip()) <= 1000:
        raise click.ClickException("--decision: 1 to 1000 characters")
    with _database().begin() as session:
        done = exceptions.decide_items(
            session, item_ids, who=BY, decision=decision.strip(), now=clock.now(), writer=CHAIN
        )
    click.echo(f"{len(done)} decided")
    left = sorted(set(item_ids) - set(done))
    if left:
        raise click.ClickException(f"unknown, or decided before: {', '.join(map(str, left))}")


@exceptions_group.command("rules")
@click.option("--end", "ended", metavar="NAME", default="", help="Switch this rule off.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def rules(ended: str, as_json: bool) -> None:
    """List the rules with what each would decide now; a new one is made on the page "Exceptions", "Rules"."""
    now, zone = clock.now(), config.load(Environment.read().config_dir, os.environ).zambezi.site.zone
    with _database().begin() as session:
        if ended:
            rule = session.scalars(select(ExceptionRule).where(ExceptionRule.name == ended)).first()
            if rule is None or not exception_rules.end(session, rule.id, who=BY, now=now, writer=CHAIN):
                raise click.ClickException(f"no rule {ended!r} that could be switched off")
        told = []
        for rule in session.scalars(select(ExceptionRule).order_by(ExceptionRule.id)):
            quota = exception_rules.quota(rule, now, zone)
            fits = exceptions.count(session, exception_rules.selection(rule), now) if quota.left else 0
            told.append(_rule(rule) | {"state": quota.because or "in force", "would_decide": min(fits, quota.left)})
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    for one in told:
        where = " ".join(str(one[name]) for name in ("room", "source") if one[name])
        click.echo(
            f"{one['name']:<24} {one['state']:<10} {one['kind']} {where} older than {one['older_days']} days: "
            f"{one['decision']} (by {one['made_by']}, until {one['expires_at'][:10]}); decided {one['decided_total']}, "
            f"would decide {one['would_decide']} now"
        )


@exceptions_group.command("kinds")
def kinds() -> None:
    """List the kinds there are: which are told of at once, and which a rule may decide."""
    for name, kind in sorted(exception_kinds.KINDS.items()):
        marks = ", ".join(["serious"] * kind.serious + ["may be ruled"] * kind.ruled)
        click.echo(f"{name:<20} {marks:<14} {kind.en.title}")


def document(row: ExceptionItem) -> dict[str, Any]:
    """An item for programs; names no patient."""
    return {
        "id": row.id, "room": row.room, "kind": row.kind, "reference": row.reference, "study_uid": row.study_uid,
        "what": _what(row), "suggestion": _suggestion(row), "facts": row.facts or {}, "since": row.since,
        "actions": row.actions, "alerted_at": row.alerted_at, "decided_at": row.decided_at,
        "decided_by": row.decided_by, "decision": row.decision, "rule": row.rule_id,
    }  # fmt: skip


def age(since: str, now: datetime) -> str:
    """How long it waits, short: 12m, 5h, 3d."""
    waited = now - clock.parse(since)
    if waited < timedelta(hours=1):
        return f"{waited // timedelta(minutes=1)}m"
    return f"{waited // timedelta(hours=1)}h" if waited < timedelta(days=2) else f"{waited.days}d"


def _what(row: ExceptionItem) -> str:
    said = exception_kinds.words(row.kind, "en", row.facts or {})
    if said is None or not row.facts:  # what was noted says more than a kind without facts
        return row.what
    return f"{said.what} {row.facts.get('reason', '')}".strip()


def _suggestion(row: ExceptionItem) -> str:
    said = exception_kinds.words(row.kind, "en", row.facts or {})
    return said.suggestion if said and row.facts else row.suggestion


def _rule(rule: ExceptionRule) -> dict[str, Any]:
    names = (
        "id", "name", "kind", "room", "source", "older_days", "decision", "reason", "daily_limit", "made_by",
        "made_at", "expires_at", "ended_at", "ended_by", "decided_total",
    )  # fmt: skip
    return {name: getattr(rule, name) for name in names}
