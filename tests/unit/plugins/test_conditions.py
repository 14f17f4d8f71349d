"""The conditions of rules: each form on each kind of value, and the faults that a wrong one gets at load."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from plugins.attributes import within
from plugins.conditions import Moment, judge, values, words
from zambezi import attributes
from zambezi.config.settings import When, Zambezi

NOON = Moment(datetime(2026, 3, 2, 12, tzinfo=UTC))

FACTS = {
    "Modality": ("CT",), "CallingAet": ("CT1",), "Site": (), "Priority": ("STAT",), "StudyDescription": ("TAC Cabeça",),
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"), "SliceThickness": ("1.25",), "PatientAge": ("018M",),
    "StudyDate": ("20260301",), "StudyTime": ("183059.5",), "BodyPartExamined": (), "PatientName": ("Banze^Ana",),
    "RequestAttributesSequence": ("",),
}  # fmt: skip


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ({}, True),
        ({"Modality": "CT"}, True),
        ({"Modality": "ct"}, False),
        ({"Modality": ["MR", "CT"]}, True),
        ({"Modality": "CT", "CallingAet": "CT2"}, False),
        ({"ImageType": "AXIAL"}, True),
        ({"Not": {"ImageType": ["LOCALIZER"]}}, True),
        ({"Not": {"ImageType": ["AXIAL"]}}, False),
        ({"StudyDescription": {"Pattern": "tac*cabe?a"}}, True),
        ({"StudyDescription": {"Pattern": ["*THORAX*", "*.*"]}}, False),
        ({"SliceThickness": 1.25}, True),
        ({"SliceThickness": {"From": 1.25, "To": 2}}, True),
        ({"SliceThickness": {"To": 1.2}}, False),
        ({"PatientAge": {"To": 1.5}}, True),
        ({"PatientAge": {"From": 2}}, False),
        ({"StudyDate": {"From": "2026-03-01", "To": "2026-03"}}, True),
        ({"StudyDate": {"To": "2026-02-28"}}, False),
        ({"StudyTime": {"From": "18:00", "To": "18:30"}}, True),
        ({"StudyTime": {"From": "18:31"}}, False),
        ({"BodyPartExamined": {"Present": False}}, True),
        ({"BodyPartExamined": {"From": "A"}}, None),
        ({"RequestAttributesSequence": {"Present": True}}, True),
        ({"Priority": ["STAT", "HIGH"]}, True),
        ({"Site": {"Present": False}}, True),
        ({"Any": [{"Modality": "MR"}, {"All": [{"Modality": "CT"}, {"CallingAet": "CT1"}]}]}, True),
        ({"Any": [{"Modality": "MR"}, {"CallingAet": "CT2"}]}, False),
        ({"Time": [{"From": "11:30", "To": "12:30"}]}, True),
        ({"Time": [{"Days": ["Sat", "Sun"]}]}, False),
    ],
)
def test_each_form_decides_and_says_why_not(when: dict[str, Any], met: bool | None) -> None:
    if met is None:
        with pytest.raises(ValidationError):
            When.model_validate(when)
        return
    conditions = When.model_validate(when)
    verdict = judge(conditions, FACTS, NOON)
    assert verdict.met is met
    assert bool(verdict.why) is not met
    assert words(conditions)


def test_the_time_is_the_sites() -> None:
    evening = When.model_validate({"Time": [{"From": "18:00", "To": "07:00"}]})
    moment = Moment(datetime(2026, 3, 2, 16, 30, tzinfo=UTC), ZoneInfo("Africa/Maputo"))  # half past six there
    assert judge(evening, {}, moment).met
    assert not judge(evening, {}, NOON).met


def test_what_is_not_known_is_asked_for_only_where_it_decides() -> None:
    when = When.model_validate({"Modality": "CT", "KVP": 120, "Any": [{"CallingAet": "X"}, {"Not": {"Rows": 512}}]})
    assert judge(when, {"Modality": ("MR",), "CallingAet": ("CT1",)}, NOON).met is False
    assert judge(when, {"Modality": ("CT",), "CallingAet": ("X",)}, NOON).lacks == {"KVP"}
    assert judge(when, {"Modality": ("CT",), "CallingAet": ("CT1",)}, NOON).lacks == {"KVP", "Rows"}


def test_a_reason_names_nobody() -> None:
    why = judge(When.model_validate({"PatientName": {"Pattern": "TEST*"}}), FACTS, NOON).why
    assert "Banze" not in why
    assert why == "PatientName is something else, the rule wants like TEST*"


def test_many_stars_take_no_longer_than_few() -> None:
    when = When.model_validate({"StudyDescription": {"Pattern": "*a" * 25 + "*" * 30 + "b"}})
    assert judge(when, {"StudyDescription": ("a" * 64,)}, NOON).met is False


@pytest.mark.parametrize(
    ("found", "keyword", "read"),
    [
        ("ORIGINAL\\PRIMARY ", "ImageType", ("ORIGINAL", "PRIMARY")),
        ("a\\b", "AdditionalPatientHistory", ("a\\b",)),
        ("  ", "BodyPartExamined", ()),
        (None, "StudyDescription", ("",)),
        ([{}], "RequestAttributesSequence", ("",)),
        ([], "RequestAttributesSequence", ()),
    ],
)
def test_values_as_orthanc_tells_them(found: object, keyword: str, read: tuple[str, ...]) -> None:
    assert values(found, keyword) == read


#: As Orthanc 1.10.1 tells a header: two requests; two creators' blocks, the second of which is SIEMENS'.
TAGS = {
    "0018,0015": "HEAD",
    "0040,0275": [{"0040,0009": "SPS1"}, {"0040,0009": "SPS2", "0040,0008": [{"0008,0100": "TAC"}]}, {}],
    "0029,0010": "ACME", "0029,0011": "SIEMENS CSA HEADER ", "0029,1008": "theirs", "0029,1108": "IMAGE NUM 4",
    "0021,0010": "ACME/1 [x", "0021,1001": [{"0008,0100": "DEEP"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found", "level"),
    [
        ("0018,0015", ("HEAD",), "series"),
        ("0040,0275/0040,0009", ("SPS1", "SPS2"), "series"),
        ("RequestAttributesSequence/ScheduledProtocolCodeSequence/CodeValue", ("TAC",), "series"),
        ("0040,0275/StudyDescription", (), "series"),
        ("0040,0340/0008,1199", (), "instance"),
        ("0029,1008[SIEMENS CSA HEADER]", ("IMAGE NUM 4",), "instance"),
        ("0029,1108[SIEMENS CSA HEADER]", ("IMAGE NUM 4",), "instance"),
        ("0029,1008[ACME]", ("theirs",), "instance"),
        ("0029,1008[NOBODY]", (), "instance"),
        ("0021,1001[ACME/1 [x]/0008,0100", ("DEEP",), "instance"),
    ],
)
def test_values_within_sequences_and_of_private_attributes(name: str, found: tuple[str, ...], level: str) -> None:
    assert within(TAGS, attributes.find(name)) == found
    assert attributes.find(name).level == level
    when = When.model_validate({name: {"Present": True}})
    assert judge(when, {name: found}, NOON).met is bool(found)
    assert re.search(next(iter(When.model_json_schema()["$defs"]["When"]["patternProperties"])), name)


def test_one_item_that_fits_is_enough_and_what_a_private_one_holds_isnt_told() -> None:
    when = When.model_validate({"0040,0275/0040,0009": "SPS2", "0029,1008[X Y]": {"From": 3}})
    met = judge(when, {"0040,0275/0040,0009": ("SPS1", "SPS2"), "0029,1008[X Y]": ("4.5",)}, NOON)
    assert met.met is True
    why = judge(when, {"0040,0275/0040,0009": ("SPS2",), "0029,1008[X Y]": ("Banze",)}, NOON).why
    assert why == "0029,1008[X Y] is something else, the rule wants at least 3"


@pytest.mark.parametrize(
    ("route", "said"),
    [
        (
            {"When": {"0040,275/0040,1001": "x"}},
            "0040,275/0040,1001: is no name of an attribute; allowed are a keyword",
        ),
        ({"When": {"0040,0275/": "x"}}, "is no name of an attribute"),
        ({"When": {"0040,0275/RequestedProcedurID": "x"}}, 'did you mean "RequestedProcedureID"?'),
        ({"When": {"0008,9999": "x"}}, "no such attribute in DICOM: 0008,9999"),
        ({"When": {"0018,0015/0040,1001": "x"}}, "0018,0015 is no sequence (CS): nothing stands within it"),
        ({"When": {"0029,1010": "x"}}, "is private (its group is odd), and means what its creator says: write it as"),
        ({"When": {"0018,0015[ACME]": "x"}}, "0018,0015 has an even group, so it is not private"),
        ({"When": {"0029,0010[ACME]": "x"}}, "belongs to no creator's block"),
        ({"When": {"0002,0010": "x"}}, "belongs to no image's header"),
        ({"When": {"0040,0275/0040,0008": "x"}}, 'only {"Present": ...} can be asked'),
        (
            {"When": {"StudyDescripton": "x"}},
            'StudyDescripton: no such attribute in DICOM; did you mean "StudyDescription"?',
        ),
        ({"When": {"Callingaet": "x"}}, 'Callingaet: did you mean "CallingAet"?'),
        ({"When": {"Xyzzy": "x"}}, "Xyzzy: no such attribute in DICOM"),
        (
            {"When": {"Not": {"All": [{"Modalitty": "CT"}]}}},
            'When.Not.All.0: Modalitty: no such attribute in DICOM; did you mean "Modality"?',
        ),
        ({"When": {"StudyDescription": {"From": "A"}}}, "StudyDescription is text: a range means nothing"),
        ({"When": {"SliceThickness": {"To": "2"}}}, "SliceThickness is a number"),
        ({"When": {"StudyDate": {"To": 2026}}}, "StudyDate is a date or time"),
        ({"When": {"PixelData": "x"}}, "belongs to no image's header"),
        ({"When": {"RequestAttributesSequence": "x"}}, 'only {"Present": ...} can be asked'),
        ({"When": {"Modality": []}}, "an empty list fits nothing"),
        ({"When": {"Modality": {"Like": "x"}}}, "allowed is a value, a list of values"),
        ({"When": {"Priority": "URGENT"}}, "allowed are STAT, HIGH, ROUTINE"),
        ({"When": {"Time": [{"KilobitsPerSecond": 64}]}}, "a condition has no speed"),
        (
            {"When": {"Any": [{"Site": "Beyra"}]}},
            'no site "Beyra" in Access.Sites (known: Beira); did you mean "Beira"?',
        ),
        ({"SendTo": ["ARHCIVE"]}, 'no destination "ARHCIVE" (known: ARCHIVE); did you mean "ARCHIVE"?'),
        ({"Completeness": {"By": ["mpps"]}}, "By goes with QuietSeconds"),
        ({"Priors": {"FetchFrom": ["OLDD"]}}, 'no archive "OLDD" in PriorSources (known: OLD); did you mean "OLD"?'),
        ({"Priors": {"AheadHours": 2}}, "AheadHours without FetchFrom"),
        (
            {"When": {"StudyDescription": "x"}, "Priors": {"FetchFrom": ["OLD"], "AheadHours": 2}},
            "When: asks for more than values of Modality",
        ),
        ({"SendTo": [], "Priors": {"Count": 1}}, "SendTo: names no destination, and Priors no FetchFrom"),
    ],
)
def test_a_wrong_rule_is_refused_by_name_with_the_nearest_right_one(route: dict[str, Any], said: str) -> None:
    section = {
        "Destinations": {"ARCHIVE": {}}, "PriorSources": {"OLD": {}}, "Access": {"Sites": {"Beira": {"AETs": ["CT1"]}}},
        "Routing": [{"Name": "r", "SendTo": ["ARCHIVE"], **route}],
    }  # fmt: skip
    with pytest.raises(ValidationError) as refused:
        Zambezi.model_validate(section)
    told = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in refused.value.errors()]
    assert said in " ".join(told).replace("Value error, ", "")
