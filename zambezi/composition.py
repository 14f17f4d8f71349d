"""The table of contents of the program: every page set and every command group there is.

Dotted names, loaded only when needed: `zambezi audit verify` never imports Flask. A page set is a Flask
Blueprint; each of its views carries a permission tag (zambezi.access.requires).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from zambezi.starting import importing

#: Flask Blueprints, in the order of the navigation.
PAGE_SETS: tuple[str, ...] = (
    "ris_service.session_pages:pages",
    "ris_service.worklist_pages:pages",
    "ris_service.study_pages:pages",
    "ris_service.report_pages:pages",
    "ris_service.old_report_pages:pages",
    "ris_service.delivery_pages:pages",
    "ris_service.exception_pages:pages",
    "ris_service.exception_rule_pages:pages",
    "ris_service.audit_pages:pages",
    "ris_service.user_pages:pages",
    "ris_service.scope_pages:pages",
    "ris_service.share_pages:pages",
    "ris_service.emergency_pages:pages",
    "migration.pages:pages",
    "migration.records_pages:pages",
    "migration.source_pages:pages",
    "migration.folders.pages:pages",
    "migration.plan_pages:pages",
    "migration.proof_pages:pages",
    "migration.rollback_pages:pages",
    "migration.run_pages:pages",
    "operations.custody.hold_pages:pages",
    "operations.custody.correction_pages:pages",
    "operations.pages:pages",
    "operations.modality_pages:pages",
    "operations.certificate_pages:pages",
    "operations.custody.deletion_pages:pages",
)

#: Rooms whose reasons come before persons; translations/ of each has the Portuguese (zambezi.phrases).
SPEAKERS: tuple[str, ...] = ("migration", "gateway", "operations")

#: click commands and groups, by the word that follows `zambezi`.
COMMANDS: dict[str, str] = {
    "up": "operations.running:up",
    "down": "operations.running:down",
    "prepare": "operations.alone:prepare",
    "run": "operations.alone:run_alone",
    "ready": "operations.alone:ready",
    "service": "operations.service_commands:service",
    "status": "operations.status_commands:status",
    "self-check": "operations.self_check_commands:command",
    "config": "operations.configuring:config",
    "audit": "operations.trail.commands:audit",
    "move": "operations.moving.commands:move",
    "backup": "operations.backup.commands:backup",
    "restore": "operations.backup.commands:restore",
    "key": "operations.key_commands:key",
    "cert": "operations.certificate_commands:cert",
    "correct": "operations.custody.correction_commands:correct",
    "exceptions": "ris_service.exception_commands:exceptions_group",
    "modalities": "operations.modality_commands:modalities_group",
    "alerts": "operations.alert_commands:alerts_group",
    "user": "ris_service.commands:user",
    "token": "ris_service.commands:token",
    "share": "ris_service.share_commands:share",
    "order": "ris_service.commands:order",
    "patient": "ris_service.commands:patient",
    "route": "gateway.commands:route",
    "commitment": "gateway.commitment.commands:commitment",
    "conformance": "gateway.conformance:conformance",
    "message": "gateway.commands:message",
    "hl7": "gateway.trigger_commands:hl7",
    "coerce": "gateway.coercion_commands:coerce_group",
    "migrate": "migration.commands:migrate",
    "hold": "operations.custody.hold_commands:hold",
    "delete": "operations.custody.deletion_commands:delete",
    "legal-hold": "operations.custody.deletion_commands:legal_hold",
}

#: Groups that change the machine and write nothing into ZAMBEZI_HOME: root goes on as root.
OF_THE_MACHINE = ("service",)


def load(dotted: str) -> Any:
    """What `package.module:name` names."""
    module, _, name = dotted.partition(":")
    with importing():
        return getattr(import_module(module), name)
