"""Conflicts, compared off the hot path: equal content needs nobody, other content waits for a person."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from io import BytesIO

import pytest
from pydicom import dcmread
from sqlalchemy import select

from operations.custody import comparing, worker
from operations.custody.comparing import Comparing, verdict
from tests.unit.operations.custody.archive import changed, sample
from zambezi import hold, rewriting
from zambezi.database.tables import ExceptionItem
from zambezi.orthanc_client import OrthancUnreachable


def test_the_same_content_in_another_encoding_needs_nobody(room):
    row = room.hold(sample("MR_small_implicit.dcm"))
    room.archive.put(sample("MR_small.dcm"))
    assert Comparing(room.desk()).round()
    held = room.row(row)
    assert (held.state, held.differs, held.lease_until) == ("same", [], None)
    with room.sessions.begin() as session:
        assert session.scalars(select(ExceptionItem)).all() == []


def test_other_content_waits_for_a_person_with_the_tags_that_differ(room):
    came = changed(sample("CT_small.dcm"), PatientID="OTHER", StudyDescription="x")
    row = room.hold(came)
    room.archive.put(sample("CT_small.dcm"))
    assert Comparing(room.desk()).round()
    assert room.row(row).state == "comparing", "under its own patient it may still come"
    room.pass_by(minutes=3)
    assert Comparing(room.desk()).round()
    held = room.row(row)
    assert held.state == "waiting"
    assert {"(0010,0020)", "(0008,1030)"} <= set(held.differs)
    with room.sessions.begin() as session:
        item = session.scalars(select(ExceptionItem)).one()
    assert (item.room, item.kind, item.actions[0]["href"]) == ("hold", "conflict", f"/hold/{row}")
    assert "OTHER" not in item.what, "no value of a patient stands in an item"
    assert not Comparing(room.desk()).round(), "nothing is left"


def test_one_image_that_was_coerced_twice_needs_nobody_and_another_does():
    def coerced(second: int, number: str, content: bytes) -> bytes:
        stamp = rewriting.Stamp(datetime(2026, 3, 1, 8, 30, second, tzinfo=UTC), "ZAMBEZI clinic", "COERCE")
        return rewriting.rewrite(content, {"00100020": number}, stamp).content

    one = sample("CT_small.dcm")
    found = verdict(coerced(1, "CN-1", one), coerced(9, "CN-1", one))
    assert (found.state, "at another moment" in found.reason) == ("same", True)
    was_other = coerced(9, "CN-1", changed(one, PatientID="OTHER"))
    assert verdict(coerced(1, "CN-1", one), was_other).differs == ["(0400,0561)"]


@pytest.mark.parametrize(
    ("newcomer", "other", "said"),
    [
        (b"\0" * 300, sample("CT_small.dcm"), "What came can't be taken apart"),
        (sample("CT_small.dcm"), b"\0" * 300, "The archive's own copy can't be taken apart"),
        (sample("CT_small.dcm"), None, "its place is free"),
    ],
    ids=["newcomer", "archive", "gone"],
)
def test_what_can_not_be_compared_waits_for_a_person(newcomer, other, said):
    found = verdict(newcomer, other)
    assert found.state == "waiting"
    assert said in found.reason


def test_what_is_still_on_its_way_into_the_archive_is_waited_for(room):
    """An arrival is held before Orthanc stores anything."""
    row = room.hold(sample("CT_small.dcm"))
    assert Comparing(room.desk()).round()
    assert room.row(row).state == "comparing"
    assert not Comparing(room.desk()).round(), "not at once again"
    room.archive.put(sample("CT_small.dcm"))
    room.pass_by(seconds=10)
    assert Comparing(room.desk()).round()
    assert (room.row(row).state, room.row(row).reason) == ("same", "The archive holds these very bytes.")


def test_a_copy_that_never_came_leaves_a_free_place_for_a_person_to_decide(room):
    row = room.hold(sample("CT_small.dcm"))
    room.pass_by(minutes=3)
    assert Comparing(room.desk()).round()
    assert (room.row(row).state, "its place is free" in room.row(row).reason) == ("waiting", True)


def test_pydicoms_own_conflicts_are_told_from_their_own_re_encodings():
    """Many of its samples share a SOP Instance UID."""
    by_uid: dict[str, list[str]] = {}
    names = ("MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_padded.dcm", "MR_small_expb.dcm")
    for name in names:
        uid = str(dcmread(BytesIO(sample(name)), stop_before_pixels=True).SOPInstanceUID)
        by_uid.setdefault(uid, []).append(name)
    assert list(map(len, by_uid.values())) == [5]
    seen = {name: verdict(sample(name), sample("MR_small.dcm")) for name in names}
    assert seen["MR_small_bigendian.dcm"].state == "same"
    assert (seen["MR_small_RLE.dcm"].state, "(7fe0,0010)" in seen["MR_small_RLE.dcm"].differs) == ("waiting", True)


def test_a_damaged_file_is_said_and_waits(room):
    row = room.hold(sample("CT_small.dcm"))
    hold.path(room.folder, room.row(row).sha256).write_bytes(b"damaged")
    Comparing(room.desk()).round()
    held = room.row(row)
    assert (held.state, held.is_intact) == ("waiting", False)


def test_an_archive_that_is_away_is_asked_again_later(room):
    row = room.hold(sample("CT_small.dcm"))
    room.archive.is_away = True
    with pytest.raises(OrthancUnreachable):
        Comparing(room.desk()).round()
    held = room.row(row)
    assert (held.state, held.lease_until) == ("comparing", None)
    room.archive.is_away = False
    assert not Comparing(room.desk()).round(), "not at once"
    room.archive.put(sample("CT_small.dcm"))
    room.pass_by(minutes=1)
    assert Comparing(room.desk()).round()
    assert room.row(row).state == "same"


def test_two_workers_never_compare_the_same(room):
    room.hold(sample("CT_small.dcm"))
    with room.sessions.begin() as session:
        assert comparing.claim(session, room.desk("here/1"), "comparing")
    with room.sessions.begin() as session:
        assert comparing.claim(session, room.desk("there/2"), "comparing") is None
    room.pass_by(minutes=3)
    with room.sessions.begin() as session:
        assert comparing.claim(session, room.desk("there/2"), "comparing"), "the first one died"


def test_the_wait_doubles_up_to_a_cap():
    waits = [worker.RETRY.wait(attempts, 0) for attempts in range(1, 40)]
    assert waits[:3] == [timedelta(seconds=5), timedelta(seconds=10), timedelta(seconds=20)]
    assert waits[-1] == timedelta(minutes=10)
    assert waits == sorted(waits)
