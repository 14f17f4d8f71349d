"""Coercion as images come: who is coerced, who never is, and what happens when it fails."""

from __future__ import annotations

import base64
import hashlib
import random
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from plugins import header
from plugins.arrivals import Arrivals, Copy, judge
from plugins.coercion import Coercion
from plugins.facts import Came, joined
from plugins.journal import Journal
from plugins.others import Others
from plugins.pushed import Announced, Pushed, worklist
from tests.integration.archive_fixture import image, written
from tests.unit.coercion.images import read
from tests.unit.coercion.test_coercing import TAKE, order
from zambezi.causes import Because
from zambezi.coercion import envelope
from zambezi.config.settings import Zambezi

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PREFIX = {"Name": "site", "When": {"StationName": "CT9"}, "Prefix": {"PatientID": "CN-"}}


class Bench:
    """The hook's two steps, as plugins.zambezi_plugin takes them: coercion, then the look at what comes of it."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.db")
        self.announced = Announced()
        self.worklist = Pushed[dict[str, list[bytes]]](folder / "worklist.json", {}, worklist)
        self.arrivals = Arrivals(self.journal, folder / "hold", lambda: self.announced)
        self.arrivals.caught_up()
        self.coercion = self.ruled(PREFIX)

    def ruled(self, *rules: dict[str, Any]) -> Coercion:
        settings = Zambezi.model_validate({"Coercions": rules}).coercions
        self.coercion = Coercion(
            lambda: settings, self.journal, self.worklist, lambda: self.announced, self.arrivals.holds
        )
        return self.coercion

    def send(self, content: bytes, by_dicom: bool = True, now: datetime = NOW) -> bytes | None:
        """What Orthanc is given; None where it must refuse."""
        treated = self.coercion.treat(content, by_dicom, now)
        if not treated.is_listed:
            return None
        taken = self.arrivals.look(treated.content, by_dicom, now, treated.came, treated.read)
        return treated.content if taken else None

    def record(self, content: bytes, came: Came | None = None) -> None:
        """Orthanc has stored it, and the follower recorded it."""
        one = header.read(content)
        with self.journal.transaction() as transaction:
            transaction.execute(
                "INSERT OR REPLACE INTO instances (orthanc_id, study_orthanc_id, series_orthanc_id, study_uid,"
                " series_uid, sop_uid, modality, cause, remote_aet, called_aet, index_id, change_seq, sha256)"
                " VALUES (?, 's', 's', '1', '1', ?, 'CT', 'modality', '', '', 'i', 1, ?)",
                (one.orthanc_id, one.sop_uid, hashlib.sha256(content).hexdigest()),
            )
            if came:
                row = (one.orthanc_id, came.sha256, joined(came.changed))
                transaction.execute("INSERT INTO came VALUES (?, ?, ?)", row)
        self.arrivals.settled([(one.sop_uid, one.orthanc_id)])

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [one.facts for one in self.journal.entries_after(0, "", 100)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def ct9(**tags: Any) -> bytes:
    return written(image(StationName="CT9", **tags))


def wrapped(content: bytes, aet: str = "CT2") -> bytes:
    """As the coercing port hands it over."""
    told = read(content)
    end = 144 + int.from_bytes(content[140:144], "little")
    return envelope.wrap(
        content[end:],
        told.SOPClassUID,
        told.SOPInstanceUID,
        told.file_meta.TransferSyntaxUID,
        aet,
        "ZAMBEZI",
        "192.0.2.7",
    )


def test_an_image_that_meets_a_rule_is_coerced_and_both_digests_are_known(bench: Bench) -> None:
    content = ct9()
    made = bench.send(content)
    assert made is not None
    assert read(made).PatientID == "CN-P1"
    told = header.read(made)
    assert bench.arrivals.digest(told.sop_uid, told.orthanc_id, len(made)) == hashlib.sha256(made).hexdigest()
    assert bench.arrivals.came(told.sop_uid, told.orthanc_id, len(made)) == Came(
        hashlib.sha256(content).hexdigest(), ("site",)
    )
    assert bench.arrivals.came(told.sop_uid, told.orthanc_id, len(made) + 2) is None
    assert bench.entries == []


def test_an_image_that_meets_none_and_a_service_s_image_stay_what_they_are(bench: Bench) -> None:
    other = written(image())
    assert bench.send(other) is other
    mine = ct9()
    assert bench.send(mine, by_dicom=False) is mine
    migrated = ct9()
    bench.announced = Announced({read(migrated).StudyInstanceUID: Because("migration", "lab")})
    assert bench.send(migrated) is migrated


def migrating(content: bytes, *known: str, **changes: str) -> Announced:
    """The image's study is announced by a migration that changes it; `known`: instances that are announced, too."""
    because = Because("migration", "lab", changes=tuple(sorted(changes.items())))
    instances = {uid: Because("correction", "correction 3") for uid in known}
    return Announced({read(content).StudyInstanceUID: because}, instances, True)


