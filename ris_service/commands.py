"""`zambezi user`, `zambezi token` and `zambezi order`: what is done at the console."""

from __future__ import annotations

import os
import sys
from datetime import timedelta

import click
from sqlalchemy import select

from zambezi import audit, clock, config, identifiers, keys, opening, patients, users
from zambezi.access import ROLES
from zambezi.access.tokens import Token, TokenRefused, begin, read, sign
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Order, Patient, User
from zambezi.environment import Environment

CHAIN = "ris"
#: Roles that people sign in with; the others come with tokens.
SIGN_IN_ROLES = tuple(role for role in ROLES if role not in ("emergency", "guest"))
#: Who did it, in the audit trail: the account of the machine at whose console it was typed.
BY = "console"
LONGEST_EMERGENCY_HOURS = 12


def _database() -> Sessions:
    return sessions(connect(Environment.read().database_url, "console"), "console")


@click.group()
def user() -> None:
    """People who sign in."""


@user.command("add")
@click.argument("login")
@click.option("--name", required=True, help="As it stands on reports and in the audit trail.")
@click.option("--role", required=True, type=click.Choice(SIGN_IN_ROLES))
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input; it is the person's own.")
def add(login: str, name: str, role: str, password_stdin: bool) -> None:
    """Add an account and print its one-time password."""
    password = sys.stdin.readline().rstrip("\n") if password_stdin else users.one_time_password()
    if password_stdin and users.password_faults(password, login):
        raise click.ClickException(
            f"the password won't do: at least {users.SHORTEST_PASSWORD} characters, five different ones, "
            "without the login in it"
        )
    now = clock.now()
    try:
        with _database().begin() as session:
            made = users.add(session, login, name, role, password, now, CHAIN, BY)
            if password_stdin:
                users.set_password(session, made, password, now, CHAIN)
    except users.UserRefused as why:
        raise click.ClickException(str(why)) from None
    click.echo(made.login if password_stdin else f"{made.login}  one-time password: {password}")


@user.command("list")
def list_() -> None:
    """All accounts."""
    with _database().begin() as session:
        for row in session.scalars(select(User).order_by(User.login)):
            state = "disabled" if row.disabled_at else "one-time password" if row.must_change_password else "active"
            factor = "second factor" if row.totp_secret else "-"
            click.echo(f"{row.login:<20} {row.role:<20} {state:<18} {factor:<14} {row.name}")


@user.command("scope")
@click.argument("login")
@click.option("--site", "sites", multiple=True, help="A site of Access.Sites; may be repeated.")
@click.option("--modality", "modalities", multiple=True, help="Such as CT; may be repeated.")
@click.option("--referrer", default="", help="Only what this physician asked for; the name as orders write it.")
@click.option("--all", "everything", is_flag=True, help="The whole site again, as far as the role goes.")
def scope(login: str, sites: tuple[str, ...], modalities: tuple[str, ...], referrer: str, everything: bool) -> None:
    """Let an account see a part of the site alone; its sign-ins end. Without an option: show its part."""
    known = config.load(Environment.read().config_dir, os.environ).zambezi.access.sites
    if strange := sorted(set(sites) - set(known)):
        raise click.ClickException(
            f"--site: found {', '.join(strange)}, allowed: {', '.join(sorted(known)) or 'none, Access.Sites is empty'}"
        )
    with _database().begin() as session:
        found = _found(users.find(session, login), login)
        if sites or modalities or referrer or everything:
            if everything and (sites or modalities or referrer):
                raise click.ClickException("--all goes with no other option")
            users.set_scope(
                session, found, sites=sites, modalities=modalities, referrer=referrer, now=clock.now(), writer=CHAIN,
                by=BY,
            )  # fmt: skip
        part = opening.scope_of(found)
        said = [
            *sorted(part.sites),
            *sorted(part.modalities),
            *([f"orders of {part.referrer}"] if part.referrer else []),
        ]
        alone = "the studies of its own orders" if part.own_only else "the whole site"
        click.echo(f"{found.login} sees {', '.join(said) or alone}")


@user.command("disable")
@click.argument("login")
def disable(login: str) -> None:
    """Disable an account and end its sign-ins."""
    with _database().begin() as session:
        users.disable(session, _found(session.scalars(select(User).where(User.login == login.lower())).first(), login),
                      clock.now(), CHAIN, BY)  # fmt: skip
    click.echo(f"{login} is disabled; its sign-ins are ended")


@user.command("reset-password")
@click.argument("login")
def reset_password(login: str) -> None:
    """Print a new one-time password; the second factor is removed and every sign-in ended."""
    password = users.one_time_password()
    with _database().begin() as session:
        found = _found(users.find(session, login), login)
        users.reset_password(session, found, password, clock.now(), CHAIN, BY)
    click.echo(f"{found.login}  one-time password: {password}")


@click.group()
def token() -> None:
    """Tokens for a shift without the RIS, for programs, for studies that are shared."""


