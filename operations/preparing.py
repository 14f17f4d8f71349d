"""What must be right before anything starts, and the files that an installation starts from.

Everything here can be done again at every start. The checked JSON is copied to ZAMBEZI_HOME/orthanc/config, from
where every process reads it: one that is started again at night finds what was checked, whatever an editor wrote to
orthanc-config/ meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from operations import front_door, postgresql, recovery, supervision
from operations.backup.places import Mark
from operations.moving import engines
from zambezi import config, keys
from zambezi.config import Configuration
from zambezi.database.engine import connect
from zambezi.database.upgrade import newest, upgrade
from zambezi.environment import PORTS, REPOSITORY, Environment, EnvironmentFault
from zambezi.keys import Keys

log = logging.getLogger("zambezi.preparing")

ORTHANC = Path("/usr/sbin/Orthanc")
NGINX = Path("/usr/sbin/nginx")

#: Debian's package for each file that Orthanc is started with.
_PACKAGES = {
    "Orthanc": "orthanc",
    "nginx": "nginx-light",
    "libOrthancPython.so": "orthanc-python",
    "libOrthancDicomWeb.so": "orthanc-dicomweb",
    "libOrthancWebViewer.so": "orthanc-webviewer",
    "libOrthancGdcm.so": "orthanc-gdcm",
    "libOrthancPostgreSQLIndex.so": "orthanc-postgresql",
}

#: In ZAMBEZI_HOME: which schema was brought to which database last.
_SCHEMA_MARK = "run/schema"

#: A file name that nginx, supervisord, SQLite's URL and Orthanc's JSON all take unquoted.
_PLAIN_PATH = re.compile(r"^/[A-Za-z0-9/._+@=-]*$")

#: Linux takes no longer name for a socket (108 bytes); supervisord adds a dot and a process id for a moment.
_SOCKET_NAME = 96


def environment_faults(environment: Environment) -> list[str]:
    """What is wrong with the installation's folders."""
    faults = []
    for variable, path in (("ZAMBEZI_HOME", environment.home), ("the checkout", REPOSITORY)):
        if not _PLAIN_PATH.match(str(path)):
            faults.append(f"{variable}: found {str(path)!r}, allowed are letters, digits and / . _ + @ = -")
    if Mark.file(environment.home).exists():
        faults.append(
            f"a restore into {environment.home} is not finished, or not proven: `zambezi restore` goes on with it"
        )
    if len(str(supervision.socket(environment))) > _SOCKET_NAME:
        faults.append(f"ZAMBEZI_HOME: found {environment.home}, which is too long for a socket's name; take a shorter")
    return faults


def machine_faults(configuration: Configuration) -> list[str]:
    """Packages that are missing, and a Python that is not the one inside Orthanc."""
    plugins = [Path(p) for p in configuration.orthanc.get("Plugins", [])]
    missing = [file for file in (ORTHANC, NGINX, *plugins) if not file.exists()]
    faults = [f"{file} is not there; {_remedy(file)}" for file in missing]
    python = next((p for p in plugins if p.name == "libOrthancPython.so"), None)
    if python is None:
        faults.append("Plugins: libOrthancPython.so is not named; Orthanc would run without what guards and records it")
    elif python not in missing:
        faults += interpreter_faults(python)
    return faults


def interpreter_faults(plugin: Path) -> list[str]:
    """Whether this interpreter is the one that Orthanc's Python plugin embeds (they share a virtual environment)."""
    found = re.search(rb"libpython(3\.\d+)\.so", plugin.read_bytes())
    inside = found.group(1).decode() if found else "none"
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if inside == ours:
        return []
    return [
        f"this is Python {ours}, but Orthanc embeds Python {inside}; remove .venv and run `make install`, "
        "which makes it with /usr/bin/python3"
    ]


def _remedy(file: Path) -> str:
    package = _PACKAGES.get(file.name)
    return f"as root: apt-get install {package}" if package else "take it out of Plugins, or install it"


def port_faults(environment: Environment, environ: Mapping[str, str]) -> list[str]:
    """Ports that somebody else has, with the variable that moves ours and, where it can be seen, who has it."""
    wanted = ["http", "dicom", "orthanc_http", "ris", "mllp", "mpps"]
    if front_door.certificate(environment, environ):
        wanted.append("https")
    faults = _busy(environment, wanted)
    coercing = environment.coercing_port
    if coercing is not None and recovery.is_taken(coercing):
        faults.append(f"port {coercing} is in use{_holder(coercing)}; end that, or change ZAMBEZI_COERCING_PORT")
    return faults


