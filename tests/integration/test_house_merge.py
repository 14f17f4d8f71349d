"""A merge in a whole hospital: the HIS says A40, and orders, pages, worklist and images follow by themselves."""

from __future__ import annotations

import uuid

from sqlalchemy import select

from demo.hospital import PASSWORD, Hospital
from tests import invariants
from tests.senders import Sender, order_message, send_message, small_study
from zambezi.database.tables import Correction, Order


def a40(control: str, survivor: str, prior: str) -> bytes:
    segments = [
        f"MSH|^~\\&|HIS|HCZ|ZAMBEZI|HCZ|20260101080000||ADT^A40^ADT_A39|{control}|P|2.5.1||||||UNICODE UTF-8",
        "EVN|A40|20260101080000",
        f"PID|1||{survivor}^^^HCZ^PI||Tembe^Graça||19800101|F",
        f"MRG|{prior}^^^HCZ^PI",
    ]
    return ("\r".join(segments) + "\r").encode()


def archived(hospital: Hospital, study_uid: str) -> list[tuple[str, str]]:
    """Under which patients the archive has the study, by ID and name."""
    found = hospital.orthanc().find("Study", {"StudyInstanceUID": study_uid}, expand=True)
    return [(one["PatientMainDicomTags"]["PatientID"], one["PatientMainDicomTags"]["PatientName"]) for one in found]


def test_a_merge_of_the_his_reaches_order_page_and_images_and_is_taken_back(hospital: Hospital):
    number = uuid.uuid4().hex[:8].upper()
    prior, survivor, port = f"T{number}", f"S{number}", hospital.environment.ports.mllp
    assert send_message(port, order_message(number, prior, f"M{number}")) == "AA"
    with hospital.database().begin() as session:
        order = session.scalars(select(Order).where(Order.accession_number == f"M{number}")).one()
    images = small_study(prior, 3, order.study_uid)
    Sender(hospital.environment.ports.dicom).send(images)
    said = hospital.zambezi  # the console's own words
    login = f"pacs{number.lower()}"
    said("user", "add", login, "--name", "Nelson", "--role", "pacs-administrator", "--password-stdin",
         said=PASSWORD + "\n")  # fmt: skip
    nelson = hospital.person(login)
    invariants.eventually(
        "the study is linked", lambda: f"/studies/{order.study_uid}" not in nelson.page(f"/orders/{order.id}")
    )
    assert send_message(port, a40(f"{number}A", survivor, prior)) == "AA"
    assert send_message(port, a40(f"{number}B", survivor, prior)) == "AA"
    page = nelson.page(f"/orders/{order.id}")
    assert "Tembe, Graça" in page
    assert prior in page
    assert "Tembe, Graça" in nelson.page(f"/?day=all&q={prior}")
    with hospital.database().begin() as session:
        (asked,) = [one for one in session.scalars(select(Correction)) if one.asked_by == "HIS"]

    invariants.eventually("the images are corrected", lambda: state_of(hospital, asked.id) != "done")
    assert archived(hospital, order.study_uid) == [(survivor, "Tembe^Graça")]
    assert "3 de 3" in nelson.page(f"/corrections/{asked.id}")
    invariants.eventually(
        "the pages have the corrected study alone", lambda: survivor not in nelson.page(f"/studies/{order.study_uid}")
    )
    assert 'role="alert"' not in nelson.page(f"/studies/{order.study_uid}")
    assert f"merged into {survivor}@HCZ by correction {asked.id}" in said("patient", "show", prior)
    nelson.submit(f"/corrections/{asked.id}", "undo", reason="são duas pessoas")
    invariants.eventually(
        "the images are back", lambda: archived(hospital, order.study_uid) != [(prior, "Teste^Envio")]
    )
    assert "Teste, Encomenda" in nelson.page(f"/orders/{order.id}")
    # It looks once more before it is done; under way, it would meet the kill rounds of this same hospital.
    invariants.eventually("the undo is done", lambda: undone(hospital) != "done")


def undone(hospital: Hospital) -> str:
    """The state of the last undo."""
    with hospital.database().begin() as session:
        last = select(Correction.state).where(Correction.kind == "undo").order_by(Correction.id.desc()).limit(1)
        return str(session.scalar(last))


def state_of(hospital: Hospital, number: int) -> str:
    with hospital.database().begin() as session:
        return session.get_one(Correction, number).state
