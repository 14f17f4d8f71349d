"""Both sides, tag by tag: what differs is found by content, and nothing is shown that a page can't bear."""

from __future__ import annotations

from io import BytesIO

import pytest
from pydicom import dcmread

from operations.custody import picture, sides
from operations.custody.picture import NoPicture
from tests.unit.operations.custody.archive import changed, sample

CT = sample("CT_small.dcm")


def row(found: sides.Sides, tag: str) -> sides.Row:
    return next(one for one in (*found.differing, *found.first, *found.other) if one.tag == tag)


@pytest.mark.parametrize("name", ["MR_small_implicit.dcm", "MR_small_bigendian.dcm"])
def test_another_encoding_is_no_difference(name):
    found = sides.compare(sample("MR_small.dcm"), sample(name))
    assert (found.differing, found.held_syntax) == ([], "Explicit VR Little Endian")
    assert found.first and found.other


def test_what_differs_comes_first_with_both_values_and_what_is_missing_is_none():
    dataset = dcmread(BytesIO(CT))
    del dataset.StudyDescription
    dataset.PatientID = "OTHER"
    out = BytesIO()
    dataset.save_as(out)
    found = sides.compare(out.getvalue(), CT)
    assert [(one.tag, one.held, one.archived) for one in found.differing] == [
        ("(0008,1030)", None, "e+1"), ("(0010,0020)", "OTHER", "1CT1"),
    ]  # fmt: skip
    assert [one.name for one in found.first][:2] == ["Patient's Name", "Patient's Birth Date"]
    assert row(found, "(0008,0060)").name == "Modality"


def test_one_side_alone_differs_from_nothing():
    found = sides.compare(CT, None)
    assert found.differing == []
    assert {one.archived for one in (*found.first, *found.other)} == {None}


def test_long_values_are_cut_binary_is_counted_sequences_are_summed_up():
    found = sides.compare(changed(CT, ImageComments="x" * 5000), None)
    assert row(found, "(0020,4000)").held == "x" * (sides.LONGEST - 1) + "…"
    assert row(found, "(7fe0,0010)").held == "32,768 B"
    plan = sides.compare(sample("rtplan.dcm"), None)
    assert row(plan, "(300a,0010)").held == "[2]"
    assert row(found, "(0009,1001)").name == "private, of GEMS_IDEN_01"


def test_no_more_tags_than_a_page_can_bear(monkeypatch):
    whole = sides.compare(CT, CT)
    monkeypatch.setattr(sides, "MOST", 20)
    found = sides.compare(CT, CT)
    assert len(found.first) + len(found.other) == 20
    assert found.more == len(whole.first) + len(whole.other) - 20


@pytest.mark.parametrize("content", [b"", b"not DICOM", b"\0" * 400, CT[:700]])
def test_what_can_not_be_read_is_shown_as_far_as_it_goes(content):
    assert sides.compare(content, CT).differing
    with pytest.raises(NoPicture):
        picture.draw(content)


def test_a_wide_picture_is_made_narrower():
    drawn = picture.draw(sample("examples_overlay.dcm"))
    assert drawn.startswith(b"\x89PNG")
    wide = dcmread(BytesIO(sample("examples_overlay.dcm"))).Columns
    assert int.from_bytes(drawn[16:20], "big") == min(wide, picture.WIDEST)


def test_drawing_has_a_time_limit_and_a_missing_program_a_sentence(monkeypatch):
    monkeypatch.setattr(picture, "SECONDS", 1)
    with pytest.raises(NoPicture, match="took longer than 1 s"):
        picture._run(["sleep", "20"])
    with pytest.raises(NoPicture, match="apt-get install dcmtk"):
        picture._run(["no-such-program"])


def test_what_a_drawing_writes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "_LARGEST_PNG", 4096)
    out = tmp_path / "out"
    picture._run(["dd", "if=/dev/zero", f"of={out}", "bs=1024", "count=64"])
    assert out.stat().st_size <= 4096
