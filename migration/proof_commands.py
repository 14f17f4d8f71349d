"""`zambezi migrate certificate`, `verify-certificate`, `rollback`, `sample`."""

from __future__ import annotations

import json
import os
import pwd
import secrets
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from migration import certificate as certificates
from migration import certificate_pdf, ledger, office, rechecking, rollback, sampling, verifier
from migration.shared_by_commands import the_migration, the_office
from migration.source import Trouble
from zambezi import clock, signing
from zambezi.database.tables import Certificate
from zambezi.deletions import Refused
from zambezi.environment import Environment
from zambezi.orthanc_client import OrthancError
from zambezi.signing import Register, SigningFault

_FILE = click.Path(dir_okay=False, path_type=Path)
_READ = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.option("--out", type=_FILE, help="Where to write it (JSON lines); default: to screen.")
@click.option("--pdf", type=_FILE, help="Besides, what it says as a PDF for people, here.")
@click.option("--language", type=click.Choice(["pt", "en"]), default="pt", help="The PDF's.")
@click.option("--verifier", "program", type=_FILE, help="Besides, the program that verifies it anywhere, here.")
@click.option("--last", is_flag=True, help="Issue none: the newest that there is.")
def certificate(name: str, out: Path | None, pdf: Path | None, language: str, program: Path | None, last: bool) -> None:
    """Issue the signed certificate of the finished migration NAME."""
    opened = the_office()
    try:
        number = _latest(opened, name) if last else _issue(opened, name)
    except (certificates.NotFinished, OrthancError, Trouble, SigningFault) as error:
        raise click.ClickException(str(error)) from error
    if pdf:
        site = opened.configuration.zambezi.site
        pdf.write_bytes(certificate_pdf.of(opened.sessions, number, language, site.name, site.zone))
    if program:
        shutil.copyfile(verifier.__file__, program)
    if out is None:
        for piece in certificates.lines(opened.sessions, number):
            click.echo(piece, nl=False)
        return
    with out.open("wb") as file:
        file.writelines(certificates.lines(opened.sessions, number))
    with opened.sessions.begin() as session:
        key = signing.key_id(session.get_one(Certificate, number).public_key)
    click.echo(f"{out}: signed with key {key}. Verify: zambezi migrate verify-certificate {out}")


def _issue(opened: office.Office, name: str) -> int:
    system, folder, who = office.system(opened.client()), opened.environment.signing_dir, _who()
    with opened.sessions.begin() as session:
        rollback.settle(session, clock.now())
        project_id = the_migration(session, name).id
    signer = signing.current(folder, certificates.PURPOSE, who, clock.now())
    named = certificates.versions(system, opened.configuration.hash)
    number = certificates.issue(opened.sessions, project_id, signer, named, who, clock.now())
    known = signing.register(folder, certificates.PURPOSE)
    if known is not None:
        with opened.sessions.begin() as session:
            signing.record(session, known, ledger.WRITER)
    return number


def _latest(opened: office.Office, name: str) -> int:
    with opened.sessions.begin() as session:
        found = certificates.latest(session, the_migration(session, name).id)
        if found is None:
            raise click.ClickException(f"{name} has no certificate yet; leave out --last")
        return found.id


