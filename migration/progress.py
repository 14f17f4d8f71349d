"""How far a migration is: what pages and commands say, from the ledger's studies alone, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from migration import lanes, ledger, outlook, pace
from zambezi import breakers, clock, windows
from zambezi.config.settings import MigrationSource, Site
from zambezi.database.tables import MigrationProject, MigrationStudy

#: States of a study in the order in which a bar shows them, and what each counts as.
SHOWN = {
    "verified": "done", "moving": "under-way", "verifying": "under-way", "held": "held", "retrying": "failed",
    "divergent": "failed", "conflict": "failed", "vanished": "failed", "incomplete": "failed", "parked": "failed",
    "ready": "waiting", "skipped": "left-out", "waived": "left-out", "rolled-back": "left-out",
}  # fmt: skip
#: Rates are looked at so far back: last night's window is in it.
RECENT = timedelta(hours=48)


def of(
    session: Session, project: MigrationProject, now: datetime, settings: MigrationSource | None = None,
    site: Site | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How far a project is; with the source's settings also how it runs and when it may be done."""
    by_state = _by_state(session, project.id)
    counts = {state: studies for state, (studies, _) in by_state.items()}
    at_rest = sum(counts.get(state, 0) for state in ledger.AT_REST)
    recent = stretches(session, project.id, now)
    left = sum(images for state, (_, images) in by_state.items() if state not in ledger.AT_REST)
    settings, site = settings or MigrationSource(peer="unknown"), site or Site()
    ends = outlook.of(left, {name: images for name, (_, images) in recent.items()}, settings.windows, site, now)
    per_hour = _last_hour(recent, now)
    return {
        "project": project.name, "source": project.source, "state": project.state, "note": project.note,
        "studies": sum(counts.values()), "states": counts, "verified": counts.get("verified", 0),
        "failed": sum(counts.get(state, 0) for state in ledger.FOR_A_PERSON), "held": counts.get("held", 0),
        "left": sum(counts.values()) - at_rest, "instances": sum(images for _, images in by_state.values()),
        "instances_left": left, "per_hour": round(per_hour, 1),
        "minutes_left": _minutes(ends.likely, now) if ends and ends.likely else None,
        "estimate": _said(ends), "source_health": health(session, project.source, settings, site, now),
    }  # fmt: skip


def stretches(session: Session, project_id: int, now: datetime) -> dict[str, tuple[int, int]]:
    """Studies and images verified lately, by stretch of ten minutes (migration.outlook)."""
    stretch = func.substr(MigrationStudy.verified_at, 1, outlook.STRETCH)
    query = (
        select(stretch, func.count(), func.sum(MigrationStudy.expected))
        .where(MigrationStudy.project_id == project_id, MigrationStudy.verified_at >= clock.text(now - RECENT))
        .group_by(stretch)
        .order_by(stretch)
    )
    return {name: (studies, int(images or 0)) for name, studies, images in session.execute(query)}


def hourly(recent: Mapping[str, tuple[int, int]], now: datetime) -> list[tuple[str, int]]:
    """Images verified in each of the last 48 hours, the oldest first: the hour (as a moment's text) and the count."""
    hours = [clock.text(now - timedelta(hours=n))[:13] for n in range(int(RECENT / timedelta(hours=1)) - 1, -1, -1)]
    counts = dict.fromkeys(hours, 0)
    for stretch, (_, images) in recent.items():
        if stretch[:13] in counts:
            counts[stretch[:13]] += images
    return list(counts.items())


def health(
    session: Session, source: str, settings: MigrationSource, site: Site, now: datetime
) -> dict[str, Any]:  # fmt: skip
    """How the source is: whether it is asked, how many studies at once and why, until when its window stands open."""
    found = pace.read(session, source)
    paused = next((one for one in breakers.paused(session) if one.name == f"source:{source}"), None)
    is_open = windows.is_open(settings.windows, now, site.zone, site.holidays)
    always = any(map(outlook.is_always_open, settings.windows))
    most = settings.near_line_at_once if settings.near_line else pace.ceiling(settings, site, now)
    first, *slow = lanes.of_source(settings)
    ask = windows.closes_at if is_open else windows.next_opening
    change = None if always else ask(settings.windows, now, site.zone, site.holidays)
    return {
        "paused_until": paused.until if paused else "", "paused_because": paused.reason if paused else "",
        "in_use": pace.in_use(session, source, now, first), "slots": found.allowed(most) if slow else most,
        "ceiling": most, "because": found.because, "window_open": is_open,
        "window_changes": clock.text(change) if change else "",
        "near_line": sum(pace.in_use(session, source, now, lane) for lane in slow),
        "near_line_slots": settings.near_line_at_once,
    }  # fmt: skip


