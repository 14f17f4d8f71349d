"""Starting the archive: checks, recovery of what the index lost, then Orthanc.

On SQLite each image file is on disk before it is answered Success, but the index is written up to ten
seconds later: after a power cut there are files that the index doesn't know. They are ingested again, by
a first start of Orthanc with its DICOM port closed, before modalities are let in. What can't be ingested
goes whole to the hold.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from operations import recovery
from operations.backup import standstill
from zambezi import config, keys, viewer_cache
from zambezi.config import Configuration, ConfigurationFaults
from zambezi.environment import REPOSITORY, Environment, EnvironmentFault

log = logging.getLogger("zambezi.archive")

#: So long a port may still be held by a process that has been killed.
_ENDING_S = 3.0
#: Where libraries are: Debian has a folder for each architecture.
_LIBRARIES = Path("/usr/lib")


class ArchiveFault(Exception):
    """Orthanc can't be started; each line says what is wrong and what to do."""


def main() -> None:
    """The process `orthanc` of the supervisor."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    signal.signal(signal.SIGTERM, _stop)
    try:
        environment = Environment.read()
        standstill.wait_for_copy(environment)
        configuration = config.load(environment.orthanc_config_dir, os.environ)
        program = find_orthanc(os.environ)
        check(environment, configuration)
        variables = program_environment(os.environ, environment)
        folder = environment.orthanc_config_dir
        if environment.nodes:
            folder = node_configuration(environment, configuration, os.environ)
        recovery.run(environment, keys.load(environment.keys_file), configuration, program, variables)
        clear_viewer_cache(environment, configuration)
    except (ArchiveFault, EnvironmentFault, ConfigurationFaults, recovery.RecoveryFault) as fault:
        for line in str(fault).splitlines():
            log.error("%s", line)
        sys.exit(2)
    except FileNotFoundError as fault:
        log.error("%s is not there; `zambezi up` makes it", fault.filename)
        sys.exit(2)
    log.info("starting Orthanc%s", f", node {environment.node}" if environment.node else "")
    keeper = [sys.executable, "-P", "-S", "-m", "operations.keeper", program, str(folder)]
    keeper += [str(environment.index_dir / "index"), str(environment.storage_dir)]
    keeper.append(str(environment.plugin_dir / "callers.log"))
    os.execve(keeper[0], keeper, variables)  # noqa: S606  no shell is wanted


def node_configuration(environment: Environment, configuration: Configuration, environ: Mapping[str, str]) -> Path:
    """The configuration of one of several nodes, in one file: that of all, but for what belongs to a node alone."""
    if not configuration.index_is_postgresql:
        raise ArchiveFault(
            "ZAMBEZI_NODES names several nodes, and Orthanc's index is SQLite, which only one process can have;"
            " put the index into PostgreSQL first (docs/install.md)"
        )
    own = environment.node_dir / "orthanc"
    index = {**configuration.orthanc["PostgreSQL"], "Lock": False}
    if index.get("Password") == environ.get("PGPASSWORD"):
        index["Password"] = "${PGPASSWORD}"  # noqa: S105  it isn't written: Orthanc reads the variable itself
    apart: dict[str, object] = {
        "DatabaseServerIdentifier": f"zambezi-{environment.node}",
        "HttpPort": environment.ports.orthanc_http, "DicomPort": environment.ports.dicom,
        "TemporaryDirectory": str(own / "tmp"), "PostgreSQL": index,
    }  # fmt: skip
    if "WebViewer" in configuration.orthanc:
        apart["WebViewer"] = {**configuration.orthanc["WebViewer"], "CachePath": str(own / "viewer-cache")}
    folder = own / "node-config"  # of the first node, orthanc/config/ is the folder that all processes read
    for made in (own / "tmp", folder, environment.plugin_dir):
        made.mkdir(parents=True, exist_ok=True, mode=0o700)
    secrets = json.loads((environment.orthanc_config_dir / config.SECRETS_FILE).read_bytes())
    file = folder / "orthanc.json"
    file.touch(mode=0o600)
    file.write_text(json.dumps({**configuration.orthanc, **secrets, **apart}))
    return folder


def clear_viewer_cache(environment: Environment, configuration: Configuration) -> None:
    """What the web viewer kept is not needed again, and what was deleted meanwhile must not be found in it."""
    section = configuration.orthanc.get("WebViewer", {})
    shared = section.get("CachePath") if isinstance(section, dict) else None
    path = environment.node_dir / "orthanc" / "viewer-cache" if environment.nodes else Path(str(shared or ""))
    if not shared or not viewer_cache.is_apart(path, environment.storage_dir):
        return
    try:
        viewer_cache.clear(path)
    except OSError as error:
        log.warning("the web viewer's cache could not be emptied: %s", error.strerror)


def find_orthanc(environ: Mapping[str, str]) -> str:
    """Orthanc's program: Debian keeps it in /usr/sbin, which is not on everybody's PATH."""
    found = shutil.which("Orthanc", path=environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        raise ArchiveFault("Orthanc is not installed; on Debian: apt-get install orthanc orthanc-python")
    return found


def check(environment: Environment, configuration: Configuration) -> None:
    """What must be there before Orthanc is started; raises ArchiveFault with every sentence."""
    plugins = [str(name) for name in configuration.orthanc.get("Plugins", [])]
    faults = [
        f"the plugin {name} is not installed; on Debian: apt-get install {_package(name)}, or take it out of Plugins"
        for name in plugins
        if not Path(name).exists()
    ]
    python = next((name for name in plugins if Path(name).name == "libOrthancPython.so"), None)
    if python is None:
        faults.append(
            "Plugins doesn't name libOrthancPython.so; without it Orthanc would run without journal and filter"
        )
    elif Path(python).exists():
        faults += interpreter_faults(python)
    script = Path(str(configuration.orthanc.get("PythonScript", "")))
    if not script.is_file():
        faults.append(f"PythonScript {script} is not there; it is plugins/zambezi_plugin.py of this installation")
    for what, variable, port in (
        ("DICOM", "ZAMBEZI_DICOM_PORT", environment.ports.dicom),
        ("HTTP", "ZAMBEZI_ORTHANC_HTTP_PORT", environment.ports.orthanc_http),
    ):
        if _stays_taken(port):
            faults.append(
                f"port {port} ({what}) is in use; if it is Debian's own Orthanc: systemctl disable --now orthanc;"
                f" else stop what uses it or set {variable}"
            )
    if faults:
        raise ArchiveFault("\n".join(faults))


def interpreter_faults(library: str) -> list[str]:
    """Whether Orthanc's embedded interpreter can use the packages of ours."""
    listed = subprocess.run(["ldd", library], capture_output=True, text=True, check=False).stdout
    found = re.search(r"libpython(\d+\.\d+)", listed)
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if not found:
        return [f"{library} doesn't say which Python it is built with (ldd); reinstall orthanc-python"]
    if found[1] != ours:
        return [
            f"Orthanc embeds Python {found[1]} but this virtual environment has {ours}; make it anew with"
            f" Debian's own: /usr/bin/python{found[1]} -m venv"
        ]
    return []


