"""A syslog collector over TLS (RFC 5425), and the proof that it has read what was sent.

Syslog acknowledges nothing: what a sender writes may lie in a buffer while the collector dies, or refuses our
certificate (TLS 1.3 says that after the handshake). So each lot of messages has a connection of its own, we close our
side of it (close_notify) and wait for the collector's end. A Linux kernel that closes a connection on which something
was not read says reset, not end; and what was never acknowledged by it stays in our queue. Only an end, with nothing
of ours left over, counts as handed over. Whatever else happens, the lot is sent again, whole.
"""

from __future__ import annotations

import fcntl
import socket
import ssl
import struct
import termios
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from zambezi import syslog
from zambezi.config.settings import AuditCollector
from zambezi.tls import trusting

#: For connecting, and for each read or write.
STEP_S = 10.0
#: For a collector to read all of a lot, once it was written.
END_S = 30.0
_CHUNK = 64 * 1024
#: States of a Linux socket (tcp_states.h): nobody has ended; the other side has, we have not.
_ESTABLISHED, _CLOSE_WAIT = 1, 8


class CollectorFailed(Exception):
    """The lot was not handed over; the text says why."""


@dataclass(frozen=True)
class Collector:
    """Where the trail goes, as the configuration has it; `home` is what its files are below."""

    settings: AuditCollector
    home: Path

    @property
    def name(self) -> str:
        return f"{self.settings.host}:{self.settings.port}"

    def send(self, messages: Iterable[bytes]) -> None:
        """Hand over syslog messages; they were read when this returns, else CollectorFailed."""
        wanted = self.settings
        context = self._context()
        try:
            with (
                socket.create_connection((wanted.host, wanted.port), STEP_S) as plain,
                context.wrap_socket(plain, server_hostname=wanted.server_name or wanted.host) as tls,
            ):
                tls.settimeout(STEP_S)
                lot = bytearray()
                for message in messages:
                    lot += syslog.framed(message)
                    if len(lot) >= _CHUNK:
                        tls.sendall(lot)
                        lot.clear()
                tls.sendall(lot)
                _wait_for_its_end(tls)
        except (OSError, ssl.SSLError) as error:
            raise CollectorFailed(f"{self.name}: {_why(error)}") from error

    def _context(self) -> ssl.SSLContext:
        wanted = self.settings
        try:
            context = trusting(self._file(wanted.ca_file) if wanted.ca_file else None)
            if wanted.certificate_file:
                key = self._file(wanted.key_file)
                if Path(key).stat().st_mode & 0o077:
                    raise CollectorFailed(f"KeyFile {key}: others may read it; chmod 600")
                context.load_cert_chain(self._file(wanted.certificate_file), key)
        except (OSError, ssl.SSLError) as error:
            where = getattr(error, "filename", None) or "CaFile, CertificateFile or KeyFile"
            raise CollectorFailed(f"{where}: {_why(error)}") from error
        return context

    def _file(self, name: str) -> str:
        return str(self.home / name)  # an absolute one stays what it is


def _wait_for_its_end(tls: ssl.SSLSocket) -> None:
    """Until the collector has read all and ended; OSError otherwise."""
    tls.settimeout(END_S)
    try:
        tls.unwrap()
    except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
        pass  # its end without a close_notify of its own: many collectors do that
    except OSError as error:
        if error.errno:  # unwrap says 0 where the other side simply ended
            raise
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        state = tls.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        (waiting,) = struct.unpack("i", fcntl.ioctl(tls.fileno(), termios.TIOCOUTQ, b"\0" * 4))
        if state not in (_ESTABLISHED, _CLOSE_WAIT):
            raise ConnectionResetError("it ended the connection before it had read everything")
        if state == _CLOSE_WAIT and not waiting:
            return
        time.sleep(0.01)
    raise TimeoutError(f"it did not read everything within {END_S:g} seconds")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate can't be trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    return str(getattr(error, "strerror", None) or error) or type(error).__name__
