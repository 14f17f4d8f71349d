"""The page of DICOM devices: when each spoke last, an echo, who was refused and how it is let in.

The pages change no configuration: who holds a browser's session must not be able to open the archive to a machine of
their own. They say what is to be written, and the command that writes it.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from flask import Blueprint, abort, current_app, render_template, request
from flask_babel import lazy_gettext as _
from flask_login import current_user

from operations.modality_desk import Desk, NoSuchPeer
from zambezi.access import requires
from zambezi.config import peers
from zambezi.config.peers import OF_A_MODALITY, RIGHTS
from zambezi.orthanc_client import OrthancError

pages = Blueprint("modalities", __name__, template_folder="templates")
pages.navigation = (("modalities.index", _("Devices")),)  # type: ignore[attr-defined]  # read by the application

#: What a peer may do, in words.
MAY = {
    "echo": _("echo"),
    "store": _("send images"),
    "worklist": _("ask for its worklist"),
    "find": _("search"),
    "move": _("have images sent"),
    "get": _("fetch images"),
}
SIGNS = {
    "image": _("image"),
    "worklist": _("worklist"),
    "echo": _("echo"),
    "mpps": _("exam progress"),
    "query": _("query"),
    "move": _("had images sent"),
    "get": _("fetched images"),
    "commitment": _("storage commitment"),
    "associated": _("connection"),
}
#: Reasons as the archive and the gateway give them (operations.dicom_log, gateway.dicom_server).
REASONS = {
    "the AE title is unknown": _("the AE title is unknown"),
    "the AE title belongs to another address": _("the AE title belongs to another address"),
    "it calls an AE title that is not ours": _("it calls an AE title that is not ours"),
    "nothing that it proposes is taken here": _("nothing that it proposes is taken here"),
    "its request can't be read": _("its request can't be read"),
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def _desk() -> Desk:
    parts = current_app.extensions["zambezi"]
    return Desk(parts.environment, parts.keys, parts.reading)


def _shown(**more: Any) -> str:
    return render_template(
        "modalities.html", found=_desk().look(), may=MAY, signs=SIGNS, reasons=REASONS,
        may_manage=current_user.may("modality.manage"), **more,
    )  # fmt: skip


@pages.get("/modalities")
@requires("modality.read")
def index() -> Any:
    """Every peer with its last signs, and who was refused."""
    return _shown()


@pages.post("/modalities/<name>/echo")
@requires("modality.manage")
def echo(name: str) -> Any:
    """Ask one by C-ECHO, and show what it said."""
    if not _NAME.fullmatch(name):
        abort(404)
    try:
        answer = _desk().echo(name)
    except NoSuchPeer:
        abort(404)
    except OrthancError as error:
        return _shown(asked=name, fault=str(error)), 502
    return _shown(asked=name, answer=answer)


@pages.get("/modalities/new")
@requires("modality.manage")
def new() -> Any:
    """What to write, and where, so that a device is let in."""
    asked = {name: request.args.get(name, "").strip()[:64] for name in ("name", "aet", "host", "port")}
    chosen = [one for one in request.args.getlist("allow") if one in RIGHTS] or list(OF_A_MODALITY)
    found = _desk().look()
    same = next((peer for peer in found.known if peer.aet == asked["aet"]), None)
    faults = []
    if request.args.get("port") is not None:
        faults = _faults(asked, {peer.name for peer in found.known})
    text = command = ""
    if asked["port"] and not faults:
        peer = peers.entry(asked["aet"], asked["host"], int(asked["port"]), chosen)
        text = peers.shown(asked["name"], peer)
        words = ["zambezi", "modalities", "add", asked["name"], asked["aet"], asked["host"], asked["port"]]
        command = shlex.join([*words, *(word for one in chosen for word in ("--allow", one))])
    return render_template(
        "modality_new.html", asked=asked, chosen=chosen, may=MAY, same=same, faults=faults, text=text, command=command,
    )  # fmt: skip


def _faults(asked: dict[str, str], taken: set[str]) -> list[Any]:
    found = []
    if not _NAME.fullmatch(asked["name"]):
        found.append(_("The name: letters, digits and _ . - only."))
    elif asked["name"] in taken:
        found.append(_("A device of this name is there already."))
    if not 0 < len(asked["aet"]) <= 16 or "\\" in asked["aet"]:
        found.append(_("The AE title: 1 to 16 characters."))
    if not re.fullmatch(r"[0-9A-Za-z.:-]{1,64}", asked["host"]):
        found.append(_("The address: an IP address."))
    if not asked["port"].isdigit() or not 0 < int(asked["port"]) < 65536:
        found.append(_("The port: a number from 1 to 65535."))
    return found