@pytest.mark.parametrize("rules", [(), (PREFIX,)])
@pytest.mark.parametrize("by_dicom", [True, False])
def test_a_migrated_study_gets_what_its_plan_declares_whichever_way_it_comes(bench, rules, by_dicom) -> None:
    bench.ruled(*rules)
    content = ct9()
    bench.announced = migrating(content, PatientID="0012", IssuerOfPatientID="HCM")
    made = bench.send(content, by_dicom)
    assert made is not None
    assert (read(made).PatientID, read(made).IssuerOfPatientID) == ("0012", "HCM")
    told = header.read(made)
    came = Came(hashlib.sha256(content).hexdigest(), ("migration-lab",))
    assert bench.arrivals.came(told.sop_uid, told.orthanc_id, len(made)) == came
    assert bench.send(content, by_dicom, NOW + timedelta(seconds=5)) == made, "it becomes the same bytes"
    assert bench.send(made, by_dicom) == made
    assert bench.entries == []


def test_what_is_not_that_study_s_from_outside_is_left_alone_by_declared_changes(bench: Bench) -> None:
    bench.ruled()
    content, other = ct9(), ct9()
    bench.announced = migrating(content, PatientID="0012")
    assert bench.send(other, by_dicom=False) is other
    bench.announced = migrating(content, str(read(content).SOPInstanceUID), PatientID="0012")
    assert bench.send(content, by_dicom=False) is content, "a correction is as it is to be"
    bench.announced = migrating(content, PatientID="0012")
    settings: Any = ()
    recovering = Coercion(
        lambda: settings, bench.journal, bench.worklist, lambda: bench.announced, bench.arrivals.holds, recovering=True
    )
    assert recovering.treat(content, False, NOW).content is content


def test_declared_changes_that_cannot_be_carried_out_let_it_in_as_it_came_and_are_told(bench: Bench) -> None:
    bench.ruled()
    content = ct9()
    for changes in ({"PatientID": "x" * 65}, {"PixelData": "1"}):
        bench.announced = migrating(content, **changes)
        assert bench.send(content, by_dicom=False) is content
    assert [entry["reason"] for entry in bench.entries] == ["the declared changes can't be carried out"] * 2
    assert "x" * 65 not in str(bench.entries)


def test_without_rules_nothing_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ruled()
    monkeypatch.setattr(header, "read", None)
    content = ct9()
    assert bench.coercion.treat(content, True, NOW).content is content


