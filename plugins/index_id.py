"""The name of Orthanc's index: a random id in a file beside it.

Change numbers mean something within one index only; an index that was made anew has another name.
"""

from __future__ import annotations

import uuid
from pathlib import Path

from zambezi import durable


def read_or_create(file: Path) -> str:
    """The id of the index that this file names."""
    if not file.exists():
        durable.replace(file, uuid.uuid4().hex.encode())
    return file.read_text().strip()
