"""The health page, and the probe that a monitor outside may ask."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, current_app, jsonify, render_template

from operations import status
from zambezi.access import PUBLIC, requires

pages = Blueprint("operations", __name__, template_folder="templates")


@pages.get("/health")
@requires("health.read")
def health() -> Any:
    """Each process, what waits and what went wrong: what `zambezi status` says."""
    parts = current_app.extensions["zambezi"]
    return render_template("health.html", found=status.look(parts.environment, parts.clock()))


@pages.get("/health/live")
@requires(PUBLIC)
def live() -> Any:
    """That this process answers; nothing else is said to strangers."""
    return jsonify({"live": True})
