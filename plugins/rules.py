"""The rules in force: read from the snapshot of the configuration that Orthanc was started with, and reloaded whole.

A reload checks first; with a fault the rules at hand stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zambezi import admission, config
from zambezi.config import Configuration, ConfigurationFaults, Fault


class Rules:
    """`now` is the configuration in force; every decision carries its hash."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = environ
        self.now: Configuration = config.load(folder, environ)
        #: Whether each C-STORE is looked at: a callback can be registered at the start of Orthanc alone.
        self.admits = admission.asks(self.now.zambezi.admission)

    def read(self) -> Configuration:
        """What is in the folder now, checked; whoever asked sets `now` to it once all of it can be taken."""
        found = config.load(self._folder, self._environ)
        if admission.asks(found.zambezi.admission) and not self.admits:
            what = "the archive was started without it, and can't begin with it while it runs: zambezi down, zambezi up"
            raise ConfigurationFaults([Fault("", "Zambezi.Admission", what)])
        return found

    def tried(self, section: Mapping[str, Any]) -> Configuration:
        """The rules in the folder with these keys of the Zambezi section in place of theirs; nothing is taken."""
        return config.load(self._folder, self._environ, section)
