"""C-ECHO over TLS (PS3.15 B.12), from here: Orthanc's own calls are plain, and the address that stands in
DicomModalities for a peer of TLS is one of ours, where nobody answers.

How a peer is called over TLS is said by Zambezi.DicomTls.Calls, else by a destination's Tls.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pynetdicom import AE

from operations.front_door import Certificate
from zambezi import tls
from zambezi.config.safety import Modality
from zambezi.config.settings import DestinationTls, Zambezi

_VERIFICATION = "1.2.840.10008.1.1"
#: Of a peer that sends over TLS, where nobody has written how it is called.
NOT_WRITTEN = "it is known by its certificate, and Zambezi.DicomTls.Calls doesn't say how it is called"


@dataclass(frozen=True)
class Echo:
    """What became of our C-ECHO; `reason` says why it failed. `over`: TLS's version, where it went over that."""

    answered: bool
    reason: str = ""
    over: str = ""


def way(name: str, settings: Zambezi) -> DestinationTls | Echo | None:
    """How a peer is called over TLS; that it isn't known how; None: plainly."""
    if name in settings.dicom_tls.calls:
        return settings.dicom_tls.calls[name]
    to = settings.destinations.get(name)
    if to is not None and to.tls.ca_file:
        return to.tls
    return Echo(False, NOT_WRITTEN) if name in settings.dicom_tls.certificates else None


def over_tls(
    peer: Modality, how: DestinationTls, our_aet: str, home: Path, front: Certificate | None, seconds: float
) -> Echo:  # fmt: skip
    """Ask it. It is shown the certificate that `how` names, else the front door's; files of `how` lie below `home`."""
    try:
        context = tls.to_peer(how, home)
        if front is not None and not how.certificate_file:
            context.load_cert_chain(front.chain, front.key)
    except OSError as error:
        why = error.strerror or type(error).__name__
        return Echo(False, f"the files of its Tls can't be used ({error.filename or 'certificate or key'}: {why})")
    place = how.host or peer.host, how.port
    entity = AE(our_aet)
    entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = seconds
    entity.add_requested_context(_VERIFICATION)
    wrapped: Any = (context, how.server_name or None)
    line: Any = entity.associate(*place, ae_title=peer.aet, tls_args=wrapped)
    if not line.is_established:
        if line.is_rejected:
            return Echo(False, f"it refuses the association: {line.acceptor.primitive.reason_str.lower()}")
        return Echo(False, _no_way(context, place, how.server_name, seconds))
    try:
        version = line.dul.socket.socket.version()
        status = line.send_c_echo()
    finally:
        line.release()
    if "Status" not in status:
        return Echo(False, "it ended the association when it was asked")
    return Echo(status.Status == 0, f"status 0x{status.Status:04X}" if status.Status else "", version)


def _no_way(context: ssl.SSLContext, place: tuple[str, int], server_name: str, seconds: float) -> str:
    """pynetdicom doesn't say why a connection failed, so it is tried once more for the reason alone."""
    try:
        with (
            socket.create_connection(place, timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=server_name or None) as line,
        ):
            line.recv(1)  # by TLS 1.3 it says only now what it thinks of our certificate
    except TimeoutError:
        return "it takes our certificate, and says nothing to an association"
    except OSError as error:
        said = getattr(error, "verify_message", "") or getattr(error, "reason", "") or error.strerror
        return f"no connection over TLS with {place[0]}:{place[1]}: {said or type(error).__name__}"
    return "it ends the connection over TLS before an association, maybe because it does not know our certificate"
