"""An inventory says how far it is, and ends with its source's window."""

from __future__ import annotations

from datetime import time
from types import SimpleNamespace

import pytest

from migration import source_commands
from migration.desk import Closed
from zambezi.config.settings import Migration, MigrationSource, Window, Zambezi


def office(*windows: Window):
    source = MigrationSource(peer="legacy", windows=windows or (Window(),))
    settings = Zambezi(migration=Migration(sources={"LEGACY": source}))
    return SimpleNamespace(configuration=SimpleNamespace(zambezi=settings))


def test_it_is_said_every_few_seconds_how_far_an_inventory_is(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(source_commands.time, "monotonic", lambda: now[0])
    step = source_commands.steps(office(), "LEGACY")
    for second in range(9):
        now[0] = float(second)
        step(f"question {second}")
    assert capsys.readouterr().err.split("\n") == ["  question 4", "  question 8", ""]


def test_an_inventory_ends_with_the_window():
    never = office(Window(days=(), from_=time(0), to=time(1)))
    with pytest.raises(Closed, match="the window of LEGACY has closed"):
        source_commands.steps(never, "LEGACY")("question 1")
