"""How a computer or phone is made to believe this archive's certificate: a page and a file that strangers may see."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template

from operations import certificate_keeping, certificates
from zambezi.access import PUBLIC, requires

pages = Blueprint("certificate", __name__, template_folder="templates")


@pages.get("/certificate")
@requires(PUBLIC)
def certificate() -> Any:
    """The authority's fingerprint, and what to do with its certificate on each kind of device."""
    file = certificate_keeping.authority_file(current_app.extensions["zambezi"].environment)
    made = certificates.load(file.read_bytes()) if file.exists() else None
    return render_template("certificate.html", fingerprint=certificates.fingerprint(made) if made else "")


@pages.get("/certificate/zambezi-authority.crt")
@requires(PUBLIC)
def authority() -> Any:
    """The authority's certificate, in the type by which phones and Windows offer to install it."""
    file = certificate_keeping.authority_file(current_app.extensions["zambezi"].environment)
    if not file.exists():
        abort(404)
    answer = Response(file.read_bytes(), mimetype="application/x-x509-ca-cert")
    answer.headers["Content-Disposition"] = "attachment; filename=zambezi-authority.crt"
    answer.headers["Cache-Control"] = "no-store"
    return answer
