"""restic (Debian's package) as the store of backups: encrypted, incremental, verified by reading back.

Each call is one restic of its own, which dies with us. What it complains of becomes a sentence that says what to do.
"""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from operations.recovery import die_with_parent
from zambezi import durable

#: The name under which every snapshot is written, so that one machine follows another in the same repository.
HOST = "zambezi"
#: A snapshot that was found whole; and what was sent ahead, or has not been looked at yet: nobody restores that.
WHOLE, AHEAD = "zambezi", "ahead"
#: Letters and digits that nobody confuses on paper; 30 of them are 148 bits.
_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"
#: restic says so seldom how far it is (times a second).
_PROGRESS = "0.2"

Say = Callable[[str], None]


class BackupFault(Exception):
    """A backup or restore can't go on; the text says where, what was found and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """One backup: its id, when it was taken (as restic writes it, UTC or with an offset), its tags."""

    snapshot_id: str
    time: str
    tags: tuple[str, ...]


class Repository:
    """A restic repository: a folder, or sftp:USER@HOST:/folder; `own` is ZAMBEZI_HOME/backup (password, cache, key)."""

    def __init__(self, address: str, own: Path, upload_kbps: int | None = None) -> None:
        self.address = address
        self._own = own
        self._limits = ["--limit-upload", str(max(1, upload_kbps // 8))] if upload_kbps else []

    @property
    def password_file(self) -> Path:
        return self._own / "password"

    @property
    def folder(self) -> Path | None:
        """Where it lies on this machine; None where it is on another."""
        return Path(self.address) if self.address.startswith("/") else None

    def initialise(self) -> str:
        """Make the repository and its password (kept in `password_file`, mode 0600); the password."""
        if self.password_file.exists():
            password = self.password_file.read_text().strip()
        else:
            drawn = "".join(secrets.choice(_LETTERS) for _ in range(30))
            password = "-".join(drawn[n : n + 5] for n in range(0, 30, 5))
            durable.replace(self.password_file, password.encode())
        self._said(["init"])
        return password

    def look(self) -> None:
        """Raise BackupFault unless the repository is there and opens with our password."""
        self._said(["cat", "config"])

    def unlock(self) -> None:
        """Take away the locks of restics that died."""
        self._said(["unlock"])

    def snapshots(self, tag: str = WHOLE) -> list[Snapshot]:
        """The snapshots with this tag, oldest first."""
        found = json.loads(self._said(["snapshots", "--json", "--host", HOST, "--tag", tag])) or []
        made = [Snapshot(one["id"], one["time"], tuple(one.get("tags") or ())) for one in found]
        return sorted(made, key=lambda one: one.time)

    def backup(self, base: Path, paths: Sequence[str], say: Say) -> str:
        """Write a snapshot of paths below `base`, by their names there; its id. Says how far it is."""
        command = ["backup", "--json", "--host", HOST, "--tag", AHEAD, "--", *paths]
        snapshot = ""
        for line in self._lines(command, cwd=base):
            told = _json(line)
            if told.get("message_type") == "status":
                say(_progress(told))
            elif told.get("message_type") == "summary":
                snapshot = str(told["snapshot_id"])
                added, whole = told["data_added"], told["total_bytes_processed"]
                say(f"  {told['total_files_processed']:,} files looked at, {size(whole)}; {size(added)} were new")
        if not snapshot:
            raise BackupFault("restic wrote no snapshot and gave no reason; run it again")
        return snapshot

    def declare_whole(self, snapshot: str) -> str:
        """From now on it is one to restore; its id, which is another by that."""
        self._said(["tag", "--set", WHOLE, snapshot])
        return self.snapshots()[-1].snapshot_id

    def files(self, snapshot: str) -> Iterator[tuple[str, int]]:
        """Path (`/orthanc/storage/...`) and bytes of every file in a snapshot."""
        for line in self._lines(["ls", "--json", snapshot]):
            node = _json(line)
            if node.get("type") == "file":
                yield str(node["path"]), int(node.get("size", 0))

    def restore(self, snapshot: str, target: Path, include: str) -> None:
        """Write what matches a pattern below `target`."""
        self._said(["restore", snapshot, "--target", str(target), "--include", include])

    def check(self, subset: str) -> None:
        """Read the repository's structure and a subset (`3/30`, `100%`) of its data; BackupFault: it is damaged."""
        self._said(["check", f"--read-data-subset={subset}"])

    def forget(self, keep: Sequence[str]) -> None:
        """Forget and remove old snapshots; `keep` as restic's options."""
        self._said(["forget", "--host", HOST, "--tag", WHOLE, "--group-by", "host", "--prune", *keep])

    def forget_ahead(self) -> None:
        """What was sent ahead is in a whole snapshot by now."""
        ahead = [one.snapshot_id for one in self.snapshots(AHEAD)]
        if ahead:
            self._said(["forget", *ahead])

    def _said(self, words: Sequence[str]) -> str:
        return "\n".join(self._lines(words))

    def _lines(self, words: Sequence[str], cwd: Path | None = None) -> Iterator[str]:
        program = shutil.which("restic")
        if not program:
            raise BackupFault("restic is not installed; as root: apt-get install restic")
        command = [program, "--cleanup-cache", *self._limits, *self._ssh(), *words]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("RESTIC_")} | {
            "RESTIC_REPOSITORY": self.address,
            "RESTIC_PASSWORD_FILE": str(self.password_file),
            "RESTIC_CACHE_DIR": str(self._own / "cache"),
            "RESTIC_PROGRESS_FPS": _PROGRESS,
        }
        self._own.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile("w+") as complaints:
            process = subprocess.Popen(
                command, env=environ, cwd=cwd, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=complaints, preexec_fn=die_with_parent,
            )  # fmt: skip
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    yield line.rstrip("\n")
            finally:
                if process.poll() is None:
                    process.terminate()
                code = process.wait()
            if code:
                complaints.seek(0)
                raise BackupFault(self._sentence(words[0], code, complaints.read()))

    def _ssh(self) -> list[str]:
        """How a repository on another machine is reached: with a key that lies with us, and hosts that we know."""
        if not self.address.startswith("sftp:"):
            return []
        host = self.address.split(":")[1]
        how = ["ssh", host, "-i", str(self._own / "ssh-key"), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
               "-o", f"UserKnownHostsFile={self._own / 'known_hosts'}"]  # fmt: skip
        if (self._own / "ssh-config").exists():
            how += ["-F", str(self._own / "ssh-config")]
        return ["-o", f"sftp.command={shlex.join([*how, '-s', 'sftp'])}"]

    def _sentence(self, what: str, code: int, complaints: str) -> str:
        lines = [line.strip() for line in complaints.splitlines() if line.strip()]
        last = next((line for line in reversed(lines) if line.startswith("Fatal:")), lines[-1] if lines else "")
        text = complaints.lower()
        if "wrong password" in text or "no key found" in text:
            return (
                f"the password in {self.password_file} is not the one of the repository {self.address}: "
                "take the one from the envelope"
            )
        if "sftp session" in text:
            said = next((line for line in lines if not line.startswith("Fatal:")), last)
            return (
                f"{self.address} can't be reached: {said}. Our SSH key is {self._own / 'ssh-key'}, the host's line "
                f"belongs into {self._own / 'known_hosts'} (ssh-keyscan HOST), a port and the like into "
                f"{self._own / 'ssh-config'}"
            )
        if "already initialized" in text or "config file already exists" in text:
            return f"there is a repository at {self.address} already; `zambezi backup list` shows what is in it"
        if "is there a repository" in text or "does not exist" in text or ("no such file" in text and what != "backup"):
            return (
                f"there is no repository at {self.address}: is the disk plugged in and mounted? "
                "The first time: zambezi backup init"
            )
        if "permission denied" in text and self.folder:
            return (
                f"{self.address} belongs to another account (another machine's, perhaps): {last}. As root: "
                f"chown -R {pwd.getpwuid(os.geteuid()).pw_name} {self.address}"
            )
        if "already locked" in text:
            return f"another restic works in {self.address} ({last}); wait until it is done"
        if "no space left" in text:
            return f"no space is left at {self.address}: give it more, or keep fewer backups (Backup.KeepDaily ...)"
        if what == "check":
            faults = [line for line in lines if not line.startswith("Fatal:")]
            shown = "; ".join(faults[:5] or lines[:5])
            return (
                f"the repository {self.address} is damaged: {shown}. Make a new one on a sound disk "
                "(`zambezi backup init` with another Repository), and keep this one until that is whole"
            )
        if what == "backup" and code == 3:
            return f"files could not be read, so the backup is not whole: {'; '.join(lines[:5])}"
        return f"restic {what} failed ({code}): {last or 'no reason given'}"


def size(number: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _progress(told: dict[str, Any]) -> str:
    done, of = told.get("bytes_done", 0), told.get("total_bytes", 0)
    seconds = told.get("seconds_elapsed", 0)
    rate = f", {size(done / seconds)} a second" if seconds else ""
    left = told.get("seconds_remaining", 0)
    remaining = f", about {left // 3600:.0f} h {left % 3600 // 60:02.0f} min left" if left else ""
    return f"  {told.get('percent_done', 0):4.0%}  {size(done)} of {size(of)}{rate}{remaining}"


def _json(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}  # restic says some things in words
    return found if isinstance(found, dict) else {}