@click.command("verify-certificate")
@click.argument("file", type=_READ)
@click.option(
    "--keys",
    type=_READ,
    help="The installation's public keys, from `zambezi key export`; default: those of this installation.",
)
@click.option("--key-id", help="The fingerprint that the installation has told you, where you have no --keys.")
@click.option("--against-archive", is_flag=True, help="Besides, read instances from this installation's disk again.")
@click.option("--sample", default=1000, show_default=True, type=click.IntRange(1), help="So many, drawn at random.")
@click.option("--seed", type=int, help="Of the draw; default: by chance.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def verify_certificate(
    file: Path, keys: Path | None, key_id: str | None, against_archive: bool, sample: int, seed: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Verify a certificate offline: its signature, whose it is, and that its sums are those of its instances."""
    with file.open("rb") as content:
        found = verifier.examine(content)
    known = _known(keys, key_id)
    whose = _whose(found, known, key_id)
    rechecked = None
    if against_archive and not found.faults:
        rechecked = _rechecked(file, sample, secrets.randbelow(1 << 31) if seed is None else seed, found)
    if as_json:
        told = {"holds": not found.faults, "faults": found.faults, "head": found.head,
                "rechecked": vars(rechecked) if rechecked else None}  # fmt: skip
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
    elif not found.faults:
        click.echo(f"{verifier.in_words(found.head)}\nSigned with key {found.head['key_id']}{whose}.")
        if rechecked:
            click.echo(f"{rechecked.drawn} of {rechecked.of} instances, drawn at random, were read from the disk "
                       "again: all are what was certified.")  # fmt: skip
    if found.faults:
        raise click.ClickException("\n".join(found.faults))


def _known(keys: Path | None, key_id: str | None) -> Register | None:
    try:
        if keys:
            return Register.from_json(keys.read_bytes())
        return None if key_id else signing.register(Environment.read().signing_dir, certificates.PURPOSE)
    except SigningFault as fault:
        raise click.ClickException(str(fault)) from fault


def _whose(found: verifier.Examined, known: Register | None, key_id: str | None) -> str:
    """Whose the key is: a fault where nobody vouches for it; a retired one is good, and that is said."""
    if not found.head or found.faults:
        return ""
    signed_with = found.head["key_id"]
    state = known.state(signed_with) if known else "current"
    if known is None and signed_with != key_id:
        expected = f"not with {key_id}" if key_id else "and nothing here says whose key that is"
        found.fault(
            f"the certificate is whole, but it is signed with key {signed_with}, {expected}; ask the installation for "
            "its public keys (`zambezi key export`) and give them with --keys, or its fingerprint with --key-id"
        )
    elif state == "unknown":
        found.fault(f"key {signed_with}, with which it is signed, is not one of the installation's")
    elif state == "revoked":
        found.fault(f"key {signed_with}, with which it is signed, was revoked: nothing that it signed may be trusted")
    return ", which has been followed by another since" if state == "retired" else ""


def _rechecked(file: Path, count: int, seed: int, found: verifier.Examined) -> rechecking.Rechecked:
    with file.open("rb") as content:
        try:
            made = rechecking.recheck(the_office().client(), verifier.instances(content), count, seed)
        except OrthancError as error:
            raise click.ClickException(f"the archive can't be asked: {error}") from error
    for fault in made.faults:
        found.fault(f"{fault} (draw {seed})")
    return made


@click.command("sample")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def sample_command(name: str, as_json: bool) -> None:
    """Draw which studies of NAME are compared with the source, as its plan says; `migrate start` does it, too."""
    with the_office().sessions.begin() as session:
        project = the_migration(session, name)
        drawn = sampling.draw(session, project, _who(), clock.now())
        told: dict[str, Any] = {
            "project": name,
            "level": "source" if sampling.wants_source(project.plan) else "arrival",
        }
        if drawn:
            told |= {"asked": drawn.asked, "population": drawn.population, "seed": drawn.seed,
                     "threshold": drawn.threshold, "drawn_at": drawn.drawn_at}  # fmt: skip
    if as_json:
        click.echo(json.dumps(told, indent=1))
    elif drawn:
        click.echo(f"{name}: {min(drawn.asked, drawn.population)} of {drawn.population} studies, drawn with seed "
                   f"{drawn.seed}, are compared with the source.")  # fmt: skip
    else:
        click.echo(f"{name}: {'every' if told['level'] == 'source' else 'no'} study is compared with the source.")


@click.command("rollback")
@click.argument("name")
@click.option("--batch", type=click.IntRange(0), required=True, help="Which batch of the migration.")
@click.option("--because", default="", help="Ask for it, and why. Without it: only what would go and what would stay.")
@click.option("--confirm", is_flag=True, help="Confirm, as the second person, what was asked for.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def rollback_command(name: str, batch: int, because: str, confirm: bool, as_json: bool) -> None:
    """Take back what a batch of NAME stored, and nothing else: asked for by one person, confirmed by another."""
    if because and confirm:
        raise click.ClickException("--because asks, --confirm confirms: two persons, one after the other")
    opened = the_office()
    told = _confirmed(opened, name, batch) if confirm else _asked(opened, name, batch, because.strip())
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    for line in told["words"]:
        click.echo(line)


def _confirmed(opened: office.Office, name: str, batch: int) -> dict[str, Any]:
    hours = opened.configuration.zambezi.deletion.waiting_hours
    with opened.sessions.begin() as session:
        project = the_migration(session, name)
        done, refused = rollback.confirm(session, project, batch, _who(), clock.now(), timedelta(hours=hours))
    words = [f"{len(done)} deletions are confirmed; they are carried out in {hours:g} hours. `zambezi delete list`"]
    return {"confirmed": done, "refused": refused, "words": [*words, *(f"not confirmed: {why}" for why in refused)]}


def _asked(opened: office.Office, name: str, batch: int, because: str) -> dict[str, Any]:
    client, studies, asked, words = opened.client(), [], list[int](), []
    with opened.sessions.begin() as session:
        rollback.settle(session, clock.now())
        project = the_migration(session, name)
        source = opened.configuration.zambezi.migration.sources.get(project.source)
        try:
            aet = rollback.source_aet(client, source.peer) if source else ""
            found = list(rollback.preview(session, client, project, batch, aet))
        except OrthancError as error:
            raise click.ClickException(f"the archive can't be asked: {error}") from error
        for taken in found:
            if because and taken.going and not taken.refused:
                try:
                    with session.begin_nested():
                        asked += rollback.ask(session, project, taken, because, _who(), clock.now())
                except Refused as why:
                    taken.refused = str(why)
            studies.append(taken.told)
            words += _words(taken)
    count = sum(one["going"] for one in studies if not one["refused"])
    done = f"asked for with {len(asked)} deletions" if because else "would go; nothing was done"
    words.append(f"batch {batch} of {name}: {count} instances of {len(studies)} studies: {done}.")
    if asked:
        words.append(f"Another person confirms: zambezi migrate rollback {name} --batch {batch} --confirm")
    return {"batch": batch, "studies": studies, "asked": asked, "words": words}


def _words(taken: rollback.Taken) -> list[str]:
    told = taken.told
    if taken.refused:
        return [f"study {taken.study_uid}: not taken back: {taken.refused}"]
    stays = [f"  stays: instance {uid}: {why}" for uid, why in taken.staying]
    return [f"study {taken.study_uid}: {told['going']} instances go, {len(taken.staying)} stay", *stays]


def _who() -> str:
    return f"console:{pwd.getpwuid(os.getuid()).pw_name}"


COMMANDS = (certificate, verify_certificate, sample_command, rollback_command)
