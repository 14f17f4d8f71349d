"""What an Orthanc holds besides images: what of it is a user's, what becomes of each, how newer versions tell it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from migration import extras
from migration.extras import Extra
from migration.orthanc_source import OrthancSource
from migration.source import Study, Trouble
from migration.wire import Server
from tests.misbehaving_web import Asked, Said, serving
from zambezi.orthanc_client import OrthancRefused
from zambezi.retries import ErrorClass

STUDY, SERIES, IMAGE = "1.2.3", "1.2.3.4", "1.2.3.4.5"


@pytest.mark.parametrize(
    ("known", "put_before", "here", "expected"),
    [
        ("", None, None, "put"),
        ("carried", "a", None, "put"),  # it was taken away here, and comes again
        ("due", None, "a", "carried"),  # a worker died between putting it and saying so
        ("carried", "a", "a", "carried"),
        ("rolled-back", "a", "a", "carried"),
        ("", None, "a", "there"),  # not ours
        ("there", "a", "a", "there"),
        ("", None, "b", "other"),
        ("carried", "a", "b", "other"),  # changed here: nobody's work is written over
        ("carried", "b", "b", "put"),  # changed there: what is here is what we put
        ("due", "b", "b", "put"),  # the same, and a worker died before it
        ("there", "b", "b", "other"),
        ("carried", "b", "c", "other"),  # changed on both sides
    ],
)
def test_what_becomes_of_one_depends_on_what_is_there_and_whose_it_is(
    known: str, put_before: str | None, here: str | None, expected: str
):
    assert extras.decide(known, put_before, here, "a") == expected


def of_version_1_12(asked: Asked) -> Said:
    """An Orthanc with labels on each level, metadata and attachments of users, of plugins and of its own."""
    resources: dict[str, Any] = {
        "/tools/lookup": [{"Type": "Study", "ID": "st"}, {"Type": "Series", "ID": "x"}],
        "/studies/st": {"ID": "st", "ParentPatient": "pa", "Labels": ["urgent", "teaching"]},
        "/patients/pa": {"ID": "pa", "Labels": ["known"]},
        "/studies/st/series": [{"ID": "se", "MainDicomTags": {"SeriesInstanceUID": SERIES}, "Labels": []}],
        "/studies/st/instances": [{"ID": "im", "MainDicomTags": {"SOPInstanceUID": IMAGE}}],
        "/studies/st/metadata": ["7", "1025", "4202", "9999"],
        "/series/se/attachments": {"dicom-as-json": 2, "notes": 1030, "cache": 4301, "annotations": 9999, "x": 10007},
    }
    if asked.path.endswith("/size"):
        return Said(body=b"4")
    if asked.path == "/studies/st/metadata/1025":
        return Said(body=b"  a note\n\xff")
    if asked.path == "/series/se/attachments/1030/data":
        return Said(body=b"\0\1\2\3")
    found = resources.get(asked.path, [] if asked.path.endswith(("/metadata", "/attachments")) else None)
    return Said(404) if found is None else Said(body=json.dumps(found).encode())


def test_a_newer_orthanc_tells_labels_and_numbers_and_what_its_plugins_made_is_left():
    with serving(of_version_1_12) as web:
        source = OrthancSource(Server(web.url), 1)
        assert isinstance(source, extras.Bearing)
        found = list(source.extras(STUDY, ["label", "metadata", "attachment"]))
        read = {one.key: one.fetch() for one in found if one.name in ("1025", "1030")}
        assert [one.kind for one in source.extras(STUDY, ["label"])] == ["label"] * 3
    assert [one.key for one in found] == [
        ("patient", "", "label", "known"), ("study", STUDY, "label", "teaching"), ("study", STUDY, "label", "urgent"),
        ("study", STUDY, "metadata", "1025"), ("study", STUDY, "metadata", "9999"),
        ("series", SERIES, "attachment", "1030"), ("series", SERIES, "attachment", "9999"),
    ]  # fmt: skip
    assert list(read.values()) == [b"  a note\n\xff", b"\0\1\2\3"], "the very bytes"


def test_a_study_under_two_patients_gives_nothing_away():
    both = json.dumps([{"Type": "Study", "ID": "a"}, {"Type": "Study", "ID": "b"}]).encode()
    with (
        serving(lambda asked: Said(body=both)) as web,
        pytest.raises(Trouble, match="under 2 patients") as trouble,
    ):
        list(OrthancSource(Server(web.url), 1).extras(STUDY, ["label"]))
    assert trouble.value.kind is ErrorClass.OBJECT


class Newer:
    """The archive as Orthanc 1.12 answers about labels."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def system(self) -> dict[str, Any]:
        return {"Version": "1.12.7", "HasLabels": True}

    def find(self, level: str, query: dict[str, str], expand: bool) -> list[dict[str, str]]:
        return [{"ID": "st", "ParentPatient": "pa"}]

    def get(self, path: str) -> Any:
        return {"/studies/st/series": [], "/studies/st/labels": self.labels}[path]

    def request(self, method: str, path: str, data: bytes, headers: dict[str, str]) -> None:
        if (method, path) != ("PUT", "/studies/st/labels/teaching"):
            raise OrthancRefused(method, path, 400, "")
        self.labels.append("teaching")


def test_an_archive_that_holds_labels_gets_them_and_is_asked_whether_it_has_them():
    client, label, sizes = Newer(), Extra("study", STUDY, "label", "teaching"), list[int]()
    archive = extras._Archive(client, Study(STUDY, {}, {}, {}))  # type: ignore[arg-type]  # a stand-in client
    path = archive.path(label)
    assert (archive.refusal(label, path), archive.value(path, label)) == ("", None)
    assert extras._put(archive, extras._Coming(label, path), sizes.append)["state"] == "carried"
    assert archive.value(path, label) is not None
    strange = extras._Coming(Extra("study", STUDY, "label", "not allowed"), path)
    refused = extras._put(archive, strange, sizes.append)
    assert (refused["state"], "does not take it" in refused["reason"]) == ("left", True)
