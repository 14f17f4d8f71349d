"""The table of contents (zambezi/composition.py) and what it promises."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from flask import Flask

from zambezi import clock, composition, config, keys
from zambezi.access import PERMISSIONS, PUBLIC, SIGNED_IN
from zambezi.cli import root
from zambezi.environment import REPOSITORY, Environment


@pytest.mark.parametrize("word", sorted(composition.COMMANDS))
def test_a_command_is_there_and_says_what_it_is_for(word: str):
    command = composition.load(composition.COMMANDS[word])
    assert isinstance(command, click.Command)
    assert command.get_short_help_str()


@pytest.mark.parametrize("dotted", composition.PAGE_SETS)
def test_a_page_set_is_there(dotted: str):
    assert composition.load(dotted).name


def test_every_view_says_who_may_see_it(app: Flask):
    tags = {endpoint: getattr(view, "zambezi_requires", None) for endpoint, view in app.view_functions.items()}
    known = {*PERMISSIONS, PUBLIC, SIGNED_IN}
    assert {endpoint: tag for endpoint, tag in tags.items() if tag not in known} == {}


def test_no_view_takes_a_path_that_the_front_door_gives_to_orthanc(app: Flask):
    taken = ("/dicom-web", "/wado", "/web-viewer", "/orthanc", "/zambezi", "/viewer")
    assert [rule.rule for rule in app.url_map.iter_rules() if rule.rule.startswith(taken)] == []


def commands() -> list[str]:
    """Every command there is, as it is typed after `zambezi`."""
    found = []
    for word in composition.COMMANDS:
        command = root.get_command(click.Context(root), word)
        if isinstance(command, click.Group):
            found += [f"{word} {name}" for name in command.commands]
        else:
            found.append(word)
    return sorted(found)


def test_every_command_is_in_the_administrators_manual():
    manual = (REPOSITORY / "docs" / "administrator.md").read_text(encoding="utf-8")
    assert [command for command in commands() if f"zambezi {command}" not in manual] == []


@pytest.fixture
def app(tmp_path: Path) -> Flask:
    """The RIS with every page set, on an empty database that nobody asks."""
    from ris_service.app import create_app
    from zambezi.database.engine import connect, sessions

    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path)})
    settings = config.load(REPOSITORY / "orthanc-config", {}).zambezi
    made = keys.load_or_create(environment.keys_file)
    return create_app(environment, settings, sessions(connect(environment.database_url, "ris"), "ris"), made, clock.now)
