"""What this machine's Orthanc gives is what the manual says, what the status tells and what it negotiates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from migration import extras
from migration.extras import Extra, Kind, Level
from migration.source import Study
from tests.integration.archive_fixture import Archive, image, until
from tests.integration.test_conformance import (
    CLASSES,
    CT,
    IMPLICIT,
    JPEG_2000,
    PRIVATE,
    SYNTAXES,
    accepted,
    tables,
)
from tests.versions import seen
from zambezi.orthanc_client import OrthancRefused

KINDS: dict[Kind, str] = {"metadata": "1025", "attachment": "1030"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    # What is freed is overwritten: whatever touches it later, at the stop, too, ends Orthanc not by chance.
    running = Archive(tmp_path_factory.mktemp("archive"), variables={"MALLOC_PERTURB_": "165"}).start()
    yield running
    running.leave()


def test_what_this_version_gives_is_what_the_manual_says_of_it(archive: Archive, tmp_path: Path) -> None:
    found = seen.look(archive, tmp_path)
    said = seen.documented_column(found[""])
    assert said, f"docs/conformance.md has no column for Orthanc {found['']}; `make test-versions` prints the table"
    assert found == said


def test_this_version_negotiates_what_the_manual_says(archive: Archive) -> None:
    services, plain, storage, all_syntaxes = tables("4242")
    port = archive.environment.ports.dicom
    classes = CLASSES | services | storage | {PRIVATE}
    in_plain = {uid for uid, _ in accepted(port, set(product(classes, {IMPLICIT})))}
    compressed = {uid for uid, _ in accepted(port, set(product(classes, {JPEG_2000})))}
    assert in_plain - compressed == services, "what is no storage is a service that is written down"
    assert storage | {PRIVATE} <= compressed
    some = {CT, PRIVATE, *services}
    pairs = accepted(port, set(product(some, SYNTAXES)))
    assert {uid: {syntax for one, syntax in pairs if one == uid} for uid in services} == dict.fromkeys(services, plain)
    for uid in (CT, PRIVATE):
        assert all_syntaxes <= {syntax for one, syntax in pairs if one == uid}


def test_what_lies_beside_images_is_put_there_by_migration(archive: Archive) -> None:
    """What this version holds beside images, migration may put there through the filter, and the follower goes on."""
    ct = image()
    assert archive.send(ct) == [0]
    client = archive.as_service("migration")
    (instance,) = until(lambda: client.find("Instance", {"SOPInstanceUID": ct.SOPInstanceUID}))
    beside = extras._Archive(client, Study(ct.StudyInstanceUID, {}, {ct.SOPInstanceUID: [instance]}, {}))

    def fate(level: Level, uid: str, kind: Kind, name: str, content: bytes) -> str:
        extra = Extra(level, uid, kind, name, lambda: content)
        path = beside.path(extra)
        why = beside.refusal(extra, path)
        here = None if why else beside.value(path, extra)
        return why or str(extras._put(beside, extras._Coming(extra, path, here.etag if here else ""), lambda _: None))

    uids: dict[Level, str] = {
        "patient": "", "study": ct.StudyInstanceUID, "series": ct.SeriesInstanceUID, "instance": ct.SOPInstanceUID
    }  # fmt: skip
    for level, uid in uids.items():
        assert "'carried'" in fate(level, uid, "metadata", "1025", b" a note\n\xc3\xa7")
        assert "'carried'" in fate(level, uid, "attachment", "1030", bytes(range(256)) * 40)
        label = fate(level, uid, "label", "teaching", b"")
        assert ("'carried'" in label) if client.system().get("HasLabels") else ("which holds no labels" in label)
    for kind, name in KINDS.items():
        late = Extra("study", ct.StudyInstanceUID, kind, name, lambda: b"late")
        seen_before = beside.value(beside.path(late), late)
        assert seen_before is not None
        assert "'carried'" in fate("study", late.uid, kind, name, b"changed at the source")
        refused = extras._put(beside, extras._Coming(late, beside.path(late), seen_before.etag), lambda _: None)
        assert refused["state"] == "other", "changed since it was looked at"
    unknown = fate("study", ct.StudyInstanceUID, "metadata", "not-registered", b"x")
    assert "enter it in UserMetadata" in unknown
    with pytest.raises(OrthancRefused):  # Orthanc's own is not to be written, whatever the filter lets through
        client.request("PUT", f"/instances/{instance}/metadata/RemoteAET", data=b"SOMEBODY")
    last = client.get("/changes", last="")["Last"]
    until(lambda: archive.get("/zambezi/status").json()["follower"]["change"] >= last)
