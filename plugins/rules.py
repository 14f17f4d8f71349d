"""The rules in force: read from the snapshot of the configuration that Orthanc was started with, and reloaded whole.

A reload checks first; with a fault the rules at hand stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zambezi import config
from zambezi.config import Configuration


class Rules:
    """`now` is the configuration in force; every decision carries its hash."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.now: Configuration = config.load(folder, environ)

    def read(self) -> Configuration:
        """What is in the folder now, checked; whoever asked sets `now` to it once all of it can be taken."""
        return config.load(self._folder, self._environ)

    def tried(self, section: Mapping[str, Any]) -> Configuration:
        """The rules in the folder with these keys of the Zambezi section in place of theirs; nothing is taken."""
        return config.load(self._folder, self._environ, section)
