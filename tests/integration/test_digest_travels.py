"""The canonical digest survives the way through real Orthanc: by REST, by C-STORE in every syntax, and back."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.integration.archive_fixture import Archive
from tests.samples import NATIVE, OBJECTS, WITHOUT_UID, content
from zambezi import digest, digests
from zambezi.orthanc_client import OrthancClient, OrthancRefused

_PALETTE = "a colour palette belongs to no study: Orthanc can't file it, nor does it accept its SOP class"
_NO_CLASS = "no SOP class or no study: it can't be sent"
_NO_STUDY = "no Study Instance UID: Orthanc can't file it"
_ODD_NATIVE = "compressed by its syntax, native by its pixel data: dcmtk can't read it"
#: What doesn't get in by C-STORE, and why.
NOT_SENT = {
    **{name: _PALETTE for name in OBJECTS if name.startswith("palettes/")},
    **dict.fromkeys(WITHOUT_UID, _NO_CLASS),
    **dict.fromkeys((
        "test_files/JPEGLSNearLossless_08.dcm", "test_files/JPEGLSNearLossless_16.dcm",
        "test_files/SC_rgb_jls_lossy_line.dcm", "test_files/SC_rgb_jls_lossy_sample.dcm",
    ), _NO_STUDY),
    "test_files/rtdose_rle.dcm": _ODD_NATIVE,
    "test_files/rtdose_rle_1frame.dcm": _ODD_NATIVE,
    "test_files/SC_rgb_jpeg.dcm": "it says explicit VR, and is implicit: dcmtk can't read it",
}  # fmt: skip
#: storescu's option that offers a transfer syntax (and falls back to plainer ones).
OFFERS = {
    "1.2.840.10008.1.2.4.50": "-xy", "1.2.840.10008.1.2.4.51": "-xx", "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt", "1.2.840.10008.1.2.4.81": "-xu", "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw", "1.2.840.10008.1.2.5": "-xr",
}  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    made = Archive(tmp_path_factory.mktemp("archive")).start()
    yield made
    made.kill()


def empty(archive: Archive) -> OrthancClient:
    """A client that may delete, and has: many samples have one SOP Instance UID."""
    client = OrthancClient(archive.environment, archive.keys, "custody", timeout_s=60)
    for orthanc_id in client.get("/instances"):
        client.request("DELETE", f"/instances/{orthanc_id}")
    return client


def test_by_rest_every_sample_comes_back_as_it_was(archive: Archive) -> None:
    refused, back = set(), Counter[str]()
    for name in OBJECTS:
        client = empty(archive)
        try:
            orthanc_id = client.store(content(name))["ID"]
        except OrthancRefused:
            refused.add(name)
            continue
        file = client.file(orthanc_id)
        assert digest.fingerprint(file) == digest.fingerprint(content(name)), name
        assert digests.orthanc_md5(file) == digests.orthanc_md5(content(name)) == client.md5(orthanc_id)
        back["equal"] += 1
    assert {name for name in refused if name not in NOT_SENT} == set()
    assert back["equal"] > 150


def test_by_c_store_in_every_syntax_nothing_is_lost(archive: Archive, tmp_path: Path) -> None:
    prints = {name: digest.fingerprint(content(name)) for name in OBJECTS}
    not_stored, syntaxes = set(), Counter[str]()
    for offer, names in journeys(prints):
        client = empty(archive)
        for number, name in enumerate(names):
            (tmp_path / f"{number}.dcm").write_bytes(content(name))
        files = [str(tmp_path / f"{number}.dcm") for number in range(len(names))]
        port = str(archive.environment.ports.dicom)
        subprocess.run(
            ["storescu", "-nh", "-R", offer, "-aet", "CT1", "-aec", "ZAMBEZI", "127.0.0.1", port, *files],
            capture_output=True, check=False, timeout=120, env={"PATH": "/usr/bin:/bin", "TCP_NODELAY": "1"},
        )  # fmt: skip
        stored = {one.sop_uid: one for one in map(digest.fingerprint, map(client.file, client.get("/instances")))}
        for name in names:
            there = stored.pop(prints[name].sop_uid, None)
            if there is None:
                not_stored.add(name)
                continue
            assert digest.differences(prints[name], there) == [], (name, offer)
            assert prints[name].digest == there.digest, (name, offer)
            syntaxes[there.transfer_syntax] += 1
        assert stored == {}, "nobody sent these"
    assert {name: NOT_SENT.get(name) for name in not_stored if name not in NOT_SENT} == {}
    assert {*NATIVE, *OFFERS} - {"1.2.840.10008.1.2.4.81"} <= set(syntaxes)


def journeys(prints: Mapping[str, digest.Fingerprint]) -> list[tuple[str, list[str]]]:
    """What travels together: samples that are offered alike, and of those with one SOP Instance UID one at a time."""
    found: dict[tuple[str, int], list[str]] = {}
    seen = Counter[tuple[str, str]]()
    for name, one in prints.items():
        is_native = one.transfer_syntax in ("", *NATIVE)
        for offer in ("-xe", "-xb", "-xi", "-xd") if is_native else (OFFERS.get(one.transfer_syntax, "-xs"),):
            found.setdefault((offer, seen[offer, one.sop_uid]), []).append(name)
            seen[offer, one.sop_uid] += 1
    return [(offer, names) for (offer, _), names in found.items()]