def _by_state(session: Session, project_id: int) -> dict[str, tuple[int, int]]:
    study = MigrationStudy
    query = select(study.state, func.count(), func.sum(study.expected)).where(study.project_id == project_id)
    return {row[0]: (row[1], int(row[2] or 0)) for row in session.execute(query.group_by(study.state))}


def _last_hour(recent: Mapping[str, tuple[int, int]], now: datetime) -> float:
    """Studies an hour, over the stretches of the last hour."""
    since = clock.text(now - timedelta(minutes=50))[: outlook.STRETCH]
    found = {name: studies for name, (studies, _) in recent.items() if name >= since}
    if not found:
        return 0.0
    minutes = (now - clock.parse(min(found) + "0:00.000000Z")).total_seconds() / 60
    return sum(found.values()) / max(minutes, 1.0) * 60


def _minutes(end: datetime, now: datetime) -> float:
    return round((end - now).total_seconds() / 60, 1)


def _said(ends: outlook.Estimate | None) -> dict[str, Any] | None:
    if ends is None:
        return None
    moments = {"likely": ends.likely, "earliest": ends.earliest, "latest": ends.latest}
    return {
        "images_per_hour": round(ends.per_hour, 1), "stretches": ends.stretches,
        **{name: clock.text(moment) if moment else None for name, moment in moments.items()},
    }  # fmt: skip


@dataclass(frozen=True)
class Piece:
    """A part of a bar: what it counts, from where to where (in units of the bar's width)."""

    kind: str
    count: int
    start: float
    width: float


def bar(counts: Mapping[str, int], width: float = 100) -> list[Piece]:
    """The states of studies as pieces of one bar, in a fixed order; nothing for no studies."""
    total = sum(counts.values())
    kinds: dict[str, int] = {}
    for state, kind in SHOWN.items():
        kinds[kind] = kinds.get(kind, 0) + counts.get(state, 0)
    pieces, start = [], 0.0
    for kind, count in kinds.items():
        if count:
            piece = Piece(kind, count, round(start, 3), round(count / total * width, 3))
            pieces.append(piece)
            start += piece.width
    return pieces


@dataclass(frozen=True)
class Picture:
    """Studies by year and modality: the columns, and for each year (newest first, undated last) its cells and sum."""

    modalities: tuple[str, ...]
    years: list[tuple[str, list[dict[str, int]], dict[str, int]]]


#: So many modalities have a column; what is rarer is summed up in one more.
COLUMNS = 8
OTHERS = "…"


def picture(session: Session, project_id: int) -> Picture:
    """Counts of studies by state, for each year of study dates and each modality (as the source names them)."""
    year = func.substr(MigrationStudy.study_date, 1, 4)
    query = (
        select(year, MigrationStudy.modalities, MigrationStudy.state, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(year, MigrationStudy.modalities, MigrationStudy.state)
    )
    rows = [(found or "", modality or "?", state, count) for found, modality, state, count in session.execute(query)]
    sizes: dict[str, int] = {}
    for _, modality, _, count in rows:
        sizes[modality] = sizes.get(modality, 0) + count
    common = sorted(sizes, key=lambda name: (-sizes[name], name))
    columns = tuple(common if len(common) <= COLUMNS + 1 else [*common[:COLUMNS], OTHERS])
    cells: dict[str, dict[str, dict[str, int]]] = {}
    for found, modality, state, count in rows:
        column = modality if modality in columns else OTHERS
        cell = cells.setdefault(found, {}).setdefault(column, {})
        cell[state] = cell.get(state, 0) + count
    years = []
    for found, by_column in sorted(cells.items(), reverse=True):
        whole: dict[str, int] = {}
        for cell in by_column.values():
            for state, count in cell.items():
                whole[state] = whole.get(state, 0) + count
        years.append((found, [by_column.get(column, {}) for column in columns], whole))
    return Picture(columns, years)
