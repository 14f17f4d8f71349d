"""Earlier studies from an archive that answers as one is told; the clock a parameter, what Orthanc stores made up."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from functools import partial
from typing import Any

import pytest

from gateway.courier import Progress
from gateway.fetching import Fetcher, Wanted
from gateway.retrieves import ByMove
from gateway.sending import AttemptFailed, Closed, Shipment
from tests.schema import upgraded
from zambezi import announcing, causes
from zambezi.config.settings import PriorSource, Site, Window
from zambezi.database.engine import Sessions, sessions
from zambezi.database.tables import AnnouncedStudy, Deletion
from zambezi.orthanc_client import OrthancRefused
from zambezi.retries import ErrorClass

NEW = "1.2.9"
WANTED = {
    "patient_id": "P1", "issuer": "H", "birth_date": "19700101", "study_date": "20260301", "modalities": ["CT"],
    "parts": ["HEAD"], "how": {"Count": 2, "Years": 5, "Same": ["modality", "body part"]},
}  # fmt: skip


@dataclass
class There:
    """An Orthanc beside another archive: `studies` of that, `here` in this one, by Study UID."""

    studies: dict[str, dict[str, str]]
    here: dict[str, set[str]] = field(default_factory=dict)
    moves: list[str] = field(default_factory=list)
    levels: list[str] = field(default_factory=list)
    left_behind: list[str] = field(default_factory=list)
    questions: list[dict[str, str]] = field(default_factory=list)
    sends: Callable[[str], set[str]] = lambda uid: {f"{uid}.1.1", f"{uid}.1.2"}
    state: str = "Success"
    refuses: str = ""

    def query(self, _name: str, level: str, query: dict[str, str]) -> list[dict[str, str]]:
        self.questions.append(query)
        uid = query["StudyInstanceUID"]
        match level:
            case "Study":
                return [{"StudyInstanceUID": uid, **one} for uid, one in self.studies.items()]
            case "Series":
                one = self.studies[uid]
                told = {"Modality": one.get("Modality", "CT"), "BodyPartExamined": one.get("Part", "")}
                return [{"SeriesInstanceUID": f"{uid}.1", **told}]
        return [{"SOPInstanceUID": f"{uid}.1.{n} "} for n in (1, 2)]

    def find(self, _level: str, query: dict[str, str], expand: bool = False) -> list[Any]:
        assert expand
        uids = self.here.get(query["StudyInstanceUID"], set())
        return [{"MainDicomTags": {"SOPInstanceUID": uid}} for uid in uids]

    def get(self, _path: str, **_params: Any) -> dict[str, Any]:
        return {"announced_generation": 1_000_000}

    def start_move(self, name: str, level: str, keys: dict[str, str], target_aet: str, _silence_s: float) -> str:
        assert (name, target_aet) == ("OLD", "ZAMBEZI")
        if self.refuses:
            raise OrthancRefused("POST", "/queries/1/retrieve", 500, self.refuses)
        self.moves.append(keys["StudyInstanceUID"])
        self.levels.append(level)
        return "job"

    def moves_of(self, study_uid: str) -> list[str]:
        return [study_uid] if study_uid in self.left_behind else []

    def job(self, id: str) -> dict[str, Any]:
        uid = self.moves[-1] if id == "job" else id
        self.here.setdefault(uid, set()).update(self.sends(uid))
        return {"State": self.state, "ErrorDetails": "Unexpected DIMSE status 0xA801", "ErrorCode": 9}


def study(**told: str) -> dict[str, str]:
    return {"PatientID": "P1", "PatientBirthDate": "19700101", "StudyDate": "20250101", **told}


@dataclass
class Bench:
    made: Sessions
    now: datetime
    there: There
    source: PriorSource = field(default_factory=PriorSource)
    saved: int = 0

    def bring(self, begun: set[str] | None = None, **wanted: Any) -> str:
        body = Wanted.of({**WANTED, **wanted}).written
        progress = Progress("d1", begun if begun is not None else set(), self._save)
        orthanc: Any = self.there  # stands in for Orthanc's REST
        by_move = partial(ByMove, orthanc, "OLD", "ZAMBEZI", threading.Event())
        fetcher = Fetcher(self.made, orthanc, "OLD", self.source, Site(issuer="H"), by_move, lambda: self.now)
        return fetcher.bring(Shipment(NEW, (), body), False, progress)

    def _save(self) -> None:
        self.saved += 1


@pytest.fixture
def bench(tmp_path: Any, now: datetime) -> Any:
    engine = upgraded(f"sqlite:///{tmp_path}/z.db", "gateway")
    yield lambda studies, **how: Bench(sessions(engine, "gateway"), now, There(studies, **how))
    engine.dispose()


def test_the_latest_of_the_patient_that_are_alike_come_and_are_announced_before_they_are_asked_for(bench):
    one = bench({
        "1": study(StudyDate="20240101"), "2": study(StudyDate="20250101"), "3": study(StudyDate="20230101"),
        "4": study(PatientBirthDate="19710101"), "5": study(PatientBirthDate=""), "6": study(IssuerOfPatientID="X"),
        "7": study(Modality="US"), "8": study(Part="KNEE"), "9": study(PatientID="P10"), NEW: study(),
    })  # fmt: skip
    assert one.bring() == "OLD has 2 earlier studies that are wanted; 2 came with 2 images; 1 came with 2 images"
    assert one.there.moves == ["2", "1"]
    assert one.saved == 2
    first = one.there.questions[0]
    assert (first["PatientID"], first["StudyDate"]) == ("P1", "20210301-20260301")
    with one.made.begin() as session:
        told = {row.study_uid: (row.cause, row.reference) for row in session.query(AnnouncedStudy)}
    assert told == dict.fromkeys(("1", "2"), (causes.PREFETCH, f"prior of {NEW}"))


def test_what_is_here_was_deleted_is_migrated_or_too_large_is_left_alone(bench):
    one = bench({"1": study(), "2": study(), "3": study()}, here={"1": {"1.1.1"}})
    how = {"how": {**WANTED["how"], "Count": 9}}
    with one.made.begin() as session:
        announcing.announce_studies(session, ["2"], causes.MIGRATION, "p", one.now)
        at = "2026-03-01T00:00:00.000000Z"
        session.add(
            Deletion(
                study_uid="3", study_orthanc_id="x", code="quality", reason="r", state="done", asked_by="a",
                asked_at=at, next_at=at, updated_at=at,
            )
        )  # fmt: skip
    said = one.bring(**how)
    assert "1 is here" in said
    assert said.count("was deleted here, or a migration brings it") == 2
    assert one.there.moves == []
    with one.made.begin() as session:
        session.query(Deletion).one().state = "withdrawn"
    one.source = PriorSource(most_instances=1)
    assert "3 has 2 images, more than MostInstances" in one.bring(**how)
    assert one.there.moves == []


def test_an_archive_that_says_success_and_sends_half_is_found_out_and_what_was_begun_goes_on(bench):
    one = bench({"1": study()}, sends=lambda uid: {f"{uid}.1.1"})
    begun: set[str] = set()
    with pytest.raises(AttemptFailed, match="OLD has not sent 1 of 2 images of 1: and it says it did") as failed:
        one.bring(begun)
    assert (failed.value.kind, begun) == (ErrorClass.TRANSIENT, {"1"})
    one.there.sends = lambda uid: {f"{uid}.1.2"}
    assert one.bring(begun) == "OLD has 1 earlier studies that are wanted; 1 came with 2 images"
    assert one.bring(begun) == "OLD has 1 earlier studies that are wanted; 1 came with 2 images"
    assert one.there.moves == ["1", "1"]
    assert one.there.levels == ["Study", "Instance"]  # what came needn't come again


def test_an_archive_that_sends_nothing_less_than_a_study_is_asked_for_all_of_it(bench):
    one = bench({"1": study()}, here={"1": {"1.1.1"}})
    one.there.sends = lambda uid: {f"{uid}.1.2"} if one.there.levels[-1] == "Study" else set()
    assert one.bring({"1"}) == "OLD has 1 earlier studies that are wanted; 1 came with 2 images"
    assert one.there.levels == ["Instance", "Study"]


def test_what_a_gateway_that_died_left_orthanc_fetching_is_waited_for_and_not_asked_for_again(bench):
    one = bench({"1": study()}, here={"1": {"1.1.1"}}, left_behind=["1"])
    assert one.bring({"1"}) == "OLD has 1 earlier studies that are wanted; 1 came with 2 images"
    assert one.there.moves == []


def test_one_that_fails_but_has_sent_everything_has_done_it_and_one_that_does_not_know_us_is_told_so(bench):
    one = bench({"1": study()}, state="Failure")
    assert "1 came with 2 images" in one.bring()
    unknown = bench({"2": study()}, state="Failure", sends=lambda uid: set())
    with pytest.raises(AttemptFailed, match="0xA801") as failed:
        unknown.bring()
    assert failed.value.kind is ErrorClass.CONFIGURATION


def test_its_window_ends_a_fetch_between_two_studies(bench):
    one = bench({"1": study(StudyDate="20250101"), "2": study(StudyDate="20240101")})
    one.source = PriorSource(windows=(Window(from_=time(20), to=time(6)),))
    one.now = datetime(2026, 3, 1, 22, tzinfo=UTC)
    begun: set[str] = set()

    def sends(uid: str) -> set[str]:
        one.now = datetime(2026, 3, 2, 9, tzinfo=UTC)
        return {f"{uid}.1.1", f"{uid}.1.2"}

    one.there.sends = sends
    with pytest.raises(Closed):
        one.bring(begun)
    assert one.there.moves == ["1"]
    one.now = datetime(2026, 3, 2, 22, tzinfo=UTC)
    assert "1 came with 2 images; 2 came with 2 images" in one.bring(begun)
    assert one.there.moves == ["1", "2"]


@pytest.mark.parametrize("wanted", [{"patient_id": "P*"}, {"patient_id": ""}, {"birth_date": ""}])
def test_where_it_would_be_about_somebody_else_nothing_is_asked(bench, wanted):
    one = bench({"1": study()})
    assert "nothing was asked for" in one.bring(**wanted)
    assert one.there.questions == []


def test_what_is_wanted_is_read_from_the_entry_and_nothing_else_is_kept():
    entry = {**WANTED, "event": "priors-wanted", "because": "x"}
    assert json.loads(Wanted.of(entry).written) == WANTED
