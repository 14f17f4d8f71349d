from contextlib import closing

import pytest
from sqlalchemy import select

from tests.unit.hl7.messages import ADT, ORM
from zambezi.config.settings import Hl7Peer, Site
from zambezi.database.engine import connect, sessions
from zambezi.database.tables import Correction, Order, Patient
from zambezi.hl7.apply import NotForUs, carry_out
from zambezi.hl7.merges import Identifier, merges
from zambezi.hl7.orders import CannotApply
from zambezi.hl7.read import read

SITE = Site(issuer="HCM")


def message(event, *segments):
    head = ADT.split("\r")[0].replace("ADT^A04^ADT_A01", f"ADT^{event}^ADT_A39")
    return "\r".join([head, f"EVN|{event}|20260301083000", *segments, ""])


def pid(number, name="Tembe^Ana"):
    return f"PID|1||{number}^^^HIS^MR||{name}||19800229|F"


A40 = message("A40", pid("P7"), "MRG|T12^^^HIS^MR")


@pytest.fixture
def tell(tables_url: str):
    """Carries a message out in a database of its own; gives the session."""
    engine = connect(tables_url, "gateway")
    with closing(sessions(engine, "gateway")()) as session:

        def told(text, now):
            peer = Hl7Peer(application="HIS")
            with session.begin_nested():
                carry_out(session, read(text.encode()), "his", peer, SITE, now=now, writer="gateway")
            return session

        yield told
    engine.dispose()


def patient(session, number):
    return session.scalars(select(Patient).where(Patient.patient_id == number)).one()


def trouble(raised):
    return raised.value.trouble.code, raised.value.trouble.location


def test_every_pair_is_read_with_a_note_between_and_its_best_identifiers():
    pairs = ["PID|1||99^^^NAT^NI~P7^^^HIS^MR||Tembe^Ana", "NTE|1||duas fichas", "MRG|T12", pid("P8"), "MRG|T13^^^HIS"]
    found = merges(read(message("A40", *pairs).encode()), "HCM")
    assert [(one.survivor, one.prior) for one in found] == [
        (Identifier("P7", "HIS"), Identifier("T12", "HCM")),
        (Identifier("P8", "HIS"), Identifier("T13", "HIS")),
    ]


@pytest.mark.parametrize("event", ["A40", "A34", "A36"])
def test_a_merge_moves_the_orders_and_asks_for_the_images(tell, now, event):
    tell(ADT.replace("4711", "T12"), now)
    tell(ORM.replace("4711", "T12"), now)
    session = tell(A40.replace("A40", event), now)
    assert patient(session, "T12").merged_into == patient(session, "P7").id
    (order,) = session.scalars(select(Order)).all()
    assert order.patient.patient_id == "P7"
    (asked,) = session.scalars(select(Correction)).all()
    assert (asked.kind, asked.asked_by) == ("merge", "his")
    assert asked.reason == f"his says so (ADT^{event}, message CTL1)"


def test_an_unknown_prior_leaves_a_row_that_leads_to_the_survivor(tell, now):
    session = tell(A40, now)
    tell(A40, now)
    assert patient(session, "T12").merged_into == patient(session, "P7").id
    assert len(session.scalars(select(Correction)).all()) == 1
    tell(ORM.replace("4711", "T12").replace("Conceição", "DESCONHECIDO"), now)
    (order,) = session.scalars(select(Order)).all()
    assert (order.patient.patient_id, order.patient.family_name) == ("P7", "Tembe")


def test_the_reverse_and_itself_are_refused_where_they_stand(tell, now):
    session = tell(A40, now)
    with pytest.raises(CannotApply, match="P7") as reverse:
        tell(message("A40", pid("T12"), "MRG|P7^^^HIS"), now)
    with pytest.raises(CannotApply) as itself:
        tell(message("A40", pid("P9"), "MRG|P8^^^HIS", pid("P9"), "MRG|P9^^^HIS"), now)
    with pytest.raises(CannotApply) as nobody:
        tell(message("A40", pid("P9"), ""), now)
    with pytest.raises(CannotApply) as nameless:
        tell(message("A40", pid("P10", ""), "MRG|P8^^^HIS"), now)
    assert trouble(reverse) == ("205", "MRG^1^1")
    assert trouble(itself) == ("205", "MRG^2^1")
    assert trouble(nobody) == ("101", "MRG^1^1")
    assert trouble(nameless) == ("101", "PID^1^5")
    assert {one.patient_id for one in session.scalars(select(Patient))} == {"P7", "T12"}


def test_a_survivor_without_a_name_in_the_message_keeps_the_one_it_has(tell, now):
    tell(ADT.replace("4711", "P7"), now)
    session = tell(message("A40", pid("P7", ""), "MRG|T12^^^HIS"), now)
    assert patient(session, "P7").family_name == "Conceição"


def test_a47_changes_the_identifier_once(tell, now):
    tell(ADT.replace("4711", "T12"), now)
    tell(ORM.replace("4711", "T12"), now)
    change = message("A47", pid("P7"), "MRG|T12^^^HIS^MR")
    session = tell(change, now)
    tell(change, now)
    (order,) = session.scalars(select(Order)).all()
    assert (order.patient.patient_id, order.patient.family_name) == ("P7", "Tembe")
    assert patient(session, "T12").merged_into == order.patient_key
    tell(ADT.replace("4711", "P8"), now)
    with pytest.raises(CannotApply, match="another patient's identifier") as taken:
        tell(message("A47", pid("P8"), "MRG|P7^^^HIS"), now)
    assert trouble(taken) == ("205", "MRG^1^1")


@pytest.mark.parametrize("event", ["A18", "A35", "A41", "A43", "A45", "A50"])
def test_other_ways_to_merge_are_rejected_with_those_there_are(tell, now, event):
    with pytest.raises(NotForUs, match="A40, A34, A36 to merge patients and A47 to change an identifier") as refused:
        tell(A40.replace("A40", event), now)
    assert refused.value.trouble.code == "201"
