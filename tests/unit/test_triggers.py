"""Which trigger acts on what, and why it doesn't."""

from __future__ import annotations

from typing import Any

import pytest

from zambezi import triggers
from zambezi.config.settings import Hl7Trigger
from zambezi.triggers import Happened


def rule(on: str, **more: Any) -> Hl7Trigger:
    message = "ORU^R01" if on == "report-signed" else "ORM^O01"
    return Hl7Trigger.model_validate({"Name": "t", "On": on, "SendTo": "his", "Message": message, **more})


CT = frozenset({"CT", "SR"})


@pytest.mark.parametrize(
    ("asked", "happened", "why"),
    [
        (rule("study-completed"), Happened("study-completed", "", "modality", CT), ""),
        (rule("study-received"), Happened("study-completed", "", "modality", CT), "it waits for study-received"),
        (
            rule("study-completed"), Happened("study-completed", "", "migration", CT),
            "the cause is migration, the rule acts on modality",
        ),
        (rule("study-completed", Causes=["ourselves"]), Happened("study-completed", "", "correction", CT), ""),
        (
            rule("study-completed", LateImages=False), Happened("study-completed", "", "modality", CT, is_late=True),
            "the study was complete before",
        ),
        (rule("study-completed", When={"Modality": ["MR", "SR"]}), Happened("study-completed", "", "modality", CT), ""),
        (
            rule("study-completed", When={"Modality": ["MR"]}), Happened("study-completed", "", "modality", CT),
            "Modality is CT or SR, the rule wants MR",
        ),
        (
            rule("exam-changed", When={"State": ["arrived"]}), Happened("exam-changed", "", state="cancelled"),
            "State is cancelled, the rule wants arrived",
        ),
        (
            rule("exam-changed"), Happened("exam-changed", "", state="cancelled", said_by="his"), "his said so itself",
        ),
        (rule("exam-changed"), Happened("exam-changed", "", state="cancelled", said_by="lab"), ""),
        (
            rule("study-delivered", When={"Destination": ["B"]}),
            Happened("study-delivered", "", "modality", CT, destination="A"), "Destination is A, the rule wants B",
        ),
    ],
)  # fmt: skip
def test_a_rule_acts_only_where_all_of_it_holds_and_says_what_does_not(asked, happened, why):
    found = triggers.refusal(asked, happened)
    assert found.startswith(why) if why else found == ""
    assert [one.rule for one in triggers.decide([happened], [asked])] == ([] if why else [asked])


def test_late_images_are_an_update_and_complete_the_study_again():
    first, later = triggers.completed("modality", 1, ["CT", ""]), triggers.completed("modality", 2, ["CT"])
    assert [(one.on, one.is_late) for one in first] == [("study-completed", False)]
    assert [(one.on, one.is_late) for one in later] == [("study-completed", True), ("study-updated", False)]
    (told,) = triggers.decide(later, [rule("study-updated")])
    assert told.because == "rule t: the study is complete (generation 2) with late images and its cause is modality"
    assert told.told == {
        "rule": "t", "on": "study-updated", "peer": "his", "message": "ORM^O01", "because": told.because,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"Message": "ORU^R01"}, "On exam-changed goes with Message ORM^O01, or a Template"),
        ({"Message": None}, "either Message or Template must be given"),
        ({"Template": "x"}, "either Message or Template must be given"),
        ({"On": "study-completed", "When": {"State": ["arrived"]}}, "When.State goes with On exam-changed"),
        ({"When": {"Destination": ["B"]}}, "When.Destination goes with On study-delivered or delivery-parked"),
        ({"On": "study-complete"}, "'study-completed'"),
    ],
)
def test_what_does_not_go_together_is_a_fault(wrong, why):
    with pytest.raises(ValueError, match=why.replace("^", "\\^")):
        rule("exam-changed", **wrong)
