"""Signs that a study is complete: what a performed step tells, and what the plugin is told."""

from __future__ import annotations

from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from gateway import mpps, ready
from plugins import pushed
from plugins.readiness import Sign
from zambezi import clock
from zambezi.database import generations
from zambezi.database.engine import Sessions

CT = "1.2.840.10008.5.1.4.1.1.2"


def begun(study: str) -> Dataset:
    scheduled, step = Dataset(), Dataset()
    scheduled.StudyInstanceUID = study
    step.ScheduledStepAttributesSequence = [scheduled]
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    return step


def ended(images: int, status: str = "COMPLETED") -> Dataset:
    changes, series = Dataset(), Dataset()
    changes.PerformedProcedureStepStatus = status
    series.ReferencedImageSequence = [Dataset() for _ in range(images)]
    changes.PerformedSeriesSequence = [series]
    return changes


def told(made: Sessions, now: datetime) -> dict[str, dict[str, Sign]]:
    """As the plugin reads it."""
    with made.begin() as session:
        document = ready.snapshot(session, now)
    return {uid: dict(signs) for uid, signs in pushed.ready(document).items()}


def test_a_study_is_complete_when_the_last_of_its_steps_has_ended_with_all_their_images(
    made: Sessions, now: datetime
) -> None:
    with made.begin() as session:
        for step in ("1.1", "1.2"):
            assert mpps.create(session, step, begun("1.9"), "CT1", now) == mpps.SUCCESS
    with made.begin() as session:
        assert mpps.change(session, "1.1", ended(30), now) == mpps.SUCCESS
    assert told(made, now) == {}
    with made.begin() as session:
        assert mpps.change(session, "1.2", ended(12, "DISCONTINUED"), now) == mpps.SUCCESS
        assert generations.current(session, "ready") == 1
    assert told(made, now) == {"1.9": {"mpps": Sign(clock.text(now), 42)}}


def test_a_step_that_names_no_images_says_nothing_of_how_many(made: Sessions, now: datetime) -> None:
    with made.begin() as session:
        mpps.create(session, "1.1", begun("1.9"), "CR1", now)
        mpps.change(session, "1.1", ended(0), now)
    assert told(made, now) == {"1.9": {"mpps": Sign(clock.text(now), None)}}


def test_a_newer_sign_takes_the_older_ones_place_and_an_old_one_is_not_told(made: Sessions, now: datetime) -> None:
    with made.begin() as session:
        ready.signal(session, "1.9", "commitment", now, 5)
        ready.signal(session, "1.9", "commitment", now + timedelta(hours=1), 7)
        ready.signal(session, "1.8", "mpps", now)
        ready.signal(session, "", "mpps", now)
    later = clock.text(now + timedelta(hours=1))
    assert told(made, now) == {
        "1.9": {"commitment": Sign(later, 7)}, "1.8": {"mpps": Sign(clock.text(now), None)},
    }  # fmt: skip
    assert told(made, now + timedelta(days=3, minutes=1)).keys() == {"1.9"}
    with made.begin() as session:
        ready.signal(session, "1.7", "mpps", now + timedelta(days=40))
    assert told(made, now).keys() == {"1.7"}, "what is older than a month is gone"
