"""A small hospital in a database of its own: people of every role, orders, studies, a report, deliveries."""

from __future__ import annotations

import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from flask import Flask
from flask.testing import FlaskClient

from ris_service import commands
from ris_service.app import create_app
from zambezi import audit, clock, exceptions, keys, orders, outbox, reports, users
from zambezi.access.tokens import COOKIE, Token, begin, sign
from zambezi.config.settings import Zambezi
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.database.tables import Base, Order, Series, Study
from zambezi.environment import Environment
from zambezi.keys import Keys
from zambezi.retries import ErrorClass, Policy

#: Our own page sets; migration and operations bring theirs with their own tests.
OURS = tuple(
    f"ris_service.{name}_pages:pages"
    for name in (
        "session",
        "worklist",
        "study",
        "report",
        "old_report",
        "delivery",
        "exception",
        "exception_rule",
        "audit",
        "user",
        "scope",
        "share",
        "emergency",
    )
)
PASSWORD = "quatro palavras bem longas"
NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
HTML = {"Accept": "text/html"}
CHEST, KNEE, OLD, FOREIGN = "1.2.3.1", "1.2.3.2", "1.2.3.3", "1.2.3.4"


@dataclass
class Clock:
    """A clock that tests move."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        return self.at

    def pass_by(self, **how: float) -> None:
        self.at += timedelta(**how)


@dataclass
class Hospital:
    environment: Environment
    settings: Zambezi
    sessions: Sessions
    keys: Keys
    clock: Clock
    app: Flask
    order_ids: dict[str, int] = field(default_factory=dict)

    def client(self) -> FlaskClient:
        return self.app.test_client()

    def token(self, role: str, *studies: str, kind: str = "session", lasts_s: int = 1800, login: str = "") -> Token:
        return begin(login or role, kind, role, int(self.clock().timestamp()), lasts_s, studies)

    def carrying(self, token: Token) -> FlaskClient:
        client = self.client()
        client.set_cookie(COOKIE, sign(token, self.keys.session_key))
        return client

    def signed_in(self, role: str, login: str = "") -> FlaskClient:
        """A browser in which the person of this role (whose login is the role) has signed in."""
        return self.carrying(self.token(role, login=login))


def hospital(home: Path, settings: Zambezi | None = None, moving: Clock | None = None, url: str = "") -> Hospital:
    """An empty hospital with its application, in a database of its own; `url` is for one in PostgreSQL."""
    settings = settings or Zambezi()
    environment = Environment.read({"ZAMBEZI_HOME": str(home), "ZAMBEZI_DATABASE_URL": url})
    home.mkdir(parents=True, exist_ok=True)
    engine = connect(environment.database_url, "ris")
    Base.metadata.create_all(engine)
    made, kept, moving = sessions(engine, "ris"), keys.load_or_create(environment.keys_file), moving or Clock()
    app = create_app(environment, settings, made, kept, moving, OURS)
    return Hospital(environment, settings, made, kept, moving, app)


def seeded(home: Path, settings: Zambezi | None = None, moving: Clock | None = None, url: str = "") -> Hospital:
    """A hospital in the middle of its day."""
    made = hospital(home, settings, moving, url)
    with made.sessions.begin() as session:
        _people(session, made)
        _work(session, made)
    return made


def copied(home: Path, original: Hospital, url: str = "") -> Hospital:
    """Another hospital, with all that the original holds; `url` is that of a copy which PostgreSQL has made."""
    home.mkdir(parents=True)
    if not url:
        with (
            closing(sqlite3.connect(original.environment.home / "zambezi.db")) as source,
            closing(sqlite3.connect(home / "zambezi.db")) as target,
        ):
            source.backup(target)
    shutil.copy(original.environment.keys_file, home)
    made = hospital(home, url=url)
    made.order_ids = dict(original.order_ids)
    return made


def csrf(page: str) -> str:
    """The form's word against forgery, as a page carries it."""
    found = re.search(r'name="csrf-token" content="([^"]+)"', page)
    assert found, page[:400]
    return found.group(1)


def _people(session, made: Hospital) -> None:
    names = {
        "administrator": "Marta Nhantumbo", "radiologist": "Dr.ª Amélia Conceição", "radiographer": "Tendai Moyo",
        "reception": "João Macuácua", "referrer": "Dr. Elias Tembe", "migration-engineer": "Rudo Chikafu",
        "pacs-administrator": "Nelson Sithole",
    }  # fmt: skip
    hashed = users.hashed(PASSWORD)
    for role in commands.SIGN_IN_ROLES:
        user = users.add(session, role, names[role], role, PASSWORD, made.clock(), "ris", "console")
        user.password_hash, user.must_change_password = hashed, False
    second = users.add(session, "second", "Dr. Farai Ncube", "radiologist", PASSWORD, made.clock(), "ris", "console")
    second.password_hash, second.must_change_password = hashed, False


