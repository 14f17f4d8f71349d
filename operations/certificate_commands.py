"""`zambezi cert`: an authority of the hospital's own, and the front door's certificate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from sqlalchemy.exc import SQLAlchemyError

from operations import certificate_keeping, certificates, front_door, source_certificates
from operations.certificate_keeping import Keeper
from operations.certificates import CertificateFault
from operations.status import database_trouble
from zambezi import clock, config
from zambezi.account import at_the_console
from zambezi.database.engine import connect, sessions
from zambezi.environment import Environment, EnvironmentFault


@click.group()
def cert() -> None:
    """The front door's certificate, from an authority of the hospital's own."""


@cert.command()
@click.option("--organisation", required=True, help="Whose it is, as browsers show it: the hospital's name.")
@click.option(
    "--domain", "domains", multiple=True, help="A domain it may vouch for, beside .local, .lan, .internal, .home.arpa."
)
@click.option("--network", "networks", multiple=True, help="A network it may vouch for, beside the private addresses.")
@click.option("--again", is_flag=True, help="In place of the one there is; every computer must be told of it.")
def authority(organisation: str, domains: tuple[str, ...], networks: tuple[str, ...], again: bool) -> None:
    """Make the authority, once; its certificate is then put into each computer and phone."""
    with _keeper() as keeper:
        keeper.make_authority(organisation, domains, networks, again, at_the_console(), clock.now())
        file = certificate_keeping.authority_file(keeper.environment)
        made = certificates.load(file.read_bytes())
    click.echo(f"{file}, good until {clock.text(made.not_valid_after_utc)[:10]}")
    click.echo(f"  SHA-256 {certificates.fingerprint(made)}")
    click.echo("Next: zambezi cert server NAME_OR_ADDRESS ...")


@cert.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME_OR_ADDRESS...")
def server(names: tuple[str, ...]) -> None:
    """Make the front door's certificate for every name and address by which browsers ask for it."""
    with _keeper() as keeper:
        environment = keeper.environment
        before = front_door.certificate(environment, os.environ)
        keeper.issue(names, at_the_console(), clock.now())
    _say_front(environment)
    if before is None:
        click.echo(f"Start everything again, and HTTPS listens on port {environment.ports.https}.")


@cert.command()
def renew() -> None:
    """Renew the front door's certificate now; `operations` does so by itself a month before its end."""
    with _keeper() as keeper:
        environment = keeper.environment
        keeper.renew(at_the_console(), clock.now())
    _say_front(environment)


@cert.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def show(as_json: bool) -> None:
    """Each certificate that is shown or believed here, until when it is good, and its fingerprint."""
    environment, now = Environment.read(), clock.now()
    try:
        found = certificate_keeping.known(environment, os.environ)
        loaded = config.load(environment.config_dir, {**os.environ, **environment.variables()})
        found += source_certificates.known(loaded)
    except CertificateFault as fault:
        raise click.ClickException(str(fault)) from fault
    except config.ConfigurationFaults:
        click.echo("What legacy archives are shown isn't listed: see `zambezi config check`.", err=True)
    if as_json:
        told = [{**vars(one), "until": clock.text(one.until), "days_left": one.days_left(now)} for one in found]
        click.echo(json.dumps(told, indent=1))
        return
    for one in found:
        click.echo(f"{one.what}: {', '.join(one.names)}")
        click.echo(f"  until {clock.text(one.until)[:10]}, {one.days_left(now)} days; issued by {one.issuer}")
        click.echo(f"  SHA-256 {one.fingerprint}\n  {one.file}")
    if not found:
        click.echo(
            "There is no certificate; the front door listens on this machine only. `zambezi cert authority` begins."
        )


@contextmanager
def _keeper() -> Iterator[Keeper]:
    environment = Environment.read()
    engine = connect(environment.database_url, certificate_keeping.WRITER)
    try:
        yield Keeper(environment, sessions(engine, certificate_keeping.WRITER))
    except CertificateFault as fault:
        raise click.ClickException(str(fault)) from fault
    except SQLAlchemyError as error:
        raise EnvironmentFault(
            f"what is done to certificates is audited first, and {database_trouble(error)}"
        ) from error
    finally:
        engine.dispose()


def _say_front(environment: Environment) -> None:
    file: Path = environment.home / "certificates" / "front.crt"
    made = certificates.load(file.read_bytes())
    until = clock.text(made.not_valid_after_utc)[:10]
    click.echo(f"{file}, good until {until}, for {', '.join(certificates.names(made))}")
