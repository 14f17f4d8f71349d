"""Every place at which a writing process can die: at the n-th event before or after a commit, for every n."""

from __future__ import annotations

import uuid

import pytest
from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from demo.person import Person
from tests import invariants
from tests.running import crash_folder
from tests.senders import Sender, order_message, send_message, small_study
from zambezi.database.tables import Delivery, Order, Report

WRITERS = ("orthanc", "gateway", "ris")
#: No scenario has more commit events than this in one process; the test says so if one has.
MOST = 120


def test_a_death_at_any_commit_loses_nothing_and_doubles_nothing(hospital: Hospital):
    crash_dir = crash_folder(hospital)
    person = Person(hospital.environment.front_url)
    everything: dict[str, str] = {}
    reached = 0
    for n in range(1, MOST + 1):
        for writer in WRITERS:
            asked = crash_dir / writer
            asked.write_text(str(n))
            asked.chmod(0o666)
        everything |= scenario(hospital, person)
        untouched = [writer for writer in WRITERS if (crash_dir / writer).exists()]
        for writer in untouched:
            (crash_dir / writer).unlink(missing_ok=True)
        reached = n
        if len(untouched) == len(WRITERS):
            break
    else:
        pytest.fail(f"a process still reached its {MOST}th commit event: raise MOST")
    invariants.stored_once(hospital, everything)
    invariants.routed_once(hospital, everything)
    invariants.chains_hold(hospital)
    print(f"{reached} rounds, each writer dead at every one of its commit events")  # noqa: T201


def scenario(hospital: Hospital, person: Person) -> dict[str, str]:
    """An order, its images, their routes, a signed report: what must be there at its end, whoever died on the way."""
    name = uuid.uuid4().hex[:9].upper()
    ports = hospital.environment.ports
    message = order_message(name, f"C{name}", f"C{name}")
    assert send_message(ports.mllp, message) == "AA"
    with hospital.database().begin() as session:
        order = session.scalars(select(Order).where(Order.accession_number == f"C{name}")).one()
    sender = Sender(ports.dicom)
    sender.send(small_study(f"C{name}", 3, order.study_uid))
    person.insist(lambda: person.sign_in("radiologista", PASSWORD))
    person.insist(lambda: person.report(order.study_uid, findings="Sem alterações.", impression="Normal."))

    def unfinished() -> str:
        with hospital.database().begin() as session:
            reports = session.scalars(select(Report).where(Report.study_uid == order.study_uid)).all()
            rows = session.scalars(select(Delivery).where(Delivery.study_uid == order.study_uid)).all()
        if [report.state for report in reports] != ["final"] or not reports[0].stored_at:
            return f"reports: {[(report.state, report.stored_at) for report in reports]}"
        kinds = sorted((row.kind, row.rule) for row in rows)
        wanted = [("dicom", "ct-to-the-other-archives")] * 2 + [("hl7", "images-are-there"), ("hl7", "report-is-final")]
        if not set(wanted) <= set(kinds) or any(row.state != "delivered" for row in rows):
            return f"deliveries: {[(row.rule, row.destination, row.state) for row in rows]}"
        assert kinds.count(("hl7", "report-is-final")) == 1, "the report went out twice"
        return ""

    invariants.eventually(f"scenario {name}", unfinished)
    invariants.orders_once(hospital, [f"C{name}"])
    return sender.succeeded
