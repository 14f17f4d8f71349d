"""Both languages: nothing untranslated, dates as people write them here."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from babel.messages import Catalog, pofile
from babel.messages.extract import extract_from_dir

from ris_service import languages
from zambezi.access import ROLES
from zambezi.events import EVENTS
from zambezi.orders import TRANSITIONS

FOLDER = Path(languages.__file__).parent
JINJA = {"templates/**.html": {"extensions": "jinja2.ext.i18n", "newstyle_gettext": "true", "trim_blocks": "true"}}


def catalogues() -> list[Catalog]:
    made = []
    for file in sorted((FOLDER / "translations").glob("*pt.po")):
        with file.open("rb") as source:
            made.append(pofile.read_po(source, locale="pt_PT"))
    return made


def test_every_sentence_of_the_source_is_translated_and_no_translation_is_left_over():
    found = extract_from_dir(FOLDER, [("**.py", "python"), ("templates/**.html", "jinja2")], options_map=JINJA)
    wanted = {
        message[0] if isinstance(message, tuple) else message for _file, _line, message, _notes, _context in found
    }
    said = {
        message.id[0] if isinstance(message.id, tuple) else message.id: message.string
        for catalogue in catalogues()
        for message in catalogue
        if message.id
    }
    assert wanted - set(said) == set()
    assert set(said) - wanted == set()
    assert [one for one, text in said.items() if not text or (isinstance(text, tuple) and not all(text))] == []


def test_placeholders_survive_translation():
    faults = [fault for catalogue in catalogues() for message in catalogue for fault in message.check(catalogue)]
    assert list(map(str, faults)) == []


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
