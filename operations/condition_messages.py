"""What a person is told of conditions: the same for a program (JSON) and for a mail. Never a patient's data."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from operations.alerts import lasting
from operations.condition_words import CONDITIONS
from operations.conditions import Going, News
from zambezi import clock, phrases
from zambezi.config.settings import Site
from zambezi.exception_kinds import Words

#: No message tells of more at once.
MOST = 60

_WORDS = {
    "pt": {"begun": "começou", "still": "continua", "over": "acabou", "since": "há", "lasted": "durou", "see": "Ver"},
    "en": {"begun": "begun", "still": "goes on", "over": "over", "since": "for", "lasted": "lasted", "see": "See"},
}

#: What lies on a volume (zambezi.disk.folders).
_ROLES_PT = {
    "images": "imagens", "index": "índice", "journal": "diário", "hold": "retenção", "home": "configuração",
    "database": "base de dados",
}  # fmt: skip


#: How a process stands (operations.status), as far as that is worth telling somebody.
_STATES_PT = {
    "silent": "não dá sinal de vida", "stopped": "parado", "exited": "terminou", "backoff": "não arranca",
    "fatal": "não arranca", "unknown": "desconhecido",
}  # fmt: skip


def words(going: Going, language: str) -> Words:
    """What it is called, what it means and what can be done, in pt or en."""
    kind = CONDITIONS[going.found.kind]
    said = kind.pt if language == "pt" else kind.en
    facts = dict(going.found.facts)
    if going.found.about == "disk" and language == "pt":
        facts["source"] = ", ".join(_ROLES_PT.get(role, role) for role in going.found.source.split(", "))
    if going.found.about == "process" and language == "pt":
        facts["state"] = _STATES_PT.get(str(facts["state"]), str(facts["state"]))
    if "reason" in facts:
        facts["reason"] = phrases.told(str(facts["reason"]), language)
    return Words(said.title, said.what.format_map(facts), said.suggestion.format_map(facts))


def document(news: News, open_ones: int, site: Site, page_address: str, now: datetime) -> dict[str, Any]:
    """The message as JSON: `conditions`, each begun, still going on, or over."""
    told = [
        *_told("begun", news.new, site.language), *_told("still", news.still, site.language),
        *_told("over", news.over, site.language),
    ]  # fmt: skip
    return {
        "about": "condition",
        "site": site.name,
        "at": clock.text(now),
        "new": len(news.new),
        "over": len(news.over),
        "serious": sum(one.is_serious for one in news.new),
        "open": open_ones,
        "conditions": told[:MOST],
        "more_conditions": max(0, len(told) - MOST),
        "href": f"{page_address}/health",
    }


def _told(state: str, going: Iterable[Going], language: str) -> list[dict[str, Any]]:
    by_weight = sorted(going, key=lambda one: (not one.is_serious, one.since, one.found.key))
    found = []
    for one in by_weight:
        said = words(one, language)
        found.append(
            {
                "state": state, "kind": one.found.kind, "source": one.found.source, "title": said.title,
                "what": said.what, "suggestion": said.suggestion, "serious": one.is_serious, "since": one.since,
                "over_at": one.gone_at if state == "over" else "",
            }
        )  # fmt: skip
    return found


def mail(told: dict[str, Any], language: str, now: datetime) -> tuple[str, str]:
    """Subject and text of a mail, from `document`."""
    say = _WORDS[language]
    shown = told["conditions"]
    about = f"{shown[0]['title']} ({say[shown[0]['state']]})"
    more = f" +{len(shown) - 1}" if len(shown) > 1 else ""
    subject = " ".join(f"Zambezi, {told['site']}: {about}{more}".split())
    lines = []
    for one in shown:
        mark = "✓" if one["state"] == "over" else "!" if one["serious"] else "-"
        until = clock.parse(one["over_at"]) if one["over_at"] else now
        how_long = lasting(until - clock.parse(one["since"]), language)
        ago = say["lasted"] if one["state"] == "over" else say["since"]
        lines.append(f"{mark} {one['title']}: {say[one['state']]}, {ago} {how_long}")
        lines.append(f"  {one['what']}")
        if one["state"] != "over":
            lines.append(f"  {one['suggestion']}")
    return subject, "\n".join([*lines, "", f"{say['see']}: {told['href']}", ""])
