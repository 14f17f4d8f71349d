"""Rules that decide exceptions to come: who made which and why, what each would decide now, and the switch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request
from flask_babel import lazy_gettext as _
from sqlalchemy import select

from ris_service.exception_pages import ROWS, shown, title_of
from ris_service.languages import language
from ris_service.parts import CHAIN, parts
from ris_service.people import me
from zambezi import exception_kinds, exception_rules, exceptions
from zambezi.access import requires
from zambezi.database.tables import ExceptionRule
from zambezi.exception_rules import NewRule, RuleRefused

pages = Blueprint("exception_rules", __name__)

STATES = {
    "": ("●", _("In force")),
    "limit": ("◑", _("In force, the day's limit is reached")),
    "ended": ("✕", _("Switched off")),
    "expired": ("◌", _("Expired")),
    "not-ruled": ("⚠", _("Out of force: this kind may no longer be ruled")),
}
FAULTS = {
    "name": _("The name must be 1 to 80 characters and not have been used before."),
    "decision": _("Write what is decided, with at most 1000 characters."),
    "reason": _("Write the reason, with at most 1000 characters."),
    "kind": _("A rule may not decide this kind."),
    "days": _("A rule lasts 1 to 366 days."),
    "daily_limit": _("A rule decides 1 to 1000 a day."),
    "older_days": _("The age is a number of days."),
}


@pages.get("/exceptions/rules")
@requires("exception.read")
def index() -> Any:
    """Every rule there was, those in force first."""
    now, zone = parts().clock(), parts().settings.site.zone
    with parts().sessions.begin() as database:
        rows = [
            (rule, exception_rules.quota(rule, now, zone))
            for rule in database.scalars(select(ExceptionRule).order_by(ExceptionRule.id.desc()).limit(ROWS))
        ]
        found = [
            (rule, quota, exceptions.count(database, exception_rules.selection(rule), now) if quota.left else 0)
            for rule, quota in rows
        ]
    found.sort(key=lambda row: row[1].because not in ("", "limit"))
    return _page("exception_rules.html", rules=found, states=STATES, new=_given(request.args))


@pages.get("/exceptions/rules/preview")
@requires("exception.decide")
def preview() -> Any:
    """What the rule would decide now, before it is made."""
    new = _given(request.args)
    now = parts().clock()
    if new.kind not in exception_kinds.RULED:
        return redirect("/exceptions/rules", 303)
    with parts().sessions.begin() as database:
        total = exceptions.count(database, exception_rules.selection(new), now)
        first, _after = exceptions.found(database, exception_rules.selection(new), now, ROWS)
    return _page("exception_rule_preview.html", new=new, total=total, items=[shown(row) for row in first])


@pages.post("/exceptions/rules")
@requires("exception.decide")
def make() -> Any:
    """Make the rule; back to the form, with the reason, where it can't be."""
    new = _given(request.form)
    try:
        with parts().sessions.begin() as database:
            exception_rules.make(database, new, who=me().login, now=parts().clock(), writer=CHAIN)
    except RuleRefused as refused:
        return _page("exception_rules.html", rules=[], states=STATES, new=new, fault=FAULTS.get(refused.field)), 400
    return redirect("/exceptions/rules?said=rule-made", 303)


@pages.post("/exceptions/rules/<int:rule_id>/end")
@requires("exception.decide")
def end(rule_id: int) -> Any:
    """Switch the rule off; what it decided stays decided."""
    with parts().sessions.begin() as database:
        if not exception_rules.end(database, rule_id, who=me().login, now=parts().clock(), writer=CHAIN):
            abort(409)
    return redirect("/exceptions/rules?said=rule-ended", 303)


def _given(form: Mapping[str, str]) -> NewRule:
    def number(name: str, otherwise: int) -> int:
        written = form.get(name, "").strip()
        return int(written) if written.isdecimal() and len(written) < 6 else otherwise if not written else -1

    return NewRule(
        form.get("name", ""), form.get("kind", ""), form.get("decision", ""), form.get("reason", ""),
        number("days", 90), number("daily_limit", 50), form.get("room", "")[:40], form.get("source", "").strip()[:200],
        number("older_days", 0),
    )  # fmt: skip


def _page(template: str, **what: Any) -> str:
    kinds = sorted((exception_kinds.title(kind, language()), kind) for kind in exception_kinds.RULED)
    return render_template(
        template, kinds=kinds, may_decide=me().may("exception.decide"), title_of=title_of,
        kind_title=lambda kind: exception_kinds.title(kind, language()), **what,
    )  # fmt: skip
