"""Every place at which a writing process can die: at the n-th event before or after a commit, for every n."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import pytest
from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from demo.person import Person
from tests import invariants
from tests.killing import told
from tests.running import crash_folder
from tests.senders import Sender, order_message, send_message, small_study
from zambezi import clock
from zambezi.database.tables import AuditEntry, Delivery, Order, Report

pytestmark = pytest.mark.timeout(1500)

WRITERS = ("orthanc", "gateway", "ris")
#: No scenario has more commit events than this in one process; the test says so if one has.
MOST = 120
#: So many rounds in a row in which nobody came to its n-th event are the end: signs of life are commits, too.
QUIET_ROUNDS = 2


def test_a_death_at_any_commit_loses_nothing_and_doubles_nothing(hospital: Hospital, say: Callable[[str], None]):
    begun, since = time.monotonic(), clock.text(clock.now())
    person = Person(hospital.environment.front_url)
    everything: dict[str, str] = {}
    messages: list[bytes] = []
    deaths: list[str] = []
    quiet = 0
    for n in range(1, MOST + 1):
        with told([*deaths[-len(WRITERS) :], f"every writer was to die at event {n}"]):
            died = scenario_with_deaths(hospital, person, n, everything, messages)
        deaths += [f"{writer} at event {n}" for writer in died]
        quiet = 0 if died else quiet + 1
        if quiet == QUIET_ROUNDS:
            break
    else:
        pytest.fail(f"a process still reached its {MOST}th commit event: raise MOST")
    seen = invariants.hold(hospital, everything, messages, since, set(everything.values()))
    counted = {writer: sum(death.startswith(writer) for death in deaths) for writer in WRITERS}
    assert all(counted.values()), f"somebody never died: {counted}"
    say(f"deaths, each at another commit event: {counted}; {seen}; {time.monotonic() - begun:.0f} s")


def scenario_with_deaths(
    hospital: Hospital, person: Person, n: int, everything: dict[str, str], messages: list[bytes]
) -> list[str]:
    """Play the scenario while each writer dies at its n-th commit event, if it comes to it; who did."""
    asked = {writer: crash_folder(hospital) / writer for writer in WRITERS}
    for file in asked.values():
        file.write_text(str(n))
        file.chmod(0o666)
    scenario(hospital, person, everything, messages)
    died = [writer for writer, file in asked.items() if not file.exists()]
    for file in asked.values():
        file.unlink(missing_ok=True)
    return died


def scenario(hospital: Hospital, person: Person, everything: dict[str, str], messages: list[bytes]) -> None:
    """An order, its images, their routes, a view, a signed report: what must be there at its end, whoever died."""
    name = uuid.uuid4().hex[:9].upper()
    ports = hospital.environment.ports
    messages.append(order_message(name, f"C{name}", f"C{name}"))
    assert send_message(ports.mllp, messages[-1]) == "AA"
    with hospital.database().begin() as session:
        order = session.scalars(select(Order).where(Order.accession_number == f"C{name}")).one()
    sender = Sender(ports.dicom)
    sender.send(small_study(f"C{name}", 3, order.study_uid))
    everything.update(sender.succeeded)
    person.insist(lambda: person.sign_in("radiologista", PASSWORD))
    person.insist(lambda: person.open_study(order.study_uid))
    person.insist(lambda: person.report(order.study_uid, findings="Sem alterações.", impression="Normal."))

    def unfinished() -> str:
        with hospital.database().begin() as session:
            reports = session.scalars(select(Report).where(Report.study_uid == order.study_uid)).all()
            rows = session.scalars(select(Delivery).where(Delivery.study_uid == order.study_uid)).all()
            views = session.scalars(
                select(AuditEntry.who).where(AuditEntry.event == "viewed", AuditEntry.study_uid == order.study_uid)
            ).all()
        if [report.state for report in reports] != ["final"] or not reports[0].stored_at:
            return f"reports: {[(report.state, report.stored_at) for report in reports]}"
        if "radiologista" not in views:
            return f"the study was shown, and recorded are views by {views}"
        rules = {row.rule for row in rows}
        if not {"ct-to-the-other-archives", "images-are-there", "report-is-final"} <= rules:
            return f"deliveries of the rules {sorted(rules)} only"
        return "; ".join(f"{row.rule} to {row.destination} {row.state}" for row in rows if row.state != "delivered")

    invariants.eventually(f"scenario {name}", unfinished)
