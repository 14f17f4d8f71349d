"""What arrival, declared changes and the journal's word mean for one instance."""

import copy
from collections.abc import Callable

import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from migration import arrival, declared, rechecking, rollback, verify
from migration.source import Compared
from zambezi import digest
from zambezi.coercion.declared import tags

COPY = {"size": 10, "md5": "m", "file_size": 10, "file_md5": None, "file_sha256": "s", "arrived_sha256": "s",
        "came_sha256": None, "changed": None, "orthanc_id": "o", "transfer_syntax": "1.2", "sop_class": "1.3",
        "study_uid": "1.4"}  # fmt: skip
OF_DISK = "the file on the disk is not what"


@pytest.mark.parametrize(
    ("told", "level", "fault"),
    [
        ({}, 2, ""),
        ({"file_size": -1, "file_sha256": ""}, 1, "its file is not on the disk"),
        ({"file_sha256": "x"}, 1, f"{OF_DISK} arrived"),
        ({"file_sha256": ""}, 1, f"{OF_DISK} arrived"),  # cut short
        ({"arrived_sha256": None, "file_md5": "m"}, 1, ""),  # nobody saw it come: the source must prove it
        ({"arrived_sha256": None, "file_md5": "x"}, 1, f"{OF_DISK} Orthanc recorded"),
        ({"came_sha256": "c", "changed": ["(0008,0080)"]}, 1, ""),  # a rule changed it, and the plan says nothing of it
    ],
)
def test_arrival_is_judged_by_what_came_and_what_is_on_the_disk(told, level, fault):
    found = arrival.judge([COPY | told], frozenset())
    assert (found.level, found.fault) == (level, fault)


def test_of_several_copies_the_worst_counts():
    assert arrival.judge([COPY, COPY | {"file_sha256": "x"}], frozenset()).fault
    assert arrival.judge([COPY | {"came_sha256": "c"}, COPY], frozenset()).level == 1
    assert arrival.judge([], frozenset()).level == 1


def test_what_came_may_differ_from_what_is_stored_as_declared():
    allowed = tags({"PatientID": "1"})
    coerced = COPY | {"came_sha256": "c"}
    found = arrival.judge([coerced | {"changed": ["(0010,0020)", "(0400,0561)"]}], allowed)
    assert (found.level, found.columns["coerced"]) == (2, "(0010,0020) (0400,0561)")
    found = arrival.judge([coerced | {"changed": ["(0010,0020)", "(7fe0,0010)"]}], allowed)
    assert (found.level, found.fault) == (1, "it was changed on its way in more than the plan declares: (7fe0,0010)")
    assert arrival.judge([coerced], allowed).level == 1  # nobody looked: the source must prove it
    assert arrival.judge([COPY], allowed).level == 2  # it had the declared values already


def test_only_declared_tags_may_differ():
    allowed = tags({"PatientID": "1", "AccessionNumber": "2"})
    assert {"(0010,0020)", "(0008,0050)", "(0400,0561)", "(0040,0275)", "(0040,a370)", "(0008,0005)"} == allowed
    assert tags({}) == frozenset()

    def differing(*tags: str) -> Compared:
        return Compared("different", "a", "b", None, tags)

    found, coerced = declared.tolerated(differing("(0010,0020)"), allowed)
    assert (found.verdict, found.source_digest, coerced) == ("equal", "a", ("(0010,0020)",))
    for others in (("(0010,0020)", "(7fe0,0010)"), (), ("the file on disk is not what arrived",)):
        assert declared.tolerated(differing(*others), allowed)[0].verdict == "different"


def test_the_same_bytes_are_the_same_only_where_the_whole_data_set_is_the_same(tmp_path):
    sent = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(sent, str)
    dataset = dcmread(sent)

    def written(change: Callable[[Dataset], None] = lambda dataset: None) -> bytes:
        other = copy.deepcopy(dataset)
        change(other)
        other.save_as(tmp_path / "file")
        return (tmp_path / "file").read_bytes()

    whole = written()
    begin = 144 + int.from_bytes(whole[140:144], "little")
    side, data_set = digest.fingerprint(whole), whole[begin:]
    assert verify._same(side, data_set, whole) is side
    more = written(lambda other: setattr(other, "LengthToEnd", 1))  # before everything else: what follows is the same
    assert more.endswith(data_set)
    assert verify._same(side, data_set, more) is None
    assert verify._same(side, data_set[:-2] + b"xx", whole) is None
    other_syntax = whole.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.2\0", 1)
    assert verify._same(side, data_set, other_syntax) is None
    assert verify._same(side, data_set, b"\0" * 128 + data_set) is None  # no meta header: nobody knows where it begins


def test_the_declared_value_must_be_there():
    stored = {"PatientID": "1 ", "PatientName": "SILVA^ANA^", "SpecificCharacterSet": "ISO_IR 192"}
    assert declared.lacking(stored, {"PatientID": "1", "PatientName": "SILVA^ANA", "AccessionNumber": ""}) == []
    assert declared.lacking(stored, {"SpecificCharacterSet": "ISO_IR 100"}) == []
    assert declared.lacking(stored, {"PatientID": "2", "AccessionNumber": "A"}) == ["AccessionNumber", "PatientID"]


CAME = {"cause": "migration", "reference": "p", "http_user": "", "remote_aet": "OLD"}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        (CAME, ""),
        (CAME | {"http_user": "migration", "remote_aet": ""}, ""),
        (None, "does not say how it came"),
        (CAME | {"cause": "modality", "reference": "order Z1"}, "another cause: modality (order Z1)"),
        (CAME | {"cause": "correction", "reference": "correction 3"}, "another cause: correction"),
        (CAME | {"reference": "q"}, "another cause"),  # another migration's
        (CAME | {"remote_aet": "CT1"}, "came from CT1, not from the source OLD"),
    ],
)
def test_a_rollback_takes_only_what_the_migration_brought(facts, why):
    found = rollback.why_it_stays(facts, "p", "OLD", True)
    assert found.endswith(why) if not why else why in found
    assert bool(found) == bool(why)


def test_what_the_source_never_named_stays():
    assert rollback.why_it_stays(CAME, "p", "OLD", False) == "the source never named it"


def test_the_archive_is_held_against_the_digest_that_the_certificate_has():
    assert rechecking.differs({"sha256": "s"}, [COPY]) == ""
    assert rechecking.differs({"sha256": "s"}, []) == "it is not in the archive any more"
    assert rechecking.differs({"sha256": "t", "md5": "m"}, [COPY])
    assert rechecking.differs({"md5": "m"}, [COPY]) == ""
    assert rechecking.differs({"md5": "m"}, [COPY | {"file_sha256": "x"}])
    assert rechecking.differs({"md5": "m"}, [COPY | {"arrived_sha256": None, "file_md5": "x"}])
    assert rechecking.differs({}, [COPY])


def test_each_instance_is_drawn_with_the_same_chance():
    lines = [{"instance": str(n), "level": 1} for n in range(50)] + [{"instance": "x", "level": 0}]
    counts = dict.fromkeys(range(50), 0)
    for seed in range(2000):
        drawn, of = rechecking.draw(lines, 5, seed)
        assert of == 50
        for one in drawn:
            counts[int(one["instance"])] += 1
    assert min(counts.values()) > 140  # 200 on average, 13.4 the standard deviation
    assert max(counts.values()) < 260
