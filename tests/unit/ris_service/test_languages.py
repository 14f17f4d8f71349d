"""Both languages: nothing untranslated, dates as people write them here."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from babel.messages import pofile

from ris_service import languages
from zambezi.access import ROLES
from zambezi.events import EVENTS
from zambezi.orders import TRANSITIONS

FOLDER = Path(languages.__file__).parent


def test_placeholders_survive_translation():
    for file in FOLDER.glob("translations/*pt.po"):
        with file.open("rb") as source:
            catalogue = pofile.read_po(source, locale="pt_PT")
        assert [str(fault) for message in catalogue for fault in message.check(catalogue)] == []


def test_each_state_role_and_event_has_words():
    from ris_service import words

    assert set(words.ORDER) == set(TRANSITIONS)
    assert set(words.ROLE) == set(ROLES)
    assert set(words.EVENT) == set(EVENTS)


def test_a_dicom_date_is_written_with_the_day_first_and_anything_else_stays():
    assert languages.day("20260302") == "02/03/2026"
    assert languages.day("2026") == "2026"
    assert languages.day(None) == ""


def test_age_counts_whole_years():
    assert languages.age("20000302", date(2026, 3, 1)) == 25
    assert languages.age("20000302", date(2026, 3, 2)) == 26
    assert languages.age("", date(2026, 3, 2)) is None
