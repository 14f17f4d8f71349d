"""Routing decisions: which instances, where, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from plugins.conditions import Moment
from plugins.routing import PART, Candidate, Circumstances, Decided, decide, explain, lacking
from zambezi.config import Zambezi

NOON = Circumstances(Moment(datetime(2026, 3, 2, 12, tzinfo=UTC)))


def rules(*routes: dict[str, Any], **more: Any) -> Zambezi:
    section = {
        "Destinations": {"B": {"Proof": "found"}, "C": {"Proof": "acknowledged"}},
        "Routing": list(routes),
        **more,
    }
    return Zambezi.model_validate(section)


def one(
    n: int, modality: str = "CT", calling: str = "CT1", called: str = "ZAMBEZI", cause: str = "modality",
    series: str = "1.2", **attributes: str,
) -> Candidate:  # fmt: skip
    read = {keyword: (value,) if value else () for keyword, value in attributes.items()}
    return Candidate(f"o{n}", series, f"1.2.{n}", modality, calling, called, cause, read)


def decided(
    study: list[Candidate], config: Zambezi, cause: str = "modality", *routed: tuple[str, str, str],
    at: Circumstances = NOON,
) -> list[Decided]:  # fmt: skip
    return decide(study, cause, config.routing, config.destinations, lambda *key: key in routed, at)


def test_a_rule_takes_the_instances_that_meet_all_its_conditions() -> None:
    config = rules({"Name": "r", "When": {"Modality": ["CT", "MR"], "CallingAet": ["CT1"]}, "SendTo": ["B"]})
    (route,) = decided([one(1), one(2, "US"), one(3, "MR"), one(4, "CT", "CT9")], config)
    assert [i.orthanc_id for i in route.instances] == ["o1", "o3"]
    assert (route.rule, route.destination, route.proof) == ("r", "B", "found")
    assert route.because == "rule r: 2 instances by modality meet: Modality is CT or MR and CallingAet is CT1"


def test_each_destination_gets_its_own_route_once() -> None:
    config = rules({"Name": "r", "SendTo": ["B", "C", "B"]})
    assert [(r.destination, r.proof) for r in decided([one(1)], config)] == [("B", "found"), ("C", "acknowledged")]


def test_what_went_before_does_not_go_again() -> None:
    config = rules({"Name": "r", "SendTo": ["B", "C"]})
    (only_c, *more) = decided([one(1)], config, "modality", ("r", "B", "o1"))
    assert (only_c.destination, more) == ("C", [])


def test_a_rule_acts_on_modalities_unless_it_names_another_cause() -> None:
    study = [one(1), one(2, cause="migration"), one(3, cause="restore")]
    plain = rules({"Name": "r", "SendTo": ["B"]})
    assert decided(study, plain, "migration") == []
    assert decided(study, plain, "restore") == []
    named = rules({"Name": "r", "Causes": ["ourselves"], "SendTo": ["B"]})
    assert [i.orthanc_id for r in decided(study, named, "restore") for i in r.instances] == ["o3"]
    assert decided(study, named, "modality") == []


def test_the_called_title_is_a_condition() -> None:
    config = rules({"Name": "r", "When": {"CalledAet": ["TEACHING"]}, "SendTo": ["B"]})
    assert decided([one(1)], config) == []
    assert len(decided([one(1, called="TEACHING")], config)) == 1


def test_a_large_route_is_told_in_parts() -> None:
    (route,) = decided([one(n) for n in range(PART + 1)], rules({"Name": "r", "SendTo": ["B"]}))
    assert [len(part) for part in route.parts()] == [PART, 1]


def test_explain_says_what_is_taken_what_is_left_and_why() -> None:
    config = rules({"Name": "r", "When": {"Modality": ["CT"]}, "SendTo": ["B"]})
    study = [one(1), one(2, "US"), one(3, "US"), one(4, cause="migration")]
    (told,) = explain(study, config.routing, lambda *key: key == ("r", "B", "o1"), NOON)
    assert told["matches"] == 1
    assert told["left"] == {
        "Modality is US, the rule wants CT": 2,
        "the cause is migration, the rule acts on modality": 1,
    }
    assert told["routed"] == {"B": 1}


def test_what_one_image_meets_may_take_its_series_or_its_study_along() -> None:
    study = [
        one(1, series="1.2", ImageType="AXIAL"), one(2, series="1.2", ImageType=""), one(3, "SR", series="1.3"),
        one(4, cause="migration"),
    ]  # fmt: skip
    for whole, going in (("instance", ["o1"]), ("series", ["o1", "o2"]), ("study", ["o1", "o2", "o3"])):
        config = rules({"Name": "r", "When": {"ImageType": "AXIAL"}, "Whole": whole, "SendTo": ["B"]})
        (route,) = decided(study, config)
        assert [i.orthanc_id for i in route.instances] == going


def test_what_comes_late_goes_never_alone_or_with_all() -> None:
    study = [one(1), one(2), one(3)]
    went = ("r", "B", "o1"), ("r", "B", "o2")
    for late, going in (("never", None), ("added only", ["o3"]), ("all", ["o1", "o2", "o3"])):
        config = rules({"Name": "r", "Late": late, "SendTo": ["B"]})
        routes = decided(study, config, "modality", *went)
        assert [[i.orthanc_id for i in r.instances] for r in routes] == ([going] if going else [])
        assert [len(r.instances) for r in decided(study, config)] == [3], "the first time all go, whatever comes late"
        assert decided(study, config, "modality", *went, ("r", "B", "o3")) == [], "where nothing is new, nothing goes"


def test_the_higher_priority_of_rule_and_order_counts() -> None:
    config = rules({"Name": "r", "Priority": 60, "SendTo": ["B"]})
    for order, counts in (("", 60), ("ROUTINE", 60), ("HIGH", 60), ("STAT", 100)):
        (route,) = decided([one(1)], config, at=Circumstances(NOON.moment, priority=order))
        assert route.priority == counts
        assert ("its order is STAT" in route.because) == (order == "STAT")


def test_only_what_can_not_be_decided_otherwise_is_read() -> None:
    when = {"Modality": "CT", "Any": [{"CallingAet": "CT9"}, {"SliceThickness": {"To": 1.5}}]}
    config = rules({"Name": "r", "When": when, "SendTo": ["B"]})
    study = [one(1), one(2, "US"), one(3, calling="CT9"), one(4, cause="restore")]
    assert lacking(study, "modality", config.routing, NOON) == {"o1": {"SliceThickness"}}
    assert lacking([one(1, SliceThickness="1")], "modality", config.routing, NOON) == {}
