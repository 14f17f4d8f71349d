"""Encryption at rest: which of the places that hold patients' data, or keys, lie on encrypted volumes.

Linux says it of itself: a volume that dm-crypt (LUKS) opens has a `dm/uuid` that begins with CRYPT-, and what lies on
top of it names it under `slaves/`. Nothing is asked but files below /sys and /proc, so no rights are needed.
`look` decides from such a tree, wherever it is: a recorded one in tests. What can't be seen is said to be unknown: a
disk that encrypts itself, a volume of another machine, a container's own layer.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from zambezi.environment import Environment

#: dm-crypt's ways that make what lies below unreadable; CRYPT-VERITY and CRYPT-INTEGRITY do not.
_CIPHERS = {"LUKS1": "LUKS1", "LUKS2": "LUKS2", "PLAIN": "dm-crypt", "TCRYPT": "VeraCrypt", "BITLK": "BitLocker"}
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_CONTAINER = ("overlay", "aufs")
#: File systems that say of no device of this machine whether it is encrypted.
_BY_ITSELF = {"zfs": "ZFS encrypts by itself: `zfs get encryption` says it", "ecryptfs": "eCryptfs"}
#: Volumes lie on volumes; no real stack is as deep.
_DEEPEST = 16
_POSTGRESQL = Path("/var/lib/postgresql")


@dataclass(frozen=True)
class Place:
    """Something that lies somewhere: `what` is one of WORDS; `hint` is what a person should know besides.

    `path` is None where it lies on another machine; `hint` says on which.
    """

    what: str
    path: Path | None
    hint: str = ""


@dataclass(frozen=True)
class Found:
    """A place and its state: encrypted, plain, memory (gone without power) or unknown, and by what that is known."""

    what: str
    path: str
    state: str
    because: str

    @property
    def line(self) -> str:
        """For a terminal."""
        said = {"plain": "not encrypted", "memory": "in memory"}.get(self.state, self.state)
        return f"{WORDS[self.what]}{' ' + self.path if self.path else ''}: {said} ({self.because})"


WORDS = {
    "data": "data folder",
    "images": "images",
    "index": "Orthanc's index",
    "viewer": "web viewer's cache",
    "database": "central database",
    "configuration": "configuration",
    "certificate": "key of the front door's certificate",
    "logs": "system journal",
    "temporary": "temporary files",
    "swap": "swap",
    "key": "key that opens a volume",
}
#: Where patients' data lie; of the others a person should know.
DATA = ("data", "images", "index", "viewer", "database")


def places(
    environment: Environment, orthanc: Mapping[str, object], environ: Mapping[str, str], root: Path = Path("/")
) -> list[Place]:
    """Everything that holds patients' data, or what opens them. `orthanc`: Orthanc's own configuration, merged."""
    viewer = orthanc.get("WebViewer")
    apart = {
        "images": orthanc.get("StorageDirectory"),
        "index": orthanc.get("IndexDirectory"),
        "viewer": viewer.get("CachePath") if isinstance(viewer, dict) else None,
    }
    home = environment.home.resolve()
    found = [Place("data", home)]
    found += [
        Place(what, Path(path).resolve())
        for what, path in apart.items()
        if isinstance(path, str) and path and not Path(path).resolve().is_relative_to(home)
    ]
    found += _central(environment)
    index = orthanc.get("PostgreSQL")
    if isinstance(index, dict) and index.get("EnableIndex") is True:
        found.append(_postgresql("index", str(index.get("Host") or "")))
    found.append(Place("configuration", environment.config_dir.resolve()))
    if environ.get("ZAMBEZI_TLS_KEY"):
        found.append(Place("certificate", Path(environ["ZAMBEZI_TLS_KEY"]).resolve()))
    journal = Path("/var/log/journal")
    if (root / journal.relative_to("/")).is_dir():
        found.append(Place("logs", journal))
    found.append(Place("temporary", Path(tempfile.gettempdir()).resolve()))
    return [*found, *_swap(root), *_keys(root)]


def _central(environment: Environment) -> list[Place]:
    scheme, _, file = environment.database_url.partition(":///")
    if scheme == "sqlite":
        path = Path(file).resolve()
        return [] if path.is_relative_to(environment.home.resolve()) else [Place("database", path)]
    return [_postgresql("database", urlsplit(environment.database_url).hostname or "")]


def _postgresql(what: str, host: str) -> Place:
    if host in ("", "localhost", "127.0.0.1", "::1") or host.startswith("/"):
        return Place(what, _POSTGRESQL, "if PostgreSQL's data_directory lies where Debian puts it")
    return Place(what, None, f"on {host}: look there")


def _swap(root: Path) -> list[Place]:
    lines = _read(root / "proc/swaps").splitlines()[1:]
    return [Place("swap", Path(line.split()[0].replace("\\040", " "))) for line in lines if line.split()]


def _keys(root: Path) -> list[Place]:
    """Files with keys that /etc/crypttab names: on a plain volume they open the other one to whoever takes the disk."""
    rows = [line.split() for line in _read(root / "etc/crypttab").splitlines() if not line.lstrip().startswith("#")]
    return [
        Place("key", Path(row[2]))
        for row in rows
        if len(row) > 2 and row[2].startswith("/") and not row[2].startswith("/dev/")
    ]


def look(wanted: Iterable[Place], root: Path = Path("/")) -> list[Found]:
    """The state of each place, from the files of this machine (or of a recorded one) below `root`."""
    machine = _Machine(root)
    found = []
    for one in wanted:
        state, because = machine.of_path(one.path) if one.path else ("unknown", "")
        found.append(Found(one.what, str(one.path or ""), state, "; ".join(filter(None, (because, one.hint)))))
    return found


def lines(found: Sequence[Found]) -> list[str]:
    """For a terminal: a sentence each for patients' data, one for all that lies outside of encrypted volumes."""
    out = [f"{'!' if one.state == 'plain' else ' '} at rest: {one.line}" for one in found if one.what in DATA]
    others = [one.line for one in found if one.what not in DATA and one.state in ("plain", "unknown")]
    return out + ([f"  at rest, besides: {'; '.join(others)}"] if others else [])


