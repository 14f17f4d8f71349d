"""When a study is complete for which rule: by a sign, by its count, or because nothing more came."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from plugins.priors import Study
from plugins.pushed import Announced
from plugins.readiness import Open, Sign, ready
from plugins.routing import Candidate
from tests.unit.plugins.test_follower import Bench
from zambezi import clock
from zambezi.causes import Because
from zambezi.config.settings import Completeness, Priors
from zambezi.priors import choose

START = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
BY_ALL = Completeness.model_validate({"QuietSeconds": 600, "By": ["mpps", "commitment", "count"], "SettleSeconds": 10})


def after(seconds: float, how: Completeness = BY_ALL, **study: Any) -> str:
    return ready(how, Open(clock.text(START), **study), START + timedelta(seconds=seconds))


def test_a_sign_counts_once_what_it_names_is_here_and_it_has_settled() -> None:
    for by in ("mpps", "commitment"):
        told = {by: Sign("", 3)}
        assert after(9, present=3, signs=told) == ""
        assert "all 3 instances are here" in after(10, present=3, signs=told)
        assert after(599, present=2, signs=told) == ""
        assert "but 2 of 3 instances are here" in after(600, present=2, signs=told)
    assert after(10, present=1, signs={"mpps": Sign("")})
    assert after(10, present=5, counted=5)
    assert after(10, present=4, counted=5) == ""


def test_without_a_sign_it_does_not_wait_for_ever() -> None:
    assert after(599, present=1) == ""
    assert after(600, present=1) == "nothing came for 600 s; no sign came (mpps, commitment, count)"
    assert after(30, Completeness()) == "nothing came for 30 s"


def rules(folder: Path, *routes: dict[str, Any], **more: Any) -> Bench:
    return Bench(folder, {"Destinations": {"B": {}}, "Routing": list(routes), **more})


def routed(bench: Bench) -> list[tuple[str, list[str]]]:
    return [(one["rule"], [i[0] for i in one["instances"]]) for one in bench.told("routed")]


def test_each_rule_has_its_own_clock_also_over_a_restart(tmp_path: Path) -> None:
    bench = rules(
        tmp_path, {"Name": "quick", "SendTo": ["B"], "Completeness": {"QuietSeconds": 5}},
        {"Name": "usual", "SendTo": ["B"]},
        {"Name": "slow", "SendTo": ["B"], "Completeness": {"QuietSeconds": 120}},
    )  # fmt: skip
    bench.orthanc.store("i1")
    bench.follow()
    bench.follow(6)
    assert routed(bench) == [("quick", ["i1"])]
    bench.restart()
    bench.follow(25)
    assert [name for name, _ in routed(bench)] == ["quick", "usual"]
    (completed,) = bench.told("study-completed")
    assert completed["waiting"] is True
    bench.restart()
    bench.follow(40)
    assert len(routed(bench)) == 2
    bench.orthanc.store("i2")  # what comes late makes all of them wait anew, and goes once by each
    bench.follow()
    bench.follow(119)
    bench.follow(2)
    assert routed(bench)[2:] == [("usual", ["i2"]), ("quick", ["i2"]), ("slow", ["i1", "i2"])]
    assert [one["generation"] for one in bench.told("study-completed")] == [1, 2]
    assert bench.journal.query("SELECT count(*) FROM clocks") == bench.journal.query("SELECT count(*) FROM fired")
    bench.follow(1000)
    assert len(routed(bench)) == 5
    assert bench.told("routed")[-1]["because"].endswith("nothing came for 120 s")


def test_a_sign_from_the_gateway_completes_a_study(tmp_path: Path) -> None:
    by = {"QuietSeconds": 600, "By": ["mpps"], "SettleSeconds": 3}
    bench = rules(tmp_path, {"Name": "r", "SendTo": ["B"]}, Completeness=by)
    for n in (1, 2):
        bench.orthanc.store(f"i{n}")
    bench.follow()
    bench.follow(60)
    assert routed(bench) == []
    bench.signs = {"3.1": {"mpps": Sign(clock.text(bench.now), 3)}}
    bench.follow(1)
    assert routed(bench) == []
    bench.orthanc.store("i3")
    bench.follow()
    assert routed(bench) == []
    bench.follow(3)
    assert routed(bench) == [("r", ["i1", "i2", "i3"])]
    assert "all 3 instances are here" in bench.told("study-completed")[0]["because"]


def test_the_images_own_count_completes_a_study(tmp_path: Path) -> None:
    by = {"QuietSeconds": 600, "By": ["count"], "SettleSeconds": 2}
    bench = rules(tmp_path, {"Name": "r", "SendTo": ["B"], "Completeness": by}, Completeness={"QuietSeconds": 1})
    bench.orthanc.headers = {f"i{n}": {"0020,1208": "2"} for n in (1, 2)}
    bench.orthanc.store("i1")
    bench.follow()
    for _ in range(3):
        bench.follow(1)
    assert routed(bench) == []
    bench.orthanc.store("i2")
    bench.follow()
    bench.follow(1)
    assert routed(bench) == []
    bench.follow(1)
    assert routed(bench) == [("r", ["i1", "i2"])]
    assert sorted(bench.orthanc.read) == ["i1"], "one image tells it for all"


def test_attributes_are_read_once_and_only_where_a_rule_needs_them(tmp_path: Path) -> None:
    bench = rules(
        tmp_path,
        {"Name": "head", "When": {"Modality": "CT", "StudyDescription": {"Pattern": "*head*"}}, "SendTo": ["B"]},
        {"Name": "thin", "When": {"Modality": "CT", "SliceThickness": {"To": 1}}, "SendTo": ["B"]},
    )  # fmt: skip
    bench.orthanc.headers = {
        "i1": {"0008,1030": "CT HEAD", "0018,0050": "0.6"}, "i2": {"0008,1030": "CT HEAD", "0018,0050": "5"},
    }  # fmt: skip
    for one, modality in (("i1", "CT"), ("i2", "CT"), ("i3", "US")):
        bench.orthanc.store(one, modality=modality)
    bench.follow()
    assert bench.orthanc.read == []
    bench.follow(31)
    assert routed(bench) == [("head", ["i1", "i2"]), ("thin", ["i1"])]
    # The study's description is read of one image of it, the slices' thickness of each.
    assert sorted(bench.orthanc.read) in (["i1", "i2"], ["i1", "i1", "i2"])


def test_what_a_correction_changed_is_read_anew(tmp_path: Path) -> None:
    bench = rules(
        tmp_path, {"Name": "r", "When": {"StudyDescription": "CT HEAD"}, "Causes": ["modality"], "SendTo": ["B"]}
    )
    bench.orthanc.headers = {"i1": {"0008,1030": "CT KNEE"}}
    bench.orthanc.store("i1")
    bench.follow()
    bench.follow(31)
    assert routed(bench) == []
    bench.orthanc.delete("i1")
    bench.follower.check_deleted("i1")
    bench.follow()
    bench.orthanc.headers = {"i1": {"0008,1030": "CT HEAD"}}
    bench.orthanc.store("i1")
    bench.follow()
    bench.follow(31)
    assert routed(bench) == [("r", ["i1"])]


def test_many_instances_are_read_a_part_at_a_time_and_nothing_is_decided_before(tmp_path: Path) -> None:
    bench = rules(tmp_path, {"Name": "thin", "When": {"SliceThickness": {"To": 1}}, "SendTo": ["B"]})
    for n in range(250):
        bench.orthanc.store(f"i{n}")
        bench.orthanc.headers[f"i{n}"] = {"0018,0050": "0.6"}
    bench.follow()
    bench.now += timedelta(seconds=31)
    assert bench.follower.round(bench.now), "there is more to do"
    assert (len(bench.orthanc.read), bench.told("study-completed")) == (200, [])
    bench.follow()
    assert [len(instances) for _, instances in routed(bench)] == [250]
    assert len(bench.orthanc.read) == 250


def test_of_many_studies_a_part_is_decided_at_a_time(tmp_path: Path) -> None:
    bench = rules(tmp_path, {"Name": "r", "When": {"StudyDescription": "CT"}, "SendTo": ["B"]})
    for n in range(120):
        bench.orthanc.store(f"i{n}", f"S{n}")
        bench.orthanc.headers[f"i{n}"] = {"0008,1030": "CT"}
    bench.follow()
    bench.now += timedelta(seconds=31)
    for done in (50, 100, 120):
        assert bench.follower.round(bench.now) is (done < 120)
        assert len(routed(bench)) == done
        assert len(bench.orthanc.read) == done


def test_the_orders_priority_is_remembered_when_the_order_is_no_longer_announced(tmp_path: Path) -> None:
    bench = rules(tmp_path, {"Name": "r", "When": {"Priority": "STAT"}, "SendTo": ["B"]})
    bench.announced = Announced({"3.1": Because("modality", "order Z1", priority="STAT")})
    bench.orthanc.store("i1")
    bench.follow()
    bench.announced = Announced()
    bench.restart()
    bench.follow(31)
    assert [(one["rule"], one["priority"]) for one in bench.told("routed")] == [("r", 100)]


def test_explain_says_what_each_rule_waits_for(tmp_path: Path) -> None:
    bench = rules(
        tmp_path, {"Name": "r", "SendTo": ["B"], "When": {"StudyDescription": "CT HEAD"}},
        {"Name": "s", "SendTo": ["B"], "Completeness": {"QuietSeconds": 600, "By": ["mpps"]}},
    )  # fmt: skip
    bench.orthanc.headers = {"i1": {"0008,1030": "CT KNEE"}}
    bench.orthanc.store("i1")
    bench.follow()
    told = bench.completeness.explain("3.1", bench.orthanc, bench.now)
    assert told is not None
    first, second = told["rules"]
    assert first["left"] == {"StudyDescription is CT KNEE, the rule wants CT HEAD": 1}
    assert (second["matches"], second["routed"]) == (1, {"B": 0})
    assert "mpps, or a quiet of 600 s" in second["waits"][0]
    assert bench.completeness.explain("9.9", bench.orthanc, bench.now) is None


def test_a_patients_earlier_studies_go_along_once(tmp_path: Path) -> None:
    rule = {"Name": "r", "When": {"CallingAet": "CT1"}, "SendTo": ["B"], "Priors": {"Count": 2, "Years": 3}}
    bench = rules(tmp_path)
    told = {
        "S1": ("CT", "P1", "", "19700101", "20250105"), "S2": ("CT", "P1", "", "19700101", "20240105"),
        "S3": ("CT", "P1", "", "19700101", "20230601"), "S4": ("US", "P1", "", "19700101", "20250601"),
        "S5": ("CT", "P1", "", "19880808", "20250601"), "S6": ("CT", "P1", "OTHER", "19700101", "20250601"),
        "S7": ("CT", "P2", "", "19700101", "20250601"), "S8": ("CT", "P1", "", "19700101", "20200101"),
        "S9": ("CT", "P1", "", "19700101", "20260301"),
    }  # fmt: skip
    tags = ("0010,0020", "0010,0021", "0010,0030", "0008,0020")
    bench.orthanc.headers = {f"i{study[1:]}": dict(zip(tags, of[1:], strict=True)) for study, of in told.items()}
    for study in [f"S{n}" for n in range(1, 9)]:
        bench.orthanc.store(f"i{study[1:]}", study, told[study][0])
    bench.follow()
    bench.follow(31)
    bench.section = {**bench.section, "Routing": [rule]}
    bench.restart()
    bench.orthanc.store("i9", "S9")
    bench.follow()
    bench.follow(31)
    # The patient's own, of the same modality, within the years, the latest two; and nobody else's.
    assert [(one["study_uid"], [i[0] for i in one["instances"]]) for one in bench.told("routed")] == [
        ("3.9", ["i9"]), ("3.1", ["i1"]), ("3.2", ["i2"]),
    ]  # fmt: skip
    assert "an earlier study go along with 3.9" in bench.told("routed")[1]["because"]
    bench.orthanc.headers["i10"] = bench.orthanc.headers["i9"]
    bench.orthanc.store("i10", "S9")
    bench.follow()
    bench.follow(31)
    assert [one["study_uid"] for one in bench.told("routed")[3:]] == ["3.9"], "what went there stays there"


def test_earlier_studies_are_asked_for_once_a_study_also_over_a_restart_and_for_no_other_cause(tmp_path: Path) -> None:
    rule = {"Name": "r", "When": {"Modality": "CT"}, "Priors": {"Count": 3, "FetchFrom": ["OLD"]}, "Priority": 7}
    bench = rules(tmp_path, rule, PriorSources={"OLD": {}})
    header = {"0010,0020": "P1", "0010,0030": "19700101", "0008,0020": "20260301", "0018,0015": "HEAD"}
    bench.orthanc.headers = dict.fromkeys(("i1", "i2", "i3"), header)
    bench.orthanc.store("i1", "S1", "CT")
    bench.orthanc.store("i3", "S2", "US")
    bench.follow()
    bench.follow(31)
    (asked,) = bench.told("priors-wanted")
    wanted = {
        "study_uid": "3.1", "source": "OLD", "patient_id": "P1", "birth_date": "19700101", "study_date": "20260301",
        "priority": 7,
    }  # fmt: skip
    assert asked == {**asked, **wanted}
    assert (asked["modalities"], asked["parts"], asked["how"]["Count"]) == (["CT"], ["HEAD"], 3)
    bench.restart()
    bench.orthanc.store("i2", "S1", "CT")
    bench.follow()
    bench.follow(31)
    assert len(bench.told("study-completed")) == 3
    assert len(bench.told("priors-wanted")) == 1
    assert bench.told("routed") == []


def test_where_one_id_is_of_two_persons_nothing_goes_along_by_the_id_alone() -> None:
    def study(n: int, born: str, part: str = "HEAD") -> Study:
        image = Candidate(f"i{n}", "1", f"1.{n}", "CT", "CT1", "Z", "modality")
        return Study(f"3.{n}", f"S{n}", "P1", "H", born, f"2026010{n}", frozenset({part} - {""}), (image,))

    both = Priors.model_validate({"Same": ["modality", "body part"], "Count": 9})
    one, other, unsaid = study(1, "19700101"), study(2, "19880808"), study(3, "")
    assert choose(study(9, "19700101"), [one, other, unsaid], both) == [one]
    assert choose(study(9, ""), [one, other], both) == []
    assert choose(study(9, ""), [one, unsaid], both) == [unsaid, one]
    assert choose(study(9, "", "KNEE"), [one, unsaid, study(4, "", "")], both) == [study(4, "", "")]


def test_a_study_does_not_wait_for_the_time_it_came_at_when_the_clock_was_put_back(tmp_path: Path) -> None:
    bench = rules(
        tmp_path, {"Name": "quick", "SendTo": ["B"], "Completeness": {"QuietSeconds": 5}},
        {"Name": "usual", "SendTo": ["B"]},
    )  # fmt: skip
    bench.now += timedelta(hours=2)
    bench.orthanc.store("i1")
    bench.follow()
    bench.follow(6)
    assert routed(bench) == [("quick", ["i1"])]
    bench.now -= timedelta(hours=2)
    bench.follow()
    bench.follow(20)
    assert routed(bench) == [("quick", ["i1"])]
    bench.follow(11)
    assert routed(bench) == [("quick", ["i1"]), ("usual", ["i1"])]