def test_the_same_image_again_is_no_conflict_recorded_or_not_before_and_after_a_restart(bench: Bench) -> None:
    content = ct9()
    first = bench.send(content)
    assert first is not None
    assert bench.send(content, now=NOW + timedelta(seconds=5)) == first, "it becomes the same bytes"
    bench.record(first, Came(hashlib.sha256(content).hexdigest(), ("site",), ("(0010,0020)",)))
    assert bench.send(content, now=NOW + timedelta(seconds=9)) == first
    told = header.read(first)
    arrived, came = bench.arrivals.arrived(told.sop_uid, told.orthanc_id, len(first))
    assert arrived == hashlib.sha256(first).hexdigest()
    assert (came and came.sha256, came and came.changed) == (hashlib.sha256(content).hexdigest(), ("(0010,0020)",))
    bench.ruled(PREFIX)  # another process: the moment of the first coercion is forgotten
    assert bench.send(content, now=NOW + timedelta(hours=1)) != first
    bench.ruled()  # the rule is gone: what comes now has another identity, so Orthanc makes a second copy
    assert bench.send(content) is content
    assert bench.entries == []


def test_what_is_there_as_it_came_is_not_coerced_when_it_comes_again(bench: Bench) -> None:
    content = ct9()
    bench.record(content)
    assert bench.send(content) is content


def test_other_content_is_held_as_it_would_be_stored(bench: Bench) -> None:
    one = image(StationName="CT9")
    first = bench.send(written(one))
    assert first is not None
    bench.record(first, Came(hashlib.sha256(written(one)).hexdigest(), ("site",)))
    one.PixelData = bytes(63) + b"\1"
    made = bench.send(written(one))
    assert made is not None
    (held,) = bench.entries
    assert (held["why"], held["sha256"]) == ("conflict", hashlib.sha256(made).hexdigest())
    assert held["other_sha256"] == hashlib.sha256(first).hexdigest()


def test_digests_meet_whether_it_was_coerced_each_time_once_or_not_at_all() -> None:
    newcomer = header.Header("1.5", "1.2", "1.3", "P1", "", True)
    here = newcomer.orthanc_id
    for copy, came in ((Copy(here, "k1", "c"), "c"), (Copy(here, "c"), "c"), (Copy(here, "k1", "k2"), None)):
        assert judge(newcomer, "k2", [copy], False, True, came).why == ""
    for copy, came in ((Copy(here, "k1", "d"), "c"), (Copy(here, "k1"), None), (Copy(here, None, None), "c")):
        assert judge(newcomer, "k2", [copy], False, True, came).why == "conflict"


def test_a_failed_coercion_leaves_the_image_as_it_came_and_says_so_first(bench: Bench) -> None:
    bench.ruled({**PREFIX, "Name": "long", "Prefix": {"AccessionNumber": "X"}})
    content = ct9(AccessionNumber="0123456789ABCDEF")
    assert bench.send(content) is content
    (entry,) = bench.entries
    assert (entry["event"], entry["rule"], entry["study_uid"]) == (
        "coercion-failed", "long", read(content).StudyInstanceUID,
    )  # fmt: skip
    assert "AccessionNumber" in entry["reason"]
    assert "0123456789" not in str({**entry, "orthanc_id": "", "study_uid": "", "sop_uid": "", "series_uid": ""})


def test_what_can_not_be_listed_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.ruled({**PREFIX, "Prefix": {"AccessionNumber": "X"}})

    def full(*_: Any) -> Any:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Journal, "transaction", full)
    assert bench.send(ct9(AccessionNumber="0123456789ABCDEF")) is None
    assert bench.send(ct9()) is not None


