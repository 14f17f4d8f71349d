"""systemd's units for an installation: what supervisord does under `zambezi up`, done by the server's own init.

Text only; `zambezi service install` (operations/service_commands.py) puts it where systemd reads it. One template
serves all processes; what differs between them, and what none of them may do, are drop-ins beside it, where
`systemctl edit` adds a site's own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from operations.supervision import stop_seconds
from zambezi.environment import EnvironmentFault, Ports

#: What a process may use at most, as in docker/compose.yml; Orthanc's share of the machine if nobody says otherwise.
_MEMORY = {"ris": "512M", "gateway": "768M", "migration": "1G", "operations": "768M", "front": "256M"}
_ORTHANC_MEMORY = "60%"

#: Which ports each process opens: those below 1024 need a capability.
_LISTENS = {"orthanc": ("dicom",), "gateway": ("mllp", "mpps"), "front": ("http", "https", "dicom_tls", "mpps_tls")}

#: Python plugin 4.0, that of Orthanc 1.10.1, keeps 1.1 KB of every request that our filter sees.
_LEAKING = re.compile(r"1\.10\.")
#: An Orthanc that leaks is started anew in the quiet hour once it holds so much (kB): a million requests.
_BLOATED_KB = 1_200_000
_QUIET_HOUR = "03:40"

#: What no process of ours needs. Kernel and systemd refuse it, whatever a request makes a process try.
#: (setpriority: threads inside Orthanc give way to ingest.)
_HARDENING = """\
CapabilityBoundingSet=
AmbientCapabilities=
NoNewPrivileges=yes
PrivateTmp=yes
PrivateMounts=yes
PrivateDevices=yes
DevicePolicy=closed
ProtectSystem=strict
ProtectHome={home_folders}
ReadWritePaths={home}
ProtectProc=invisible
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
KeyringMode=private
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setpriority
SystemCallErrorNumber=EPERM
UMask=0077
"""


@dataclass(frozen=True)
class Machine:
    """An installation on this machine: `name` is what its units are called, `orthanc` the version ("" if unknown)."""

    name: str
    account: str
    home: Path
    repository: Path
    program: Path
    ports: Ports
    processes: Sequence[str]
    orthanc: str
    orthanc_memory: str = ""

    @property
    def variables_file(self) -> Path:
        """Where the installation's ZAMBEZI_* variables stand, for systemd and for shells (root's, mode 0600)."""
        return Path("/etc/default") / self.name


def units(machine: Machine) -> dict[str, str]:
    """Every unit file and drop-in by its name below /etc/systemd/system."""
    name = machine.name
    found = {
        f"{name}.target": _target(machine),
        f"{name}-prepare.service": _prepare(machine),
        f"{name}@.service": _process(machine),
        f"{name}-prepare.service.d/10-hardening.conf": _hardening(machine),
        f"{name}@.service.d/10-hardening.conf": _hardening(machine),
        **{f"{name}@{one}.service.d/20-limits.conf": _limits(machine, one) for one in machine.processes},
    }
    if _LEAKING.match(machine.orthanc):
        found[f"{name}-quiet-hour.service"] = _quiet_hour(machine)
        found[f"{name}-quiet-hour.timer"] = _quiet_hour_timer(machine)
    return {file: f"# Made by `zambezi service install`; your own go beside it: systemctl edit.\n{text}"
            for file, text in found.items()}  # fmt: skip


def variables(environ: Mapping[str, str], home: Path) -> str:
    """The variables file: what the installation was given, quoted for systemd and shells alike."""
    lines = ["# What `zambezi service install` was given. After a change: systemctl restart the target."]
    for key, value in sorted({**settings(environ), "ZAMBEZI_HOME": str(home)}.items()):
        if "'" in value or "\n" in value:
            raise EnvironmentFault(f"{key}: a single quote or a line end can't be kept in the variables file")
        lines.append(f"{key}='{value}'")
    return "\n".join(lines) + "\n"


def settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Those variables that belong to an installation: ours, and PostgreSQL's own."""
    return {key: value for key, value in environ.items() if value and re.match(r"(ZAMBEZI|PG)[A-Z_]+$", key)}


