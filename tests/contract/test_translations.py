"""Every page set speaks Portuguese: no sentence without one, no word of a template outside of `_`."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from babel.messages import pofile
from babel.messages.extract import extract_from_dir

from migration.folders import summary
from migration.records_pages import LINKS
from migration.source_pages import ABILITIES
from tests import reasons
from zambezi import composition, phrases

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


#: Modules of migration that speak to a terminal alone, or both languages by themselves.
NOT_ON_PAGES = {
    "certificate_pdf",
    "certificate_words", "plan_pdf", "plan_rule_text", "plan_text", "sampling", "service", "verifier",
}  # fmt: skip
#: Rooms with a catalogue of reasons, and of which modules it says everything (of migration: all but those above).
SPEAKING = {
    "migration": (),
    "gateway": (  # deliveries, neighbours, disks
        "gateway/ahead", "gateway/alternates", "gateway/associations", "gateway/commitments_asked", "gateway/courier",
        "gateway/deliveries", "gateway/fetching", "gateway/hl7/sender", "gateway/orthanc_jobs", "gateway/outgoing",
        "gateway/own_sender", "gateway/retrieves", "gateway/transcoding", "zambezi/breakers", "zambezi/disk",
        "zambezi/outbox",
    ),
    "operations": (  # devices, health
        "operations/echoing", "operations/modality_desk", "operations/backup/schedule", "plugins/versions",
    ),
}  # fmt: skip


def folder(room: str) -> Path:
    return Path(str(import_module(room).__file__)).parent


def catalogue(room: str) -> dict[str, tuple[str, ...]]:
    said: dict[str, tuple[str, ...]] = {}
    for file in sorted(folder(room).rglob("translations/*pt.po")):
        if file.name == phrases.FILE:
            continue
        with file.open("rb") as source:
            found = {_id(one.id): _forms(one.string) for one in pofile.read_po(source, locale="pt_PT") if one.id}
        assert {one: forms for one, forms in found.items() if said.setdefault(one, forms) != forms} == {}, file
    return said


def sentences(room: str) -> dict[str, str]:
    """What a room's catalogue of reasons says."""
    with (folder(room) / "translations" / phrases.FILE).open("rb") as source:
        return {str(one.id): str(one.string) for one in pofile.read_po(source, locale="pt_PT") if one.id}


@pytest.mark.parametrize("room", SPEAKING)
def test_every_reason_that_a_page_shows_has_its_portuguese(room: str):
    """What an earlier version wrote may stay in the catalogue: rows of that time hold it."""
    files = [folder(room).parent / f"{module}.py" for module in SPEAKING[room]]
    if room == "migration":
        files = [one for one in folder(room).rglob("*.py") if not re.search("commands$|pages$", one.stem)]
        files = [one for one in files if one.stem not in NOT_ON_PAGES]
    said, wanted = sentences(room), reasons.of(sorted(files))
    elsewhere = {*ABILITIES, *LINKS, summary.OPEN}  # labels, which pages translate as such
    assert {one: place for one, place in wanted.items() if one not in said and one not in elsewhere} == {}
    facts = re.compile(r"\{[0-9]\}")
    assert [one for one, words in said.items() if sorted(facts.findall(one)) != sorted(facts.findall(words))] == []
    assert [one for one, words in said.items() if not words] == []


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
    for room in SPEAKING:
        for one, words in sentences(room).items():
            assert said.setdefault(one, (words,)) == (words,), f"{one!r} in the reasons of {room}"


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
