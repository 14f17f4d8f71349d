"""Routing decisions: which instances, where, and why."""

from __future__ import annotations

from typing import Any

from plugins.routing import PART, Candidate, Decided, decide, explain
from zambezi.config import Zambezi


def rules(*routes: dict[str, Any], **more: Any) -> Zambezi:
    section = {
        "Destinations": {"B": {"Proof": "found"}, "C": {"Proof": "acknowledged"}},
        "Routing": list(routes),
        **more,
    }
    return Zambezi.model_validate(section)


def one(
    n: int, modality: str = "CT", calling: str = "CT1", called: str = "ZAMBEZI", cause: str = "modality"
) -> Candidate:
    return Candidate(f"o{n}", "1.2", f"1.2.{n}", modality, calling, called, cause)


def decided(
    study: list[Candidate], config: Zambezi, cause: str = "modality", *routed: tuple[str, str, str]
) -> list[Decided]:
    return decide(study, cause, config.routing, config.destinations, lambda *key: key in routed)


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
    (told,) = explain(study, config.routing, lambda *key: key == ("r", "B", "o1"))
    assert told["matches"] == 1
    assert told["left"] == {
        "Modality is US, the rule wants CT": 2,
        "the cause is migration, the rule acts on modality": 1,
    }
    assert told["routed"] == {"B": 1}
