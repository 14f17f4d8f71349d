"""Pages of a running migration: what waits for a person, one study with both sides, what is urgent, cut-over."""

from __future__ import annotations

from typing import Any, cast, get_args

from flask import Blueprint, abort, current_app, redirect, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from migration import cutover, delta, extras, lanes, ledger, settling
from migration.pages import STUDY_STATES, VERDICTS
from migration.settling import Decision, Refused, Wanted
from zambezi import breakers
from zambezi.access import requires
from zambezi.database.tables import ExceptionItem, MigrationInstance, MigrationProject, MigrationStudy

pages = Blueprint("migration_run", __name__, template_folder="templates")

ROWS = 50
#: Of a study so many instances are shown; those that need a person first.
INSTANCES = 200

DECISIONS = {
    "retry": _("Try again"),
    "waive": _("Leave it as it is"),
    "keep-ours": _("Keep the archive's"),
    "keep-source": _("Keep the source's"),
}
EXTRA_KINDS = {"label": _("Label"), "metadata": _("Metadata"), "attachment": _("Attachment"),
               "any": _("All of it")}  # fmt: skip
EXTRA_STATES = {
    "due": _("not brought yet"),
    "carried": _("brought, read back, equal"),
    "there": _("was in the archive before"),
    "other": _("not brought: the archive has another one"),
    "left": _("not brought"),
    "rolled-back": _("taken back with its images"),
}
LINES = {
    "coverage": _("The inventory shows that it names everything (doubts: %(count)s)"),
    "passes": _("The last passes found nothing new (in a row: %(count)s, wanted: %(wanted)s)"),
    "fresh": _("The last pass is of the last 24 hours"),
    "at-rest": _("No study is under way or waits its turn (there are: %(count)s)"),
    "decided": _("Nothing waits for a person (there are: %(count)s)"),
    "matched": _("No study is held because nobody has said whose it is (there are: %(count)s)"),
    "routes": _("Modalities send their new studies here (in the last 24 hours: %(count)s)"),
    "certificate": _("A certificate was issued after the last study came"),
}


@pages.get("/migrations/<int:project_id>/exceptions")
@requires("migration.read")
def waiting(project_id: int) -> Any:
    """What waits for a person, by state and by what the reason holds; each with what we would do."""
    return _waiting(project_id, "")


@pages.post("/migrations/<int:project_id>/exceptions")
@requires("migration.run")
def decide_many(project_id: int) -> Any:
    """Decide everything that the filters show, with one reason; an entry of the audit trail each."""
    decision, because = _decision(), request.form.get("because", "")
    wanted, after = _wanted(request.form), 0
    try:
        while True:
            with _sessions().begin() as session:
                project = session.get(MigrationProject, project_id) or abort(404)
                _, behind = settling.decide_many(
                    session, project, wanted, decision, because, current_user.login, _now(), after
                )
            if behind is None:
                return redirect(f"/migrations/{project_id}/exceptions?said=decided", 303)
            after = behind
    except Refused as refused:
        return _waiting(project_id, str(refused)), 409


@pages.get("/migrations/<int:project_id>/studies/<study_uid>")
@requires("migration.read")
def study(project_id: int, study_uid: str) -> Any:
    """One study: how far it is and why, and of its images both sides."""
    return _study(project_id, study_uid, "")


@pages.post("/migrations/<int:project_id>/studies/<study_uid>/decide")
@requires("migration.run")
def decide(project_id: int, study_uid: str) -> Any:
    """What a person decides of one study, with a reason."""
    decision, because = _decision(), request.form.get("because", "")
    try:
        with _sessions().begin() as session:
            project, row = _found(session, project_id, study_uid)
            settling.decide(session, project, row, decision, because, current_user.login, _now())
    except Refused as refused:
        return _study(project_id, study_uid, str(refused)), 409
    return redirect(f"/migrations/{project_id}/studies/{study_uid}?said=decided", 303)


@pages.post("/migrations/<int:project_id>/studies/<study_uid>/urgent")
@requires("migration.run")
def urgent(project_id: int, study_uid: str) -> Any:
    """The patient is in the room: this study goes before everything else."""
    try:
        with _sessions().begin() as session:
            _found(session, project_id, study_uid)
            because = request.form.get("because", "")
            settling.urgent(session, project_id, study_uid, because, current_user.login, _now())
    except Refused as refused:
        return _study(project_id, study_uid, str(refused)), 409
    return redirect(f"/migrations/{project_id}/studies/{study_uid}?said=decided", 303)


