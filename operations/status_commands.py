"""`zambezi status`: what runs, what waits and what went wrong, for a terminal or for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import click

from operations import condition_messages, encryption
from operations.conditions import Going
from operations.status import BackupState, Part, Status, look
from zambezi import clock, signing
from zambezi.environment import Environment


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def status(as_json: bool) -> None:
    """Show each process, what waits and what went wrong; exit code 1 when something isn't well."""
    environment = Environment.read()
    found = look(environment, clock.now())
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2))
    else:
        click.echo("\n".join(lines(found)))
    sys.exit(0 if found.is_well else 1)


#: Orthanc's open faults by the version that has them no more, and what keeps strangers from them here.
_FAULTS = (
    ((1, 12, 11), "CVE-2026-5437 to -5445 (bodies that unpack to gigabytes, reads beyond headers)"),
    ((1, 13, 0), "CVE-2026-10528 (nested sequences)"),
)


def known_faults(version: str) -> list[str]:
    """What is known of this version of Orthanc, as a sentence each; nothing of a version that can't be read."""
    if not re.fullmatch(r"\d+(\.\d+){2}", version):
        return []
    number = tuple(int(part) for part in version.split("."))
    return [
        f"this version has {fault}, mended in {'.'.join(map(str, mended))}: our own services and known devices alone "
        "reach it"
        for mended, fault in _FAULTS
        if number < mended
    ]


def lines(found: Status) -> list[str]:
    """The status for a terminal."""
    out = [f"Zambezi {found.version} in {found.home}, configuration {found.configuration[:12] or 'with faults'}"]
    if found.configuration_on_disk not in ("", found.configuration):
        out.append("  The JSON says something newer than what runs (or `up` had variables that this shell lacks):")
        out.append("  `zambezi config reload` takes it.")
    for part in found.parts:
        out.append(
            f"  {part.name + ' ':<11}{part.state:<9}{part.since[:19]:<21}{_facts(part, found.configuration)}".rstrip()
        )
        if part.last_error:
            out.append(f"             last error {part.last_error_at[:19]}: {part.last_error}")
    if found.archive:
        archive = found.archive
        out.append(
            f"Archive: Orthanc {archive.get('orthanc', '?')} with Python plugin {archive.get('python_plugin', '?')},"
            f" our plugin {archive.get('plugin', '?')}"
        )
        out += [f"  {sentence}" for sentence in known_faults(str(archive.get("orthanc", "")))]
        follower = archive.get("follower", {})
        out.append(f"  journal entry {archive.get('seq', '?')}, {follower.get('lag', '?')} changes behind")
        if follower.get("error"):
            out.append(f"  {follower['error']}")
        out += [f"  {_node(one)}" for one in archive.get("nodes", [])]
        out += [f"  this version can't: {sentence}" for sentence in archive.get("lacks", [])]
    if found.databases:
        out.append("Databases: " + ", ".join(f"{what} {engine}" for what, engine in sorted(found.databases.items())))
    out += [f"  {number:>6}  {what}" for what, number in sorted(found.queues.items()) if number]
    out += [
        f"{signing.PURPOSES[key['purpose']]} are signed with key {key['key_id']}, {key['days']} days old"
        for key in found.signing
    ]
    out += [f"{one['what']} ({', '.join(one['names'])}) is good for {one['days']} days" for one in found.certificates]
    out += [
        f"          {one.count:>6}  {one.room} {one.kind or '-'}, the oldest since {one.oldest[:19]}"
        for one in found.exceptions
    ]
    out += [f"{' ' if one.is_well else '!'} {one.line}" for one in found.volumes]
    out += encryption.lines(found.encryption)
    out += [f"! {_condition(one)}" for one in found.conditions]
    out += found.audit.lines if found.audit else []
    if found.backup:
        out += backup_lines(found.backup)
    out += [f"  alerts by {one.name}: the last told at {one.sent_at[:19]}" for one in found.alerts if one.sent_at]
    out += [f"! {sentence}" for sentence in (*found.paused, *found.trouble)]
    return out


def _node(told: Mapping[str, Any]) -> str:
    does = f"records for all, epoch {told['epoch']}" if told["records"] else "answers, and another one records"
    line = f"node {told['node']} {does}; its journal {told['journal']} has {told['seq']} entries"
    if refused := told.get("refused_studies"):
        line += f"; studies that it refuses since another node corrected them, until it is started again: {refused}"
    return line


def _condition(going: Going) -> str:
    said = condition_messages.words(going, "en")
    return f"{said.title} since {going.since[:19]}. {said.what}"


def backup_lines(found: BackupState) -> list[str]:
    """Backups for a terminal."""
    if not found.is_wanted:
        return ["Backup: none is configured (Zambezi.Backup.Repository)"]
    running = ["  one is running now"] if found.is_running else []
    last = found.last
    if not last.finished:
        return ["Backup: none yet", *running]
    drilled = f", restored on trial {last.drilled[:10]}" if last.drilled else ", never restored on trial (backup drill)"
    return [f"Backup: the last {last.finished[:19]}, {found.age} old, {last.instances:,} instances{drilled}", *running]


def _facts(part: Part, configuration: str) -> str:
    facts = [part.version]
    if part.configuration and part.configuration != configuration:
        facts.append(f"on another configuration, {part.configuration[:12]}")
    facts += [f"{key} {value}" for key, value in sorted(part.details.items()) if isinstance(value, int | float | str)]
    return ", ".join(fact for fact in facts if fact)
