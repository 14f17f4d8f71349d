"""The two ways out: an HTTP POST and a mail. Each says why it could not tell, in one line without secrets.

Bounded in time as a whole, whatever the other side does; TLS is verified, redirects are not followed, and of an
answer no more is read than its beginning.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import logging
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from operations import alerts, condition_messages
from zambezi import clock
from zambezi.config.settings import AlertMail, Alerts, AlertWebhook
from zambezi.tls import trusting

log = logging.getLogger("operations.alerts")

#: For each read or write, and for all of a message.
STEP_S = 10.0
WHOLE_S = 40.0
#: No more is read of an answer, of a secret or of a password.
LONGEST_ANSWER = 4096


class ChannelFailed(Exception):
    """The message could not be handed over; the text says why and holds no secret."""


class Way(Protocol):
    """A way by which persons are told."""

    name: str

    def send(self, told: dict[str, Any], language: str, now: datetime) -> None:
        """Hand over the message (operations.alerts.document); ChannelFailed where that fails."""


def ways(settings: Alerts, home: Path) -> list[Way]:
    """Those that the configuration names."""
    found: list[Way] = []
    if settings.webhook.url:
        found.append(Webhook(settings.webhook, home))
    if settings.mail.host:
        found.append(Mail(settings.mail, home))
    return found


@dataclass
class Webhook:
    """POST of JSON. With a secret it is signed: X-Zambezi-Signature is `sha256=` and the hex HMAC-SHA256 of
    X-Zambezi-Timestamp, a full stop and the body."""

    settings: AlertWebhook
    home: Path
    whole_s: float = WHOLE_S
    name: str = "webhook"

    def send(self, told: dict[str, Any], language: str, now: datetime) -> None:
        """Any answer of 2xx is a success."""
        body = json.dumps(told, ensure_ascii=False).encode()
        at = clock.text(now)
        headers = {"Content-Type": "application/json", "User-Agent": "Zambezi", "X-Zambezi-Timestamp": at}
        if self.settings.secret_file:
            secret = _secret(self.home, self.settings.secret_file, "SecretFile")
            signature = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
            headers["X-Zambezi-Signature"] = f"sha256={signature}"
        parts = urlsplit(self.settings.url)
        host = parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, parts.port, timeout=STEP_S, context=_trusting(self.home, self.settings.ca_file)
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=STEP_S)
        )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

        def post() -> None:
            try:
                connection.request("POST", target, body, headers)
                answer = connection.getresponse()
                answer.read(LONGEST_ANSWER)
            except (OSError, http.client.HTTPException) as error:
                raise ChannelFailed(f"{host}: {_why(error)}") from error
            finally:
                connection.close()
            if 300 <= answer.status < 400:
                raise ChannelFailed(f"{host} answered {answer.status}: redirects are not followed")
            if not 200 <= answer.status < 300:
                raise ChannelFailed(f"{host} answered {answer.status}")

        _within(self.whole_s, host, post)


@dataclass
class Mail:
    """A plain text mail by SMTP."""

    settings: AlertMail
    home: Path
    whole_s: float = WHOLE_S
    name: str = "mail"

    def send(self, told: dict[str, Any], language: str, now: datetime) -> None:
        """A success where the server took the mail for at least one of the addresses."""
        write = condition_messages.mail if told["about"] == "condition" else alerts.mail
        message = letter(self.settings, self.settings.to, *write(told, language, now), now)
        hand_over(self.settings, self.home, message, self.whole_s)


def letter(settings: AlertMail, to: Sequence[str], subject: str, text: str, now: datetime) -> EmailMessage:
    """A plain text mail from the address of the settings."""
    message = EmailMessage()
    message["Subject"] = subject
    message["From"], message["To"] = settings.from_, ", ".join(to)
    message["Date"] = format_datetime(now)
    message["Message-ID"] = make_msgid(domain=settings.from_.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text)
    return message


def hand_over(settings: AlertMail, home: Path, message: EmailMessage, whole_s: float = WHOLE_S) -> None:
    """Give the mail to the server of the settings; ChannelFailed where that takes it for none of the addresses."""
    trusting = None if settings.security == "none" else _trusting(home, settings.ca_file)
    password = ""
    if settings.user:
        password = _secret(home, settings.password_file, "PasswordFile").decode("utf-8", "replace")

    def deliver() -> None:
        name = socket.gethostname()
        try:
            with (
                smtplib.SMTP_SSL(settings.host, settings.port, name, timeout=STEP_S, context=trusting)
                if settings.security == "tls"
                else smtplib.SMTP(settings.host, settings.port, name, timeout=STEP_S)
            ) as server:
                if settings.security == "starttls":
                    server.starttls(context=trusting)
                if settings.user:
                    server.login(settings.user, password)  # ASCII alone, as in all of smtplib
                refused = server.send_message(message)
        except UnicodeError as error:
            raise ChannelFailed(f"{settings.host}: User, password or an address isn't ASCII") from error
        except (OSError, smtplib.SMTPException) as error:
            raise ChannelFailed(f"{settings.host}: {_why(error)}") from error
        if refused:
            log.warning("%s refused %d of the addresses", settings.host, len(refused))

    _within(whole_s, settings.host, deliver)


def _within(seconds: float, host: str, work: Callable[[], None]) -> None:
    """Do the work, but wait for it no longer; a receiver that drips byte by byte keeps nobody else waiting."""
    outcome: list[ChannelFailed | None] = []

    def run() -> None:
        try:
            work()
        except ChannelFailed as failed:
            outcome.append(failed)
        except Exception as error:  # edge of the thread: whatever it is, the channel's row must say that it fails
            log.exception("%s could not be told", host)
            outcome.append(ChannelFailed(f"{host}: {type(error).__name__}"))
        else:
            outcome.append(None)

    thread = threading.Thread(target=run, name=f"alert-{host}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise ChannelFailed(f"{host} took longer than {seconds:g} seconds")
    if outcome[0] is not None:
        raise outcome[0]


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return f"it refused user and password ({error.smtp_code})"
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "it refused every address"
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{type(error).__name__} {error.smtp_code}"
    said = str(error).splitlines()[0] if str(error) else ""
    return f"{type(error).__name__}: {said}"[:200] if said else type(error).__name__


def _secret(home: Path, name: str, key: str) -> bytes:
    try:
        with (home / name).open("rb") as file:
            secret = file.read(LONGEST_ANSWER).strip()
    except OSError as error:
        raise ChannelFailed(f"{key} {name} can't be read: {error.strerror}") from error
    if not secret:
        raise ChannelFailed(f"{key} {name} is empty")
    return secret


def _trusting(home: Path, ca_file: str) -> ssl.SSLContext:
    try:
        return trusting(home / ca_file if ca_file else None)
    except OSError as error:  # ssl.SSLError is one: what is in the file is no certificate
        raise ChannelFailed(f"CaFile {ca_file} can't be used: {error.strerror or type(error).__name__}") from error