@pages.get("/migrations/<int:project_id>/cutover")
@requires("migration.read")
def cut_over(project_id: int) -> Any:
    """What has to hold before the old archive is switched off, and the passes so far."""
    with _sessions().begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        lines = cutover.checklist(cutover.facts(session, project, _now()), _now())
        passes = delta.passes(session, project_id)[:20]
    return render_template("migration_cutover.html", project=project, lines=lines, said_of=LINES, passes=passes)


@pages.post("/migrations/<int:project_id>/state")
@requires("migration.run")
def set_state(project_id: int) -> Any:
    """Let it run inside its windows, or pause it."""
    wanted = request.form.get("state", "")
    with _sessions().begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        if (wanted, project.state) not in _STEPS:
            abort(409)
        if wanted == "running":
            source = f"source:{project.source}"
            breakers.resume(session, source, now=_now(), writer=ledger.WRITER, who=current_user.login)
        note = "" if wanted == "running" else f"paused by {current_user.login}"
        ledger.set_project(session, project, wanted, note, _now())
    return redirect(f"/migrations/{project_id}", 303)


#: (wanted, from)
_STEPS = {("running", "planned"), ("running", "paused"), ("paused", "running")}


def _waiting(project_id: int, refused: str) -> str:
    wanted, after = _wanted(request.values), max(0, request.values.get("after", 0, type=int))
    with _sessions().begin() as session:
        project = session.get(MigrationProject, project_id) or abort(404)
        rows = settling.waiting(session, project_id, wanted, ROWS + 1, after)
        counts = ledger.states(session, project_id)
        total = session.scalar(
            select(func.count()).select_from(MigrationStudy).where(*wanted.conditions(project_id))
        )  # fmt: skip
    states = [state for state in ledger.FOR_A_PERSON if counts.get(state)]
    choices = [wanted.state] if wanted.state else states
    together = [one for one in get_args(Decision) if any(one in settling.ALLOWED.get(s, ()) for s in choices)]
    return render_template(
        "migration_exceptions.html", project=project, studies=rows[:ROWS], more=rows[ROWS - 1].id if rows[ROWS:] else 0,
        total=total, counts=counts, states=states, wanted=wanted, study_states=STUDY_STATES, decisions=DECISIONS,
        allowed=settling.ALLOWED, together=together, refused=refused, may_run=current_user.may("migration.run"),
    )  # fmt: skip


def _study(project_id: int, study_uid: str, refused: str) -> str:
    with _sessions().begin() as session:
        project, row = _found(session, project_id, study_uid)
        instance = MigrationInstance
        rank = case((instance.verdict.in_(("different", "missing")), 0), (instance.verdict == "equal", 2), else_=1)
        query = select(instance).where(instance.study_id == row.id)
        rows = session.scalars(query.order_by(rank, instance.series_uid, instance.sop_uid).limit(INSTANCES)).all()
        counted = select(instance.verdict, func.count()).where(instance.study_id == row.id).group_by(instance.verdict)
        verdicts = session.execute(counted).all()
        item = session.scalars(
            select(ExceptionItem).where(ExceptionItem.room == "migration", ExceptionItem.reference == study_uid)
        ).first()
        beside = extras.of_study(session, row.id)
    return render_template(
        "migration_study.html", project=project, study=row, instances=rows, verdicts=verdicts, item=item,
        beside=beside, extra_kinds=EXTRA_KINDS, extra_states=EXTRA_STATES,
        study_states=STUDY_STATES, verdict_words=VERDICTS, decisions=DECISIONS, listed=INSTANCES, refused=refused,
        allowed=settling.ALLOWED.get(row.state, ()), may_run=current_user.may("migration.run"),
        may_hurry=row.state in ledger.UNDER_WAY and lanes.rank(row.priority) < ledger.URGENT,
        rank=lanes.rank, is_near_line=lanes.is_near_line(row.priority) and row.state in ledger.UNDER_WAY,
    )  # fmt: skip


def _found(session: Session, project_id: int, study_uid: str) -> tuple[MigrationProject, MigrationStudy]:
    project = session.get(MigrationProject, project_id) or abort(404)
    query = select(MigrationStudy).where(MigrationStudy.project_id == project_id, MigrationStudy.study_uid == study_uid)
    return project, session.scalars(query.with_for_update()).first() or abort(404)


def _wanted(said: Any) -> Wanted:
    state = said.get("state", "")
    return Wanted(state if state in ledger.FOR_A_PERSON else "", said.get("text", "")[:200])


def _decision() -> Decision:
    said = request.form.get("decision", "")
    if said not in get_args(Decision):
        abort(400)
    return cast("Decision", said)


def _sessions() -> Any:
    return current_app.extensions["zambezi"].sessions


def _now() -> Any:
    return current_app.extensions["zambezi"].clock()
