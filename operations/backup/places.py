"""What lies where in a backup, and how far a restore into a folder is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from zambezi import durable

#: What is copied, by its path below ZAMBEZI_HOME; the first is made anew for each backup.
STAGING, STORAGE, HELD = "backup/staging", "orthanc/storage", "hold"


@dataclass
class Mark:
    """How far a restore is: which snapshot of which repository, and the steps that are done."""

    repository: str
    snapshot: str
    done: list[str] = field(default_factory=list)

    @staticmethod
    def file(home: Path) -> Path:
        return home / "backup" / "restore.json"

    @classmethod
    def read(cls, home: Path) -> Mark | None:
        try:
            return cls(**json.loads(cls.file(home).read_bytes()))
        except FileNotFoundError:
            return None

    def write(self, home: Path) -> None:
        durable.replace(self.file(home), json.dumps(asdict(self)).encode())
