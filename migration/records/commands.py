"""`zambezi migrate records`: an old information system's patients, exams and reports, by a mapping file."""

from __future__ import annotations

import csv
import getpass
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import click
from sqlalchemy import select

from migration.records import deciding, importing, mapping, previewing, reconciling
from migration.records.deciding import CannotDecide
from migration.records.importing import Job, Stopped
from migration.records.mapping import KINDS, Kind, MappingFault
from migration.shared_by_commands import the_office
from zambezi import clock
from zambezi.database.tables import LegacyImport, LegacyRow

FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="For programs.")
#: Progress is told so often, in seconds.
_EVERY = 5.0


@click.group("records")
def records() -> None:
    """Bring over patients, exams and reports of an old RIS: CSV, HL7 files, databases."""


@records.command("schema")
def schema() -> None:
    """Print the JSON Schema of a mapping file."""
    click.echo(json.dumps(mapping.schema(), indent=1))


@records.command("probe")
@FILE
@JSON
def probe(file: Path, as_json: bool) -> None:
    """Read every row that the mapping FILE names once: encodings, columns, codes, odd rows. Nothing is taken."""
    job = _job(file)
    try:
        found = [previewing.probe(source) for source in job.sources]
    except MappingFault as fault:
        raise click.ClickException(str(fault)) from fault
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for one in found:
        click.echo(f"{one['kind']}s: {one['rows']} rows")
        _tell_facts(one)
        for name, column in one["columns"].items():
            codes = ", ".join(f"{value or '(empty)'} {count}" for value, count in (column["values"] or {}).items())
            click.echo(
                f"  {name}: {column['filled']} filled, longest {column['longest']}{'; ' if codes else ''}{codes}"
            )
        for odd in one["odd"]:
            click.echo(f"  odd: {odd['place']}: {odd['fault']}")


@records.command("preview")
@FILE
@click.option("--rows", default=10, show_default=True, type=click.IntRange(1, 50), help="So many of each kind.")
@JSON
def preview(file: Path, rows: int, as_json: bool) -> None:
    """Show what would come of sample rows, here and on the import's page. Nothing is taken."""
    job = _job(file)
    try:
        found = previewing.preview(job, rows)
    except MappingFault as fault:
        raise click.ClickException(str(fault)) from fault
    with job.sessions.begin() as session:
        imported = importing.enter(job, session)
        imported.preview = found
        if imported.state != "running":
            imported.mapping, imported.mapping_sha256 = job.document, job.sha256
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for kind, one in found.items():
        for row in [*one["first"], *one["faulty"]]:
            click.echo(f"{kind} {row['key']} ({row['place']}){'' if row['is_taken'] else ': WOULD BE REFUSED'}")
            for field in row["fields"]:
                why = f"   <- {field['fault']}" if field["fault"] else ""
                if field["raw"] or field["value"] or why:
                    click.echo(f"    {field['name']}: {_short(field['raw'])} -> {_short(field['value'])}{why}")
            for why in row["faults"]:
                click.echo(f"    {why}")
    click.echo(f"Also on the page /migrations/records/{job.mapping.name}. Next: zambezi migrate records import {file}")


@records.command("import")
@FILE
@click.option("--dry-run", is_flag=True, help="Read and judge every row, write nothing.")
@JSON
def import_command(file: Path, dry_run: bool, as_json: bool) -> None:
    """Take the rows that FILE names; again, it takes what is new and lists what has changed."""
    last = [time.monotonic()]

    def tell(kind: Kind, number: int, counts: Counter[str]) -> None:
        if time.monotonic() - last[0] >= _EVERY:
            last[0] = time.monotonic()
            click.echo(f"{kind}s: row {number}: {_counted(counts)}", err=True)

    job = _job(file)
    job.tell = tell
    try:
        if dry_run:
            _tell_dry(importing.dry(job), as_json)
            return
        outcomes = importing.run(job)
        outcomes = {kind: outcomes[kind] for kind in KINDS if kind in outcomes}
    except (MappingFault, Stopped) as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; what was taken stays, and the same command goes on") from None
    if as_json:
        click.echo(json.dumps({kind: dict(counts) for kind, counts in outcomes.items()}, indent=1))
        return
    for kind, counts in outcomes.items():
        click.echo(f"{kind}s: {_counted(counts) or 'no rows'}")
    click.echo(f"How it stands: zambezi migrate records status {job.mapping.name}")


