"""Why an instance was stored: whose service it was, what was announced, what was recorded before."""

from __future__ import annotations

import pytest

from plugins import facts
from plugins.pushed import Announced
from zambezi.causes import Because

MODALITY, MIGRATION = Because("modality"), Because("migration", "legacy")
REPORT, CORRECTION = Because("report", "report 1 version 2"), Because("correction", "correction 12")
RECORDS = Because("migration", "records old-ris")
ORDER = Because("modality", "order Z7")
SOP, STUDY = "1.5", "1.2"


@pytest.mark.parametrize(
    ("http_user", "instance", "study", "recorded", "expected"),
    [
        # a DICOM sender: the study tells, and only of migrations and orders
        ("", None, None, None, MODALITY),
        ("", None, MIGRATION, None, MIGRATION),
        ("", None, ORDER, None, ORDER),
        ("", None, CORRECTION, None, MODALITY),
        ("", CORRECTION, None, None, MODALITY),
        ("", CORRECTION, ORDER, CORRECTION, ORDER),
        # services
        ("ris", REPORT, MIGRATION, None, REPORT),
        ("ris", None, None, None, Because("report")),
        ("custody", CORRECTION, MIGRATION, None, CORRECTION),
        ("custody", None, MIGRATION, None, Because("correction")),
        ("migration", None, None, None, Because("migration")),
        ("migration", None, MIGRATION, None, MIGRATION),
        ("migration", RECORDS, MIGRATION, None, RECORDS),
        ("migration", REPORT, MIGRATION, None, MIGRATION),
        # recovery
        ("recovery", REPORT, ORDER, MODALITY, REPORT),
        ("recovery", None, ORDER, CORRECTION, CORRECTION),
        ("recovery", None, ORDER, None, ORDER),
        ("recovery", None, MIGRATION, None, MIGRATION),
        ("recovery", None, CORRECTION, None, MODALITY),
        # a move to another index: what nobody knows is no modality's
        ("move", REPORT, ORDER, MODALITY, REPORT),
        ("move", None, ORDER, MODALITY, MODALITY),
        ("move", None, ORDER, None, Because("restore")),
    ],
)
def test_the_cause_of_a_store(
    http_user: str, instance: Because | None, study: Because | None, recorded: Because | None, expected: Because
) -> None:
    announced = Announced({STUDY: study} if study else {}, {SOP: instance} if instance else {})
    assert facts.cause(http_user, SOP, STUDY, announced, recorded) == expected
