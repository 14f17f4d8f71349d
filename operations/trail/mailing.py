"""The newest checkpoint of the audit trail, by mail: whoever gets it holds what nobody here can change or take back.

A checkpoint says where every chain stood and names the one before, so the newest is worth all older ones. It goes by
the server of Alerts.Mail, to addresses of its own (Audit.CheckpointMailTo): best somebody outside of the house. A mail
that was refused is tried again; a crash between the mail and its row sends it twice, never not at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from operations import alert_channels
from operations.alert_channels import ChannelFailed
from operations.trail import shipping
from operations.trail.keeping import mail_name
from zambezi import checkpoints, clock
from zambezi.checkpoints import Checkpoint
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions
from zambezi.database.tables import AuditCollector

log = logging.getLogger("operations.trail")

_WORDS = {
    "pt": (
        "ponto de controlo {number} da auditoria",
        "O anexo diz onde estava cada cadeia da auditoria em {at} (UTC); está assinado com a chave {key}.\n"
        "Guarde este correio fora do hospital. Com o anexo mostra-se se depois algo foi cortado ou refeito:\n\n"
        "    zambezi audit verify --against {file}\n",
    ),
    "en": (
        "checkpoint {number} of the audit trail",
        "The attachment says where every chain of the audit trail stood at {at} (UTC); it is signed with key {key}.\n"
        "Keep this mail outside of the hospital. The attachment shows whether anything was cut off or remade since:\n\n"
        "    zambezi audit verify --against {file}\n",
    ),
}


class Mailer:
    """Used by one thread; `settings` have addresses (Audit.CheckpointMailTo)."""

    def __init__(
        self, writing: Sessions, reading: Sessions, settings: Zambezi, home: Path,
        now: Callable[[], datetime] = clock.now,
    ) -> None:  # fmt: skip
        self._writing = writing
        self._reading = reading
        self._settings = settings
        self._home = home
        self._now = now
        self._name = mail_name(settings.audit)

    def round(self) -> int:
        """Mail the newest checkpoint, if it is time and nobody got it yet; its number, else 0."""
        now = self._now()
        with self._reading() as session:
            row = session.get(AuditCollector, self._name)
            newest = checkpoints.newest(session)
            has = newest is not None and shipping.has(session, self._name, shipping.CHECKPOINTS, newest.body["number"])
        if newest is None or has or not is_due(row, self._settings.audit.checkpoint_mail_hours, now):
            return 0
        return 0 if self.mail(newest) else int(newest.body["number"])

    def mail(self, one: Checkpoint) -> str:
        """Mail it now and write down what came of it; why it failed, or ""."""
        wanted, now, body = self._settings.alerts.mail, self._now(), one.body
        subject, text = _WORDS[self._settings.site.language]
        file = f"checkpoint-{body['number']}.json"
        letter = alert_channels.letter(
            wanted, self._settings.audit.checkpoint_mail_to,
            f"Zambezi, {' '.join(self._settings.site.name.split())}: {subject.format(number=body['number'])}",
            text.format(at=body["at"][:19], key=body["key_id"], file=file), now,
        )  # fmt: skip
        letter.add_attachment(one.to_json() + b"\n", maintype="application", subtype="json", filename=file)
        try:
            alert_channels.hand_over(wanted, self._home, letter)
        except ChannelFailed as failed:
            shipping.note_failure(self._writing, self._name, str(failed), now)
            return str(failed)
        shipping.note(self._writing, self._name, {shipping.CHECKPOINTS: int(body["number"])}, now)
        log.info("checkpoint %d was mailed", body["number"])
        return ""


def is_due(row: AuditCollector | None, hours: float, now: datetime) -> bool:
    """Whether it is time: long enough after the last mail, and after the wait that follows a failure. A moment that
    lies in the future is a clock that was put back, and keeps nothing from being sent."""
    if row is None:
        return True
    if row.next_at and timedelta() < clock.parse(row.next_at) - now <= timedelta(hours=1):
        return False
    return not (row.sent_at and timedelta() <= now - clock.parse(row.sent_at) < timedelta(hours=hours))
