"""Where a measured migration begins and ends: a plain Orthanc as the old archive, a meter on the line, processor time.

The old archive runs with Orthanc's own means alone, without anything of ours.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from demo.neighbours import free_port

#: As the archive's own configuration calls it, and what it is called.
NAME, AET = "BENCH", "OLDPACS"
USER, PASSWORD = "bench", "bench"
#: Associations, threads or studies at once, whoever moves.
AT_ONCE = 4

_TICKS = os.sysconf("SC_CLK_TCK")


class Post:
    """`POST /instances` by `AT_ONCE` threads, each on a connection of its own."""

    def __init__(self, port: int, user: str, password: str) -> None:
        self._port = port
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {token}", "Content-Type": "application/dicom"}

    def files(self, files: Sequence[Path], refused: Callable[[Path], None] | None = None) -> float:
        """Store them; seconds of this process's own work. RuntimeError at a refusal, unless somebody is told of it."""
        turns = iter(files)
        lock = threading.Lock()

        def work() -> float:
            begun = time.thread_time()
            with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)) as line:
                while True:
                    with lock:
                        file = next(turns, None)
                    if file is None:
                        return time.thread_time() - begun
                    line.request("POST", "/instances", file.read_bytes(), self._headers)
                    answer = line.getresponse()
                    said = answer.read()
                    if answer.status != 200 and refused is None:
                        raise RuntimeError(f"{file.name} was refused: {answer.status} {said[:200]!r}")
                    if answer.status != 200 and refused is not None:
                        refused(file)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            return sum(one.result() for one in [threads.submit(work) for _ in range(AT_ONCE)])


class Plain:
    """One Orthanc as Debian ships it, with more settings and environment where they are given."""

    def __init__(self, folder: Path, aet: str, settings: dict[str, Any], environment: dict[str, str]) -> None:
        self.aet, self.dicom_port, self.http_port = aet, free_port(), free_port()
        self._folder, self._settings, self._environment = folder, settings, environment
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True)

    def start(self, **settings: Any) -> None:
        """Start it, with these settings beside (None: Orthanc's default)."""
        given = {
            "DicomAet": self.aet, "DicomPort": self.dicom_port, "HttpPort": self.http_port, "Plugins": [],
            "StorageDirectory": str(self._folder / "storage"), "IndexDirectory": str(self._folder / "storage"),
            "RegisteredUsers": {USER: PASSWORD}, "AuthenticationEnabled": True, "DicomAlwaysAllowMove": True,
            "DicomAlwaysAllowGet": True, **self._settings, **settings,
        }  # fmt: skip
        file = self._folder / "orthanc.json"
        file.write_text(json.dumps({key: value for key, value in given.items() if value is not None}))
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                ["/usr/sbin/Orthanc", str(file)], env=_without_nodelay() | self._environment, stdout=log, stderr=log
            )
        for _ in range(400):
            try:
                self.ask("GET", "/system")
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"{self.aet} did not start; its log is {self._folder / 'log'}")

    def stop(self) -> None:
        """Stop it; what it has stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call of its REST API; the JSON of the answer."""
        token = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)) as line:
            content = None if body is None else json.dumps(body)
            line.request(method, path, content, {"Authorization": f"Basic {token}"})
            answer = line.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{self.aet}: {method} {path}: {answer.status} {said[:200]!r}")
            return json.loads(said or b"null")

    def fill(self, files: Sequence[Path]) -> None:
        """Hold these files and nothing else; its list of changes tells of nothing else, either."""
        for patient in self.ask("GET", "/patients"):
            self.ask("DELETE", f"/patients/{patient}")
        self.ask("DELETE", "/changes")
        self.post.files(files)

    @property
    def post(self) -> Post:
        return Post(self.http_port, USER, PASSWORD)

    def send_by(self, port: int) -> None:
        """What is moved to our archive goes to this port."""
        self.ask("PUT", "/modalities/ours", {"AET": "ZAMBEZI", "Host": "127.0.0.1", "Port": port})

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was not started"
        return self._process.pid


def _without_nodelay() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "TCP_NODELAY"}


class Meter:
    """A port that hands on to another one, and counts bytes on their way there (`sent`) and back (`answered`).

    All its connections together let so many bytes a second through on their way there, where a `limit` is given.
    """

    def __init__(self, to: int, limit: float | None = None) -> None:
        self.sent = self.answered = 0
        self._limit, self._free_at, self._lock = limit, 0.0, threading.Lock()
        self._to = to
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for begin, end, is_there in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._hand_on, args=(begin, end, is_there), daemon=True).start()

    def _wait_for(self, size: int) -> None:
        if self._limit is None:
            return
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic()) + size / self._limit
            until = self._free_at
        time.sleep(max(0.0, until - time.monotonic()))

    def _hand_on(self, begin: socket.socket, end: socket.socket, is_there: bool) -> None:
        buffer = bytearray(1 << 18)
        try:
            while size := begin.recv_into(buffer):
                if is_there:
                    self.sent += size
                    self._wait_for(size)
                else:
                    self.answered += size
                end.sendall(memoryview(buffer)[:size])
        except OSError:
            pass  # one side was killed: the other one hears of it below
        for one in (begin, end):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def busy(pids: Iterable[int]) -> float:
    """Processor seconds of these processes and all below them, those that have ended included."""
    wanted = set(pids)
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.read_text()
        except OSError:  # it has ended meanwhile
            continue
        fields = told.rpartition(")")[2].split()
        pid = int(stat.parent.name)
        parents[pid], ticks[pid] = int(fields[1]), sum(map(int, fields[11:15]))

    def is_ours(pid: int) -> bool:
        return pid in wanted or (parents.get(pid, 0) > 1 and is_ours(parents[pid]))

    return sum(ticks[pid] for pid in ticks if is_ours(pid)) / _TICKS


@contextmanager
def a_folder(name: str) -> Iterator[Path]:
    """A folder in memory that every account can read, so that reading it costs no disk."""
    for number in itertools.count():
        folder = Path("/dev/shm") / f"zambezi-{name}-{os.getpid()}-{number}"
        if not folder.exists():
            break
    folder.mkdir(mode=0o755)
    try:
        yield folder
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
