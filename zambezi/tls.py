"""TLS to somebody else, checked alike by every Python that is supported."""

from __future__ import annotations

import ssl
from pathlib import Path

from zambezi.config.safety import ClientCertificate
from zambezi.config.settings import DestinationTls


class FileFault(ValueError):
    """A file of certificates or keys is no use; the text names the setting and the file, and says why."""


def trusting(ca_file: Path | str | None = None) -> ssl.SSLContext:
    """TLS 1.2 or 1.3; whoever answers shows a certificate of this authority, or of the system's (BCP 195).

    OSError for a file that holds no certificate.
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Python 3.13 and later also want what RFC 5280 asks of an authority (key usage, key identifiers). Many that
    # hospitals and vendors of modalities make for themselves have none of it; who vouches is checked all the same.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def to_server(authorities: str, own: ClientCertificate | None) -> ssl.SSLContext:
    """TLS to a server that OrthancPeers or DicomWeb.Servers name: who is believed, and who we say we are.

    `authorities`: the file of HttpsCACertificates ("": the system's). FileFault for a file that is no use.
    """
    try:
        context = trusting(authorities or None)
    except OSError as error:
        raise FileFault(_file_fault("HttpsCACertificates", authorities, error)) from error
    if own is not None:
        try:
            # Without a password OpenSSL would ask for one on a terminal, for ever.
            context.load_cert_chain(own.file, own.key_file or None, lambda: own.key_password)
        except (OSError, ValueError) as error:
            files = [file for file in (own.file, own.key_file) if file]
            absent = [file for file in files if not Path(file).exists()]
            raise FileFault(_file_fault("CertificateFile", " and ".join(absent or files), error)) from error
    return context


def to_peer(how: DestinationTls, home: Path) -> ssl.SSLContext:
    """TLS to a DICOM peer: its certificate is checked, and ours shown where one is named (PS3.15 B.12).

    Files are below `home` unless absolute. OSError for one that is no use.
    """
    context = trusting(home / how.ca_file)
    context.check_hostname = bool(how.server_name)
    if how.certificate_file:
        context.load_cert_chain(home / how.certificate_file, home / how.key_file)
    return context


def _file_fault(key: str, file: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{key}: not there: {file}"
    if isinstance(error, PermissionError):
        return f"{key}: the account under which Zambezi runs can't read {file}"
    if isinstance(error, ssl.SSLError) and "KEY_VALUES_MISMATCH" in (error.reason or ""):
        return f"{key}: {file} don't belong together; put the key of this very certificate there"
    return f"{key}: {file} can't be used; allowed is PEM, a key with a password only if CertificateKeyPassword gives it"
