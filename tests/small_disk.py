"""A small file system for tests, and what fills it to the last byte."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Mounting takes root.
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root alone: run as root")


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A real file system of so many megabytes, there."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={megabytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "zambezi-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> Path:
    """Write zeros until there is no room at all; the file, whose removal gives the room back."""
    with file.open("wb", buffering=0) as out:
        while True:
            try:
                out.write(bytes(4096))
            except OSError:
                break
    assert shutil.disk_usage(file.parent).free == 0
    return file
