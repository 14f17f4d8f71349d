"""The DICOM peers that Orthanc knows while it runs: made to be those of the configuration that was just taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from plugins.orthanc_rest import OrthancRest


def take(rest: OrthancRest, wanted: Mapping[str, Any]) -> None:
    """Peers that are gone lose their rights first; then each is what the configuration says, in Orthanc's own form."""
    for name in rest.get("/modalities"):
        if name not in wanted:
            rest.delete(f"/modalities/{quote(name, safe='')}")
    for name, peer in wanted.items():
        rest.put(f"/modalities/{quote(name, safe='')}", peer)