def program_environment(environ: Mapping[str, str], environment: Environment) -> dict[str, str]:
    """Orthanc's environment: the embedded interpreter knows neither PATH nor a virtual environment's .pth files."""
    packages = Path(sys.prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    return {
        **environ,
        **environment.variables(),
        "ZAMBEZI_REPOSITORY": environ.get("ZAMBEZI_REPOSITORY") or str(REPOSITORY),
        "PYTHONPATH": f"{REPOSITORY}:{packages}",
        "PYTHONNOUSERSITE": "1",
        # Debian's DCMTK leaves Nagle's algorithm on, which costs a factor of eight.
        "TCP_NODELAY": "1",
        **allocator(environ),
    }


def allocator(environ: Mapping[str, str], libraries: Path = _LIBRARIES) -> dict[str, str]:
    """Which memory allocator Orthanc runs with, as variables: jemalloc where it is installed.

    Orthanc takes every image apart into thousands of small pieces: a third of its work is the C library's malloc.
    Somebody's own LD_PRELOAD stays as it is.
    """
    if environ.get("LD_PRELOAD"):
        return {}
    found = sorted(libraries.glob("*/libjemalloc.so.2"))
    if not found:
        log.warning("libjemalloc2 is not installed: Orthanc takes images in more slowly; apt-get install libjemalloc2")
        return {}
    # What is free goes back to the system without waiting for the next use.
    return {"LD_PRELOAD": str(found[0]), "MALLOC_CONF": environ.get("MALLOC_CONF") or "background_thread:true"}


def _stays_taken(port: int) -> bool:
    """An Orthanc whose keeper was killed a moment ago is about to end."""
    deadline = time.monotonic() + _ENDING_S
    while recovery.is_taken(port):
        if time.monotonic() > deadline:
            return True
        time.sleep(0.1)
    return False


def _package(library: str) -> str:
    name = Path(library).stem.removeprefix("libOrthanc").lower()
    return {"python": "orthanc-python", "dicomweb": "orthanc-dicomweb", "webviewer": "orthanc-webviewer",
            "gdcm": "orthanc-gdcm", "postgresqlindex": "orthanc-postgresql"}.get(name, f"orthanc-{name}")  # fmt: skip


def _stop(_signal: int, _frame: FrameType | None) -> None:
    sys.exit(0)
