"""The peers of a running Orthanc become those of the configuration that was just taken."""

from __future__ import annotations

from typing import Any

from plugins import peers


class Rest:
    """Orthanc's own lists of peers."""

    def __init__(self) -> None:
        self.has: dict[str, dict[str, Any]] = {"modalities": {"CT": 1, "GONE": 1}, "peers": {"OLD": 1}}

    def get(self, path: str) -> list[str]:
        return list(self.has[path.strip("/")])

    def delete(self, path: str) -> None:
        kind, name = path.strip("/").split("/")
        del self.has[kind][name]

    def put(self, path: str, body: Any) -> None:
        kind, name = path.strip("/").split("/")
        self.has[kind][name] = body


def test_dicom_peers_and_orthanc_peers_are_taken_and_what_is_gone_goes():
    rest = Rest()
    ct, harare = ["CT", "10.0.0.1", 104], ["https://harare.example/", "us", "secret"]
    peers.take(rest, {"DicomModalities": {"CT": ct}, "OrthancPeers": {"HARARE": harare}, "Name": "Zambezi"})
    assert rest.has == {"modalities": {"CT": ct}, "peers": {"HARARE": harare}}
