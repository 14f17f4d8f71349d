"""What ends comes back by itself: each process, and the pod whose network all of them share."""

from __future__ import annotations

import time

import requests

from tests.containers.installation import LASTING, PROCESSES, Installation

#: Kills what the container runs (process 1 is the engine's init, which ends with its child).
KILL = "for p in /proc/[0-9]*/stat; do read -r id _ _ parent _ < $p; [ $parent != 1 ] || kill -9 $id; done"


def starts(empty: Installation) -> dict[str, str]:
    return {name: empty.container(name).attrs["State"]["StartedAt"] for name in LASTING}


def test_every_process_that_is_killed_is_started_again_and_does_its_work(empty: Installation):
    before = starts(empty)
    killed = (*PROCESSES, "postgres")
    for service in killed:
        empty.run(service, "bash", "-c", KILL)
    for service in killed:
        empty.wait_until_ready(service, 180)
    after = starts(empty)
    assert [name for name in killed if after[name] == before[name]] == []
    assert after["pod"] == before["pod"]
    assert requests.get(f"{empty.front_url}/session", timeout=30).status_code == 200


def test_who_is_left_in_the_network_of_a_pod_that_ended_follows_it_into_the_new_one(empty: Installation):
    before = starts(empty)
    empty.run("pod", "bash", "-c", KILL)
    end = time.monotonic() + 240
    while any(starts(empty)[name] == before[name] for name in (*PROCESSES, "pod")):
        assert time.monotonic() < end, starts(empty)
        time.sleep(1)
    for service in PROCESSES:
        empty.wait_until_ready(service, 180)
    assert starts(empty)["postgres"] == before["postgres"]  # it has a network of its own
    assert requests.get(f"{empty.front_url}/session", timeout=30).status_code == 200
