"""What holds a container's process back, and where the secrets are: seen from inside and from the engine."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.containers.installation import IMAGES, LASTING, PASSING, PROCESSES, Installation
from zambezi.environment import REPOSITORY

MEGABYTES = {"orthanc": 4096, "ris": 512, "gateway": 768, "migration": 1024, "operations": 768, "front": 256,
             "postgres": 1024, "pod": 32}  # fmt: skip

#: Prints what the kernel says of the container's own process, of its root and of its limit (either kind of cgroups).
LOOK = r"""
grep -E '^(Uid|CapEff|CapPrm|CapBnd|NoNewPrivs):' /proc/1/status | tr -s '\t' ' '
echo "root $(awk '$2 == "/" { print $4 }' /proc/mounts)"
echo "limit $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null | head -1)"
"""


@pytest.mark.parametrize("service", LASTING)
def test_it_runs_without_root_without_capabilities_on_a_root_it_can_not_write_within_its_memory(
    empty: Installation, service: str
):
    code, said = empty.run(service, "bash", "-c", LOOK)
    assert code == 0, said
    seen = dict(re.split(r":? ", line, maxsplit=1) for line in said.splitlines())
    assert set(seen["Uid"].split()).isdisjoint({"0"}), seen
    assert {int(seen[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}, seen
    assert seen["NoNewPrivs"] == "1"
    assert "ro" in seen["root"].split(","), seen
    assert int(seen["limit"]) == MEGABYTES[service] << 20


def test_who_takes_more_memory_than_its_own_is_ended_and_the_neighbours_never_notice(empty: Installation):
    before = {name: empty.container(name).attrs["State"]["StartedAt"] for name in LASTING}
    code, _ = empty.run("front", "/usr/bin/python3", "-c", "b = bytearray(1 << 30); b[::4096] = b'x' * len(b[::4096])")
    assert code == 137  # SIGKILL by the kernel
    assert {name: empty.container(name).attrs["State"]["StartedAt"] for name in LASTING} == before
    empty.wait_until_ready("front", 20)


def test_what_a_container_says_can_not_fill_the_disk(empty: Installation):
    for service in (*PROCESSES, "postgres"):
        written = empty.container(service).attrs["HostConfig"]["LogConfig"]
        assert written["Config"] == {"max-size": "10m", "max-file": "5"}, service


def secrets(empty: Installation) -> list[str]:
    """PostgreSQL's password, the key that signs tokens, and every service's password."""
    code, password = empty.run("ris", "cat", "/run/zambezi-secrets/postgres-password")
    assert code == 0, password
    code, keys = empty.run("ris", "cat", "/var/lib/zambezi/keys.json")
    assert code == 0, keys
    made = json.loads(keys)
    return [password.strip(), made["session_key"], *made["services"].values()]


def test_secrets_are_files_of_their_readers_and_nobody_finds_them_at_the_engine_or_in_what_was_said(
    empty: Installation,
):
    known = secrets(empty)
    assert len(known) > 5 and min(map(len, known)) >= 30
    engine = empty.client.client
    told = {name: json.dumps(empty.container(name).attrs) for name in (*LASTING, *PASSING)}
    told |= {f"logs of {name}": empty.container(name).logs().decode() for name in (*LASTING, *PASSING)}
    told |= {image: json.dumps(engine.images.get(image).attrs) + json.dumps(engine.images.get(image).history())
             for image in IMAGES.values()}  # fmt: skip
    told |= {file.name: file.read_text() for file in Path(REPOSITORY, "docker").glob("compose*.yml")}
    assert [name for name, text in told.items() if any(secret in text for secret in known)] == []

    modes = "stat -c '%a %u' /run/zambezi-secrets /run/zambezi-secrets/* /var/lib/zambezi/keys.json; id -u"
    code, said = empty.run("ris", "bash", "-c", modes)
    assert (code, said.split("\n")[:4]) == (0, ["750 0", "440 0", "600 10001", "10001"])
    code, said = empty.run("ris", "bash", "-c", "echo x > /run/zambezi-secrets/postgres-password")
    assert code != 0 and "Read-only" in said
    assert empty.run("pod", "ls", "/run/zambezi-secrets")[0] != 0  # who needs no secret has none
