"""Why a source isn't spoken with over TLS, in words that say what to do: its certificate, ours, or what lies between.

Nothing here passes by itself: an administrator has to change something, so a migration pauses with these words.
"""

from __future__ import annotations

import re
import ssl

_OTHER_NAME = (
    "its certificate is for another name or address: write the one that it is for into the Url, or have one made there "
    "for this one"
)
#: OpenSSL's X509_V_ERR_... (openssl-verification-options(1), x509_vfy.h) of the certificate that the source showed.
_SHOWN = {
    9: "its certificate is not good yet: look at the clock of this machine, and of the one that made it",
    10: "its certificate has expired: have it renewed there; if it is good, the clock of this machine is wrong",
    23: "its certificate was revoked by its authority: have another one made there",
    26: "its certificate is not one for servers: have one made there for a server",
    47: "its authority may not vouch for this name or address: have a certificate made there by one that may",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
    66: "its key is too short to be safe: have a certificate with 2048 bits or more made there",
    67: "its authority's key is too short to be safe: have a certificate made there by another one",
    68: "its certificate is signed in a way that is not safe any more: have one made there with SHA-256",
}  # fmt: skip
_UNKNOWN = (
    "its certificate comes from an authority that is not known here: put that authority's certificate (PEM) into the "
    "file that HttpsCACertificates names"
)
#: Self-signed, an issuer that isn't there, or a chain that doesn't lead to one.
_UNKNOWN_CODES = {2, 18, 19, 20, 21}

#: OpenSSL's reasons (sslerr.h) for a handshake that ended otherwise; an alert is what the source said of us (RFC 8446,
#: 6.2).
_ENDED = (
    (r"ALERT_CERTIFICATE_REQUIRED|PEER_DID_NOT_RETURN",
     "it asks for a certificate of ours: write one into CertificateFile"),
    (r"ALERT_(BAD_CERTIFICATE|UNSUPPORTED_CERTIFICATE|CERTIFICATE_\w+|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)",
     "it does not take our certificate: look at CertificateFile, until when it is good, and whom the source believes"),
    (r"WRONG_VERSION_NUMBER|HTTP_REQUEST|RECORD_LAYER_FAILURE|PACKET_LENGTH_TOO_LONG",
     "it does not speak TLS at this port: write http:// in the Url, or another port"),
    (r"UNSUPPORTED_PROTOCOL|ALERT_PROTOCOL_VERSION|NO_SHARED_CIPHER|ALERT_HANDSHAKE_FAILURE|ALERT_INSUFFICIENT_SECURITY"
     r"|DH_KEY_TOO_SMALL|LEGACY_(SIGALG|RENEGOTIATION)|UNSAFE_LEGACY|WRONG_SIGNATURE_TYPE",
     "it speaks no TLS that is safe (1.2 or 1.3): put a front such as nginx before it"),
)  # fmt: skip


def why(error: BaseException) -> str:
    """What went wrong and what helps; "" where it is no lasting fault of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _UNKNOWN_CODES:
            return _UNKNOWN
        return _SHOWN.get(error.verify_code, f"its certificate is not believed: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        return next((words for reason, words in _ENDED if re.search(reason, error.reason or "")), "")
    return ""
