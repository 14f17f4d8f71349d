"""How a process begins."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from zambezi.starting import importing

A_PROCESS = """
import gc
print("collects" if gc.isenabled() else "at rest", __name__)
def main():
    print("collects" if gc.isenabled() else "at rest", gc.get_freeze_count() > 1000)
    return 3
"""


def test_a_module_is_imported_while_nothing_is_collected_and_its_main_gives_the_exit_code(tmp_path: Path):
    (tmp_path / "a_process.py").write_text(A_PROCESS)
    done = subprocess.run(
        [sys.executable, "-m", "zambezi.starting", "a_process"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines()) == (3, ["at rest a_process", "collects True"])


def test_what_fails_to_be_imported_leaves_the_collector_at_work():
    with pytest.raises(ImportError), importing():
        raise ImportError
    assert gc.isenabled()
    gc.unfreeze()