def complaint(found: Iterable[Found]) -> str:
    """What somebody must know before a disk is stolen; empty where no plain volume is seen."""
    plain = [one for one in found if one.what in DATA and one.state == "plain"]
    named = ", ".join(f"{WORDS[one.what]} ({one.path})" for one in plain)
    said = f"not encrypted at rest: {named}; whoever takes the disk reads names and images (docs/encryption.md)"
    return said if plain else ""


@dataclass(frozen=True)
class _Mount:
    device: str
    point: Path
    kind: str
    source: str


class _Machine:
    """What lies on what."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._mounts = [_mount(line) for line in _read(root / "proc/self/mountinfo").splitlines() if " - " in line]

    def of_path(self, path: Path, depth: int = 0) -> tuple[str, str]:
        if path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm"):  # noqa: S108  a name, nothing is made
            return self._device(Path(path.name) if path.parent == Path("/dev") else self._target(path), depth)
        over = [one for one in self._mounts if path.is_relative_to(one.point)]
        if not over or depth > _DEEPEST:
            return "unknown", "no file system is seen for it"
        # Of two on one point the later one lies on top.
        mount = max(reversed(over), key=lambda one: len(one.point.parts))
        if mount.kind in _MEMORY:
            return "memory", mount.kind
        if mount.kind in _CONTAINER:
            return "unknown", "a container's own layer: look on its host"
        if mount.kind in _BY_ITSELF:
            return ("encrypted" if mount.kind == "ecryptfs" else "unknown"), _BY_ITSELF[mount.kind]
        if not mount.device.startswith("0:"):
            return self._block(self._root / "sys/dev/block" / mount.device, depth)
        if mount.source.startswith("/dev/"):  # btrfs: one file system on several devices has a number of its own
            return self.of_path(Path(mount.source), depth + 1)
        return "unknown", f"{mount.kind} from {mount.source}: look there"

    def _target(self, path: Path) -> Path:
        """/dev/mapper/NAME and /dev/disk/by-*/NAME are links to /dev/dm-0, /dev/sda1 ..."""
        link = self._root / path.relative_to("/")
        return Path(link.readlink().name) if link.is_symlink() else Path(path.name)

    def _device(self, name: Path, depth: int) -> tuple[str, str]:
        return self._block(self._root / "sys/class/block" / name, depth)

    def _block(self, folder: Path, depth: int) -> tuple[str, str]:
        if not folder.is_dir() or depth > _DEEPEST:
            return "unknown", "/sys doesn't show its device in here; look on the host"
        folder = folder.resolve()
        name = folder.name
        if name.startswith(("zram", "ram")):
            return "memory", name
        uuid = _read(folder / "dm/uuid").strip()
        kind = uuid.split("-")[1] if uuid.startswith("CRYPT-") and uuid.count("-") > 1 else ""
        if kind in _CIPHERS:
            return "encrypted", f"{_CIPHERS[kind]}, {_read(folder / 'dm/name').strip() or name}"
        backing = _read(folder / "loop/backing_file").strip()
        if backing:
            state, because = self.of_path(Path(backing), depth + 1)
            return state, f"{because}, by {name}"
        if (folder / "partition").exists():
            return self._named(name, self._block(folder.parent, depth + 1))
        below = sorted((folder / "slaves").iterdir()) if (folder / "slaves").is_dir() else []
        if not below:
            return "plain", name
        return _together([self._block(one, depth + 1) for one in below])

    @staticmethod
    def _named(name: str, found: tuple[str, str]) -> tuple[str, str]:
        return (found[0], name) if found[0] == "plain" else found


def _together(found: list[tuple[str, str]]) -> tuple[str, str]:
    """A volume on several is as open as the most open of them."""
    for state in ("plain", "unknown", "encrypted", "memory"):
        those = [because for one, because in found if one == state]
        if those:
            return state, "; ".join(dict.fromkeys(those))
    return "unknown", "nothing is seen below it"


def _mount(line: str) -> _Mount:
    """A line of /proc/self/mountinfo (proc(5)): ... MAJOR:MINOR ROOT POINT ... - KIND SOURCE ..."""
    fields, _, rest = line.partition(" - ")
    device, point = fields.split()[2], fields.split()[4]
    kind, source = rest.split()[:2]
    return _Mount(device, Path(_unescaped(point)), kind, _unescaped(source))


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
