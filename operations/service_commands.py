"""`zambezi service`: this installation under systemd, from the machine's start on.

The one group that stays root: it writes to /etc/systemd/system and /etc/default, and nothing into ZAMBEZI_HOME.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from operations import preparing, supervision, units
from operations.archive import find_orthanc
from zambezi.account import ACCOUNT, first_blocked
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault

UNITS = Path("/etc/systemd/system")
_READY_SECONDS = 300

_name = click.option(
    "--name", default="zambezi", show_default=True, metavar="NAME",
    help="What the units are called; a second installation on this machine needs another name.",
)  # fmt: skip


@click.group()
def service() -> None:
    """Run under systemd: started with the machine, kept in bounds, started again when something ends."""


@service.command()
@_name
def show(name: str) -> None:
    """Print the units that `install` would write."""
    for file, text in units.units(_machine(name, _environ(name))).items():
        click.echo(f"# --- {UNITS}/{file}\n{text}")


@service.command()
@_name
def install(name: str) -> None:
    """Write the units, start everything and start it with the machine from now on (as root).

    The ZAMBEZI_* and PG* variables of this shell are kept in /etc/default/NAME, beside those that stand there.
    """
    _needs_root()
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", name):
        raise EnvironmentFault(f"--name: found {name!r}, allowed are small letters, digits and -")
    environ = _environ(name)
    environment = Environment.read(environ)
    machine = _machine(name, environ)
    faults = preparing.environment_faults(environment)
    if supervision.processes(environment) is not None:
        faults.append(f"`zambezi up` runs in {environment.home}; `zambezi down` first, then this")
    try:
        account = pwd.getpwnam(machine.account)
    except KeyError:
        raise EnvironmentFault(f"there is no system account {machine.account}; `make install` makes it") from None
    blocked = first_blocked(account, [REPOSITORY, Path(sys.prefix), environment.home.parent])
    if blocked:
        faults.append(f"the account {machine.account} can't get into {blocked}; move this to where it can: /srv, /opt")
    if faults:
        raise EnvironmentFault("\n".join(faults))
    booted = Path("/run/systemd/system").exists()
    if booted and (UNITS / f"{name}.target").exists():
        _systemctl("stop", f"{name}.target")
    taken = preparing.port_faults(environment, environ)
    if taken:
        raise EnvironmentFault("\n".join(taken))
    _write(machine, environ)
    # As the account, and here: the faults and the first administrator's password are for whoever types this.
    if subprocess.run([machine.program, "prepare"], env={**os.environ, **environ}, check=False).returncode:
        raise EnvironmentFault(f"the units are written, but nothing was started; when it is put right: {_again(name)}")
    if not booted:
        _systemctl("enable", "--quiet", f"{name}.target")
        click.echo(f"systemd doesn't run here; {name}.target will be started with the machine")
        return
    _systemctl("daemon-reload")
    _systemctl("enable", "--quiet", f"{name}.target")
    _systemctl("restart", f"{name}.target")
    _wait_until_ready(machine, environ)


@service.command()
@_name
def remove(name: str) -> None:
    """Stop everything and take the units away (as root); ZAMBEZI_HOME and /etc/default/NAME stay."""
    _needs_root()
    if not (UNITS / f"{name}.target").exists():
        raise EnvironmentFault(f"there is no {UNITS}/{name}.target; `zambezi service install` makes it")
    booted = Path("/run/systemd/system").exists()
    if booted:
        _systemctl("stop", f"{name}.target")
    _systemctl("disable", "--quiet", f"{name}.target")
    _clear(name)
    if booted:
        _systemctl("daemon-reload")
    click.echo(f"stopped and taken away: {name}.target and what belongs to it")


def _machine(name: str, environ: dict[str, str]) -> units.Machine:
    environment = Environment.read(environ)
    owner = environment.home.stat().st_uid if environment.home.exists() else 0
    account = pwd.getpwuid(owner).pw_name if owner else ACCOUNT
    return units.Machine(
        name,
        account,
        environment.home,
        REPOSITORY,
        Path(sys.prefix) / "bin" / "zambezi",
        environment.ports,
        supervision.present(),
        _orthanc_version(),
        environ.get("ZAMBEZI_ORTHANC_MEMORY", ""),
    )


def _orthanc_version() -> str:
    said = subprocess.run(
        [find_orthanc(os.environ), "--version"], capture_output=True, text=True, check=False, timeout=30
    ).stdout
    found = re.search(r"Orthanc (\d[\w.]*)", said)
    return found[1] if found else ""


def _environ(name: str) -> dict[str, str]:
    """What was kept at the last install, and above it what this shell says."""
    kept = Path("/etc/default") / name
    try:
        before = units.settings(units.read_variables(kept.read_text())) if kept.exists() else {}
    except PermissionError:
        before = {}  # root's alone, and this is `show` by somebody else
    return {**before, **units.settings(os.environ)}


def _write(machine: units.Machine, environ: dict[str, str]) -> None:
    made = units.units(machine)
    text = units.variables(environ, machine.home)
    if not machine.home.exists():
        account = pwd.getpwnam(machine.account)
        machine.home.mkdir(parents=True, mode=0o750)
        os.chown(machine.home, account.pw_uid, account.pw_gid)
    machine.variables_file.parent.mkdir(exist_ok=True)
    with os.fdopen(os.open(machine.variables_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        out.write(text)
    machine.variables_file.chmod(0o600)
    _clear(machine.name)
    for file, unit in made.items():
        (UNITS / file).parent.mkdir(parents=True, exist_ok=True)
        (UNITS / file).write_text(unit)
        (UNITS / file).chmod(0o644)
    click.echo(f"{len(made)} files in {UNITS} ({machine.name}.target and what belongs to it)")


def _clear(name: str) -> None:
    """Take our own files away, whatever version made them; a site's drop-ins stay."""
    ours = [f"{name}.target", f"{name}@.service", f"{name}-prepare.service"]
    ours += [f"{name}-quiet-hour.{kind}" for kind in ("service", "timer")]
    for file in ours:
        (UNITS / file).unlink(missing_ok=True)
    folders = [f"{name}@.service.d", f"{name}-prepare.service.d"]
    for folder in [UNITS / each for each in folders] + list(UNITS.glob(f"{name}@*.service.d")):
        for drop_in in ("10-hardening.conf", "20-limits.conf"):
            (folder / drop_in).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _wait_until_ready(machine: units.Machine, environ: dict[str, str]) -> None:
    begun, variables = time.monotonic(), {**os.environ, **environ}
    waiting, why = list(machine.processes), ""
    while waiting and time.monotonic() - begun < _READY_SECONDS:
        for one in list(waiting):
            command = [str(machine.program), "ready", one]
            asked = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            if asked.returncode == 0:
                click.echo(f"  ready after {time.monotonic() - begun:4.1f} s  {one}")
                waiting.remove(one)
            why = asked.stderr.strip() or why
        time.sleep(0.5)
    if waiting:
        unit = f"{machine.name}@{waiting[0]}"
        raise EnvironmentFault(f"{waiting[0]} did not come up ({why}); see: journalctl --unit {unit} --lines 30")


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise EnvironmentFault(f"systemctl {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")


def _again(name: str) -> str:
    return "zambezi service install" + ("" if name == "zambezi" else f" --name {name}")


def _needs_root() -> None:
    if os.geteuid() != 0:
        raise EnvironmentFault("this writes to /etc/systemd/system; run it as root")
    if not shutil.which("systemctl"):
        raise EnvironmentFault("there is no systemd here; `zambezi up --detach` runs everything without it")
