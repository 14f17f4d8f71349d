"""Commands of plans: show one on real rows, take it, print its document, decide whose held studies are."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import click
from sqlalchemy import select
from sqlalchemy.orm import Session

from migration import deciding, office, plan_document, plan_file, plan_pdf, plans
from migration.plan_text import Language
from migration.plans import Preview
from migration.shared_by_commands import the_office
from zambezi import clock
from zambezi.config.load import ConfigurationFaults
from zambezi.database.tables import MigrationMatch, MigrationProject, Patient, PlanVersion


@click.command("plan")
@click.argument("name")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--take", is_flag=True, help="Make FILE the next version of the plan; without it, it is only shown.")
@click.option("--because", default="", help="Why there is this version; kept with it.")
@click.option("--rows", default=3, show_default=True, type=click.IntRange(0, 100), help="Examples of each rule.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(name: str, file: Path | None, take: bool, because: str, rows: int, as_json: bool) -> None:
    """Show what the plan in FILE would do to each study of the migration NAME, or take it.

    Without FILE: the versions there are.
    """
    opened = the_office()
    if file is None:
        _versions(opened, name, as_json)
        return
    try:
        document = plan_file.read(file)
        checked = plan_file.checked(document)
    except ConfigurationFaults as faults:
        raise click.ClickException(f"the plan can't be used:\n{faults}") from faults
    if not take:
        with (opened.reading or opened.sessions)() as session:
            shown = plans.preview(session, project_of(session, name), checked, rows_each=rows, progress=_progress)
        click.echo(json.dumps(shown.document(), indent=1, ensure_ascii=False) if as_json else _said(shown))
        if not as_json:
            click.echo(f"Nothing was changed. To take it: zambezi migrate plan {name} {file} --take --because WHY")
        return
    with opened.sessions.begin() as session:
        project_id = project_of(session, name).id
    try:
        made = plans.record(
            opened.sessions, project_id, document, who=getpass.getuser(), because=because, now=clock.now()
        )
    except plans.PlanRefused as refused:
        raise click.ClickException(str(refused)) from refused
    plans.catch_up(opened.sessions, project_id, clock.now(), _progress, opened.reading)
    with opened.sessions.begin() as session:
        made = session.get_one(PlanVersion, made.id)
    if as_json:
        click.echo(json.dumps({"version": made.version, "sha256": made.sha256, "counts": made.counts}, indent=1))
        return
    states = made.counts["states"]
    told = ", ".join(f"{number} {state}" for state, number in sorted(states.items())) or "no study to decide"
    click.echo(f"{name}: version {made.version} of the plan is in force: {told}.")
    if states.get("held"):
        click.echo(f"Decide the held ones: zambezi migrate held {name}, or on the migration's page.")


@click.command("plan-document")
@click.argument("name")
@click.option("--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The PDF's file.")
@click.option("--language", type=click.Choice(["pt", "en"]), default=None, help="Default: the site's.")
def document_command(name: str, out: Path, language: Language | None) -> None:
    """Write the plan document of the migration NAME as PDF: scope, mapping, proof, roll-back, schedule, duties."""
    opened = the_office()
    settings = opened.configuration.zambezi
    with opened.sessions.begin() as session:
        made = plan_document.of(session, project_of(session, name), settings, clock.now())
    out.write_bytes(plan_pdf.build(made, language or settings.site.language, settings.site.zone))
    click.echo(f"{out}: plan document of {name}, version {made.version or '0 (no plan was taken yet)'}")


@click.command("held")
@click.argument("name")
@click.option("--after", default=0, help="Go on behind this number.")
@click.option("--decided", is_flag=True, help="Those that were decided; `migrate decide` may still change it.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def held(name: str, after: int, decided: bool, as_json: bool) -> None:
    """List the patients of the migration NAME of whom a person must say who they are."""
    with the_office().sessions.begin() as session:
        project = project_of(session, name)
        total, faults = deciding.count_held(session, project.id), deciding.impossible(session, project.id)
        found = deciding.decided if decided else deciding.held
        rows = [_held(session, row) for row in found(session, project.id, after)]
    if as_json:
        told = {"held": total, "patients": rows, "impossible": faults}
        click.echo(json.dumps(told, indent=1, ensure_ascii=False))
        return
    click.echo(f"{name}: {total} patients are held")
    for fault, number in faults.items():
        click.echo(f"{number} studies: {fault}; take a plan without that")
    for row in rows:
        click.echo(f"{row['number']}: {_person(row['said'])}: {row['reason']}")
        for one in row["candidates"]:
            click.echo(f"   patient {one['patient']}, {one['score']:.2f}: {_person(one['said'])} ({one['because']})")
        if row["decided"]:
            click.echo(f"   {row['decided']}")
    if len(rows) == deciding.SHOWN:
        click.echo(f"More: zambezi migrate held {name} --after {rows[-1]['number']}")


@click.command("decide")
@click.argument("name")
@click.argument("number", type=int, required=False)
@click.option("--patient", type=int, help="Who it is here: the number that `migrate held` shows.")
@click.option("--own", is_flag=True, help="A patient of its own, whom nobody here is.")
@click.option("--id", "given_id", default="", help="With --own: under this identifier, because its own is taken.")
@click.option("--from-score", type=click.FloatRange(0.5, 1), help="All with one candidate and at least this score.")
@click.option("--because", required=True, help="Why; kept with the decision.")
@click.option("--yes", is_flag=True, help="With --from-score: decide them; without it they are only counted.")
def decide(
    name: str, number: int | None, patient: int | None, own: bool, given_id: str, from_score: float | None,
    because: str, yes: bool,
) -> None:  # fmt: skip
    """Say who a held patient is (NUMBER of `migrate held`), or decide all of a score."""
    opened = the_office()
    with opened.sessions.begin() as session:
        project_id = project_of(session, name).id
        row = session.get(MigrationMatch, number) if number is not None else None
        if number is not None and (row is None or row.project_id != project_id):
            raise click.ClickException(f"no patient {number} in {name}; `zambezi migrate held {name}` lists them")
    who = getpass.getuser()
    if from_score is not None and number is None:
        if not yes:
            found = len(deciding.by_score(opened.sessions, project_id, from_score))
            click.echo(f"{found} patients would be decided, each for its one candidate. To do it: --yes")
            return
        done = deciding.decide_all(
            opened.sessions, project_id, from_score, who=who, because=because, now=clock.now()
        )  # fmt: skip
        click.echo(f"{done} patients are decided.")
        return
    if number is None or own == (patient is not None):
        raise click.ClickException("give NUMBER with --patient or --own, or --from-score without NUMBER")
    try:
        moved = deciding.decide(
            opened.sessions, number, patient, given_id=given_id, who=who, because=because, now=clock.now()
        )  # fmt: skip
    except deciding.DecisionRefused as refused:
        raise click.ClickException(str(refused)) from refused
    click.echo(f"{moved} studies go on.")


def project_of(session: Session, name: str) -> MigrationProject:
    """The migration of this name; click's fault where there is none."""
    project = session.scalars(select(MigrationProject).where(MigrationProject.name == name)).first()
    if project is None:
        raise click.ClickException(f"no migration {name}; `zambezi migrate status` lists them")
    return project


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total else "\r"
    click.echo(f"{done} of {total} studies{end}", nl=False, err=True)


