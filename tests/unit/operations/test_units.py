"""systemd's units: systemd itself reads them, and says how much a process that was taken over could reach."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from operations import supervision, units
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault

#: Of 10, in tenths: systemd calls up to 2 "OK". What is left of it is the network, which an archive is there for.
EXPOSURE = 14


@pytest.fixture
def machine(tmp_path: Path) -> units.Machine:
    environment = Environment.read({"ZAMBEZI_HOME": str(tmp_path / "home")})
    program = tmp_path / "zambezi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return units.Machine(
        "zambezi", "zambezi", environment.home, REPOSITORY, program, environment.ports, supervision.present(), "1.12.7"
    )


@pytest.fixture
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd is not installed; tools/install --tests brings it")
    return found


def written(machine: units.Machine, folder: Path) -> list[Path]:
    """The units in a folder, and those of them that systemd is asked about."""
    for file, text in units.units(machine).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    services = [f"{machine.name}@{one}.service" for one in machine.processes]
    return [folder / one for one in (*services, f"{machine.name}-prepare.service", f"{machine.name}.target")]


def security(analyze: str, unit: Path) -> subprocess.CompletedProcess[str]:
    command = [analyze, "security", "--offline=yes", "--no-pager", f"--threshold={EXPOSURE}", str(unit)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_systemd_understands_every_unit(machine: units.Machine, analyze: str, tmp_path: Path):
    folder = tmp_path / "units"
    leaking = dataclasses.replace(machine, orthanc="1.10.1")
    asked = [*written(leaking, folder), folder / "zambezi-quiet-hour.timer", folder / "zambezi-quiet-hour.service"]
    said = subprocess.run([analyze, "verify", "--man=no", *asked], capture_output=True, text=True, check=False)
    # The units of this very machine are read, too; what is said of them is no fault of ours.
    assert [line for line in said.stderr.splitlines() if "zambezi" in line] == []
    assert said.returncode == 0, said.stderr
    broken = folder / "zambezi@.service"
    broken.write_text(broken.read_text().replace("Restart=always", "Restart=allways"))
    said = subprocess.run([analyze, "verify", "--man=no", asked[0]], capture_output=True, text=True, check=False)
    assert "allways" in said.stderr, "what is wrong in a unit is seen here"


def test_a_process_that_was_taken_over_reaches_little(machine: units.Machine, analyze: str, tmp_path: Path):
    for unit in written(machine, tmp_path / "units"):
        if unit.suffix == ".service":
            assert security(analyze, unit).returncode == 0, security(analyze, unit).stdout[-200:]
    folder = tmp_path / "units"
    (folder / "zambezi@.service.d" / "10-hardening.conf").unlink()
    assert security(analyze, folder / "zambezi@ris.service").returncode != 0, "without the hardening it would be seen"


def test_a_process_writes_to_its_home_alone_and_has_its_bounds(machine: units.Machine):
    found = units.units(machine)
    assert f"ReadWritePaths={machine.home}\n" in found["zambezi@.service.d/10-hardening.conf"]
    assert "TimeoutStopSec=60\n" in found["zambezi@orthanc.service.d/20-limits.conf"], "it finishes what it accepted"
    assert all("MemoryMax=" in found[f"zambezi@{one}.service.d/20-limits.conf"] for one in machine.processes)
    given = dataclasses.replace(machine, orthanc_memory="12G")
    assert "MemoryMax=12G\n" in units.units(given)["zambezi@orthanc.service.d/20-limits.conf"]


def test_only_who_opens_a_low_port_may_do_so(machine: units.Machine):
    low = Environment.read({"ZAMBEZI_HTTPS_PORT": "443", "ZAMBEZI_DICOM_PORT": "104"}).ports
    found = units.units(dataclasses.replace(machine, ports=low))
    may = {file for file, text in found.items() if "AmbientCapabilities=CAP_NET_BIND_SERVICE" in text}
    assert may == {"zambezi@front.service.d/20-limits.conf", "zambezi@orthanc.service.d/20-limits.conf"}


@pytest.mark.parametrize(("version", "leaks"), [("1.10.1", True), ("1.12.7", False), ("1.13.0", False), ("", False)])
def test_only_an_orthanc_that_leaks_is_started_anew_in_the_quiet_hour(
    machine: units.Machine, version: str, leaks: bool
):
    found = units.units(dataclasses.replace(machine, orthanc=version))
    assert ("zambezi-quiet-hour.timer" in found) == leaks
    assert ("zambezi-quiet-hour.timer" in found["zambezi.target"]) == leaks


@pytest.mark.parametrize("bound_kb", [30_000, 300_000])
def test_the_quiet_hour_weighs_orthanc_not_its_keeper(
    machine: units.Machine, bound_kb: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The condition as systemd runs it, on a parent of 10 MB whose child holds 100 MB."""
    monkeypatch.setattr(units, "_BLOATED_KB", bound_kb)
    unit = units.units(dataclasses.replace(machine, orthanc="1.10.1"))["zambezi-quiet-hour.service"]
    (condition,) = (line for line in unit.splitlines() if line.startswith("ExecCondition="))
    words = shlex.split(condition.partition("=")[2].replace("$$", "$"))
    child = "import sys; held = bytearray(b'x') * 100_000_000; print('held', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', {child!r}])"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "held\n"
        systemctl = tmp_path / "systemctl"
        systemctl.write_text(f"#!/bin/sh\necho {keeper.pid}\n")
        systemctl.chmod(0o755)
        environ = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
        code = subprocess.run(words, env=environ, check=False).returncode
        assert (code == 0) == (bound_kb == 30_000)
        keeper.communicate()


def test_what_lies_in_a_home_folder_is_seen_from_inside(machine: units.Machine):
    below = dataclasses.replace(machine, repository=Path("/home/ana/zambezi"))
    assert "ProtectHome=yes\n" in units.units(machine)["zambezi@.service.d/10-hardening.conf"]
    assert "ProtectHome=read-only\n" in units.units(below)["zambezi@.service.d/10-hardening.conf"]


def test_the_variables_file_is_read_alike_by_a_shell_and_by_us(tmp_path: Path):
    environ = {
        "ZAMBEZI_DATABASE_URL": 'postgresql://z:a$b`c"d\\e@host/zambezi', "PGSSLMODE": "verify-full",
        "ZAMBEZI_HOME": "elsewhere", "PATH": "/bin", "ZAMBEZI_CONFIG": "",
    }  # fmt: skip
    file = tmp_path / "zambezi"
    file.write_text(units.variables(environ, tmp_path))
    wanted = {**environ, "ZAMBEZI_HOME": str(tmp_path)}
    del wanted["PATH"], wanted["ZAMBEZI_CONFIG"]
    assert units.read_variables(file.read_text()) == wanted
    script = f"set -a; . {file}; exec {sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    said = subprocess.run(["sh", "-c", script], env={}, capture_output=True, text=True, check=True).stdout
    assert units.settings(json.loads(said)) == wanted
    with pytest.raises(EnvironmentFault, match="ZAMBEZI_CONFIG"):
        units.variables({"ZAMBEZI_CONFIG": "it's"}, tmp_path)
