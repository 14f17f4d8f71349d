"""The installation of docker/compose.yml in a project of its own, as testcontainers starts and stops it."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from docker.errors import DockerException
from docker.models.containers import Container
from testcontainers.compose import DockerCompose
from testcontainers.core.docker_client import DockerClient

from demo.neighbours import free_port
from zambezi.environment import REPOSITORY

#: Images of the tests' own: those of an installation on this machine stay as they are.
IMAGES = {"ZAMBEZI_IMAGE": "zambezi-test", "ZAMBEZI_POSTGRES_IMAGE": "zambezi-test-postgres"}
#: What stands in the compose file, by what is asked of it.
PROCESSES = ("orthanc", "ris", "gateway", "migration", "operations", "front")
LASTING = (*PROCESSES, "postgres", "pod")
PASSING = ("secrets", "prepare")
#: All there is in one: the coercing port is asked for by a file of its own.
COMPOSED = ("docker/compose.yml", "docker/compose.coercing.yml")
#: Ports inside of the pod, with the variable that publishes each somewhere else.
PUBLISHED = {
    8080: "ZAMBEZI_HTTP_PORT", 8443: "ZAMBEZI_HTTPS_PORT", 4242: "ZAMBEZI_DICOM_PORT", 4243: "ZAMBEZI_MPPS_PORT",
    2762: "ZAMBEZI_DICOM_TLS_PORT", 2763: "ZAMBEZI_MPPS_TLS_PORT", 2575: "ZAMBEZI_MLLP_PORT",
    4244: "ZAMBEZI_COERCING_PORT", 4252: "ZAMBEZI_DICOM_PORT_TWO",
}  # fmt: skip


def missing() -> str:
    """What this machine lacks for containers, with what brings it; "" where an engine answers."""
    if not shutil.which("docker") or subprocess.run(["docker", "version"], capture_output=True).returncode:
        return "no Docker Engine answers; as root: apt-get install docker.io docker-compose mmdebstrap, then dockerd"
    if not compose():
        return "there is no docker compose; as root: apt-get install docker-compose"
    return ""


def compose() -> list[str]:
    """The command of Compose v2 where the client has it, else that of docker-compose 1.29 (Debian 12)."""
    if not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


def images() -> None:
    """Build the images of this checkout (what was built before is not built again)."""
    done = subprocess.run(
        ["docker/build"], cwd=REPOSITORY, env={**os.environ, **IMAGES}, capture_output=True, text=True
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]


class Project(DockerCompose):
    """testcontainers knows Compose v2 alone; this speaks to either, under a project's name."""

    project: str

    @cached_property
    def compose_command_property(self) -> list[str]:
        files = [word for file in self.compose_file_name or () for word in ("--file", file)]
        variables = [word for file in self.env_file or () for word in ("--env-file", file)]
        return [*compose(), "--project-name", self.project, *files, *variables]


@dataclass(frozen=True)
class Installation:
    """One installation that runs: its compose project, and where its ports are on this machine."""

    project: Project
    client: DockerClient
    ports: dict[int, int]

    @property
    def front_url(self) -> str:
        return f"http://127.0.0.1:{self.ports[8080]}"

    def container(self, service: str) -> Container:
        """The container of a service, as the engine sees it now."""
        labels = [f"com.docker.compose.project={self.project.project}", f"com.docker.compose.service={service}"]
        (found,) = self.client.client.containers.list(all=True, filters={"label": labels})
        return found

    def run(self, service: str, *command: str) -> tuple[int, str]:
        """Run a command in a container; its exit code and all that it said."""
        done = self.container(service).exec_run(list(command))
        return done.exit_code, done.output.decode(errors="replace")

    def health(self, service: str) -> str:
        """`healthy`, `unhealthy`, `starting`; the container's state where it has no check of its own."""
        state = self.container(service).attrs["State"]
        return str(state.get("Health", {}).get("Status") or state["Status"])

    def wait_until_healthy(self, seconds: float) -> None:
        """Until each check says so; AssertionError with the last words of those that don't."""
        end = time.monotonic() + seconds
        while waiting := [name for name in LASTING if self.health(name) not in ("healthy", "running")]:
            assert time.monotonic() < end, "\n".join(self._last_words(name) for name in waiting)
            time.sleep(0.5)

    def wait_until_ready(self, service: str, seconds: float) -> None:
        """Until the container's own check, asked now, finds nothing missing."""
        check = ["pg_isready", "-h", "127.0.0.1"] if service == "postgres" else ["/opt/zambezi/docker/healthy", service]
        end, said = time.monotonic() + seconds, "not asked"
        while time.monotonic() < end:
            try:
                code, said = self.run(service, *check)
            except DockerException as error:  # between its end and its next start nothing can be run in it
                code, said = -1, str(error)
            if code == 0:
                return
            time.sleep(0.5)
        raise AssertionError(f"{service} is not ready after {seconds:.0f} s: {said}\n{self._last_words(service)}")

    def _last_words(self, service: str) -> str:
        container = self.container(service)
        checks = container.attrs["State"].get("Health", {}).get("Log", [])
        return f"{service} {self.health(service)} {checks[-1:]}\n{container.logs(tail=15).decode(errors='replace')}"


@contextmanager
def an_installation(folder: Path, name: str, composed: Sequence[str] = COMPOSED) -> Iterator[Installation]:
    """`up` of these files, with images of this checkout, on free ports; `down` with its volumes at last."""
    ports = {inside: free_port() for inside in PUBLISHED}
    variables = {**IMAGES, **{PUBLISHED[inside]: str(port) for inside, port in ports.items()}}
    file = folder / "variables"
    file.write_text("".join(f"{key}={value}\n" for key, value in variables.items()))
    project = Project(REPOSITORY, list(composed), wait=False, env_file=[str(file)])
    project.project = f"zambezi-test-{name}-{os.getpid()}"
    with project:
        yield Installation(project, DockerClient(), ports)
