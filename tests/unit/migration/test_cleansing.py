"""Rules of a plan, on what a source says."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from migration import cleansing
from zambezi.config.settings import NamesUnknown
from zambezi.config.settings.migration_plan import MigrationPlan

FACTS = {
    "PatientID": "OLD-00 12/7", "PatientName": "SILVA,  ANA ^", "AccessionNumber": "2019-RX-000000000123",
    "InstitutionName": "H. Central", "ModalitiesInStudy": "CT\\SR", "StudyDate": "20190507",
}  # fmt: skip


def plan(**keys: Any) -> MigrationPlan:
    return MigrationPlan.model_validate_json(json.dumps(keys), strict=True)


def changes(facts: dict[str, str] = FACTS, **steps: Any) -> dict[str, str]:
    return cleansing.cleansed(plan(Rules=[{"Name": "one", **steps}]).rules, facts).changes


@pytest.mark.parametrize(
    ("steps", "made"),
    [
        ({"Strip": {"PatientID": {"Prefix": "OLD-", "Characters": " /", "Zeros": True}}}, {"PatientID": "127"}),
        ({"Cut": {"AccessionNumber": 7}, "Strip": {"AccessionNumber": {"Characters": "-"}}},
         {"AccessionNumber": "2019RX0"}),
        ({"Prefix": {"PatientID": "OLD-"}, "Tidy": ["PatientName"]}, {"PatientName": "SILVA^ANA"}),
        ({"Map": {"InstitutionName": {"H. Central": "Hospital Central"}}}, {"InstitutionName": "Hospital Central"}),
        ({"Set": {"IssuerOfPatientID": "HCM"}, "Fill": {"PatientID": "unused"}}, {"IssuerOfPatientID": "HCM"}),
        ({"Copy": {"StudyID": "PatientID"}, "Strip": {"PatientID": {"Suffix": "/7"}}},
         {"PatientID": "OLD-00 12", "StudyID": "OLD-00 12"}),
        ({"CharacterSet": "ISO_IR 100"}, {"SpecificCharacterSet": "ISO_IR 100"}),
        ({"When": {"ModalitiesInStudy": "SR"}, "Fill": {"StudyID": "has a report"}}, {"StudyID": "has a report"}),
        ({"When": {"PatientID": {"Pattern": "NEW*"}}, "Set": {"StudyID": "no"}}, {}),
        ({"Set": {"PatientName": "SILVA,  ANA ^"}}, {}),  # as it is already
    ],
)  # fmt: skip
def test_a_rule_changes_what_it_says_and_nothing_else(steps, made):
    assert changes(**steps) == made


def test_padding_fills_up_and_leaves_nothing_as_nothing():
    steps = {"Pad": {"PatientID": {"Length": 5}}}
    assert changes({"PatientID": "12"}, **steps) == {"PatientID": "00012"}
    assert changes({}, **steps) == {}


def test_unicode_that_was_labelled_otherwise_is_read_as_it_was_written() -> None:
    facts = {"PatientName": "Concei\u00c3\u00a7\u00c3\u00a3o^Ana", "StudyDescription": "T\u00f3rax"}
    rules = plan(Rules=[{"Name": "u", "CharacterSet": "ISO_IR 192"}]).rules
    made = cleansing.cleansed(rules, facts)
    assert made.read == {"PatientName": "Conceição^Ana"}
    assert made.changes == {"SpecificCharacterSet": "ISO_IR 192"}, "no letter is touched"
    prefixed = plan(Rules=[{"Name": "u", "CharacterSet": "guess", "Prefix": {"PatientName": "X"}}]).rules
    assert cleansing.cleansed(prefixed, facts).changes["PatientName"] == "XConceição^Ana"


def test_rules_follow_one_another_and_the_last_is_named():
    rules = plan(Rules=[{"Name": "a", "Set": {"PatientID": "1"}}, {"Name": "b", "Prefix": {"PatientID": "X"}}]).rules
    made = cleansing.cleansed(rules, FACTS)
    assert (made.changes, made.by) == ({"PatientID": "X1"}, {"PatientID": "b"})


def test_a_value_that_can_be_none_is_a_fault_that_names_no_value():
    made = cleansing.cleansed(plan(Rules=[{"Name": "long", "Prefix": {"PatientID": "x" * 64}}]).rules, FACTS)
    assert made.faults == ("rule long gives PatientID a value that can't be one",)


def test_what_is_left_out_is_left_out_by_the_first_rule_that_fits():
    rules = plan(
        Skip=[
            {"Name": "tests", "When": {"PatientName": {"Pattern": "*TEST*"}}, "Because": "phantoms"},
            {"Name": "old", "When": {"ModalitiesInStudy": "CT"}, "Before": "2019-05-08", "Because": "kept ten years"},
        ]
    ).skip
    assert getattr(cleansing.skipped(rules, FACTS), "name", "") == "old"
    assert cleansing.skipped(rules, {**FACTS, "StudyDate": "20190508"}) is None
    assert cleansing.skipped(rules, {**FACTS, "StudyDate": ""}) is None  # undated ones never go by their date


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"Rules": [{"Name": "nothing"}]}, "does nothing"),
        ({"Rules": [{"Name": "a", "Set": {"SOPInstanceUID": "1"}}]}, "Set.SOPInstanceUID"),
        ({"Rules": [{"Name": "a", "When": {"Rows": "1"}, "Set": {"StudyID": "1"}}]}, "When.Rows"),
        ({"Rules": [{"Name": "a", "Set": {"StudyID": "1"}}] * 2}, "stands twice"),
        ({"Level": "arrival", "Sample": {}}, "Level source alone"),
        ({"Matching": {"Accept": 0.7, "Look": 0.7}}, "below Accept"),
    ],
)
def test_a_plan_that_cannot_be_meant_is_refused_with_the_reason(keys, says):
    with pytest.raises(ValidationError) as refused:
        plan(**keys)
    causes = [one["ctx"]["error"] for one in refused.value.errors()]
    told = " ".join(f"{where} {what}" for cause in causes if isinstance(cause, NamesUnknown)
                    for where, what in cause.faults)  # fmt: skip
    assert says in told
