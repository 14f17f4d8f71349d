"""The digests of an object's file, told apart: which of them are equal says what two copies have in common.

`raw` is SHA-256 of the whole file: it names files in the hold, and equal means the same bytes. `orthanc_md5` is what
Orthanc keeps of the same bytes when it receives them: it shows whether a file is still what arrived; MD5 is no
protection against somebody who means harm. The third, of what an object says whatever its encoding, is
zambezi.digest. Standard library only: the plugin may use it, too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path


def raw(source: bytes | Path) -> str:
    """SHA-256 of these bytes, or of this file without reading it whole into memory; lower-case hex. Raises OSError."""
    return _hex("sha256", source)


def orthanc_md5(source: bytes | Path) -> str:
    """MD5 as Orthanc keeps it of what it received (`/instances/{id}/attachments/dicom/md5`); lower-case hex."""
    return _hex("md5", source)


def _hex(name: str, source: bytes | Path) -> str:
    if isinstance(source, bytes):
        return hashlib.new(name, source, usedforsecurity=name != "md5").hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(name, usedforsecurity=name != "md5")).hexdigest()
