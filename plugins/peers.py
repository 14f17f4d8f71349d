"""The peers that Orthanc knows while it runs: made to be those of the configuration that was just taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from plugins.orthanc_rest import OrthancRest

#: Orthanc's paths, and the section of its configuration that each is of.
SECTIONS = {"modalities": "DicomModalities", "peers": "OrthancPeers"}


def take(rest: OrthancRest, orthanc: Mapping[str, Any]) -> None:
    """Peers that are gone lose their rights first; then each is what the configuration says, in Orthanc's own form."""
    for kind, section in SECTIONS.items():
        wanted = orthanc.get(section, {})
        for name in rest.get(f"/{kind}"):
            if name not in wanted:
                rest.delete(f"/{kind}/{quote(name, safe='')}")
        for name, peer in wanted.items():
            rest.put(f"/{kind}/{quote(name, safe='')}", peer)
