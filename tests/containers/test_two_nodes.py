"""docker/compose.two-nodes.yml with the coercing port: what comes to either node is there, and recorded, once."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import requests

from tests import invariants
from tests.containers.installation import COMPOSED, Installation, an_installation

FILES = (*COMPOSED, "docker/compose.demo.yml", "docker/compose.two-nodes.yml")
ONE, TWO, COERCING = 4242, 4252, 4244
SLICES = 3

#: The demo's CT, known by its address inside of the pod, sends slices of a study to a port.
SEND = """
import sys, tempfile
from pathlib import Path
from demo import images
from demo.modality import Modality
port, uid, count = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
exam = images.Exam(f"N{uid[-6:]}", "Moyo^Tendai", "19800101", "M", "", uid, "20260101")
Modality("CT1", port, 0).store(images.ct_slices(exam, count, Path(tempfile.mkdtemp())))
"""

#: Prints how many images of each study each node has (null: it does not answer), and how often each was recorded.
SEEN = """
import json, os, sys
from sqlalchemy import select
from zambezi import keys
from zambezi.database.engine import connect
from zambezi.database.tables import AuditEntry
from zambezi.environment import Environment, take_secrets
from zambezi.orthanc_client import OrthancClient, OrthancUnreachable
take_secrets(os.environ)
environment, seen = Environment.read(), {}
for node in environment.nodes:
    asked = OrthancClient(environment, keys.load(environment.keys_file), "operations", only=node)
    try:
        seen[node.name] = [len(asked.find("Instance", {"StudyInstanceUID": uid})) for uid in sys.argv[1:]]
    except OrthancUnreachable:
        seen[node.name] = None
with connect(environment.database_url, "test").begin() as connection:
    seen["recorded"] = [
        connection.execute(
            select(AuditEntry.sop_uid).where(AuditEntry.event == "stored", AuditEntry.study_uid == uid)
        ).scalars().all()
        for uid in sys.argv[1:]
    ]
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def nodes(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with an_installation(tmp_path_factory.mktemp("compose"), "nodes", FILES) as running:
        running.wait_until_healthy(240)
        running.wait_until_ready("orthanc-two", 120)
        yield running


def inside(nodes: Installation, *command: str) -> str:
    """What a program says inside of the pod, where the modalities of the demo are at home."""
    code, said = nodes.run("operations", *command)
    assert code == 0, said[-2000:]
    return said.strip()


def python(nodes: Installation, program: str, *words: str) -> str:
    return inside(nodes, "/opt/zambezi/.venv/bin/python", "-c", program, *words)


def send(nodes: Installation, port: int) -> str:
    """The CT sends a new study to a port; its UID."""
    uid = f"2.25.{uuid.uuid4().int}"
    python(nodes, SEND, str(port), uid, str(SLICES))
    return uid


def what_is_wrong(nodes: Installation, uids: Sequence[str], answering: Sequence[str]) -> str:
    """ "" where every node that answers has each study whole, and every image is recorded once."""
    seen: dict[str, Any] = json.loads(python(nodes, SEEN, *uids))
    recorded = [(len(sops), len(set(sops))) for sops in seen.pop("recorded")]
    whole = {name: [SLICES] * len(uids) if name in answering else None for name in ("one", "two")}
    return "" if (seen, recorded) == (whole, [(SLICES, SLICES)] * len(uids)) else f"{seen}, recorded {recorded}"


def test_senders_and_viewers_go_on_with_the_other_node_and_everything_is_there_once(nodes: Installation):
    uids = [send(nodes, port) for port in (ONE, TWO, COERCING)]
    invariants.eventually("all of it is there", lambda: what_is_wrong(nodes, uids, ["one", "two"]), 60)
    token = inside(nodes, "zambezi", "token", "issue", "--kind", "emergency", "--name", "Noite")

    nodes.container("orthanc").kill()
    uids += [send(nodes, port) for port in (TWO, COERCING)]
    for uid in uids:
        asked = f"{nodes.front_url}/dicom-web/studies/{uid}/instances"
        answer = requests.get(asked, headers={"X-Zambezi-Token": token}, timeout=60)
        assert (answer.status_code, len(answer.json())) == (200, SLICES)
    invariants.eventually("the other node records", lambda: what_is_wrong(nodes, uids, ["two"]), 120)

    nodes.container("orthanc").start()
    nodes.wait_until_ready("orthanc", 120)
    uids.append(send(nodes, ONE))
    invariants.eventually("all of it is there", lambda: what_is_wrong(nodes, uids, ["one", "two"]), 60)
    inside(nodes, "zambezi", "audit", "verify")