def _work(session, made: Hospital) -> None:
    now, site = made.clock(), made.settings.site
    rows = [
        # ID, family, given, born, sex, exam, modality, priority, minutes from now, states, study, referrer
        ("P1001", "Conceição", "José António", "19580412", "M", "TC tórax com contraste", "CT", "STAT", -40,
         ("arrived", "in-progress", "completed"), CHEST, "Dr. Elias Tembe"),
        ("P1002", "Machava", "Lurdes", "19910703", "F", "RX joelho direito", "DX", "ROUTINE", -90,
         ("arrived", "in-progress", "completed"), KNEE, "Dr.ª Ivone Sitoe"),
        ("P1003", "Chiweshe", "Tatenda", "20120119", "M", "RX tórax PA", "DX", "HIGH", -10, ("arrived",), "",
         "Sister Dube"),
        ("P1004", "Mutasa", "Rumbidzai", "19770930", "F", "US abdomen", "US", "ROUTINE", 15, (), "", "Dr. Gumbo"),
        ("P1005", "Guambe", "Celeste", "19660214", "F", "TC crânio", "CT", "ROUTINE", 45, (), "", "Dr. Elias Tembe"),
        ("P1006", "Nhaca", "Arlindo", "19490521", "M", "RX coluna lombar", "DX", "ROUTINE", 75, ("cancelled",), "", ""),
        ("P1007", "Sithole", "Nyasha", "19990808", "F", "MR lumbar spine", "MR", "ROUTINE", 24 * 60, (), "",
         "Dr. Gumbo"),
    ]  # fmt: skip
    for number, family, given, born, sex, exam, modality, priority, minutes, states, study, referrer in rows:
        patient = orders.register_patient(
            session, patient_id=number, issuer=site.issuer, family_name=family, given_name=given, birth_date=born,
            sex=sex, now=now, writer="ris",
        )  # fmt: skip
        wanted = orders.NewOrder(
            scheduled_at=now + timedelta(minutes=minutes), modality=modality, procedure_text=exam, priority=priority,
            referring_physician=referrer, study_uid=study, source="his" if minutes < 0 else "ris",
            clinical_information="Tosse há três semanas, febre. Tuberculose?" if study == CHEST else "",
        )  # fmt: skip
        order = orders.place_order(session, patient, wanted, now=now, site=site, writer="ris")
        for state in states:
            orders.set_status(session, order, state, now=now, writer="ris")
        made.order_ids[number] = order.id
        if study:
            _images(session, order, study, now, 120 if modality == "CT" else 2)
    session.add(
        Study(
            study_uid=OLD, orthanc_id="old", cause="migration", patient_id="P1001", birth_date="19580412", sex="M",
            patient_name="CONCEICAO^JOSE ANTONIO", study_date="20240110", description="RX torax", modalities="CR",
            instances=1, first_at=clock.text(now), last_at=clock.text(now - timedelta(days=3)),
            completed_at=clock.text(now),
        )
    )  # fmt: skip
    session.add(
        Study(
            study_uid=FOREIGN, orthanc_id="foreign", cause="modality", patient_id="X9", patient_name="DESCONHECIDO^12",
            study_date="20260302", description="", modalities="US", instances=14, first_at=clock.text(now),
            last_at=clock.text(now - timedelta(minutes=4)),
        )
    )  # fmt: skip
    _report(session, made, OLD, None, "Opacidade apical direita.", "Sequelas de tuberculose.")
    _report(session, made, KNEE, made.order_ids["P1002"], "Sem traços de fratura.", "Sem lesão óssea traumática.")
    for number, destination in enumerate(("ARQUIVO_CENTRAL", "HARARE", "MAPUTO")):
        outbox.add(
            session, id=f"{number:032}", kind="dicom", rule="copies", destination=destination, because="modality CT",
            now=now, writer="ris", study_uid=CHEST, instances=[["a", "b", str(n)] for n in range(120)],
        )  # fmt: skip
    held = outbox.claim(session, "dicom", now=now, owner="test", lease=timedelta(minutes=1), writer="ris")
    outbox.delivered(session, held[1], proof="found", outcome="120 images found", now=now, writer="ris")
    held = outbox.claim(session, "dicom", now=now, owner="test", lease=timedelta(minutes=1), writer="ris")
    outbox.failed(
        session, held[1], outcome="no association: connection refused", now=now, writer="ris",
        kind=ErrorClass.TRANSIENT, policy=Policy(timedelta(seconds=30), attempts=1), draw=0,
    )  # fmt: skip
    exceptions.wait(
        session, "mpps", "1.2.840.99", now=now, kind="mpps-no-order", study_uid=FOREIGN, facts={"source": "CT1"},
        what="CT1 began an exam that no order knows.", suggestion="Find the order that was meant.",
        actions=[{"label": "Open the study", "href": f"/studies/{FOREIGN}"}],
    )  # fmt: skip
    audit.append(session, "ris", "incident", now, reason="seeded")


def _images(session, order: Order, uid: str, now: datetime, images: int) -> None:
    name = f"{order.patient.family_name}^{order.patient.given_name}"
    session.add(
        Study(
            study_uid=uid, orthanc_id=f"orthanc-{uid}", order_id=order.id, cause="modality", sex=order.patient.sex,
            patient_id=order.patient.patient_id, patient_name=name, birth_date=order.patient.birth_date,
            accession_number=order.accession_number, study_date="20260302", study_time="100500",
            description=order.procedure_text, modalities=order.modality, instances=images,
            first_at=clock.text(now - timedelta(minutes=30)), last_at=clock.text(now - timedelta(minutes=20)),
            completed_at=clock.text(now - timedelta(minutes=19)),
        )
    )  # fmt: skip
    for number in (1, 2):
        session.add(
            Series(
                series_uid=f"{uid}.{number}", orthanc_id=f"series-{uid}-{number}", study_uid=uid,
                modality=order.modality, instances=images // 2,
            )
        )  # fmt: skip


def _report(session, made: Hospital, uid: str, order_id: int | None, findings: str, impression: str) -> None:
    now = made.clock()
    draft = reports.begin(session, uid, order_id, author="radiologist", language="pt", now=now, writer="ris")
    text = reports.Text("Incidência frontal.", findings, impression)
    reports.save(session, uid, 1, draft.edits, text, who="radiologist", now=now, writer="ris")
    reports.sign(
        session, uid, 1, 1, who="radiologist", name="Dr.ª Amélia Conceição", now=now, settings=made.settings,
        make_pdf=lambda _report: b"%PDF-1.4 seeded", writer="ris",
    )  # fmt: skip
