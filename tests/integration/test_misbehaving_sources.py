"""Sources that cut off, lie, hang, forget and merge: each study ends in its own state, with both sides in words."""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from sqlalchemy import select

from migration import inventory, lanes, pace, probing, rejections, worker
from migration.commands import migrate
from migration.dicom_source import DicomSource
from migration.source import Trouble
from migration.survey import Asked
from tests import misbehaving_sources as behaves
from tests.integration.migration_lab import Lab, a_lab, sample, wait_for
from tests.misbehaving_sources import LegacyArchive
from zambezi import clock
from zambezi.config.safety import Modality
from zambezi.config.settings import MigrationSource
from zambezi.database.tables import Breaker, ExceptionItem, MigrationInstance, MigrationProject, MigrationStudy

#: Silent for so long, a source is given up on.
PATIENCE_S = 5


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as monkeypatch, a_lab(folder, monkeypatch, has_legacy=False) as running:
        yield running


@pytest.fixture
def case(lab: Lab, request: pytest.FixtureRequest) -> Case:
    with lab.office.sessions.begin() as session:
        session.query(Breaker).delete()
    return Case(lab, request.node.name[-60:])


class Case:
    """One source that misbehaves, and the migration of what it has."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.name = lab, name

    @contextmanager
    def source(self, *holds: Dataset, **how: Any) -> Iterator[LegacyArchive]:
        target = ("127.0.0.1", self.lab.office.environment.ports.dicom)
        with LegacyArchive(self.lab.legacy_port, target, list(holds), **how).listening() as running:
            yield running

    def inventory(self) -> MigrationProject:
        """A running project that knows what the source has: by one question, since these sources answer that."""
        source, now = self.lab.office.source("LEGACY"), clock.now()
        assert isinstance(source, Asked)
        found = inventory.Found()
        with self.lab.office.sessions.begin() as session:
            at = clock.text(now)
            project = MigrationProject(name=self.name, source="LEGACY", state="running", created_at=at, updated_at=at)
            session.add(project)
            session.flush()
            for study_uid in found.add(source.studies()):
                inventory.record(session, project.id, study_uid, source.count(study_uid), now, found)
        return project

    def run(
        self, project: MigrationProject, workers: int = 1, lane: lanes.Lane = lanes.AT_HAND, **settings: Any
    ) -> None:
        patience: dict[str, Any] = {"study_deadline_seconds": PATIENCE_S, "retry_seconds": 60.0, "break_after": 100}
        how = MigrationSource(peer="legacy").model_copy(update={**patience, **settings})

        def all_there_is(_: int) -> None:
            while worker.work(self.lab.desk(settings=how, settle_seconds=0.25), project, lane):
                pass

        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(all_there_is, range(workers)))

    def studies(self) -> list[MigrationStudy]:
        query = select(MigrationStudy).join(MigrationProject).where(MigrationProject.name == self.name)
        with self.lab.office.sessions.begin() as session:
            return list(session.scalars(query.order_by(MigrationStudy.study_uid)).all())

    def study(self) -> MigrationStudy:
        (study,) = self.studies()
        return study

    def held(self, study: MigrationStudy) -> int:
        return len(self.lab.office.client().find("Instance", {"StudyInstanceUID": study.study_uid}))


_CT = pydicom.dcmread(sample("CT_small.dcm"))


def images(count: int = 1, **attributes: Any) -> list[Dataset]:
    """A study of so many images, in one series."""
    study, series = generate_uid(), generate_uid()
    made = []
    for _ in range(count):
        image = copy.deepcopy(_CT)
        image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = study, series, generate_uid()
        for keyword, value in attributes.items():
            setattr(image, keyword, value)
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        made.append(image)
    return made


@pytest.mark.parametrize("cut_status", [0xFE00, None])
def test_answers_that_are_cut_off_lose_no_study(case: Case, cut_status: int | None) -> None:
    dated = [
        images(StudyDate=f"2020{month:02}15", StudyTime="101500", PatientID=f"P{month}")[0] for month in range(1, 10)
    ]
    undated = images(StudyDate="", StudyTime="", PatientID="Q1")
    odd = images(StudyDate="20200230", StudyTime="1015", PatientID="Q2")
    with case.source(*dated, *undated, *odd, limit=4, cut_status=cut_status):
        found, coverage = case.lab.office.source("LEGACY").find_studies(clock.now().date())
    assert found.uids == {image.StudyInstanceUID for image in [*dated, *undated, *odd]}
    assert coverage.limit == (None if cut_status else 4)
    assert coverage.doubts, "the certificate says that the universal query was cut off"
    assert coverage.oddities["date-impossible"]["examples"] == [odd[0].StudyInstanceUID]


def test_two_objects_under_one_uid_of_which_one_comes_are_never_verified(case: Case) -> None:
    """Their patients differ by padding alone, which no answer shows."""
    (first, other) = images(2, PatientID="PAD01")
    twin = copy.deepcopy(first)
    twin.PatientID, twin.PixelData = "PAD01 ", bytes(len(first.PixelData))
    with case.source(first, other, twin, one_of_each=True):
        case.run(case.inventory())
    study = case.study()
    assert (study.state, case.held(study)) == ("incomplete", 2)
    assert study.reason.endswith(f"more than once, and the archive has fewer of each: {first.SOPInstanceUID}")
    peer = Modality("legacy", "LEGACY", "127.0.0.1", case.lab.legacy_port)
    known = DicomSource(case.lab.office.client(), peer, MigrationSource(peer="legacy", repeats_answers=True))
    with case.source(first, other, twin, one_of_each=True):
        assert (known.count(study.study_uid).repeated, len(known.reservations())) == ({}, 1)


@pytest.mark.parametrize("moves", [behaves.success_with_failures, behaves.success_with_nothing])
def test_a_success_without_arrival_is_not_believed(case: Case, moves: behaves.Moves) -> None:
    with case.source(*images(2), moves=moves) as source:
        case.run(project := case.inventory())
        assert (case.study().state, case.held(case.study())) == ("retrying", 0)
        assert "2 instances did not arrive" in case.study().reason
        source.moves = behaves.honestly
        case.lab.let_time_pass()
        case.run(project)
    assert case.study().state == "verified"


@pytest.mark.parametrize("moves", [behaves.success_before_sending, behaves.without_counters])
def test_what_arrives_counts_whatever_was_said_of_it(case: Case, moves: behaves.Moves) -> None:
    with case.source(*images(2), moves=moves):
        case.run(case.inventory())
    assert (case.study().state, case.held(case.study())) == ("verified", 2)


def test_a_source_that_hangs_is_let_go_of_and_brings_only_the_rest_next_time(case: Case) -> None:
    with case.source(*images(3), moves=behaves.hangs_in_the_middle) as source:
        project = case.inventory()
        case.run(project)
        assert (case.study().state, case.held(case.study())) == ("retrying", 1)
        moved: list[int] = []

        def count(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
            moved.append(len(wanted))
            yield from behaves.honestly(source, event, wanted)

        source.moves = count
        case.lab.let_time_pass()
        case.run(project)
    assert case.study().state == "verified"
    assert moved == [3], "most of the study was missing: it is asked for whole"


def test_a_source_that_does_not_know_us_stops_the_project_and_blames_no_study(case: Case) -> None:
    with case.source(*images(1), *images(1), moves=behaves.to_nobody):
        case.run(project := case.inventory())
    assert [(study.state, study.attempts) for study in case.studies()] == [("ready", 0), ("ready", 0)]
    with case.lab.office.sessions.begin() as session:
        stopped = session.get_one(MigrationProject, project.id)
        assert stopped.state == "paused"
        assert "0xA801" in stopped.note


def test_an_image_that_is_added_during_the_move_is_brought_too(case: Case) -> None:
    (first, late) = images(2)

    def add(source: LegacyArchive) -> None:
        if late not in source.holds:
            source.holds.append(late)

    with case.source(first, before_moving=add):
        project = case.inventory()
        assert case.study().expected == 1
        case.run(project)
    assert (case.study().state, case.study().expected, case.held(case.study())) == ("verified", 2, 2)


def test_a_study_that_is_merged_meanwhile_waits_for_a_person_with_both_patients_named(case: Case) -> None:
    (image,) = images(1, PatientID="BEFORE1")

    def merge(source: LegacyArchive) -> None:
        image.PatientID = "AFTER22"

    with case.source(image, before_moving=merge):
        case.run(case.inventory())
    study = case.study()
    assert study.state not in ("verified", "ready", "retrying")
    assert "under patient AFTER22; when it was found it was under BEFORE1" in study.reason


def test_one_study_uid_under_two_patients_is_listed_and_both_are_brought(case: Case) -> None:
    one, other = images(2)
    one.PatientID, other.PatientID = "ID11111", "ID22222"
    with case.source(one, other):
        project = case.inventory()
        case.run(project)
    assert case.study().patient_id == "ID11111\\ID22222"
    assert (case.study().state, case.held(case.study())) == ("verified", 2)


def test_one_image_uid_under_two_patients_with_other_pixels_is_no_success(case: Case) -> None:
    (one,) = images(1, PatientID="ID33333")
    other = copy.deepcopy(one)
    other.PatientID = "ID44444"
    other.PixelData = bytes([other.PixelData[0] ^ 1]) + other.PixelData[1:]
    with case.source(one, other):
        case.run(case.inventory())
    assert case.study().state not in ("verified", "ready", "retrying")
    assert "(0010,0020)" in case.study().reason


def probed(case: Case) -> dict[str, tuple[bool, str]]:
    return case.lab.office.source("LEGACY").probe().abilities


def test_a_probe_shows_what_a_source_can_do_and_leaves_nothing_behind(case: Case) -> None:
    before = case.lab.office.client().get("/statistics")["CountInstances"]
    with case.source(*images(2, SpecificCharacterSet="ISO_IR 100"), most_associations=3):
        runner = CliRunner()
        answer = runner.invoke(migrate, ["probe", "LEGACY", "--json"])
        assert answer.exit_code == 0, answer.output
        found = {name: (one["has"], one["seen"]) for name, one in json.loads(answer.output)["abilities"].items()}
    lacks = {name for name, (has, _) in found.items() if not has}
    assert lacks == {
        "relational queries", "numbers of instances", "near-line", "names transfer syntaxes",
        "transfer syntaxes by C-GET",
    }  # fmt: skip
    assert found["character sets"] == (True, "ISO_IR 100")
    assert found["associations at once"] == (True, "3")
    assert found["IMAGE level"] == (True, "2 answers, status 0x0000")
    assert case.lab.office.client().get("/statistics")["CountInstances"] == before
    listed = json.loads(runner.invoke(migrate, ["sources", "--json"]).output)
    assert [(one["source"], one["abilities"]["C-GET, study root"]["has"]) for one in listed] == [("LEGACY", True)]


def test_a_probe_of_a_source_that_does_not_know_us_says_what_to_do(case: Case) -> None:
    compressed = {"syntaxes": ("1.2.840.10008.1.2.4.90", ExplicitVRLittleEndian), "roots": ("2",), "limit": 1}
    with case.source(*images(1), *images(1), moves=behaves.to_nobody, **compressed):
        found = probed(case)
    assert found["C-MOVE to the archive"] == (
        False, "it doesn't know the AE title ZAMBEZI (status 0xA801): enter it there, with its address",
    )  # fmt: skip
    assert found["C-FIND, patient root"] == (False, "")
    assert found["answers at once"] == (False, "cut off after 1, with status 0xFE00: it is asked in parts")
    assert found["transfer syntaxes by C-GET"] == (
        True, "CT Image Storage: JPEG 2000 Image Compression (Lossless Only)"
    )  # fmt: skip


def test_a_probe_of_a_source_that_knows_the_patient_root_alone_says_what_to_do(case: Case) -> None:
    with case.source(*images(1), roots=("1",)):
        found = probed(case)
    assert found["C-FIND, patient root"] == (True, "")
    has, said = found["C-FIND, study root"]
    assert (has, said.startswith("it answers by the patient root alone")) == (False, True)
    assert "(Kind folder)" in said


def test_a_probe_of_a_source_that_is_not_there_says_so(case: Case) -> None:
    found = probed(case)
    assert [has for has, _ in found.values()] == [False, False]
    assert "ZAMBEZI_MIG is not answered" in found["association as ourselves"][1]


def test_a_source_that_cannot_move_is_retrieved_from_by_get_and_what_would_change_stays_there(case: Case) -> None:
    (mine, others) = images(2)
    (changed,) = images(1)
    changed.AvailableTransferSyntaxUID = "1.2.840.10008.1.2.4.90"  # so it says, and sends it uncompressed
    with case.source(mine, others, changed, moves_at_all=False):
        case.run(case.inventory(), retrieve="get")
    brought, left = sorted(case.studies(), key=lambda study: -study.expected)
    assert (brought.state, case.held(brought)) == ("verified", 2)
    assert (left.state, case.held(left)) == ("retrying", 0)
    assert "by C-GET it would come as Explicit VR Little Endian instead of JPEG 2000" in left.reason
    with case.lab.office.sessions.begin() as session:
        row = session.get_one(MigrationInstance, (brought.id, str(mine.SOPInstanceUID)))
        assert (row.verdict, row.given_md5) == ("equal", row.stored_md5)


@pytest.mark.parametrize("how", [{"ends_gets": True}, {"gets": False}])
def test_a_source_that_refuses_get_stops_the_project_at_once_and_says_what_to_do(
    case: Case, how: dict[str, bool]
) -> None:
    with case.source(*images(1), *images(1), **how):
        case.run(project := case.inventory())
    assert [(study.state, study.attempts) for study in case.studies()] == [("ready", 0), ("ready", 0)]
    with case.lab.office.sessions.begin() as session:
        stopped = session.get_one(MigrationProject, project.id)
        assert stopped.state == "paused"
        assert "let ZAMBEZI_MIG retrieve by C-GET there" in stopped.note


def test_a_source_that_says_nothing_to_a_get_is_not_waited_for(case: Case) -> None:
    peer = case.lab.office.configuration.modalities["legacy"]
    with (
        case.source(*images(1), silent_gets=True),
        pytest.raises(Trouble, match=r"it says nothing to a C-GET within 0.5 s"),
    ):
        probing.sure_of_get(peer, "ZAMBEZI_MIG", 0.5)


def test_a_series_that_is_cut_off_is_named_image_by_image(case: Case) -> None:
    holds = images(5)
    for number, image in enumerate(holds, 2):
        image.InstanceNumber, image.NumberOfSeriesRelatedInstances = number, 5
    with case.source(*holds, limit=3):
        case.run(case.inventory())
    assert (case.study().state, case.study().expected, case.held(case.study())) == ("verified", 5, 5)


def test_what_lies_near_line_goes_in_its_own_lane_and_what_can_not_be_named_waits_for_a_person(case: Case) -> None:
    nameless = images(5)
    (slow,), (fast,) = images(1, InstanceAvailability="NEARLINE"), images(1)
    lab, source = case.lab, case.lab.office.source("LEGACY")
    with case.source(*nameless, slow, fast, limit=3, gets=False):
        inventory.take(lab.office.sessions, source, case.name, "LEGACY", clock.now())
    found = {study.study_uid: study for study in case.studies()}
    assert found[slow.StudyInstanceUID].priority < found[fast.StudyInstanceUID].priority == 0
    waits = found[nameless[0].StudyInstanceUID]
    assert waits.state == "parked"
    assert "does not name its instances: the source cuts off the images of series" in waits.reason


def test_what_is_fetched_from_tape_holds_nothing_up_and_may_take_its_time(case: Case) -> None:
    (slow,), (fast,) = images(1, InstanceAvailability="NEARLINE"), images(1)
    fetched = threading.Event()

    def from_tape(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
        if slow in wanted:
            fetched.wait(30)
        yield from behaves.honestly(source, event, wanted)

    def states() -> list[str]:
        found = {study.study_uid: study.state for study in case.studies()}
        return [found[image.StudyInstanceUID] for image in (slow, fast)]

    with case.source(slow, fast, moves=from_tape), ThreadPoolExecutor(1) as threads:
        project = case.inventory()
        # Whether a source that was away is well again is asked with what is at hand, not with a tape.
        with case.lab.office.sessions.begin() as session:
            session.add(Breaker(name="source:LEGACY", state="open", probe_at=None, updated_at="", reason="was away"))
        assert not worker.work(case.lab.desk(), project, lanes.NEAR_LINE)
        with case.lab.office.sessions.begin() as session:
            session.query(Breaker).delete()
        fetching = threads.submit(case.run, project, lane=lanes.NEAR_LINE, study_deadline_seconds=1.0)
        wait_for("the tape to be asked for", lambda: states() == ["moving", "ready"])
        case.run(project, study_deadline_seconds=5.0)
        assert states() == ["moving", "verified"]
        time.sleep(1.5)  # longer than any other study may be silent
        assert states() == ["moving", "verified"]
        fetched.set()
        fetching.result()
        assert states() == ["verified", "verified"]


def test_tape_that_takes_too_long_is_no_failure_of_the_source_and_is_asked_for_as_a_whole(case: Case) -> None:
    slow = images(3, InstanceAvailability="NEARLINE")
    levels: list[str] = []

    def recorded(moves: behaves.Moves) -> behaves.Moves:
        def moved(source: LegacyArchive, event: Any, wanted: list[Dataset]) -> Iterator[Any]:
            levels.append(event.identifier.QueryRetrieveLevel)
            yield from moves(source, event, wanted)

        return moved

    with case.lab.office.sessions.begin() as session:
        before = pace.read(session, "LEGACY")
    with case.source(*slow, moves=recorded(behaves.never)) as source:
        project = case.inventory()
        how: dict[str, Any] = {"lane": lanes.NEAR_LINE, "near_line_deadline_seconds": 1.0, "break_after": 1}
        case.run(project, **how)
        assert (case.study().state, case.study().attempts) == ("retrying", 1)
        source.moves = recorded(behaves.success_with_nothing)
        case.lab.let_time_pass()
        case.run(project, **how)
    assert (case.study().state, case.study().attempts) == ("retrying", 2)
    assert levels == ["STUDY", "STUDY"]
    with case.lab.office.sessions.begin() as session:
        assert [(row.state, row.failures) for row in session.query(Breaker)] in ([], [("closed", 0)])
        assert pace.read(session, "LEGACY") == before


def rejection_of(image: Dataset) -> Dataset:
    """A Key Object Selection that takes an image back for quality reasons."""
    note, title, study, series, one = (copy.deepcopy(image), *(Dataset() for _ in range(4)))
    for keyword in ("PixelData", "Rows", "Columns"):
        del note[keyword]
    note.SOPClassUID = note.file_meta.MediaStorageSOPClassUID = rejections.KEY_OBJECTS
    note.Modality, note.SOPInstanceUID, note.SeriesInstanceUID = "KO", generate_uid(), generate_uid()
    note.file_meta.MediaStorageSOPInstanceUID = note.SOPInstanceUID
    title.CodeValue, title.CodingSchemeDesignator = "113001", "DCM"
    title.CodeMeaning = "Rejected for Quality Reasons"
    one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    series.SeriesInstanceUID, series.ReferencedSOPSequence = image.SeriesInstanceUID, [one]
    study.StudyInstanceUID, study.ReferencedSeriesSequence = image.StudyInstanceUID, [series]
    note.ConceptNameCodeSequence, note.CurrentRequestedProcedureEvidenceSequence = [title], [study]
    return note


def test_an_image_that_was_rejected_at_the_source_comes_over_and_is_listed(case: Case) -> None:
    good, bad = images(2)
    with case.source(good, bad, rejection_of(bad)):
        case.run(case.inventory())
    assert (case.study().state, case.held(case.study())) == ("verified", 3)
    with case.lab.office.sessions.begin() as session:
        query = select(ExceptionItem).where(ExceptionItem.study_uid == case.study().study_uid)
        (waits,) = session.scalars(query).all()
    assert (waits.kind, waits.decided_at) == ("study-rejected-images", None)
    assert "1 images of this study were taken back at the source: rejected for quality reasons" in waits.what
    assert bad.SOPInstanceUID in waits.what
    assert good.SOPInstanceUID not in waits.what


def test_a_source_without_an_image_level_shows_what_it_has_by_sending_it(case: Case) -> None:
    holds = images(3)
    with case.source(*holds, has_image_level=False):
        source = case.lab.office.source("LEGACY")
        case.run(case.inventory())
        counted = source.count(holds[0].StudyInstanceUID)
    assert set(counted.instances) == {image.SOPInstanceUID for image in holds}
    assert {named.series_uid for named in counted.instances.values()} == {holds[0].SeriesInstanceUID}
    assert isinstance(source, Asked)
    assert "named is what it sends" in source.reservations()[0]
    assert (case.study().state, case.held(case.study())) == ("verified", 3)
