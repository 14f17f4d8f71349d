"""`zambezi modalities`: which DICOM peers there are, when each spoke last, an echo, and a new one without a restart."""

from __future__ import annotations

import difflib
import json
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

import click

from operations import configuring
from operations.modalities import SIGNS, Overview
from operations.modality_desk import Desk, NoSuchPeer
from zambezi import config, durable, keys
from zambezi.config import peers
from zambezi.config.peers import OF_A_MODALITY, RIGHTS, PeersFault
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancError


@click.group("modalities", invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def modalities_group(ctx: click.Context, as_json: bool) -> None:
    """DICOM devices: what each may do, when it spoke last, and who was refused."""
    if ctx.invoked_subcommand:
        return
    found = _desk().look()
    if as_json:
        click.echo(json.dumps(found.told, indent=2))
        return
    _say(found)


def _say(found: Overview) -> None:
    for sentence in found.trouble:
        click.echo(f"! {sentence}", err=True)
    for peer in found.known:
        click.echo(
            f"{peer.name:<16}  {peer.aet:<16}  {peer.host}:{peer.port}  may: {', '.join(peer.allowed) or 'nothing'}"
        )
        said = [f"{sign} {_moment(peer.signs[sign])}" for sign in SIGNS if sign in peer.signs]
        click.echo(f"    {'; '.join(said) or 'never seen'}")
        if peer.refusal:
            one = peer.refusal
            click.echo(f"    refused {_moment(one.at)}: {one.reason} ({one.count} times in all)")
    if found.strangers:
        click.echo("Refused, and not in DicomModalities:")
    for one in found.strangers:
        called = f" as {one.called_aet}" if one.called_aet else ""
        click.echo(f"    {one.aet or '(no AE title)'} at {one.ip} called{called}, {_moment(one.at)}: {one.reason}")
        if one.aet:
            click.echo(f"        to let it in: zambezi modalities add {one.name} {shlex.quote(one.aet)} {one.ip} PORT")


@modalities_group.command()
@click.argument("name")
def echo(name: str) -> None:
    """Ask a device by C-ECHO now, and say when it asked us last."""
    desk = _desk()
    try:
        answer = desk.echo(name)
    except NoSuchPeer:
        known = ", ".join(sorted(desk.configuration().modalities)) or "none"
        raise EnvironmentFault(f"no modality {name!r} in DicomModalities (known: {known})") from None
    except OrthancError as error:
        raise EnvironmentFault(f"the archive, which asks, doesn't answer: {error}") from error
    over = f" over {answer.over}" if answer.over else ""
    click.echo(
        f"{name} answers our echo{over}." if answer.answered else f"{name} does not answer our echo: {answer.reason}"
    )
    seen = next((peer.signs for peer in desk.look().known if peer.name == name), {})
    click.echo(f"Its last echo to us: {_moment(seen['echo'])}" if "echo" in seen else "It never sent us an echo.")
    if not answer.answered:
        sys.exit(1)


@modalities_group.command()
@click.argument("name")
@click.argument("aet", metavar="AE_TITLE")
@click.argument("host", metavar="ADDRESS")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option(
    "--allow", "allowed", multiple=True, type=click.Choice(list(RIGHTS)),
    help=f"What it may do, once for each; without any: {', '.join(OF_A_MODALITY)}.",
)  # fmt: skip
@click.option("--yes", is_flag=True, help="Write it without asking.")
def add(name: str, aet: str, host: str, port: int, allowed: tuple[str, ...], yes: bool) -> None:
    """Let a new device in: shows what changes in the JSON, writes it and reloads. Nothing is started again but the
    processes that read it; modalities go on storing meanwhile."""
    environment = Environment.read()
    environ = {**os.environ, **environment.variables()}
    before = config.load(environment.config_dir, environ)
    if name in before.orthanc.get(peers.SECTION, {}):
        raise EnvironmentFault(f"{name} is in {peers.SECTION} already; change it there, then: zambezi config reload")
    peer = peers.entry(aet, host, port, allowed or OF_A_MODALITY)
    file = _file(environment.config_dir)
    text = file.read_text(encoding="utf-8")
    try:
        new = peers.added(text, name, peer)
    except PeersFault as fault:
        raise EnvironmentFault(f"{file}: {fault}; write it there by hand:\n{peers.shown(name, peer)}") from fault
    _check(environment.config_dir, file.name, new, environ)
    for line in difflib.unified_diff(text.splitlines(), new.splitlines(), str(file), str(file), lineterm="", n=1):
        click.echo(line)
    if not os.access(file, os.W_OK) or not os.access(file.parent, os.W_OK):
        raise EnvironmentFault(
            f"{file} belongs to another account; as its owner write what stands above behind +, then: "
            "zambezi config reload"
        )
    if not yes:
        click.confirm("Write it and reload?", abort=True)
    mode = file.stat().st_mode
    durable.replace(file, new.encode())
    file.chmod(mode)
    configuring.reload()


def _file(folder: Path) -> Path:
    """The file that holds DicomModalities."""
    for file in sorted(folder.glob("*.json")):
        if file.name != config.SECRETS_FILE and f'"{peers.SECTION}"' in file.read_text(encoding="utf-8"):
            return file
    raise EnvironmentFault(f"no file in {folder} has {peers.SECTION}; orthanc-config/40-peers.json shows how it begins")


def _check(folder: Path, changed: str, text: str, environ: dict[str, str]) -> None:
    """ConfigurationFaults where the configuration could not be used with this text."""
    with tempfile.TemporaryDirectory() as scratch:
        for file in folder.glob("*.json"):
            shutil.copy(file, Path(scratch) / file.name)
        (Path(scratch) / changed).write_text(text, encoding="utf-8")
        config.load(Path(scratch), environ)


def _desk() -> Desk:
    environment = Environment.read()
    if not environment.keys_file.exists():
        raise EnvironmentFault(f"nothing was ever started in {environment.home}")
    made = sessions(connect(environment.database_url, "operations", reading=True), "operations")
    return Desk(environment, keys.load(environment.keys_file), made)


def _moment(at: str) -> str:
    return f"{at[:10]} {at[11:16]} UTC"
