"""`zambezi coerce`: what the coercion rules of the configuration would do to a file. Nothing is stored or changed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from zambezi import clock, config, elements, outbox, worklist
from zambezi.coercion.coercing import coerce
from zambezi.coercion.orders import Orders
from zambezi.coercion.rules import Image, Rules, words
from zambezi.coercion.steps import CoercionFailed
from zambezi.config import Configuration
from zambezi.config.settings.coercion import ANNOUNCED, CALLING_AET
from zambezi.database import engine
from zambezi.database.tables import Order
from zambezi.elements import NotFaithful
from zambezi.environment import Environment
from zambezi.orders import OPEN

_STUDY_UID = 0x0020000D


@click.group("coerce")
def coerce_group() -> None:
    """Attributes of images that are put right as they come (Coercions in the configuration)."""


@coerce_group.command("list")
def list_rules() -> None:
    """The rules, in the order in which they are carried out."""
    configuration, environment = _configuration()
    for rule in Rules(configuration.zambezi.coercions).all:
        asked = [f"{named} {_asked(words(wanted))}" for named, wanted in rule.settings.when.items()]
        click.echo(f"{rule.name}: where {' and '.join(asked)}" if asked else f"{rule.name}: every image")
        if CALLING_AET in rule.settings.when and environment.coercing_port is None:
            click.echo("  never met: nobody listens at a coercing port (ZAMBEZI_COERCING_PORT is not set)")
    if not configuration.zambezi.coercions:
        click.echo("there are no coercion rules")


@coerce_group.command("try")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--aet", default="", help="As if this AE title had sent it to the coercing port.")
@click.option("--write", "target", type=click.Path(dir_okay=False, path_type=Path), help="Write the result there.")
def try_file(file: Path, aet: str, target: Path | None) -> None:
    """Show which rules FILE meets, why, and what it would become. This shows a patient's data."""
    configuration, environment = _configuration()
    rules = Rules(configuration.zambezi.coercions)
    content = file.read_bytes()
    try:
        scanned = elements.scan(content, {*rules.tags, _STUDY_UID})
    except NotFaithful as why:
        raise click.ClickException(f"{file}: {why}") from why
    if target and target.exists():
        raise click.ClickException(f"{target} is there already; nothing is written over it")
    study = scanned.get(_STUDY_UID)
    study_uid = study.value.decode("latin-1").strip(" \0") if study else ""
    orders, announced = _orders(configuration, environment, study_uid)
    image = Image({one.tag: one.value for one in scanned.elements if one.tag in rules.tags}, aet, announced)
    matching = []
    for rule in rules.all:
        mismatch = rule.mismatch(image)
        click.echo(f"{rule.name}: {mismatch or 'meets its conditions'}")
        if not mismatch:
            matching.append(rule)
    try:
        made = coerce(content, matching, orders, clock.now())
    except CoercionFailed as why:
        click.echo(f"it would be stored as it came, and a person told: {why}", err=True)
        sys.exit(1)
    for one in made.told():
        click.echo(f"  {one.tag} {one.keyword}: {one.old!r} becomes {one.new!r}")
    if not made.told():
        click.echo("it would be stored as it is")
    if target:
        target.touch(mode=0o600)
        target.write_bytes(made.content)
        click.echo(f"written to {target}")


def _orders(configuration: Configuration, environment: Environment, study_uid: str) -> tuple[Orders, bool]:
    """The worklist as it is now, and whether an open order announced the study, where a rule asks for it."""
    settings = configuration.zambezi
    if not any(rule.from_worklist or ANNOUNCED in rule.when for rule in settings.coercions):
        return Orders(), False
    made = engine.sessions(engine.connect(environment.database_url, "console"), "console")
    try:
        with made.begin() as session:
            entries = worklist.entries(session, settings.worklist, settings.site.zone, clock.now())
            open_order = select(Order.id).where(Order.study_uid == study_uid, Order.status.in_(OPEN))
            announced = session.scalars(open_order).first() is not None
            return Orders(worklist.as_file(entry.item) for entry in entries), announced
    except DBAPIError as error:
        click.echo(f"the worklist is not known: {outbox.database_trouble(error)}", err=True)
        return Orders(), False


def _asked(said: str) -> str:
    return said.removeprefix("it ") if said.startswith("it ") else f"is {said}"


def _configuration() -> tuple[Configuration, Environment]:
    environment = Environment.read()
    return config.load(environment.config_dir, os.environ), environment
