"""`make demo-docker EXIT=1`: the demo hospital's play, in containers and on PostgreSQL, and nothing left of it."""

from __future__ import annotations

import os
import subprocess

import pytest

from demo import play
from demo.neighbours import free_port
from tests.containers.installation import IMAGES, PUBLISHED
from zambezi.environment import REPOSITORY


@pytest.mark.usefixtures("engine")
def test_every_step_of_the_play_is_seen():
    project = f"zambezi-test-play-{os.getpid()}"
    ports = {variable: str(free_port()) for variable in PUBLISHED.values()}
    with subprocess.Popen(
        ["docker/play"], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **IMAGES, **ports, "ZAMBEZI_PROJECT": project, "EXIT": "1"},
    ) as playing:  # fmt: skip
        try:
            said, faults = playing.communicate(timeout=900)
        finally:
            playing.terminate()  # it stops its containers even so
    assert playing.returncode == 0, (said + faults)[-5000:]
    for number, title, _ in play.STEPS:
        assert f"  {number:>2} {title}: " in said
    assert "FAILED" not in said
    assert "all seen" in said
    for kind in (["ps", "--all"], ["volume", "ls"], ["network", "ls"]):
        left = ["docker", *kind, "--quiet", "--filter", f"label=com.docker.compose.project={project}"]
        assert subprocess.run(left, capture_output=True, text=True, check=True).stdout == ""
