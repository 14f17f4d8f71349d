"""What an inventory found, as a picture: studies by year and modality. Pure but for the one question to the ledger."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from zambezi.database.tables import MigrationStudy

#: The modalities with most studies have a colour of their own; the rest share the last one.
COLOURS = ("#0a5fb4", "#1a7f37", "#b3261e", "#9a6700", "#6b5b95", "#0b7a75", "#9aa4ae")
WIDTH, HEIGHT = 720.0, 200.0
_GAP = 0.25  # of a bar's width

Counts = Mapping[tuple[str, str], int]


@dataclass(frozen=True)
class Piece:
    """Studies of one year and modality: a rectangle."""

    modality: str
    count: int
    colour: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Year:
    """A column; `name` is empty for studies without a date, or with one that is none."""

    name: str
    total: int
    middle: float
    pieces: list[Piece]


@dataclass(frozen=True)
class Chart:
    """Years from left to right, what is undated at the end; modalities by number of studies, with their colours."""

    years: list[Year]
    modalities: list[tuple[str, str, int]]  # name ("": all the others), colour, studies
    highest: int


def counted(session: Session, project_id: int) -> dict[tuple[str, str], int]:
    """Studies of a project, by (year, modality); a study of several modalities counts under its first."""
    year = func.substr(MigrationStudy.study_date, 1, 4)
    query = (
        select(year, MigrationStudy.modalities, func.count())
        .where(MigrationStudy.project_id == project_id)
        .group_by(year, MigrationStudy.modalities)
    )
    found: dict[tuple[str, str], int] = {}
    for name, modalities, count in session.execute(query):
        key = (name if re.fullmatch("[0-9]{4}", name or "") else "", _first(modalities))
        found[key] = found.get(key, 0) + count
    return found


def chart(counts: Counts) -> Chart:
    """The picture of these numbers of studies."""
    totals: dict[str, int] = {}
    for (_, modality), count in counts.items():
        totals[modality] = totals.get(modality, 0) + count
    ranked = sorted(totals, key=lambda modality: (-totals[modality], modality))
    colours = {modality: COLOURS[min(place, len(COLOURS) - 1)] for place, modality in enumerate(ranked)}
    names = sorted({name for name, _ in counts}, key=lambda name: (not name, name))
    heights = {name: sum(count for (year, _), count in counts.items() if year == name) for name in names}
    highest = max(heights.values(), default=0)
    step = WIDTH / max(len(names), 12)
    years = []
    for place, name in enumerate(names):
        pieces, top = [], HEIGHT
        for modality in ranked:
            count = counts.get((name, modality), 0)
            if count:
                height = count / highest * HEIGHT
                top -= height
                x = round(place * step + step * _GAP / 2, 2)
                width = round(step * (1 - _GAP), 2)
                pieces.append(Piece(modality, count, colours[modality], x, round(top, 2), width, round(height, 2)))
        years.append(Year(name, heights[name], round((place + 0.5) * step, 2), pieces))
    own = len(COLOURS) - 1
    legend = [(modality, colours[modality], totals[modality]) for modality in ranked[:own]]
    if rest := sum(totals[modality] for modality in ranked[own:]):
        legend.append(("", COLOURS[-1], rest))
    return Chart(years, legend, highest)


def _first(modalities: str) -> str:
    """KO, PR and SR tell little of what a study is, where something else does."""
    named = [name for name in (modalities or "").split("\\") if name]
    return next((name for name in named if name not in ("KO", "PR", "SR")), named[0] if named else "?")
