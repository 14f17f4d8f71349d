"""Recovery of images that Orthanc's index lost: files in the storage that it doesn't know are ingested again.

Orthanc must not run. Its own rule holds: nothing is written into its storage or index behind its back; a
file goes in through POST /instances, as user `recovery`, and the lost file is removed only when Orthanc
holds the same bytes, or the hold does. Only what DICOMweb worked out from images is no loss, and goes.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from operations import clean_stop, comparing
from operations.comparing import Compared
from operations.progress import Progress
from zambezi import clock, digests
from zambezi import hold as files
from zambezi.config import Configuration
from zambezi.config.load import SECRETS_FILE
from zambezi.digest import CutOff, Unreadable, fingerprint
from zambezi.environment import Environment
from zambezi.keys import Keys
from zambezi.orthanc_client import OrthancClient, OrthancRefused, OrthancUnreachable

log = logging.getLogger("zambezi.recovery")

#: Orthanc must answer within so many seconds after its start, and stop within so many.
START_S = 120
STOP_S = 60

#: Below ZAMBEZI_HOME/orthanc: names of files that a restored index on PostgreSQL doesn't know (operations.backup).
INGEST_AGAIN = "ingest-again"

#: How what DICOMweb (1.15 and newer) keeps of a series begins: a version, a digest, gzip. We have it switched off
#: (zambezi.config.safety), but an archive that ran before that has a file of it for each series.
_TOLD_OF_SERIES = re.compile(rb"[0-9]+;[0-9a-f]{32};\x1f\x8b")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RecoveryFault(Exception):
    """Recovery can't go on, and modalities are not let in; the text says what to do."""


def run(
    environment: Environment, keys: Keys, configuration: Configuration, program: str, variables: Mapping[str, str]
) -> None:
    """Compare, unless Orthanc stopped cleanly, and ingest what the index doesn't know.

    Returns when Orthanc may open its DICOM port.
    """
    if configuration.index_is_postgresql:
        # durable at once, and not ours to read
        ingest_named(environment, keys, configuration, program, variables)
        return
    index = environment.index_dir / "index"
    why = clean_stop.take(index, environment.storage_dir)
    if not why:
        log.info("Orthanc stopped cleanly: its files need not be compared with the index")
        return
    log.info("files are compared with the index: %s", why)
    try:
        found = comparing.compare(environment.storage_dir, index, environment.run_dir / "recovery", log.info)
    except comparing.Unusable as fault:
        raise RecoveryFault(str(fault)) from fault
    for file in found.hollow():
        # Orthanc syncs a file (SyncStorageArea) before it answers Success: nobody was told that this one is there.
        log.warning("%s is empty: Orthanc died before it wrote what it received, and answered nothing", file.name)
        file.unlink()
    if found.missing:
        _incident(environment, clock.now(), f"the index knows {found.missing} files that are not in the storage")
    if found.unknown:
        _ingest_all(found, environment, keys, configuration, program, variables)


def _ingest_all(
    found: Compared,
    environment: Environment,
    keys: Keys,
    configuration: Configuration,
    program: str,
    variables: Mapping[str, str],
) -> None:
    log.warning("%d files are unknown to the index: they are ingested before modalities are let in", found.unknown)
    apart = on_a_port_of_its_own(environment)
    folder = write_configuration(apart, configuration)
    with running(program, folder, variables):
        orthanc = OrthancClient(apart, keys, "recovery", timeout_s=300)
        wait_until_up(orthanc)
        progress = Progress("ingesting what the index doesn't know", found.unknown, log.info)
        recovered = 0
        for done, file in enumerate(found.lost(), 1):
            recovered += ingest(orthanc, environment, file)
            progress.at(done, done - recovered)
        _wait_until_recorded(orthanc)
    log.warning("recovered %d of %d files; the others are in the hold", recovered, found.unknown)


