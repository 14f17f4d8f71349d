"""TLS to somebody else, checked alike by every Python that is supported."""

from __future__ import annotations

import ssl
from pathlib import Path


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
