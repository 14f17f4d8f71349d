"""Two people, the wait, legal holds: what must be true of every deletion, whatever is done in whatever order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import select
from sqlalchemy.orm import Session

from zambezi import clock, deletions, exceptions
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import (
    AuditEntry,
    Base,
    Deletion,
    DeletionItem,
    ExceptionItem,
    LegalHold,
    Order,
    Patient,
    Series,
    Study,
)
from zambezi.deletions import Refused

NOW = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)
STUDY, ORTHANC = "1.2.3", "s" * 44
WAIT = timedelta(hours=72)


def database(url: str = "sqlite://") -> Sessions:
    engine = connect(url, "test")
    Base.metadata.create_all(engine)
    made = sessions(engine, "test")
    with made.begin() as session:
        at = clock.text(NOW)
        old = Patient(patient_id="OLD", issuer="H", family_name="A", created_at=at, updated_at=at)
        kept = Patient(patient_id="P1", issuer="H", family_name="A", created_at=at, updated_at=at)
        session.add_all([old, kept])
        session.flush()
        old.merged_into = kept.id
        session.add(
            Study(study_uid=STUDY, orthanc_id=ORTHANC, cause="modality", patient_id="P1", instances=2, first_at=at,
                  last_at=at)
        )  # fmt: skip
        session.add(Series(series_uid="1.2.3.1", orthanc_id="x", study_uid=STUDY, instances=2))
    return made


@pytest.fixture
def made(tables_url: str) -> Iterator[Sessions]:
    found = database(tables_url)
    yield found
    found.kw["bind"].dispose()


@pytest.fixture
def session(made: Sessions) -> Iterator[Session]:
    with made.begin() as opened:
        yield opened


def ask(session: Session, who: str = "ana", **what: str | None) -> Deletion:
    given = {"study_uid": STUDY, "study_orthanc_id": ORTHANC, "code": "quality", "reason": "movement", **what}
    return deletions.ask(session, who=who, now=NOW, writer="ris", **given)  # type: ignore[arg-type]


def confirm(session: Session, deletion: Deletion, who: str = "rui", now: datetime = NOW) -> Deletion:
    return deletions.confirm(session, deletion, who, now, "ris", WAIT)


@contextmanager
def refused(why: str) -> Iterator[None]:
    with pytest.raises(Refused) as found:
        yield
    assert found.value.why == why


def told(session: Session, event: str = "deletion-changed") -> list[dict[str, object]]:
    query = select(AuditEntry.payload).where(AuditEntry.event == event).order_by(AuditEntry.seq)
    return [json.loads(one) for one in session.scalars(query)]


def test_a_second_person_confirms_and_the_wait_begins_then(session: Session):
    deletion = confirm(session, ask(session))
    assert (deletion.state, deletion.not_before) == ("confirmed", clock.text(NOW + WAIT))
    assert deletion.next_at == deletion.not_before
    assert [(one["state"], one["who"]) for one in told(session)] == [("asked", "ana"), ("confirmed", "rui")]


@pytest.mark.parametrize("same", ["ana", "Ana", " ana ", "console:ana"])
def test_nobody_confirms_what_they_asked_for(session: Session, same: str):
    deletion = ask(session)
    with refused("same-person"):
        confirm(session, deletion, same)
    assert deletion.state == "asked"


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"code": "ugly"}, "code"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 1001}, "reason"),
        ({"study_uid": "9.9"}, "unknown-study"),
        ({"study_orthanc_id": "t" * 44}, "unknown-study"),
        ({"series_uid": "1.2.3.9"}, "unknown-series"),
        ({"sop_uid": "1.2.3.1.1"}, "unknown-series"),
    ],
)
def test_what_can_not_be_asked_for(session: Session, what: dict[str, str], why: str):
    with refused(why):
        ask(session, **what)
    assert told(session) == []


def test_the_same_images_are_asked_for_once(session: Session):
    first = ask(session, series_uid="1.2.3.1")
    with refused("asked-already"):
        ask(session)
    deletions.withdraw(session, first, "eva", NOW, "ris")
    second = ask(session)
    with refused("asked-already"):
        ask(session, series_uid="1.2.3.1", sop_uid="1.2.3.1.1")
    assert second.state == "asked"


@pytest.mark.parametrize("state", ["asked", "confirmed", "due", "retrying", "parked"])
def test_withdrawn_until_the_first_image_is_deleted(session: Session, state: str):
    deletion = ask(session)
    deletion.state, fence = state, deletion.fence
    assert deletions.withdraw(session, deletion, "eva", NOW, "ris", "a mistake").state == "withdrawn"
    assert deletion.fence == fence + 1, "who works on it is fenced off"
    with refused("state"):
        confirm(session, deletion)


@pytest.mark.parametrize("state", ["deleting", "done", "restoring", "restored", "withdrawn"])
def test_not_withdrawn_once_deleting_has_begun(session: Session, state: str):
    deletion = ask(session)
    deletion.state = state
    with refused("state"):
        deletions.withdraw(session, deletion, "eva", NOW, "ris")


def test_not_withdrawn_when_it_stopped_half_way_but_restored(session: Session):
    deletion = confirm(session, ask(session))
    deletion.state = "parked"
    session.add(DeletionItem(deletion_id=deletion.id, orthanc_id="i", sop_uid="1", series_uid="2", state="deleted"))
    session.flush()
    with refused("state"):
        deletions.withdraw(session, deletion, "eva", NOW, "ris")
    with refused("reason"):
        deletions.restore(session, deletion, "eva", " ", NOW, "ris")
    assert deletions.restore(session, deletion, "eva", "a mistake", NOW, "ris").state == "restoring"


def test_nothing_is_restored_that_did_not_go(session: Session):
    deletion = confirm(session, ask(session))
    with refused("state"):
        deletions.restore(session, deletion, "eva", "please", NOW, "ris")
    deletion.state = "parked"
    with refused("state"):
        deletions.restore(session, deletion, "eva", "please", NOW, "ris")


@pytest.mark.parametrize("about", [{"study_uid": STUDY}, {"patient_id": "P1"}, {"patient_id": "OLD"}])
def test_a_legal_hold_forbids_and_stops(session: Session, about: dict[str, str]):
    deletion = confirm(session, ask(session))
    fence = deletion.fence
    hold = deletions.set_legal_hold(session, reason="court", who="eva", now=NOW, writer="ris", **about)
    assert (deletion.state, deletion.confirmed_by, deletion.not_before) == ("asked", None, None)
    assert deletion.fence > fence
    assert "legal hold" in deletions.forbidden(session, STUDY, "")
    with refused("legal-hold"):
        confirm(session, deletion)
    deletions.withdraw(session, deletion, "ana", NOW, "ris")
    with refused("legal-hold"):
        ask(session)
    with refused("reason"):
        deletions.lift_legal_hold(session, hold, "", "eva", NOW, "ris")
    deletions.lift_legal_hold(session, hold, "over", "eva", NOW, "ris")
    assert deletions.forbidden(session, STUDY, "P1") == ""
    with refused("lifted"):
        deletions.lift_legal_hold(session, hold, "again", "eva", NOW, "ris")
    assert confirm(session, ask(session)).state == "confirmed"
    assert [one["change"] for one in told(session, "legal-hold-changed")] == ["set", "lifted"]


def test_a_legal_hold_of_the_order_s_patient_holds_for_images_with_another_number(session: Session):
    at = clock.text(NOW)
    patient = Patient(patient_id="P2", issuer="H", family_name="B", created_at=at, updated_at=at)
    order = Order(
        patient=patient, accession_number="A1", study_uid="1.2.9", procedure_id="1", step_id="1", scheduled_at=at,
        created_at=at, updated_at=at,
    )  # fmt: skip
    session.add_all([patient, order])
    session.flush()
    session.get_one(Study, (STUDY, ORTHANC)).order_id = order.id
    deletions.set_legal_hold(session, patient_id="P2", reason="court", who="eva", now=NOW, writer="ris")
    assert deletions.forbidden(session, STUDY, "")
    assert deletions.forbidden(session, None, "P2")
    assert not deletions.forbidden(session, "1.2.77", "P3")
    assert not deletions.forbidden(session, None, "")


@pytest.mark.parametrize("about", [{}, {"study_uid": STUDY, "patient_id": "P1"}, {"study_uid": "1" * 65}])
def test_a_legal_hold_is_on_one_study_or_one_patient(session: Session, about: dict[str, str]):
    with refused("about"):
        deletions.set_legal_hold(session, reason="court", who="eva", now=NOW, writer="ris", **about)


def test_a_legal_hold_between_two_images_waits_for_a_person(session: Session):
    deletion = confirm(session, ask(session))
    deletion.state = "deleting"
    session.add(DeletionItem(deletion_id=deletion.id, orthanc_id="i", sop_uid="1", series_uid="2", state="deleted"))
    session.flush()
    hold = deletions.set_legal_hold(session, study_uid=STUDY, reason="court", who="eva", now=NOW, writer="ris")
    assert (deletion.state, deletion.confirmed_by) == ("parked", None)
    item = session.scalars(select(ExceptionItem)).one()
    assert (item.room, item.kind, item.decided_at) == ("deletion", "deletion-stopped", None)
    deletions.lift_legal_hold(session, hold, "over", "eva", NOW, "ris")
    with refused("unconfirmed"):
        deletions.again(session, deletion, "rui", NOW, "ris")
    with refused("same-person"):
        confirm(session, deletion, "ana")
    assert confirm(session, deletion).state == "confirmed"
    session.refresh(item)
    assert item.decided_by == "rui"


def test_a_deletion_that_has_stopped_is_tried_again(session: Session):
    deletion = confirm(session, ask(session))
    with refused("state"):
        deletions.again(session, deletion, "rui", NOW, "ris")
    deletion.state = "parked"
    exceptions.wait(session, "deletion", f"deletion {deletion.id}", what="w", suggestion="s", now=NOW)
    assert deletions.again(session, deletion, "rui", NOW, "ris").state == "retrying"
    assert session.scalars(select(ExceptionItem.decision)).one() == "try again"


def test_the_archive_s_word_that_an_ordered_image_is_gone_counts_once(session: Session):
    deletion = confirm(session, ask(session))
    for name, state in {"a": "deleted", "b": "held", "c": "planned"}.items():
        session.add(DeletionItem(deletion_id=deletion.id, orthanc_id=name, sop_uid=name, series_uid="2", state=state))
    session.flush()
    named = {"a", "b", "c", "x"}
    assert deletions.ordered(session, named, NOW) == {"a"}, "a copy alone orders nothing"
    deletion.state = "deleting"
    session.flush()
    assert deletions.ordered(session, named, NOW) == {"a", "b"}, "what a power cut undid is deleted twice"
    deletion.state, deletion.done_at = "done", clock.text(NOW)
    session.flush()
    assert deletions.ordered(session, named, NOW + timedelta(seconds=30)) == {"a", "b"}
    assert deletions.ordered(session, named, NOW + timedelta(minutes=2)) == set()


class Decisions(RuleBasedStateMachine):
    """People, time and custody in any order, over real rows; what happened is kept beside, and compared."""

    people = st.sampled_from(["ana", "console:ana", "rui", "eva"])

    def __init__(self) -> None:
        super().__init__()
        self.sessions = database()
        self.now = NOW
        self.asked_by = ""
        self.confirmed: tuple[str, datetime] | None = None
        self.holds: set[int] = set()
        self.begun: list[str] = []
        self.number = 0

    def teardown(self) -> None:
        self.sessions.kw["bind"].dispose()

    def attempt(self, act: Callable[[Session, Deletion], object]) -> bool:
        try:
            with self.sessions.begin() as session:
                act(session, session.get_one(Deletion, self.number))
        except Refused:
            return False
        return True

    @precondition(lambda self: not self.number)
    @rule(who=people)
    def ask(self, who: str) -> None:
        try:
            with self.sessions.begin() as session:
                self.number = ask(session, who).id
        except Refused:
            assert self.holds
            return
        assert not self.holds
        self.asked_by = who

    @precondition(lambda self: self.number)
    @rule(who=people)
    def confirm(self, who: str) -> None:
        if self.attempt(lambda session, one: deletions.confirm(session, one, who, self.now, "ris", WAIT)):
            self.confirmed = (who, self.now)

    @precondition(lambda self: self.number)
    @rule(who=people)
    def withdraw(self, who: str) -> None:
        if self.attempt(lambda session, one: deletions.withdraw(session, one, who, self.now, "ris")):
            self.number, self.confirmed = 0, None

    @precondition(lambda self: self.number)
    @rule(who=people)
    def again(self, who: str) -> None:
        self.attempt(lambda session, one: deletions.again(session, one, who, self.now, "ris"))

    @rule(hours=st.integers(1, 80))
    def time_passes(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(who=people, patient=st.booleans())
    def legal_hold(self, who: str, patient: bool) -> None:
        about = {"patient_id": "P1"} if patient else {"study_uid": STUDY}
        with self.sessions.begin() as session:
            made = deletions.set_legal_hold(session, reason="court", who=who, now=self.now, writer="ris", **about)
        self.holds.add(made.id)
        self.confirmed = None

    @precondition(lambda self: self.holds)
    @rule(who=people)
    def lift(self, who: str) -> None:
        with self.sessions.begin() as session:
            deletions.lift_legal_hold(
                session, session.get_one(LegalHold, self.holds.pop()), "over", who, self.now, "ris"
            )

    @precondition(lambda self: self.number)
    @rule(fails=st.sampled_from(["", "retrying", "parked"]))
    def custody_comes_by(self, fails: str) -> None:
        """As operations.custody.deleting does: claim what is due, ask once more, begin, or fail."""
        with self.sessions.begin() as session:
            one = deletions.locked(session, self.number)
            if one.state not in ("confirmed", "retrying") or one.next_at > clock.text(self.now):
                return
            one.state = "due"
            hold = deletions.hold_on(session, one)
            why = deletions.refusal_of_beginning(
                one.state, one.asked_by, one.confirmed_by, one.not_before, self.now, hold
            )
            if why or fails:
                one.state = fails or "parked"
                return
            one.state = "deleting"
            assert self.confirmed is not None, "begun without a second person"
            second, at = self.confirmed
            assert deletions.person(second) != deletions.person(self.asked_by)
            assert self.now >= at + WAIT
            assert not self.holds
            session.add(DeletionItem(deletion_id=one.id, orthanc_id="i", sop_uid="1", series_uid="2", state="deleted"))
            one.state = "done"
        self.number, self.confirmed = 0, None

    @invariant()
    def what_is_confirmed_is_confirmed_by_two_and_free(self) -> None:
        with self.sessions.begin() as session:
            for one in session.scalars(select(Deletion).where(Deletion.state.in_(("confirmed", "due", "retrying")))):
                assert not self.holds
                assert self.confirmed
                assert deletions.person(one.confirmed_by or "") != deletions.person(one.asked_by)


Decisions.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestDecisions = Decisions.TestCase