def ingest_named(
    environment: Environment, keys: Keys, configuration: Configuration, program: str, variables: Mapping[str, str]
) -> None:
    """Ingest the files that a restore named: its backup's index on PostgreSQL is older than they are."""
    listed = environment.orthanc_dir / INGEST_AGAIN
    names = [name for name in listed.read_text().split() if _UUID.fullmatch(name)] if listed.exists() else []
    files = [environment.storage_dir / name[:2] / name[2:4] / name for name in names]
    there = [file for file in files if file.is_file() and file.stat().st_size]
    if there:
        log.warning(
            "%d files came after the backup's index: they are ingested before modalities are let in", len(there)
        )
        apart = on_a_port_of_its_own(environment)
        with running(program, write_configuration(apart, configuration), variables):
            orthanc = OrthancClient(apart, keys, "recovery", timeout_s=300)
            wait_until_up(orthanc)
            recovered = sum(ingest(orthanc, environment, file) for file in there)
            _wait_until_recorded(orthanc)
        log.warning("ingested %d of %d files; the others are in the hold", recovered, len(there))
    listed.unlink(missing_ok=True)


def write_configuration(environment: Environment, configuration: Configuration) -> Path:
    """The configuration of the recovering Orthanc, in one file: the same, but its DICOM port is closed."""
    folder = environment.run_dir / "recovery-config"
    folder.mkdir(parents=True, exist_ok=True)
    secrets = json.loads((environment.orthanc_config_dir / SECRETS_FILE).read_bytes())
    file = folder / "orthanc.json"
    file.touch(mode=0o600)
    apart = {"DicomServerEnabled": False, "HttpPort": environment.ports.orthanc_http}
    file.write_text(json.dumps({**configuration.orthanc, **secrets, **apart}))
    return folder


def on_a_port_of_its_own(environment: Environment) -> Environment:
    """The same installation with another HTTP port: nobody must take the archive for whole before it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return replace(environment, ports=replace(environment.ports, orthanc_http=probe.getsockname()[1]))


def ingest(orthanc: OrthancClient, environment: Environment, file: Path) -> bool:
    """Store one file again; True if Orthanc holds its bytes now (or they were no object), False if the hold does."""
    content = file.read_bytes()
    if _TOLD_OF_SERIES.match(content):
        # Worked out from the images, and of patients: not an object, and no more than Orthanc would make anew.
        log.info("%s is what DICOMweb kept of a series: it is removed", file.name)
        file.unlink()
        return True
    try:
        stored = orthanc.store(content)
        held = orthanc.md5(stored["ID"])
    except OrthancRefused as refused:
        if refused.is_transient or refused.status >= 507:
            raise RecoveryFault(f"Orthanc doesn't take {file.name}: {refused}; is the disk full?") from refused
        if is_cut_off(content):
            # Orthanc refuses it as it would have done when it came, and a file is on disk before Success is answered:
            # nobody was told that this one is there. It is kept all the same, and asks for nobody.
            log.warning("%s is cut off: Orthanc died while it wrote what it received, and answered nothing", file.name)
            _keep(environment, content, "unreadable", "Orthanc died while it wrote it", file.name, clock.now(), "kept")
            file.unlink()
            return False
        why, reason = "unreadable", f"Orthanc can't read it: HTTP {refused.status}"
    except OrthancUnreachable as error:
        raise RecoveryFault(f"Orthanc stopped answering during recovery ({error}); see its log") from error
    else:
        if held == digests.orthanc_md5(content):
            if stored.get("Status") == "AlreadyStored":
                _be_sure_of_another(orthanc, file, str(stored["ID"]), content)
            file.unlink()
            return True
        why, reason = "conflict", f"the archive has other bytes for the same instance {stored['ID']}"
    hold(environment, content, why, reason, file.name, clock.now())
    file.unlink()
    return False


def _be_sure_of_another(orthanc: OrthancClient, file: Path, orthanc_id: str, content: bytes) -> None:
    """Orthanc has it from before; RecoveryFault where this very file is what it has.

    Its index says so without looking at the disk: an index that was away at one start (another IndexDirectory, a disk
    that was not mounted) knows these files by their names, and they are the only ones.
    """
    aside = file.with_name(f"{file.name}.aside")
    file.rename(aside)
    try:
        has_another = orthanc.file(orthanc_id) == content
    except (OrthancRefused, OrthancUnreachable):
        has_another = False
    finally:
        aside.rename(file)
    if not has_another:
        raise RecoveryFault(
            f"the index knows {file.name} as instance {orthanc_id}, though it was not found there: the archive's index "
            "is not where it is looked for. Look whether IndexDirectory and StorageDirectory are as delivered, and "
            "their disks mounted; nothing was removed"
        )


def is_cut_off(content: bytes) -> bool:
    """Whether this is the beginning of a DICOM object with an identity, which ends before it should."""
    from operations.custody.identity import identify  # pydicom: only where something was cut off, not at each start

    if not identify(content).sop_uid:
        return False
    try:
        fingerprint(content)
    except CutOff:
        return True
    except Unreadable:
        return False
    return False


def hold(environment: Environment, content: bytes, why: str, reason: str, name: str, now: datetime) -> Path:
    """Keep a file whole in the hold, for a person to decide; on disk and verified when this returns."""
    sha256 = _keep(environment, content, why, reason, name, now)
    _incident(environment, now, f"a file that the index had lost is in the hold: {reason}", hold=sha256)
    return files.path(environment.hold_dir, sha256)


def _keep(
    environment: Environment, content: bytes, why: str, reason: str, name: str, now: datetime, state: str = ""
) -> str:
    """The central database may be away while the archive starts: a note says why it lies there, custody makes a row."""
    folder = environment.hold_dir
    sha256 = files.put(folder, content)
    try:
        files.get(folder, sha256)
    except files.NotHeld as error:
        raise RecoveryFault(f"{error}: it was not written as it should be; check the disk") from error
    told = {"why": why, "reason": reason, "reference": f"recovery {name}", "at": clock.text(now)}
    files.leave_note(folder, sha256, told | ({"state": state} if state else {}))
    return sha256


def is_taken(port: int) -> bool:
    """Whether somebody listens on the port of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return True
    return False