def read_variables(text: str) -> dict[str, str]:
    """The variables of such a file, which a person may have changed."""
    found = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value[1:-1] if value[:1] in "'\"" and value[:1] == value[-1:] and len(value) > 1 else value
    return found


def _target(machine: Machine) -> str:
    name = machine.name
    quiet = f" {name}-quiet-hour.timer" if _LEAKING.match(machine.orthanc) else ""
    wants = " ".join(f"{name}@{one}.service" for one in machine.processes)
    return f"""\
[Unit]
Description=Zambezi, the imaging archive ({machine.home})
Wants={wants}{quiet}

[Install]
WantedBy=multi-user.target
"""


def _prepare(machine: Machine) -> str:
    return f"""\
[Unit]
Description=What Zambezi's processes start from: checks, keys, schema, configuration
After=network.target postgresql.service
PartOf={machine.name}.target
RequiresMountsFor={machine.home} {machine.repository}

[Service]
Type=oneshot
RemainAfterExit=yes
User={machine.account}
EnvironmentFile={machine.variables_file}
ExecStart={machine.program} prepare --wait-for-database
# A new version may bring large tables to its schema, and a database on another machine may start late.
TimeoutStartSec=infinity
"""


def _process(machine: Machine) -> str:
    name = machine.name
    return f"""\
[Unit]
Description=Zambezi, process %i
Requires={name}-prepare.service
After={name}-prepare.service
PartOf={name}.target
# Giving up would need a person at night.
StartLimitIntervalSec=0

[Service]
Type=exec
User={machine.account}
EnvironmentFile={machine.variables_file}
ExecStart={machine.program} run %i
Restart=always
RestartSec=3
KillMode=mixed
LimitNOFILE=8192
"""


def _hardening(machine: Machine) -> str:
    seen = (machine.home, machine.repository, machine.program)
    # What lies below /home must at least be read.
    in_homes = any(path.is_relative_to(folder) for path in seen for folder in ("/home", "/root", "/run/user"))
    return "[Service]\n" + _HARDENING.format(home=machine.home, home_folders="read-only" if in_homes else "yes")


def _limits(machine: Machine, process: str) -> str:
    memory = _MEMORY.get(process) or machine.orthanc_memory or _ORTHANC_MEMORY
    text = f"[Service]\nMemoryMax={memory}\nTimeoutStopSec={stop_seconds(process)}\n"
    if any(getattr(machine.ports, port) < 1024 for port in _LISTENS.get(process, ())):
        text += "CapabilityBoundingSet=CAP_NET_BIND_SERVICE\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n"
    return text


def _quiet_hour(machine: Machine) -> str:
    unit = f"{machine.name}@orthanc.service"
    # $$ is systemd's way to write $. The unit's own process is the keeper (operations.keeper): Orthanc is its child.
    main = f"$$(systemctl show --property MainPID --value {unit})"
    held = "$$(grep VmRSS /proc/$$one/status | tr -dc 0-9)"
    look = (
        f"main={main}; for one in $$(cat /proc/$$main/task/$$main/children); "
        f'do test "{held}" -gt {_BLOATED_KB} && exit 0; done; exit 1'
    )
    return f"""\
[Unit]
Description=Start Orthanc {machine.orthanc} anew where its Python plugin's leak has grown ({machine.name})

[Service]
Type=oneshot
ExecCondition=/bin/sh -c '{look}'
ExecStart=systemctl try-restart {unit}
"""


def _quiet_hour_timer(machine: Machine) -> str:
    return f"""\
[Unit]
Description=Look in the quiet hour whether Orthanc's leak has grown ({machine.name})
PartOf={machine.name}.target

[Timer]
OnCalendar=*-*-* {_QUIET_HOUR}
"""
