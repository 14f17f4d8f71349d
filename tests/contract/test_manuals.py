"""docs/: what the code has is in the manuals, in both languages, and what the manuals point at is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.contract.test_composition import commands
from zambezi.environment import REPOSITORY
from zambezi.events import EVENTS

DOCS = REPOSITORY / "docs"
ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", REPOSITORY / "orthanc-config" / "README.md", *sorted(DOCS.rglob("*.md"))]
#: For readers on thin lines.
LARGEST_PICTURE = 120_000


def test_every_event_is_in_the_table_of_journal_entries_with_its_code():
    _, _, table = ARCHITECTURE.partition("### Journal entries")
    told = dict(re.findall(r"^\| ([a-z0-9, -]+) \| (\d{6}) \|", table, flags=re.MULTILINE))
    codes = {event.strip(): code for events, code in told.items() for event in events.split(",")}
    assert codes == {event: code for event, (code, _action, _words) in EVENTS.items()}


def test_every_callback_is_in_the_table_with_what_happens_when_it_fails():
    """Read from the source: only Orthanc can import the entry script."""
    tree = ast.parse((REPOSITORY / "plugins" / "zambezi_plugin.py").read_text(encoding="utf-8"))
    value = next(n.value for n in tree.body if isinstance(n, ast.AnnAssign) and ast.unparse(n.target) == "CALLBACKS")
    assert isinstance(value, ast.Tuple)
    rows = [[ast.literal_eval(part) for part in row.elts[:3]] for row in value.elts if isinstance(row, ast.Tuple)]
    assert rows
    for name, kind, failing in rows:
        assert f"| `{name}` | {kind} | {failing} |" in ARCHITECTURE


def test_every_command_is_in_the_portuguese_manual():
    manual = (DOCS / "administrator.pt.md").read_text(encoding="utf-8")
    assert [command for command in commands() if f"zambezi {command}" not in manual] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_points_at_is_there(page: Path):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_every_picture_is_shown_somewhere_and_none_is_heavy():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    pictures = sorted((DOCS / "screenshots").glob("*.png"))
    assert [picture.name for picture in pictures if f"screenshots/{picture.name}" not in text] == []
    assert [picture.name for picture in pictures if picture.stat().st_size > LARGEST_PICTURE] == []