@contextmanager
def running(
    program: str,
    folder: Path,
    variables: Mapping[str, str],
    pass_fds: tuple[int, ...] = (),
    log: Path | None = None,
) -> Iterator[None]:
    """An Orthanc for a while, with its DICOM port closed; it goes down with us, however we end."""
    out = log.open("ab") if log else None
    process = subprocess.Popen(
        [program, str(folder)], env=dict(variables), preexec_fn=die_with_parent, pass_fds=pass_fds, stdout=out,
        stderr=out,
    )  # fmt: skip
    if out:
        out.close()
    try:
        yield
        if process.poll() is not None:
            raise RecoveryFault(f"that Orthanc ended by itself (exit {process.returncode}); see its log")
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def die_with_parent() -> None:
    """For a program that must not outlive us, however we end: an Orthanc would hold the ports (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_until_up(orthanc: OrthancClient) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            orthanc.system()
        except OrthancUnreachable:
            if time.monotonic() > deadline:
                raise RecoveryFault(f"Orthanc didn't answer within {START_S} s; see its log") from None
            time.sleep(0.2)
        else:
            return


def _wait_until_recorded(orthanc: OrthancClient) -> None:
    """Until the journal has what was ingested."""
    deadline = time.monotonic() + START_S
    while True:
        last = orthanc.get("/changes?last")["Last"]
        following = orthanc.get("/zambezi/status")["follower"]
        if following["change"] >= last and following["lag"] == 0:
            return
        if time.monotonic() > deadline:
            raise RecoveryFault(f"the journal doesn't follow ({following['error'] or 'no reason given'}); see the log")
        time.sleep(0.1)


def _incident(environment: Environment, now: datetime, reason: str, **facts: str) -> None:
    """For the journal, which takes lines of this file as `incident` entries; and for the log."""
    log.error("%s", reason)
    environment.plugin_dir.mkdir(parents=True, exist_ok=True)
    _append(environment.plugin_dir / "incidents.log", {"reason": reason, "noticed_at": clock.text(now), **facts})


def _append(file: Path, line: Mapping[str, str]) -> None:
    with file.open("a") as out:
        out.write(json.dumps(line) + "\n")
        out.flush()
        os.fsync(out.fileno())
