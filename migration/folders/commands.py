"""`zambezi migrate index` and `migrate files`: what lies in a folder that is migrated, and what becomes of it."""

from __future__ import annotations

import json
from typing import Any

import click
from sqlalchemy import select

from migration.folders import listing, summary
from migration.folders.index import Progress
from migration.folders.source import FolderSource
from migration.office import Office
from migration.shared_by_commands import the_office
from migration.source import Trouble
from zambezi.database.tables import FolderFile

#: A line of progress for so many files.
_EVERY = 2000


@click.command("index")
@click.argument("source")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def index_command(source: str, as_json: bool) -> None:
    """Read what is new or changed in the folder of SOURCE; interrupted, it goes on where it was.

    `zambezi migrate inventory` does the same first.
    """
    opened = _office(source)
    said = 0

    def tell(progress: Progress) -> None:
        nonlocal said
        if progress.files - said >= _EVERY:
            said = progress.files
            click.echo(f"{progress.files} files, {progress.read} of them read ({_size(progress.size)})", err=True)

    settings = opened.configuration.zambezi.migration.sources[source]
    try:
        FolderSource(source, settings, opened.sessions, opened.environment, tell).refresh()
    except Trouble as trouble:
        raise click.ClickException(f"the folder could not be read: {trouble}") from trouble
    _show(opened, source, as_json, [])


@click.command("files")
@click.argument("source")
@click.option("--kind", type=click.Choice(sorted(listing.KINDS)), help="Only files of this kind.")
@click.option("--verdict", type=click.Choice(sorted(listing.VERDICTS)), help="Only files of which this becomes.")
@click.option("--unread", is_flag=True, help="Only what may be an image and could not be read or looked into.")
@click.option("--after", type=int, default=0, help="Go on behind the file of this number.")
@click.option("--limit", type=click.IntRange(0, 100_000), default=100, show_default=True, help="So many at most.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def files_command(
    source: str, kind: str | None, verdict: str | None, unread: bool, after: int, limit: int, as_json: bool
) -> None:
    """List what lies in the folder of SOURCE, and count it by kind and by what becomes of it."""
    opened = _office(source)
    wanted = listing.Selection(kind or "", verdict or "", unread)
    with opened.sessions.begin() as session:
        rows = list(session.scalars(select(FolderFile).where(*wanted.conditions(source), FolderFile.id > after)
                                    .order_by(FolderFile.id).limit(limit)))  # fmt: skip
    _show(opened, source, as_json, rows)


def _show(opened: Office, source: str, as_json: bool, rows: list[FolderFile]) -> None:
    with opened.sessions.begin() as session:
        found, walk = summary.counts(session, source), summary.walk(session, source)
        doubts = summary.doubts(session, source, [one for one in found if one["verdict"] != "gone"])
    if as_json:
        files = [listing.document(row) for row in rows]
        whole: dict[str, Any] = {
            "source": source, "walk": walk, "counts": found, "doubts": doubts, "files": files
        }  # fmt: skip
        click.echo(json.dumps(whole, indent=1))
        return
    for row in rows:
        click.echo(f"{row.id}  {row.kind}, {row.verdict}  {row.place}{f'  ({row.reason})' if row.reason else ''}")
    if walk is None:
        click.echo(f"Nobody has looked into {source} yet: zambezi migrate index {source}")
        return
    how = f"ended {walk['finished_at']}" if walk["finished_at"] else f"goes on, last sign {walk['updated_at']}"
    click.echo(f"{source}: walk {walk['number']}, begun {walk['started_at']}, {how}: {walk['files']} files")
    for kind in listing.KINDS:
        for verdict in listing.VERDICTS:
            these = [one for one in found if (one["kind"], one["verdict"]) == (kind, verdict)]
            if these:
                endings = ", ".join(f".{one['extension']} {one['files']}" if one["extension"] else
                                    f"without ending {one['files']}" for one in these[:5])  # fmt: skip
                files, size = sum(one["files"] for one in these), sum(one["bytes"] for one in these)
                click.echo(f"  {files} {kind}, {verdict} ({_size(size)}): {endings}")
    for doubt in doubts:
        click.echo(f"  doubt: {doubt}")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def _office(source: str) -> Office:
    opened = the_office()
    sources = opened.configuration.zambezi.migration.sources
    folders = sorted(name for name, settings in sources.items() if settings.kind == "folder")
    if source not in folders:
        known = ", ".join(folders) or "none"
        raise click.ClickException(f"no source {source} of Kind folder in Migration.Sources (known: {known})")
    return opened
