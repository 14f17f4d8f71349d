"""The sources there are: how each is reached, whether it may be asked now, what it can do, how it fares."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from migration.source import Probe
from zambezi import breakers, clock, windows
from zambezi.config.settings import Migration, Site
from zambezi.database.tables import MigrationProbe, MigrationProject, MigrationSurvey


def entries(session: Session, settings: Migration, site: Site, now: datetime) -> list[dict[str, Any]]:
    """One for each of Migration.Sources, by name: what pages and commands say of it."""
    paused = {one.name: one for one in breakers.paused(session)}
    probes = {row.source: row for row in session.scalars(select(MigrationProbe))}
    projects: dict[str, list[str]] = {}
    for project, of in session.execute(select(MigrationProject.name, MigrationProject.source)):
        projects.setdefault(of, []).append(project)
    found = []
    for name, source in sorted(settings.sources.items()):
        breaker, probe = paused.get(f"source:{name}"), probes.get(name)
        opens = windows.next_opening(source.windows, now, site.zone, site.holidays)
        found.append(
            {
                "source": name, "kind": source.kind, "peer": source.peer,
                "ceiling": source.ceiling,
                "is_open": windows.is_open(source.windows, now, site.zone, site.holidays),
                "opens": clock.text(opens) if opens else None,
                "paused_until": breaker.until if breaker else None, "paused_because": breaker.reason if breaker else "",
                "projects": sorted(projects.get(name, [])),
                "probed_at": probe.at if probe else None, "probe_failed": probe.reason if probe else "",
                "abilities": _abilities(probe.abilities) if probe else {},
            }
        )  # fmt: skip
    return found


def keep_probe(session: Session, source: str, found: Probe | None, reason: str, now: datetime) -> None:
    """Remember what was tried; `found` is None where the source could not be asked, with the `reason`."""
    row = session.get(MigrationProbe, source)
    if row is None:
        row = MigrationProbe(source=source)
        session.add(row)
    row.at, row.reason = clock.text(now), reason[:1000]
    row.abilities = {name: list(ability) for name, ability in found.abilities.items()} if found else {}


def surveys(session: Session, project_id: int) -> list[MigrationSurvey]:
    """Every time that a project's inventory was taken, the first one first."""
    query = select(MigrationSurvey).where(MigrationSurvey.project_id == project_id).order_by(MigrationSurvey.number)
    return list(session.scalars(query).all())


def _abilities(kept: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"has": bool(ability[0]), "seen": str(ability[1])} for name, ability in kept.items()}
