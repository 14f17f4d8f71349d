"""`zambezi key`: the keys that sign what leaves the house, one following another."""

from __future__ import annotations

import getpass
import json
from dataclasses import asdict
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from operations.status import database_trouble
from zambezi import clock, signing
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment, EnvironmentFault
from zambezi.signing import Register, SigningFault

WRITER = "operations"

_purpose = click.option(
    "--purpose", type=click.Choice(sorted(signing.PURPOSES)), default="certificate", show_default=True,
    help="What is signed with it.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="For programs.")
_reason = click.option("--reason", required=True, help="Why; it stands in the register and in the audit trail.")


@click.group()
def key() -> None:
    """Signing keys: which one signs, and those that did."""


@key.command("list")
@_json
def list_command(as_json: bool) -> None:
    """Every key there ever was, with the time in which it signed."""
    folder = Environment.read().signing_dir
    found = {purpose: _known(folder, purpose) for purpose in sorted(signing.PURPOSES)}
    if as_json:
        keys = {purpose: [asdict(each) for each in known.keys] for purpose, known in found.items() if known}
        click.echo(json.dumps(keys, indent=1))
        return
    for purpose, known in found.items():
        if known is None:
            click.echo(f"{purpose}: no key yet; the first is made when something is signed")
            continue
        for each in known.keys:
            until = each.until[:19] or "now"
            click.echo(f"{purpose}  {each.key_id}  {each.state:<8} {each.since[:19]} to {until:<19}  {each.kind}")


@key.command()
@click.argument("key_id", required=False)
@_purpose
@_json
def show(key_id: str | None, purpose: str, as_json: bool) -> None:
    """One key (default: the one that signs now): its public half, and what the register says of it."""
    known = _needed(Environment.read().signing_dir, purpose)
    found = known.key(key_id or known.keys[-1].key_id)
    if found is None:
        raise click.ClickException(f"no key {key_id} for {signing.PURPOSES[purpose]}; `zambezi key list` shows them")
    said = [
        {name: value for name, value in entry.statement.items() if name != "public_key"}
        for entry in known.entries
        if entry.key_id == found.key_id
    ]
    if as_json:
        click.echo(json.dumps({**asdict(found), "statements": said}, indent=1))
        return
    click.echo(f"{found.key_id} signs {signing.PURPOSES[purpose]}: {found.state}, since {found.since[:19]}")
    for each in said:
        click.echo(
            f"  {each['at'][:19]} {each['kind']} by {each['by']}: {each['reason']} (signed by {each['signed_by']})"
        )
    click.echo(found.public_key, nl=False)


@key.command()
@_purpose
@_reason
@click.option("--lost", is_flag=True, help="The private key is gone: the new one can't be signed by it.")
@_json
def rotate(purpose: str, reason: str, lost: bool, as_json: bool) -> None:
    """Let a new key sign from now on; what the old one signed stays good."""
    environment = Environment.read()
    try:
        made = signing.rotate(environment.signing_dir, purpose, getpass.getuser(), reason, clock.now(), lost)
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault
    _record(environment, made)
    _say(made, as_json)


@key.command()
@click.argument("key_id")
@_purpose
@_reason
@_json
def revoke(key_id: str, purpose: str, reason: str, as_json: bool) -> None:
    """Declare that nothing KEY_ID signed may be trusted: it was stolen, or may have been."""
    environment = Environment.read()
    try:
        made = signing.revoke(environment.signing_dir, purpose, key_id, getpass.getuser(), reason, clock.now())
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault
    _record(environment, made)
    if not as_json:
        click.echo(f"{key_id} is revoked: issue anew what it signed and is still needed")
    _say(made, as_json)


@key.command()
@_purpose
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it; default: to screen.")
def export(purpose: str, out: Path | None) -> None:
    """The register of public keys, for those who verify: nothing in it is secret."""
    known = _needed(Environment.read().signing_dir, purpose)
    if out is None:
        click.echo(known.to_json().decode(), nl=False)
        return
    out.write_bytes(known.to_json())
    click.echo(f"{out}: {len(known.keys)} keys; {known.keys[-1].key_id} signs now")


def _say(made: Register, as_json: bool) -> None:
    now = made.keys[-1]
    if as_json:
        click.echo(json.dumps(asdict(now), indent=1))
    else:
        click.echo(f"{now.key_id} signs {signing.PURPOSES[made.purpose]}; those who verify need this fingerprint")


def _record(environment: Environment, made: Register) -> None:
    engine = connect(environment.database_url, WRITER)
    try:
        with sessions(engine, WRITER).begin() as session:
            signing.record(session, made, WRITER)
    except SQLAlchemyError as error:
        raise EnvironmentFault(
            f"the keys are changed, but the audit trail is not: {database_trouble(error)}; "
            "the next certificate, rotation or revocation writes it down"
        ) from error
    finally:
        engine.dispose()


def _known(folder: Path, purpose: str) -> Register | None:
    try:
        return signing.register(folder, purpose)
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault


def _needed(folder: Path, purpose: str) -> Register:
    known = _known(folder, purpose)
    if known is None:
        raise click.ClickException(
            f"there is no key for {signing.PURPOSES[purpose]} yet; the first is made when something is signed"
        )
    return known