def test_a_fault_of_ours_costs_a_line_and_no_image(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("Ana Teste")

    monkeypatch.setattr("zambezi.coercion.coercing.coerce", broken)
    content = ct9()
    assert bench.send(content) is content
    assert [one["reason"] for one in bench.entries] == ["carrying out the rule failed: RuntimeError"]


def test_what_nobody_can_read_goes_to_the_hold_as_ever(bench: Bench) -> None:
    odd = bytes(128) + b"DICM" + b"\x08\x00\x01\x00OB\0\0\xff\xff\x00\x00"
    assert bench.send(odd) is odd
    assert [(one["event"], one["why"]) for one in bench.entries] == [("held", "unreadable")]


def test_damaged_images_are_taken_as_they_came_or_coerced_and_nothing_else_happens(bench: Bench) -> None:
    bench.ruled({**PREFIX, "When": {}, "CharacterSet": "guess"}, {"Name": "other", **TAKE, "Remove": ["StudyID"]})
    whole, chance = ct9(PatientName="Conceição", SpecificCharacterSet="ISO_IR 100"), random.Random(29)
    coerced = 0
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(132, 700)] = chance.randrange(256)
        damaged = bytes(content[: chance.choice([len(content), chance.randrange(150, len(content))])])
        treated = bench.coercion.treat(damaged, True, NOW)
        assert treated.is_listed
        if treated.came:
            coerced += 1
            assert treated.read == header.read(treated.content)
        else:
            assert treated.content is damaged
    assert 50 < coerced < 350


def test_the_worklist_is_the_one_that_was_pushed_last(bench: Bench) -> None:
    bench.ruled({"Name": "order", **TAKE})
    study = "1.2.826.77"
    for generation, name in ((1, "Sitoe^José"), (2, "Tembo^Rui")):
        item = order(study, "A5", PatientName=name)
        entry = {"aets": ["CT1", "CT2"], "dicom": base64.b64encode(item).decode()}
        bench.worklist.put({"generation": generation, "entries": [entry]})
        made = bench.send(written(image(study=study)))
        assert made is not None
        assert read(made).PatientName == name


def test_the_coercing_port_s_mark_is_taken_away_and_its_sender_counts(bench: Bench) -> None:
    bench.ruled({"Name": "aet", "When": {"CallingAet": "CT2"}, "Set": {"InstitutionName": "Clinic"}})
    content = written(image())
    marked = wrapped(content)
    made, other = bench.send(marked, by_dicom=False), bench.send(wrapped(written(image()), "CT3"), by_dicom=False)
    assert made is not None
    assert other is not None
    assert read(made).InstitutionName == "Clinic"
    assert "InstitutionName" not in read(other)
    for one, aet in ((made, "CT2"), (other, "CT3")):
        meta = read(one).file_meta
        assert (meta.SourceApplicationEntityTitle, meta.ReceivingApplicationEntityTitle) == (aet, "ZAMBEZI")
        assert meta.SourcePresentationAddress == "192.0.2.7"
        assert not envelope.is_wrapped(one)
        assert "PrivateInformation" not in meta
        assert bench.send(one, by_dicom=False) is one, "it may come back: recovered, corrected, restored"
    assert read(made).PixelData == read(content).PixelData


def test_what_another_node_coerced_is_known_here(bench: Bench) -> None:
    content = ct9()
    made = bench.coercion.treat(content, True, NOW)
    one = header.read(made.content)
    assert made.came is not None
    facts = {
        "event": "stored", "journal": "other", "seq": 1, "at": "2026-03-01T08:00:00.000000Z", "cause": "modality",
        "orthanc_id": one.orthanc_id, "study_orthanc_id": "s", "series_orthanc_id": "r", "study_uid": one.study_uid,
        "series_uid": one.series_uid, "sop_uid": one.sop_uid, "change": {"index": "i", "seq": 1, "date": "d"},
        "sha256": None, "came_sha256": made.came.sha256,
    }  # fmt: skip
    with bench.journal.transaction() as transaction:
        Others(bench.journal).take(transaction, [facts], {"other": 1})
    assert bench.send(content) is not None
    assert bench.entries == []


def test_a_mark_that_comes_by_dicom_means_nothing(bench: Bench) -> None:
    bench.ruled({"Name": "aet", "When": {"CallingAet": "CT2"}, "Set": {"InstitutionName": "Clinic"}})
    marked = wrapped(written(image()))
    assert bench.send(marked) is marked
