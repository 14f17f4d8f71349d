"""The health page, and the probe that a monitor outside may ask."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, jsonify, render_template
from flask_babel import get_locale
from flask_babel import lazy_gettext as _

from operations import condition_messages, status
from zambezi import exception_kinds
from zambezi.access import PUBLIC, requires

pages = Blueprint("operations", __name__, template_folder="templates")
pages.navigation = (("operations.health", _("Health")),)  # type: ignore[attr-defined]  # read by the application

#: What each process is for, in the words of somebody who only sees that it is down.
JOBS = {
    "orthanc": _("the archive: takes images in and shows them"),
    "ris": _("these pages"),
    "gateway": _("messages, exam progress and deliveries"),
    "migration": _("brings studies over from old archives"),
    "operations": _("watches over the others"),
    "front": _("the door for browsers"),
}
#: States as supervisord names them, and two of ours.
STATES = {
    "running": _("runs"),
    "starting": _("is starting"),
    "silent": _("gives no sign of life"),
    "stopping": _("is stopping"),
    "stopped": _("does not run"),
    "exited": _("has ended"),
    "backoff": _("does not come up, is tried again"),
    "fatal": _("does not come up"),
    "unknown": _("unknown"),
}
QUEUES = {
    "exceptions open": _("exceptions that nobody has decided"),
    "messages waiting": _("messages that could not be carried out"),
    "storage commitment requests under way": _("modalities that are to be told whether their images are safe"),
    "storage commitment requests stopped": _("modalities that could not be told whether their images are safe"),
    "modalities that ask port 4242 for storage commitment": _("modalities that ask port 4242 for storage commitment"),
    "deliveries abandoned by their workers": _("deliveries whose worker died: another one takes them over"),
    "studies of migrations abandoned by their workers": _("studies whose worker died: another one takes them over"),
}


#: What lies on a volume, and what its level means.
ROLES = {
    "images": _("images"), "index": _("index"), "journal": _("journal"), "hold": _("hold"), "home": _("configuration"),
    "database": _("database"),
}  # fmt: skip
LEVELS = {
    "plenty": _("room enough"),
    "low": _("getting full"),
    "scarce": _("migration has stopped"),
    "full": _("images are refused"),
    "spent": _("nothing is stored"),
}
#: Where patients' data and keys lie, and whether a stolen disk could be read (operations.encryption).
PLACES = {
    "data": _("data folder"), "images": _("images"), "index": _("index"), "viewer": _("web viewer's cache"),
    "database": _("database"), "configuration": _("configuration"), "logs": _("system journal"), "swap": _("swap"),
    "certificate": _("key of the front door's certificate"), "temporary": _("temporary files"),
    "key": _("key that opens a volume"),
}  # fmt: skip
AT_REST = {
    "encrypted": _("encrypted"), "plain": _("not encrypted"), "memory": _("in memory"), "unknown": _("unknown"),
}  # fmt: skip
ALERTS = {"webhook": _("to a program (webhook)"), "mail": _("by e-mail")}


@pages.get("/health")
@requires("health.read")
def health() -> Any:
    """Each process, what waits and what went wrong: what `zambezi status` says."""
    parts = current_app.extensions["zambezi"]
    found = status.look(parts.environment, parts.clock())
    return render_template(
        "health.html", found=found, jobs=JOBS, states=STATES, queues=QUEUES, kind_title=_title, alert_names=ALERTS,
        roles=ROLES, levels=LEVELS, where=PLACES, at_rest=AT_REST,
        worded=lambda one: condition_messages.words(one, _language()),
    )  # fmt: skip


def _title(kind: str) -> str:
    return exception_kinds.title(kind, _language())


def _language() -> str:
    locale = get_locale()
    return locale.language if locale else "en"


@pages.get("/health/live")
@requires(PUBLIC)
def live() -> Any:
    """That this process answers; nothing else is said to strangers."""
    return jsonify({"live": True})
