"""`make test-versions`: the plugin's tests inside each Debian whose Orthanc is supported, and what each one gives.

Builds an image for each (docker/versions/Dockerfile), runs the tests in it with no network, looks what its Orthanc
gives and compares that with docs/conformance.md. Ends with 1 where a test fails or the manual says something else.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.versions import seen

REPOSITORY = Path(__file__).parents[2]
#: Debian's releases, the floor first.
SUITES = ("bookworm", "trixie", "forky")
#: The plugin's own tests, and those of what leans on Orthanc's answers. The rest is the same on every version.
TESTS = tuple(
    f"tests/integration/test_{name}.py"
    for name in (
        "archive_versions", "archive_callers", "archive_door", "archive_stores", "archive_rules", "archive_conflicts",
        "archive_power_cut", "archive_kills", "digest_travels", "deletions", "merge_archive", "gateway_deliveries",
        "commitment", "coercion", "access_routes",
    )
)  # fmt: skip
#: Eighty deaths between commits of our own, minutes long: they are the same whatever Orthanc is.
LEFT_OUT = (
    "tests/integration/test_deletions.py::test_a_death_at_any_commit_deletes_nothing_without_its_copy_and_nothing_else"
)
#: What of the checkout the image is made of.
PACKED = (
    "pyproject.toml", "README.md", "LICENSE", "requirements", "zambezi", "plugins", "gateway", "ris_service",
    "migration", "operations", "orthanc-config", "docker", "demo", "tests", "tools", "docs",
)  # fmt: skip
#: Most time for the tests of one version, and for an image.
LIMIT_S = 30 * 60


class Failed(Exception):
    """It can't go on with this version; the text says why."""


def main(arguments: Sequence[str]) -> int:
    """0 where every test passed everywhere and the manual says what was seen."""
    parser = argparse.ArgumentParser(prog="make test-versions", description=__doc__, allow_abbrev=False)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all of them without any")
    parser.add_argument("--mirror", default="", help="Debian's mirror; without, the one of this machine's apt")
    parser.add_argument(
        "--certificates", default="/usr/local/share/ca-certificates", help="folder of *.crt that the place adds"
    )
    given = parser.parse_args(arguments)
    if unknown := set(given.suites) - set(SUITES):
        parser.error(f"found {', '.join(sorted(unknown))}, allowed are {', '.join(SUITES)}")
    engine = subprocess.run(["docker", "version"], capture_output=True, check=False)
    if engine.returncode:
        _say("no Docker Engine answers. As root: apt-get install docker.io mmdebstrap; dockerd &")
        return 2
    columns, failures = [], []
    suites = [suite for suite in SUITES if suite in (given.suites or SUITES)]
    for suite in suites:
        try:
            image = _image(suite, given.mirror, given.certificates)
            columns.append(_look(suite, image))
            _test(suite, image)
        except Failed as failed:
            failures.append(f"{suite}: {failed}")
            _say(failures[-1])
    if columns:
        sys.stdout.write("\n" + seen.table(columns) + "\n")
    failures += [
        f"Orthanc {found['']}: {row or 'version'} is {cell!r} here, docs/conformance.md says {said!r}"
        for found in columns
        for row, cell in found.items()
        if (said := seen.documented_column(found[""]).get(row)) != cell
    ]
    if len(columns) == len(SUITES) and not failures and seen.table(columns) != seen.documented():
        failures.append("docs/conformance.md has rows or columns that were not seen; put the table above there")
    for failure in failures:
        _say(f"FAILED {failure}")
    _say(f"{len(suites)} versions: " + ("not all is well" if failures else "all tests passed, the manual agrees"))
    return 1 if failures else 0


def _image(suite: str, mirror: str, certificates: str) -> str:
    base, image = f"zambezi-versions-base:{suite}", f"zambezi-versions:{suite}"
    if _run("docker", "image", "inspect", base).returncode:
        with _took(f"{suite}: the base image, from Debian's packages"):
            # Stale: only tests run in it, and a mirror that lags behind is no reason not to run them.
            make = [str(REPOSITORY / "docker" / "make-base"), "--stale", "--suite", suite, "--tag", base]
            make += ["--mirror", mirror] if mirror else []
            make += ["--certificates", certificates] if any(Path(certificates).glob("*.crt")) else []
            _must(_run(*make), "the base image can't be made")
    with _took(f"{suite}: the image with Orthanc and our environment"), tempfile.TemporaryFile() as context:
        packing = ["tar", "--create", "--exclude=__pycache__", "--mode=a+rX", "--directory", str(REPOSITORY), *PACKED]
        subprocess.run(packing, stdout=context, check=True)
        context.seek(0)
        passed = [f"--build-arg={name}={os.environ[name]}" for name in ("PIP_INDEX_URL",) if name in os.environ]
        _must(
            _run(
                "docker", "build", "--network", "host", "--build-arg", f"BASE={base}", *passed,
                "--file", "docker/versions/Dockerfile", "--tag", image, "-", stdin=context.fileno(),
            ),
            "the image can't be built",
        )  # fmt: skip
    return image


def _look(suite: str, image: str) -> dict[str, str]:
    with _took(f"{suite}: looking what its Orthanc gives"):
        ran = _run(*_container(suite, image), "tests.versions.seen")
        _must(ran, "what it gives could not be seen")
        found: dict[str, str] = json.loads(ran.stdout.splitlines()[-1])
    return found


def _test(suite: str, image: str) -> None:
    """Run the tests; each file's line is printed when it is through."""
    command = [
        *_container(suite, image),
        "pytest",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        f"--deselect={LEFT_OUT}",
        *TESTS,
    ]
    began, last = time.monotonic(), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        assert running.stdout is not None
        behind: list[str] = []
        for line in running.stdout:
            behind.append(line)
            if line.startswith("tests/") and "%]" in line:
                _say(f"{suite}: {line.strip()}")
            last = line.strip() or last
    if running.returncode:
        sys.stdout.write("".join(behind[-400:]))
        raise Failed(f"tests: {last}")
    _say(f"{suite}: {last.strip('= ')} ({time.monotonic() - began:.0f} s in all)")


def _container(suite: str, image: str) -> list[str]:
    name = f"zambezi-versions-{suite}-{os.getpid()}"
    # No network but loopback: what is tested needs none, and nothing of it is meant to call out.
    return [
        "timeout", "--kill-after=10", str(LIMIT_S),
        "docker", "run", "--rm", "--init", "--network=none", f"--name={name}", image,
    ]  # fmt: skip


def _run(*command: str, stdin: int = subprocess.DEVNULL) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=stdin, cwd=REPOSITORY, timeout=LIMIT_S
    )


def _must(ran: subprocess.CompletedProcess[str], otherwise: str) -> None:
    if ran.returncode:
        raise Failed(f"{otherwise}:\n{(ran.stdout + ran.stderr)[-3000:]}")


@contextmanager
def _took(what: str) -> Iterator[None]:
    _say(f"{what} ...")
    began = time.monotonic()
    yield
    _say(f"{what}: {time.monotonic() - began:.0f} s")


def _say(line: str) -> None:
    sys.stdout.write(f"versions {time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