def _busy(environment: Environment, wanted: list[str]) -> list[str]:
    faults = []
    for name in wanted:
        port = getattr(environment.ports, name)
        if recovery.is_taken(port):
            variable = PORTS[name][0]
            faults.append(f"port {port} is in use{_holder(port)}; end that, or give ours another: {variable}=...")
    return faults


def _holder(port: int) -> str:
    """` by NAME (process ID)`, if /proc shows it to us."""
    sockets = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:] if Path(table).exists() else []:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                sockets.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir()):
                name = (process / "comm").read_text().strip()
                return f" by {name} (process {process.name}){_debian_service(process)}"
        except OSError:
            continue  # ended meanwhile, or not ours to look into
    return ""


def _debian_service(process: Path) -> str:
    group = (process / "cgroup").read_text()
    service = re.search(r"/([a-z0-9-]+)\.service", group)
    return f", the service {service.group(1)} (systemctl disable --now {service.group(1)})" if service else ""


def prepare(environment: Environment, environ: Mapping[str, str]) -> tuple[Configuration, Keys]:
    """Check everything, bring the database to this version's schema, and write what the processes start from."""
    configuration = config.load(environment.config_dir, {**environ, **environment.variables()})
    faults = environment_faults(environment) + machine_faults(configuration)
    if environment.nodes and not configuration.index_is_postgresql:
        faults.append("ZAMBEZI_NODES: several nodes need Orthanc's index in PostgreSQL (docs/install.md)")
    faults += engines.faults(environment, configuration)
    if configuration.zambezi.dicom_tls.certificates:
        faults += _busy(environment, ["dicom_tls", "mpps_tls"])
    away: list[str] = []
    for fault in postgresql.faults(environment, configuration):
        (away if fault.is_away and has_run(environment) else faults).append(fault.words)
    if faults:
        raise EnvironmentFault("\n".join(faults))
    for folder in (
        environment.run_dir,
        environment.logs_dir,
        environment.plugin_dir,
        environment.hold_dir,
        environment.storage_dir,
        environment.index_dir,
        environment.orthanc_dir / "tmp",
        environment.orthanc_config_dir,
        environment.home / "keys",
        environment.home / "certificates",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        # Keys and patients' data lie in all of them; an administrator may have made one by hand.
        folder.chmod(0o700)
    made = keys.load_or_create(environment.keys_file)
    if away:
        log.warning("this installation starts without what is away, and catches up: %s", "; ".join(away))
    else:
        _upgrade_database(environment)
    write_orthanc_configuration(environment, made)
    engines.record(environment, engines.wanted(environment, configuration))
    front_door.write(environment, configuration, made, environ)
    conf = supervision.configuration(environment, supervision.present())
    (environment.run_dir / "supervisord.conf").write_text(conf)
    return configuration, made


def has_run(environment: Environment) -> bool:
    """Whether this version's schema was brought to this very database before: then it may be away for a while."""
    mark = environment.home / _SCHEMA_MARK
    return mark.exists() and mark.read_text() == _mark(environment)


def _mark(environment: Environment) -> str:
    return f"{newest()} {hashlib.sha256(environment.database_url.encode()).hexdigest()}"


def _upgrade_database(environment: Environment) -> None:
    engine = connect(environment.database_url, "operations")
    try:
        upgrade(engine)
        (environment.home / _SCHEMA_MARK).write_text(_mark(environment))
    except SQLAlchemyError as error:
        raise EnvironmentFault(f"ZAMBEZI_DATABASE_URL: the database can't be used: {error}".split("\n")[0]) from error
    finally:
        engine.dispose()


def write_orthanc_configuration(environment: Environment, made: Keys) -> None:
    """Copy the checked JSON to where all processes read it, and add Orthanc's users (mode 0600)."""
    target = environment.orthanc_config_dir
    for old in target.glob("*.json"):
        old.unlink()
    for file in sorted(environment.config_dir.glob("*.json")):
        (target / file.name).write_bytes(file.read_bytes())
    secrets = target / config.SECRETS_FILE
    with os.fdopen(os.open(secrets, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as out:
        json.dump({"RegisteredUsers": made.services}, out, indent=2)
