"""What an inventory has asked and heard: kept before the next question, so that nothing is asked twice.

Which question follows depends on the answers alone (migration.survey). So one that was killed begins from the
start and hears from here what was answered already, until it comes to the first question that wasn't.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from migration.source import CutOff
from migration.survey import Matching
from zambezi import clock
from zambezi.database.engine import Sessions
from zambezi.database.tables import MigrationProject, MigrationSlice, MigrationSurvey

#: Called between two questions, with words for whoever waits; may raise to stop (migration.desk.Closed).
Step = Callable[[str], None]


class Notebook:
    """A source as one inventory asks it (migration.survey.Matching)."""

    def __init__(self, source: Matching, sessions: Sessions, survey: MigrationSurvey, step: Step) -> None:
        self._source, self._sessions, self._step = source, sessions, step
        self._of_pass = (
            MigrationSlice.project_id == survey.project_id, MigrationSlice.survey_number == survey.number,
        )  # fmt: skip
        self._key = {"project_id": survey.project_id, "survey_number": survey.number}
        self._heard: set[str] = set()
        #: Those that an earlier run of it asked, too.
        self.queries = 0

    def studies(self, **matching: str) -> list[dict[str, str]]:
        """What the source answers, or answered before; CutOff, Trouble or OrthancError."""
        number, self.queries = self.queries, self.queries + 1
        kept = self._kept(number, matching)
        if kept is None:
            self._step(f"{number} questions, {len(self._heard)} studies named")
            kept = self._ask(number, matching)
        if kept.outcome != "answered":
            raise CutOff(kept.reason)
        answers: list[dict[str, str]] = json.loads(zlib.decompress(kept.answers or b""))
        self._heard |= {answer.get("StudyInstanceUID", "") for answer in answers}
        return answers

    def _kept(self, number: int, matching: dict[str, str]) -> MigrationSlice | None:
        with self._sessions.begin() as session:
            kept = session.scalars(
                select(MigrationSlice).where(*self._of_pass, MigrationSlice.number == number)
            ).first()
            if kept is not None and (kept.matching != matching or kept.answers is None):
                # Another version of us asked otherwise: from here on what it heard answers nothing.
                session.execute(delete(MigrationSlice).where(*self._of_pass, MigrationSlice.number >= number))
                return None
            return kept

    def _ask(self, number: int, matching: dict[str, str]) -> MigrationSlice:
        answers: list[dict[str, str]] = []
        outcome, reason = "answered", ""
        try:
            answers = self._source.studies(**matching)
        except CutOff as error:
            outcome, reason = "cut off", str(error)[:500]
        with self._sessions.begin() as session:
            asked = MigrationSlice(
                **self._key, number=number, matching=matching, outcome=outcome, found=len(answers), reason=reason,
                asked_at=clock.text(clock.now()), answers=zlib.compress(json.dumps(answers).encode(), 1),
            )  # fmt: skip
            session.add(asked)
        return asked


def open_survey(session: Session, project: MigrationProject, now: datetime) -> MigrationSurvey:
    """The project's inventory that is under way, or a new one."""
    query = (
        select(MigrationSurvey).where(MigrationSurvey.project_id == project.id).order_by(MigrationSurvey.number.desc())
    )
    last = session.scalars(query).first()
    if last is not None and last.state != "done":
        return last
    new = MigrationSurvey(
        project_id=project.id, number=last.number + 1 if last else 1, state="asking", began_at=clock.text(now)
    )
    session.add(new)
    session.flush()
    return new


def close_survey(session: Session, survey: MigrationSurvey, now: datetime) -> None:
    """It is done: its answers are in the ledger, and are forgotten here; what was asked stays."""
    session.execute(
        update(MigrationSlice)
        .where(MigrationSlice.project_id == survey.project_id, MigrationSlice.survey_number == survey.number)
        .values(answers=None)
    )
    session.execute(
        update(MigrationSurvey)
        .where(MigrationSurvey.project_id == survey.project_id, MigrationSurvey.number == survey.number)
        .values(state="done", ended_at=clock.text(now))
    )
