"""Rules in force: what can be taken while Orthanc runs, and what can't."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from plugins.rules import Rules
from zambezi.config import ConfigurationFaults
from zambezi.environment import REPOSITORY

STRICT, MILD = {"MissingIdentity": "refuse"}, {"MissingIdentity": "hold"}


def write(folder: Path, admission: dict[str, str]) -> None:
    (folder / "30-zambezi.json").write_text(json.dumps({"Zambezi": {"Admission": admission}}))


def test_admission_changes_while_it_runs_but_can_only_begin_with_a_start(tmp_path: Path):
    """The callback is registered at the start of Orthanc, and only where something is asked for."""
    folder = Path(shutil.copytree(REPOSITORY / "orthanc-config", tmp_path / "config"))
    plain = Rules(folder, {})
    write(folder, STRICT)
    with pytest.raises(ConfigurationFaults, match="zambezi down"):
        plain.read()
    assert not plain.admits, "it goes on as it was"
    strict = Rules(folder, {})
    assert strict.admits
    for changed in (MILD, {}):
        write(folder, changed)
        assert strict.read().zambezi.admission != strict.now.zambezi.admission