@records.command("status")
@click.argument("name", required=False)
@JSON
def status(name: str | None, as_json: bool) -> None:
    """Say how imports stand: rows by state, links to studies, orphans on both sides."""
    opened = the_office()
    with opened.sessions.begin() as session:
        query = select(LegacyImport).order_by(LegacyImport.name)
        found = session.scalars(query.where(LegacyImport.name == name) if name else query).all()
        if name and not found:
            raise click.ClickException(f"nothing was imported or previewed under the name {name}")
        told: list[dict[str, Any]] = [
            {
                "import": one.name, "state": one.state, "pass": one.pass_no, "position": one.position,
                "rows": importing.states(session, one), "links": reconciling.counts(session, one.name),
                "facts": one.facts, "finished_at": one.finished_at,
            }
            for one in found
        ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    for one in told:
        click.echo(f"{one['import']} ({one['state']}, pass {one['pass']})")
        if one["state"] == "running":
            behind = ", ".join(f"{number} {kind}s" for kind, number in one["position"].items()) or "nothing"
            click.echo(f"  of this pass: {behind} read; the same import command goes on if it was interrupted")
        for kind, counts in one["rows"].items():
            click.echo(f"  {kind}s: {_counted(Counter(counts))}")
        for words, count in one["links"].items():
            click.echo(f"  {words}: {count}")


@records.command("export")
@click.argument("name")
@click.option("--state", default="refused", show_default=True, help="held, waiting, refused, changed, left-out, taken.")
@click.option("--kind", type=click.Choice(KINDS), help="Of this kind alone.")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The CSV file.")
def export(name: str, state: str, kind: str | None, out: Path) -> None:
    """Write the rows in a state into a CSV file, whole, each with its reason: for who mends them in the old system."""
    opened = the_office()
    written = 0
    out.touch(mode=0o600)
    out.chmod(0o600)
    with opened.sessions.begin() as session, out.open("w", encoding="utf-8-sig", newline="") as file:
        imported = _found(session, name)
        query = select(LegacyRow).where(LegacyRow.import_id == imported.id, LegacyRow.state == state)
        query = query.where(LegacyRow.kind == kind) if kind else query
        writer = csv.writer(file)
        writer.writerow(["row", "kind", "key", "place", "state", "reason", "columns"])
        for row in session.scalars(query.order_by(LegacyRow.id).execution_options(yield_per=500)):
            columns = json.dumps(row.raw, ensure_ascii=False)
            writer.writerow([row.id, row.kind, row.key, row.place, row.state, row.reason, columns])
            written += 1
    click.echo(f"{out}: {written} rows. It holds patients' data: mode 0600; delete it when it has served.")


@records.command("orphans")
@click.argument("name")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@JSON
def orphans(name: str, limit: int, as_json: bool) -> None:
    """List reports without a study, studies without an exam, exams without images or report."""
    with the_office().sessions.begin() as session:
        _found(session, name)
        found = reconciling.orphans(session, name, limit)
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for words, rows in found.items():
        click.echo(f"{words}:")
        for row in rows:
            click.echo("  " + ", ".join(f"{key} {value}" for key, value in row.items() if value))


@records.command("decide")
@FILE
@click.argument("rows", nargs=-1, type=int)
@click.option(
    "--likely", type=click.FloatRange(0.75, 1), help="Instead of ROWS: same-as, where one candidate is so likely."
)
@click.option(
    "--as", "verb", required=True, type=click.Choice(sorted({v for vs in deciding.ALLOWED.values() for v in vs}))
)
@click.option(
    "--patient", type=int, help="With same-as: the patient's number here, where there are several candidates."
)
@click.option("--because", required=True, help="The reason; it is kept with your name.")
def decide(
    file: Path, rows: tuple[int, ...], likely: float | None, verb: Any, patient: int | None, because: str
) -> None:
    """Decide on ROWS (numbers from status, export or the page) of the import whose mapping is FILE."""
    job = _job(file)
    rule = ""
    if likely is not None:
        if verb != "same-as":
            raise click.ClickException("--likely goes with --as same-as")
        rule = f"one candidate, at least {likely}"
        with job.sessions.begin() as session:
            rows = tuple(row.id for row in deciding.likely(session, job.mapping.name, likely))
    if not rows:
        raise click.ClickException("no row is named, and none is so likely")
    try:
        for row in rows:
            deciding.decide(job, row, verb, because, patient, rule)
            click.echo(f"row {row}: {verb}")
    except (CannotDecide, LookupError) as error:
        raise click.ClickException(str(error)) from error


def _job(file: Path) -> Job:
    try:
        found, document, sha256 = mapping.load(file)
    except MappingFault as fault:
        raise click.ClickException(str(fault)) from fault
    opened = the_office()
    zone = ZoneInfo(found.time_zone) if found.time_zone else opened.configuration.zambezi.site.zone
    return Job(opened.sessions, found, document, sha256, file.parent.resolve(), zone, getpass.getuser(), clock.now)


def _found(session: Any, name: str) -> LegacyImport:
    try:
        return importing.find(session, name)
    except LookupError as error:
        raise click.ClickException(str(error)) from error


def _tell_dry(found: dict[Kind, dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for kind, one in found.items():
        click.echo(f"{kind}s: {_counted(Counter(one['counts'])) or 'no rows'}")
        _tell_facts(one["facts"])
        for fault, places in one["faults"].items():
            click.echo(f"  {fault}: {', '.join(places)}")
    click.echo("Nothing was written. Whose the patients are is decided when they are imported.", file=sys.stdout)


def _tell_facts(facts: dict[str, Any]) -> None:
    for name, file in facts.get("files", {}).items():
        if "delimiter" in file:
            mark = {"\t": "tab"}.get(file["delimiter"], file["delimiter"])
            click.echo(f"  {name}: {file['encoding']}, delimiter {mark} ({file['because']})")
        else:
            click.echo(f"  {name}: {', '.join(f'{count} messages in {e}' for e, count in file['encodings'].items())}")
    for doubt in facts.get("doubts", ()):
        click.echo(f"  doubt: {doubt}")


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in counts.most_common())


def _short(text: str) -> str:
    line = text.replace("\n", "⏎")
    return line if len(line) <= 80 else f"{line[:79]}…"
