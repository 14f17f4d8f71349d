"""Orthanc's REST as custody uses it: what it holds, and what it does when it is told to misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file

from operations.custody.identity import identify
from operations.custody.worker import Desk
from zambezi import hold, holding
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Held
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancRefused, OrthancUnreachable

NOW = datetime(2026, 11, 21, 20, 0, tzinfo=UTC)


def sample(name: str) -> bytes:
    """One of pydicom's own files, which come with it."""
    return Path(get_testdata_file(name, download=False)).read_bytes()


def changed(content: bytes, **tags: str) -> bytes:
    """The same object with other values, by keyword."""
    dataset = dcmread(BytesIO(content))
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


class Archive:
    """Stands for Orthanc at its REST seam."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.is_away = False
        self.refuses = 0
        self.alters: Callable[[bytes], bytes] = lambda content: content
        self.asked: list[str] = []
        self.journal = {"journal": "orthanc", "seq": 0, "announced_generation": 10**9, "follower": {"lag": 0}}

    def _answer(self, what: str) -> None:
        self.asked.append(what)
        if self.is_away:
            raise OrthancUnreachable(f"{what}: ConnectionError")

    def put(self, content: bytes) -> str:
        orthanc_id = identify(content).orthanc_id
        assert orthanc_id
        self.files[orthanc_id] = content
        return orthanc_id

    def get(self, path: str, **_params: object) -> dict:
        self._answer(f"GET {path}")
        if path.startswith("/instances/"):
            return {"FileSize": len(self.files[path.removeprefix("/instances/")])}
        return self.journal

    def find(self, _level: str, query: dict[str, str], expand: bool = False) -> list[str]:
        self._answer("find")
        return [one for one, content in self.files.items() if identify(content).sop_uid == query["SOPInstanceUID"]]

    def file(self, orthanc_id: str) -> bytes:
        self._answer("file")
        if orthanc_id not in self.files:
            raise OrthancRefused("GET", f"/instances/{orthanc_id}/file", 404, "")
        return self.files[orthanc_id]

    def store(self, content: bytes) -> dict[str, str]:
        self._answer("store")
        if self.refuses:
            raise OrthancRefused("POST", "/instances", self.refuses, "")
        return {"ID": self.put(self.alters(content)), "Status": "Success"}

    def md5(self, orthanc_id: str) -> str:
        self._answer("md5")
        return hashlib.md5(self.files[orthanc_id], usedforsecurity=False).hexdigest()


class Room:
    """A desk with a database, a hold's folder and an archive; its clock is moved by hand."""

    def __init__(self, home: Path, url: str) -> None:
        self.environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url})
        home.mkdir(parents=True, exist_ok=True)
        engine = connect(url, "custody")
        self.sessions: Sessions = sessions(engine, "custody")
        self.archive = Archive()
        self.now = NOW
        self.folder = self.environment.hold_dir

    def desk(self, owner: str = "here/1") -> Desk:
        return Desk(self.environment, Zambezi(), self.sessions, self.archive, lambda: self.now, owner)

    def pass_by(self, **how: float) -> None:
        self.now += timedelta(**how)

    def hold(self, content: bytes, **how: object) -> int:
        """Put it into the hold, with its row; the row's id."""

        sha256 = hold.put(self.folder, content)
        given = {
            "sha256": sha256, "size": len(content), "why": "conflict", "reason": "other bytes came", "now": self.now,
            "reference": "journal 7", "writer": "custody", "state": "comparing", "sender": "CT1",
            **identify(content).columns, **how,
        }  # fmt: skip
        with self.sessions.begin() as session:
            return holding.hold(session, **given).id

    def row(self, held_id: int) -> Held:
        with self.sessions.begin() as session:
            return session.get_one(Held, held_id)
