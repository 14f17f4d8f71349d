"""Every page set speaks Portuguese: no sentence without one, no word of a template outside of `_`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from babel.messages import pofile
from babel.messages.extract import extract_from_dir

from zambezi import composition

ROOMS = sorted({name.split(".")[0] for name in composition.PAGE_SETS})
_READ = {"extensions": "jinja2.ext.i18n", "newstyle_gettext": "true", "trim_blocks": "true"}
JINJA = {"templates/**.html": _READ, "**/templates/**.html": _READ}
#: What is the same in both languages: names, a file format, keys of a keyboard.
NAMES = {
    "Zambezi",
    "Orthanc",
    "Windows",
    "Android",
    "iPhone",
    "iPad",
    "macOS",
    "Linux",
    "Firefox",
    "PDF",
    "UID",
    "Enter",
    "Ctrl",
    "S",
    "j",
    "k",
    "v",
    "r",
    "x",
}


def folder(room: str) -> Path:
    return Path(str(import_module(room).__file__)).parent


def catalogue(room: str) -> dict[str, tuple[str, ...]]:
    said: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder(room).rglob("translations/*pt.po")):
        with file.open("rb") as source:
            said |= {_id(one.id): _forms(one.string) for one in pofile.read_po(source, locale="pt_PT") if one.id}
    return said


@pytest.mark.parametrize("room", ROOMS)
def test_every_sentence_of_a_room_is_translated_in_that_room(room: str):
    found = extract_from_dir(
        folder(room),
        [("**.py", "python"), ("**/templates/**.html", "jinja2"), ("templates/**.html", "jinja2")],
        options_map=JINJA,
    )
    wanted = {_id(message) for _file, _line, message, _notes, _context in found}
    said = catalogue(room)
    assert sorted(wanted - set(said)) == []
    assert sorted(set(said) - wanted) == []
    assert [one for one, forms in said.items() if not all(forms)] == []


def test_no_sentence_is_translated_in_two_ways():
    """The catalogues are merged: the later room would take the word out of the earlier one's mouth."""
    said: dict[str, tuple[str, ...]] = {}
    for room in ROOMS:
        for one, forms in catalogue(room).items():
            assert said.setdefault(one, forms) == forms, f"{one!r} in {room}"


@pytest.mark.parametrize(
    "template", sorted(t for room in ROOMS for t in folder(room).rglob("templates/*.html")), ids=str
)
def test_no_word_of_a_template_stands_outside_of_a_translation(template: Path):
    text = template.read_text(encoding="utf-8")
    for cut in (r"\{#.*?#\}", r"\{%.*?%\}", r"\{\{.*?\}\}", r"<[^>]*>", r"&[a-z]+;"):
        text = re.sub(cut, " ", text, flags=re.DOTALL)
    assert [word for word in re.findall(r"[^\W\d_]+", text) if word not in NAMES] == []


def _id(message: str | tuple[str, ...] | list[str]) -> str:
    return message if isinstance(message, str) else message[0]


def _forms(said: str | tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said)
