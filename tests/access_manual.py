"""docs/access.md: who reaches what, printed from the program itself (`python -m tests.access_manual`)."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from flask import Flask

from ris_service.app import create_app, is_narrowed, permission_of
from zambezi import clock, config, keys
from zambezi.access import PUBLIC, ROLES, SIGNED_IN, may
from zambezi.access.routes import ROUTES, Shows
from zambezi.database.engine import connect, sessions
from zambezi.environment import REPOSITORY, Environment

MANUAL = REPOSITORY / "docs" / "access.md"
MARK = "<!-- printed by `python -m tests.access_manual`; a test compares -->\n"


def app(folder: Path) -> Flask:
    """The RIS with every page set, on a database that nobody asks."""
    environment = Environment.read({"ZAMBEZI_HOME": str(folder)})
    settings = config.load(REPOSITORY / "orthanc-config", {}).zambezi
    made = keys.load_or_create(environment.keys_file)
    return create_app(environment, settings, sessions(connect(environment.database_url, "ris"), "ris"), made, clock.now)


def printed(ris: Flask) -> str:
    """Roles, the archive's paths, the pages."""
    return "\n".join([*_roles(), *_archive(), *_pages(ris)]).strip()


def _roles() -> list[str]:
    out = ["## Who reads what of the archive", "", "| | " + " | ".join(ROLES) + " |", "|---" * (len(ROLES) + 1) + "|"]
    for shows in Shows:
        out.append(f"| {shows} | " + " | ".join("yes" if _reads(role, shows) else "-" for role in ROLES) + " |")
    return out


def _reads(role: str, shows: Shows) -> bool:
    if shows is Shows.ANYONE:
        return True
    if shows is Shows.VIEWER:
        return may(role, "images.view") or may(role, "images.view-own")
    if shows in (Shows.STUDY, Shows.FILES):
        return may(role, "images.view") or may(role, "images.view-own")
    if shows is Shows.EXPLORER:
        return may(role, "orthanc.explore")
    return shows in (Shows.LIST, Shows.BY_ID, Shows.SITE) and may(role, "images.view")


def _archive() -> list[str]:
    out = ["", "## The archive's paths"]
    for shows in Shows:
        rows = sorted((one for one in ROUTES if one.shows is shows), key=lambda one: one.path)
        out += ["", f"### Read by {shows}", ""]
        for one in rows:
            more = "; ".join(f"{method}: {', '.join(sorted(who))}" for method, who in sorted(one.writes.items()))
            out.append(f"- `{one.path}`" + (f" ({more})" if more else ""))
    return out


def _pages(ris: Flask) -> list[str]:
    out = [
        "",
        "## The pages",
        "",
        "| page | what it needs | roles | who sees a part of the site |",
        "|---|---|---|---|",
    ]
    rows = []
    for rule in ris.url_map.iter_rules():
        needed = permission_of(ris, rule.endpoint)
        roles = "strangers, too" if needed == PUBLIC else "whoever is signed in" if needed == SIGNED_IN else ", ".join(
            role for role in ROLES if may(role, needed)
        )  # fmt: skip
        narrow = "yes" if needed in (PUBLIC, SIGNED_IN) else "their part" if is_narrowed(ris, rule.endpoint) else "-"
        methods = " ".join(sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))
        rows.append(f"| {methods} `{rule.rule}` | {needed} | {roles} | {narrow} |")
    return out + sorted(rows, key=lambda row: row.partition("`")[2])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = printed(app(Path(scratch)))
    before, _mark, _rest = MANUAL.read_text(encoding="utf-8").partition(MARK)
    MANUAL.write_text(before + MARK + "\n" + text + "\n", encoding="utf-8")
    sys.stdout.write(f"{MANUAL}\n")
