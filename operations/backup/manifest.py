"""The list of what a backup holds, by which a restore is proven.

`manifest.json`: when, by which version, rows of every table, sums. `attachments.tsv`: every file of Orthanc's storage
(sort, Orthanc id, SOP Instance UID, bytes, MD5, name of the file; sort 1 is DICOM). `state.tsv`: every other file (path
below ZAMBEZI_HOME, bytes, SHA-256). The hold's files are named by their SHA-256.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from operations.backup.repository import BackupFault
from zambezi import durable

FORMAT = "zambezi backup 1"
ATTACHMENTS, STATE, HOLD, MANIFEST = "attachments.tsv", "state.tsv", "hold.txt", "manifest.json"
_DICOM = 1


@dataclass(frozen=True)
class Attachment:
    """A file of Orthanc's storage; `md5` is of the bytes on disk, "" where Orthanc keeps none."""

    sort: int
    orthanc_id: str
    sop_uid: str
    size: int
    md5: str
    name: str

    @property
    def path(self) -> str:
        """Where it lies, below ZAMBEZI_HOME."""
        return f"orthanc/storage/{self.name[:2]}/{self.name[2:4]}/{self.name}"


@dataclass(frozen=True)
class Manifest:
    """What manifest.json says.

    `databases`: engine ("sqlite", "postgresql") of `central` and `index`; `rows`: of every table, by database (a
    journal by its path below ZAMBEZI_HOME). `senders`: AE titles with how many instances each sent. `variables`:
    ZAMBEZI_* of the installation, without passwords.
    """

    taken_at: str
    version: str
    home: str
    databases: dict[str, str]
    rows: dict[str, dict[str, int]]
    instances: int = 0
    attachments: int = 0
    bytes: int = 0
    held: int = 0
    last_stored_at: str = ""
    senders: dict[str, int] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT

    def write(self, folder: Path) -> None:
        durable.replace(folder / MANIFEST, json.dumps(asdict(self), indent=1, sort_keys=True).encode())

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """BackupFault where it is none, or one of a later version."""
        try:
            found: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
            if found["format"] != FORMAT:
                raise BackupFault(
                    f"this backup is written as {found['format']!r}; the version of Zambezi that wrote it restores it"
                )
            return cls(**found)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackupFault(f"{folder / MANIFEST} is not the list of a backup: {error!r}") from error


def write_attachments(folder: Path, rows: Iterable[Sequence[Any]]) -> tuple[int, int, int]:
    """Write attachments.tsv from rows in its order; how many instances, files and bytes that are."""
    instances = files = total = 0
    with (folder / ATTACHMENTS).open("w") as out:
        for sort, orthanc_id, sop_uid, length, md5, name in rows:
            out.write(f"{sort}\t{orthanc_id}\t{sop_uid.strip()}\t{length}\t{md5}\t{name}\n")
            instances += sort == _DICOM
            files += 1
            total += int(length)
    return instances, files, total


def attachments(folder: Path) -> Iterator[Attachment]:
    """Every line of attachments.tsv."""
    with (folder / ATTACHMENTS).open() as lines:
        for line in lines:
            sort, orthanc_id, sop_uid, length, md5, name = line.rstrip("\n").split("\t")
            yield Attachment(int(sort), orthanc_id, sop_uid, int(length), md5, name)


def write_state(folder: Path, home: Path) -> None:
    """Write state.tsv of every file below `home` (the copies in the backup)."""
    with (folder / STATE).open("w") as out:
        for file in sorted(home.rglob("*")):
            if file.is_file():
                out.write(f"{file.relative_to(home)}\t{file.stat().st_size}\t{digest(file, 'sha256')}\n")


def state(folder: Path) -> Iterator[tuple[str, int, str]]:
    """Path, bytes and SHA-256 of every line of state.tsv."""
    with (folder / STATE).open() as lines:
        for line in lines:
            path, length, sha256 = line.rstrip("\n").split("\t")
            yield path, int(length), sha256


def write_hold(folder: Path, names: Iterable[str]) -> int:
    """Write hold.txt: the digests that the hold's files are named by; how many."""
    found = sorted(names)
    (folder / HOLD).write_text("".join(f"{name}\n" for name in found))
    return len(found)


def hold(folder: Path) -> list[str]:
    """The digests in hold.txt."""
    return (folder / HOLD).read_text().split()


def digest(file: Path, algorithm: str) -> str:
    """Lower-case hex digest of a file (MD5 is Orthanc's)."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