def _versions(opened: office.Office, name: str, as_json: bool) -> None:
    with opened.sessions.begin() as session:
        found: list[dict[str, Any]] = [
            {"version": one.version, "made_at": one.made_at, "made_by": one.made_by, "because": one.because,
             "sha256": one.sha256, "counts": one.counts, "document": one.document}
            for one in plans.versions(session, project_of(session, name).id)
        ]  # fmt: skip
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    if not found:
        click.echo(f"{name} has no plan yet. Show one: zambezi migrate plan {name} FILE.json")
    for one in found:
        click.echo(
            f"version {one['version']}, {one['made_at']}, {one['made_by']}: {one['because']} ({one['sha256'][:16]})"
        )


def _said(shown: Preview) -> str:
    lines = [f"{shown.looked_at} of {shown.studies} studies looked at"]
    lines += [f"  {number} {state}" for state, number in sorted(shown.states.items())]
    lines += [f"  rule {rule}: {number} studies" for rule, number in shown.rules.most_common()]
    lines += [f"  {reason}: {number}" for reason, number in shown.reasons.most_common()]
    lines += [f"  patients {state}: {number}" for state, number in sorted(shown.matched.items())]
    lines += [f"  warning: {words}" for words in shown.warnings]
    for row in shown.rows:
        lines.append(
            f"{row.study_date or 'undated'} {row.modalities} {row.study_uid}: {row.state} {row.reason}".rstrip()
        )
        lines += [f"    {keyword}: {was or '(empty)'} -> {new or '(empty)'}  [{rule}]"
                  for keyword, was, new, rule in row.changes]  # fmt: skip
    return "\n".join(lines)


def _held(session: Session, row: MigrationMatch) -> dict[str, Any]:
    return {
        "number": row.id, "said": row.said, "reason": row.reason, "decided": _decided(row),
        "candidates": [
            {"patient": one["patient"], "score": one["score"], "said": _known(session, one["patient"]),
             "because": ", ".join(code for code, _ in one["reasons"])}
            for one in row.candidates
        ],
    }  # fmt: skip


def _known(session: Session, key: int) -> dict[str, str]:
    one = session.get_one(Patient, key)
    return {
        "PatientID": one.patient_id, "IssuerOfPatientID": one.issuer,
        "PatientName": f"{one.family_name}^{one.given_name}", "PatientBirthDate": one.birth_date or "",
        "PatientSex": one.sex or "",
    }  # fmt: skip


def _person(said: dict[str, str]) -> str:
    told = [said.get(keyword, "") for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")]
    return ", ".join(filter(None, told)) or "nothing is said of the patient"


def _decided(row: MigrationMatch) -> str:
    if row.state != "decided":
        return ""
    who = f"patient {row.patient_key}" if row.patient_key is not None else "a patient of its own"
    return f"{row.decided_by} on {row.decided_at}: {who}: {row.because}"