@token.command("issue")
@click.option("--kind", required=True, type=click.Choice(["emergency", "service", "share"]))
@click.option("--name", required=True, help="Who gets it; it stands in the audit trail.")
@click.option("--role", type=click.Choice(list(ROLES)), help="Of a service token; the others have their own.")
@click.option("--study", "studies", multiple=True, help="Of a share token: a Study Instance UID. May be repeated.")
@click.option("--download", is_flag=True, help="Of a share token: hand over the files, too, not the images alone.")
@click.option("--hours", type=click.FloatRange(0, 24 * 366, min_open=True), default=8, show_default=True)
def issue(kind: str, name: str, role: str | None, studies: tuple[str, ...], download: bool, hours: float) -> None:
    """Print a signed token. It needs no running process: the plugin knows it by its signature."""
    if kind == "emergency" and hours > LONGEST_EMERGENCY_HOURS:
        raise click.ClickException(f"--hours: found {hours:g}, an emergency token lasts one shift: at most 12")
    if kind == "share" and not studies:
        raise click.ClickException("--study: a share token names the studies that it opens")
    if kind != "share" and studies:
        raise click.ClickException("--study: only a share token is limited to studies")
    if kind != "share" and download:
        raise click.ClickException("--download: only a share token can lack it")
    if (kind == "service") != (role is not None):
        raise click.ClickException("--role: goes with --kind service, and is needed there")
    environment = Environment.read()
    now = clock.now()
    made = begin(
        f"{kind}:{name}", kind, role or {"emergency": "emergency", "share": "guest"}[kind],
        int(now.timestamp()), int(timedelta(hours=hours).total_seconds()), studies, download=download,
    )  # fmt: skip
    written = sign(made, keys.load(environment.keys_file).session_key)
    _note(made, now.isoformat(timespec="seconds"))
    click.echo(written)


@token.command("revoke")
@click.argument("written", metavar="TOKEN_OR_SESSION")
def revoke(written: str) -> None:
    """End a token (or the sign-in with this session id) before its time."""
    now = clock.now()
    session_id, expires = written, int((now + timedelta(days=366)).timestamp())
    if written.startswith("v1."):
        try:
            found = read(written, keys.load(Environment.read().keys_file).session_key, int(now.timestamp()))
        except TokenRefused as why:
            raise click.ClickException(f"the token can't be used anyway: {why}") from None
        session_id, expires = found.session, found.expires
    if len(session_id) != 16 or not set(session_id) <= set("0123456789abcdef"):
        raise click.ClickException("neither a token nor a session id (16 hexadecimal digits, see the audit trail)")
    with _database().begin() as session:
        users.revoke(session, [(session_id, expires)])
        audit.append(session, CHAIN, "user-changed", now, who=BY, session=session_id, change="revoked")
    click.echo(f"{session_id} is revoked")


@click.group()
def order() -> None:
    """Orders."""


@order.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def list_orders(limit: int) -> None:
    """The newest orders: number, state, time, modality, exam. Names stay on the pages."""
    site = config.load(Environment.read().config_dir, os.environ).zambezi.site
    with _database().begin() as session:
        for row in session.scalars(select(Order).order_by(Order.scheduled_at.desc()).limit(limit)):
            at = clock.parse(row.scheduled_at).astimezone(site.zone)
            click.echo(
                f"{row.accession_number:<16} {row.status:<13} {at:%Y-%m-%d %H:%M} {row.modality:<4} "
                f"report {row.report_status:<6} {row.procedure_text}"
            )


@click.group()
def patient() -> None:
    """Patients. `zambezi correct merge` and `zambezi correct undo` merge and part them."""


@patient.command("show")
@click.argument("patient_id")
def show_patient(patient_id: str) -> None:
    """Who has this ID, by every issuer: identifiers, merges, orders. The name stays on the pages."""
    with _database().begin() as session:
        rows = session.scalars(select(Patient).where(Patient.patient_id == patient_id).order_by(Patient.issuer)).all()
        if not rows:
            raise click.ClickException(f"no patient {patient_id!r} is registered")
        for row in rows:
            click.echo(f"{row.patient_id}@{row.issuer}")
            survivor = identifiers.survivor_of(session, row)
            merge = patients.merge_of(session, row)
            if survivor is not row and merge is not None:
                click.echo(f"  merged into {survivor.patient_id}@{survivor.issuer} by correction {merge.id}")
            for one in identifiers.former(session, [row.id]).get(row.id, []):
                click.echo(f"  known before as {one.patient_id}@{one.issuer}")
            for found in session.scalars(select(Order).where(Order.patient_key == row.id).order_by(Order.id)):
                click.echo(f"  order {found.accession_number:<16} {found.status:<13} {found.modality}")


def _found(found: User | None, login: str) -> User:
    if found is None:
        raise click.ClickException(f"no account {login!r}; `zambezi user list` shows them")
    return found


def _note(made: Token, at: str) -> None:
    """Write the audit entry; with the database away the token is made all the same: that is when it is needed."""
    try:
        with _database().begin() as session:
            audit.append(
                session, CHAIN, "user-changed", clock.now(), who=BY, session=made.session, user=made.subject,
                kind=made.kind, role=made.role, expires=made.expires, change="token issued",
            )  # fmt: skip
    except Exception as error:  # noqa: BLE001  # whatever keeps the database away must not keep an emergency reader out
        click.echo(f"not in the audit trail, since the database does not answer ({type(error).__name__}): "
                   f"note by hand that {made.subject} got session {made.session} at {at}", err=True)  # fmt: skip
