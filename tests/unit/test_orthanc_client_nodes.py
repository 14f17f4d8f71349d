"""Several nodes behind one client: a node where nobody listens costs nothing, and the one that records speaks."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from zambezi import keys
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancUnreachable


class Node(ThreadingHTTPServer):
    """Answers each request with what it is told to, and counts them."""

    def __init__(self, told: dict[str, object]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.told, self.asked = told, 0
        self.silent = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def end(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Node

    def do_GET(self) -> None:
        self.server.asked += 1
        if self.server.silent.is_set():
            return  # the connection closes without an answer
        answer = json.dumps(self.server.told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def pair() -> Iterator[tuple[Node, Node]]:
    one = Node({"records": False, "epoch": 1, "announced_generation": 9, "node": "one"})
    two = Node({"records": True, "epoch": 2, "announced_generation": 7, "node": "two"})
    yield one, two
    one.end()
    two.end()


def client(folder: Path, one: int, two: int) -> OrthancClient:
    variables = {"ZAMBEZI_HOME": str(folder), "ZAMBEZI_NODES": f"one={one}/14242,two={two}/14243"}
    environment = Environment.read(variables)
    return OrthancClient(environment, keys.load_or_create(environment.keys_file), "gateway", timeout_s=5)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_where_nobody_listens_the_next_is_asked_and_stays_asked(tmp_path: Path, pair: tuple[Node, Node]):
    asking = client(tmp_path, closed_port(), pair[1].port)
    assert asking.post("/tools/find", {})["node"] == "two"
    assert asking.get("/system")["node"] == "two"


def test_what_may_have_been_done_is_not_asked_of_another(tmp_path: Path, pair: tuple[Node, Node]):
    pair[0].silent.set()
    asking = client(tmp_path, pair[0].port, pair[1].port)
    with pytest.raises(OrthancUnreachable):
        asking.post("/modalities/B/store", {})
    assert pair[1].asked == 0
    assert asking.get("/system")["node"] == "two"  # but the next request goes there


def test_the_archive_s_status_is_that_of_who_records_and_what_all_know(tmp_path: Path, pair: tuple[Node, Node]):
    told = client(tmp_path, pair[0].port, pair[1].port).get("/zambezi/status")
    assert (told["node"], told["announced_generation"], len(told["nodes"])) == ("two", 7, 2)


def test_nobody_answers(tmp_path: Path):
    asking = client(tmp_path, closed_port(), closed_port())
    for path in ("/zambezi/status", "/system"):
        with pytest.raises(OrthancUnreachable):
            asking.get(path)
