"""What a migration's plan changes is held against what came, in the hook."""

from __future__ import annotations

import hashlib

import pytest

from plugins import declared, header
from plugins.coercion import Treated
from plugins.facts import Came
from plugins.pushed import Announced
from tests.integration.archive_fixture import image, written
from zambezi.causes import Because

ONE = image(PatientID="P1")
CAME = written(ONE)
ONE.PatientID, ONE.AccessionNumber = "CN-P1", "A7"
MADE = written(ONE)
MIGRATED = Announced({str(ONE.StudyInstanceUID): Because("migration", "lab")})


def treated(came: bytes = CAME) -> Treated:
    return Treated(MADE, Came(hashlib.sha256(came).hexdigest(), ("plan",)), header.read(MADE))


def test_the_tags_in_which_a_migrated_image_was_changed_are_told() -> None:
    found = declared.compared(treated(), CAME, MIGRATED)
    assert found.came is not None
    assert found.came.changed == ("(0008,0050)", "(0010,0020)")
    assert (found.content, found.came.rules) == (MADE, ("plan",))


@pytest.mark.parametrize("announced", [Announced(), Announced({str(ONE.StudyInstanceUID): Because("modality", "o")})])
def test_others_pay_nothing_for_it(announced: Announced, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(declared, "digest", None)
    assert declared.compared(treated(), CAME, announced) == treated()
    assert declared.compared(Treated(CAME), CAME, MIGRATED) == Treated(CAME)


def test_what_can_t_be_compared_is_left_open() -> None:
    junk = b"\0" * 128 + b"DICM" + b"\x08\0\x18\0UI\xff\xff"
    for found in (
        declared.compared(treated(), b"an envelope", MIGRATED),
        declared.compared(treated(junk), junk, MIGRATED),
    ):
        assert found.came is not None
        assert found.came.changed is None
