"""`zambezi route explain` and `route dry-run`: the running plugin answers, by the code that decides."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select

from zambezi import config, keys
from zambezi.config import ConfigurationFaults
from zambezi.database import engine
from zambezi.database.tables import Study
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancClient, OrthancError, OrthancRefused

#: Keys of the Zambezi section that a dry run may change.
TRIED = ("Routing", "Destinations", "PriorSources", "Access")
#: The plugin may have to read many instances first.
ANSWER_S = 120


@click.command()
@click.argument("study")
def explain(study: str) -> None:
    """Which rules take a STUDY (Study Instance UID or accession number) and why, which don't and why not."""
    uid = _study_uid(study)
    try:
        told: dict[str, Any] = _archive().get("/zambezi/explain", study=uid)
    except OrthancRefused as refused:
        if refused.status != 404:
            raise click.ClickException(f"the archive doesn't answer that: {refused}") from refused
        raise click.ClickException(f"the archive has recorded no study {uid}") from refused
    except OrthancError as error:
        raise click.ClickException(f"the archive is away, and only it knows its rules: {error}") from error
    for line in explained(told):
        click.echo(line)


@click.command("dry-run")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--last", default=100, show_default=True, type=click.IntRange(1, 10000), help="So many studies.")
@click.option("--all", "everything", is_flag=True, help="Also the studies for which nothing changes.")
def dry_run(file: Path, last: int, everything: bool) -> None:
    """What the rules in FILE would have done to the last studies. Nothing is sent, and nothing is changed.

    FILE is written like 30-zambezi.json: of its Zambezi section Routing, Destinations, PriorSources and Access
    take the place of those in force. Each study is judged as it is now, at the time at which it became complete; when a
    study would have been complete isn't tried.
    """
    section = _section(file)
    archive = _archive()
    before, studies, changed = 0, 0, 0
    seen: set[tuple[str, str]] = set()
    while studies < last:
        for one in (page := _page(archive, section, before))["studies"]:
            key = one["study_uid"], one["cause"]
            if studies >= last or key in seen:
                continue
            seen.add(key)
            studies += 1
            lines = compared(one["now"], one["then"])
            changed += bool(lines)
            if lines or everything:
                click.echo(f"{one['study_uid']}  ({one['cause']}, complete {one['completed_at'][:19]})")
                for line in lines or ("nothing changes",):
                    click.echo(f"    {line}")
        before = page["before"]
        click.echo(f"{studies} studies tried ...", err=True)
        if not before:
            break
    click.echo(f"{changed} of {studies} studies would have gone otherwise; nothing was sent or changed")


def explained(told: Mapping[str, Any]) -> list[str]:
    """The plugin's explanation as lines for a person."""
    lines = [f"study {told['study_uid']}, configuration {told['configuration'][:12]}"]
    if told["priority"]:
        lines.append(f"its order's priority: {told['priority']}")
    lines += [f"still open for {one['cause']}: the last image came {one['last_at'][:19]}" for one in told["waiting"]]
    for rule in told["rules"]:
        lines.append(f"{'+' if rule['matches'] else '-'} {rule['rule']}: {rule['because']}")
        lines += [f"    {count} left: {why}" for why, count in rule["left"].items()]
        if rule["matches"]:
            lines += [f"    {name}: {sent} of {rule['matches']} went" for name, sent in rule["routed"].items()]
            lines += [f"    {why}" for why in rule["waits"]]
            if rule["late"] == "never" and any(0 < sent < rule["matches"] for sent in rule["routed"].values()):
                lines.append("    what came late stays here (Late: never)")
    return lines


def compared(now: Sequence[Mapping[str, Any]], then: Sequence[Mapping[str, Any]]) -> list[str]:
    """What differs between two sets of routes of one study, a line each; none where nothing does."""

    def by_way(routes: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
        return {(one["rule"], one["destination"]): one for one in routes}

    before, after = by_way(now), by_way(then)
    lines = []
    for way in sorted(before.keys() | after.keys()):
        old, new = before.get(way), after.get(way)
        name = f"{way[0]} -> {way[1]}"
        if old is None and new is not None:
            lines.append(f"+ {name}: {_what(new)}, because {new['because']}")
        elif new is None and old is not None:
            lines.append(f"- {name}: {_what(old)} would not go")
        elif old and new and old["instances"] != new["instances"]:
            lines.append(f"~ {name}: {new['instances']} instances instead of {old['instances']}")
        elif old and new and old["priority"] != new["priority"]:
            lines.append(f"~ {name}: priority {new['priority']} instead of {old['priority']}")
    return lines


def _what(route: Mapping[str, Any]) -> str:
    return f"{route['instances']} instances" if route["instances"] else "earlier studies"


def _page(archive: OrthancClient, section: Mapping[str, Any], before: int) -> dict[str, Any]:
    try:
        answer = archive.request("PUT", "/zambezi/dry-run", json={"section": section, "before": before})
    except OrthancRefused as refused:
        raise click.ClickException(f"the archive can't try these rules: {refused}") from refused
    except OrthancError as error:
        raise click.ClickException(f"the archive is away, and only it can try them: {error}") from error
    page: dict[str, Any] = answer.json()
    return page


def _section(file: Path) -> dict[str, Any]:
    """What FILE would change, checked with the rest of the configuration: raises ConfigurationFaults."""
    environment = Environment.read()
    environ = {**os.environ, **environment.variables()}
    part = config.read_part(file, environ)
    section = part.get("Zambezi", part)
    strange = sorted(set(section) - set(TRIED)) if isinstance(section, dict) else ["no object"]
    wanted = {key: section[key] for key in TRIED if key in section} if isinstance(section, dict) else {}
    if not wanted:
        raise click.ClickException(f"{file}: found none of {', '.join(TRIED)}; found: {', '.join(strange)}")
    try:
        config.load(environment.config_dir, environ, wanted)
    except ConfigurationFaults as faults:
        click.echo(f"The rules in {file} can't be used:", err=True)
        for fault in faults.faults:
            click.echo(f"  {fault}", err=True)
        sys.exit(2)
    return wanted


def _archive() -> OrthancClient:
    environment = Environment.read()
    return OrthancClient(environment, keys.load(environment.keys_file), "gateway", ANSWER_S)


def _study_uid(study: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)+", study):
        return study
    made = engine.sessions(engine.connect(Environment.read().database_url, "console"), "console")
    with made() as session:
        query = select(Study.study_uid).where(Study.accession_number == study).order_by(Study.last_at.desc())
        found = session.scalars(query).first()
    if found is None:
        raise click.ClickException(f"no study has the accession number {study}")
    return found
