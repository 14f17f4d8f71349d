"""Who may do what: permissions, the roles that hold them, and the tag every view carries.

Deny by default: a view without a tag is refused by the RIS (ris_service/app.py), a path without a rule by
the plugin's filter (plugins/http_filter.py). No Flask here: any room can tag a view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

#: Tag of the few views that a stranger may see (sign-in, health probe, static files).
PUBLIC = "public"
#: Tag of views that everyone who is signed in may use on their own behalf (own password, sign-out).
SIGNED_IN = "signed-in"

PERMISSIONS: dict[str, str] = {
    "worklist.read": "see orders, the worklist and exam states",
    "order.write": "register patients, order, schedule, receive and finish exams",
    "images.view": "open the images of any study of the site",
    "images.view-own": "open the images of the studies that the token names",
    "images.emergency": "open a study outside of one's part of the site, with a reason, for a while",
    "share.make": "make and revoke links that share studies",
    "report.read": "read reports",
    "report.write": "write and save reports",
    "report.sign": "sign reports",
    "delivery.read": "see routes and deliveries",
    "delivery.manage": "retry and cancel deliveries",
    "exception.read": "see what waits for a person",
    "exception.decide": "decide what waits for a person",
    "hold.read": "see what lies in the hold, tags and pictures",
    "hold.decide": "release what lies in the hold, and ask for or confirm that it is discarded",
    "correction.read": "see corrections and what they changed",
    "correction.write": "correct what the archive holds, and undo it",
    "deletion.decide": "ask for deletions and confirm those of others, set and lift legal holds",
    "migration.read": "see migrations and certificates",
    "migration.run": "plan, start, pause and roll back migrations",
    "audit.read": "read the audit trail",
    "health.read": "see the state of the processes",
    "modality.read": "see which DICOM devices called, what they may do, and who was refused",
    "modality.manage": "ask a DICOM device for an echo, and see how a new one is let in",
    "orthanc.explore": "use Orthanc's own pages and REST API, reading only",
    "user.manage": "add, change and disable users and tokens",
}

_READING = {"worklist.read", "images.view", "report.read"}

ROLES: dict[str, frozenset[str]] = {
    "administrator": frozenset(PERMISSIONS) - {"report.write", "report.sign", "images.view-own"},
    "pacs-administrator": frozenset(
        _READING
        | {
            "order.write",
            "images.emergency",
            "share.make",
            "exception.read",
            "exception.decide",
            "delivery.read",
            "delivery.manage",
            "hold.read",
            "hold.decide",
            "correction.read",
            "correction.write",
            "deletion.decide",
            "health.read",
            "modality.read",
            "modality.manage",
            "orthanc.explore",
        }
    ),
    "radiologist": frozenset(
        _READING | {"report.write", "report.sign", "exception.read", "delivery.read", "images.emergency", "share.make"}
    ),
    "radiographer": frozenset(
        _READING | {"order.write", "exception.read", "delivery.read", "images.emergency", "modality.read"}
    ),
    "reception": frozenset({"worklist.read", "order.write"}),
    "referrer": frozenset({"images.view-own", "report.read", "images.emergency"}),
    "migration-engineer": frozenset(
        {"migration.read", "migration.run", "exception.read", "health.read", "images.view"}
    ),
    "emergency": frozenset({"images.view"}),
    "guest": frozenset({"images.view-own"}),
}


def may(role: str, permission: str) -> bool:
    """Whether the role holds the permission; an unknown role holds none."""
    return permission in ROLES.get(role, frozenset())


def narrowed(view: View) -> View:
    """Tag a view that shows no more than the person's part of the site; others are refused to who sees only a part."""
    view.zambezi_narrowed = True  # type: ignore[attr-defined]  # a function carries its own tag
    return view


def requires(permission: str) -> Callable[[View], View]:
    """Tag a view with the permission it needs; ValueError for one that does not exist."""
    if permission not in PERMISSIONS and permission not in (PUBLIC, SIGNED_IN):
        raise ValueError(f"no permission {permission!r}; known: {', '.join(sorted(PERMISSIONS))}")

    def tag(view: View) -> View:
        view.zambezi_requires = permission  # type: ignore[attr-defined]  # a function carries its own tag
        return view

    return tag
