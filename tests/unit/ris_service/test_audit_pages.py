"""The audit pages: what is found and by whom, what leaves as a file, and that whoever looks stands in the trail."""

from __future__ import annotations

import csv
import io
import json
from datetime import timedelta
from xml.etree import ElementTree

import pytest
from sqlalchemy import select

from tests import audit_schema
from tests.unit.ris_service.seeding import CHEST, HTML, KNEE, OLD, Hospital
from zambezi import audit, audit_export
from zambezi.chain import Sealed
from zambezi.database.tables import AuditEntry, Study


@pytest.fixture
def looked(hospital: Hospital) -> Hospital:
    """Two people have looked at studies of P1001 and one at P1002's; somebody tried a wrong password, as a formula."""
    now = hospital.clock()
    with hospital.sessions.begin() as session:
        for who, study, days in (("radiologist", CHEST, 3), ("radiologist", OLD, 1), ("second", CHEST, 2),
                                 ("second", KNEE, 2)):  # fmt: skip
            audit.append(session, "orthanc-1", "viewed", now - timedelta(days=days), who=who, study_uid=study)
        audit.append(session, "ris", "report-read", now, who="radiologist", study_uid=CHEST, version=1)
        # It came as another patient's, and a correction has given it to P1001 since.
        audit.append(session, "orthanc-1", "study-began", now, study_uid=OLD, patient_id="P9", patient_name="ZZ^CANARY")
        audit.append(session, "ris", "sign-in-failed", now, who="=cmd|'/c calc'!A1", reason="no such account")
    return hospital


def text(hospital: Hospital, path: str, role: str = "administrator") -> str:
    answer = hospital.signed_in(role).get(path, headers=HTML)
    assert answer.status_code == 200, answer.text
    return answer.text


def used(hospital: Hospital) -> list[dict[str, object]]:
    with hospital.sessions() as session:
        rows = session.scalars(select(AuditEntry).where(AuditEntry.event == "audit-used").order_by(AuditEntry.seq))
        return [Sealed(row.journal, row.seq, row.hash, row.payload).facts for row in rows]


def test_who_has_seen_a_patient_is_told_with_all_studies_that_are_or_were_theirs(looked: Hospital):
    page = text(looked, "/audit/seen?patient=P1001")
    assert page.index("Dr.ª Amélia Conceição") < page.index("Dr. Farai Ncube"), "the last one first"
    rows = [row for row in page.split("<tr>") if "data-label" in row]
    assert ["3</td>" in rows[0], "2</td>" in rows[0], "1</td>" in rows[1]] == [True, True, True]
    assert "Dr.ª Amélia Conceição" in text(looked, "/audit/seen?patient=P9"), "whose it was when it came"
    with looked.sessions.begin() as session:
        session.get_one(Study, (CHEST, f"orthanc-{CHEST}")).patient_id = "P7"
    assert "Dr. Farai Ncube" not in text(looked, "/audit/seen?patient=P1001")
    assert "ninguém viu" in text(looked, "/audit/seen?patient=NOBODY")


def test_what_a_person_did_is_told_by_event_and_leads_to_the_entries(looked: Hospital):
    page = text(looked, "/audit/person?who=radiologist")
    assert "Dr.ª Amélia Conceição" in page and "estudo aberto" in page
    assert "/audit?who=radiologist&amp;event=viewed" in page
    today = looked.clock().date().isoformat()
    assert "estudo aberto" not in text(looked, f"/audit/person?who=radiologist&from={today}")
    assert "Nada consta" in text(looked, "/audit/person?who=nobody")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("event=viewed", 4), ("event=viewed&who=second", 2), (f"event=viewed&study={CHEST}", 2),
        ("patient=P1001&event=viewed", 3), ("event=viewed&from=2026-03-01", 1),
        ("event=viewed&from=2026-02-28&to=2026-02-28", 2), ("failed=1&event=sign-in-failed", 1),
        ("event=viewed&failed=1", 0), ("event=viewed&from=nonsense&page=-3", 4), ("event=viewed&page=1", 0),
    ],
)  # fmt: skip
def test_a_search_finds_what_fits(looked: Hospital, query: str, expected: int):
    page = text(looked, f"/audit?{query}")
    assert page.count('class="number soft"') == expected


def test_a_row_says_what_happened_in_words_and_names_no_patient(looked: Hospital):
    page = text(looked, "/audit?patient=P9")
    assert "primeira imagem de um estudo" in page and "CANARY" not in page
    assert '<span class="soft">n.º do paciente</span> P9' in page
    with looked.sessions.begin() as session:
        why = "no connection with PACS: the archive no longer has it"
        audit.append(session, "gateway", "delivery-changed", looked.clock(), delivery="d", state="retrying", reason=why)
    assert "sem ligação com PACS: o arquivo já não o tem" in text(looked, "/audit?event=delivery-changed")


def test_who_looks_is_recorded_before_anything_is_shown_and_once_in_ten_minutes(looked: Hospital):
    text(looked, "/audit?patient=P1001&event=viewed")
    text(looked, "/audit?patient=P1001&event=viewed&page=1")
    (first,) = used(looked)
    assert (first["who"], first["how"], first["search"], first["patient_id"]) == (
        "administrator", "search", {"patient": "P1001", "event": "viewed"}, "P1001",
    )  # fmt: skip
    text(looked, "/audit/seen?patient=P1001")
    looked.clock.pass_by(minutes=11)
    text(looked, "/audit?patient=P1001&event=viewed")
    assert [one["how"] for one in used(looked)] == ["search", "seen", "search"]
    for _ in range(2):
        looked.signed_in("administrator").get("/audit/export.csv?event=viewed")
    exports = used(looked)[3:]
    assert [(one["how"], one["format"], one["count"]) for one in exports] == [("export", "csv", 4)] * 2
    assert "consultada" in text(looked, "/audit?patient=P1001"), "who asked of a patient is found by the patient"


@pytest.mark.parametrize("path", ["/audit", "/audit/seen?patient=P1001", "/audit/person?who=x", "/audit/export.csv"])
def test_only_who_may_read_the_trail_does(looked: Hospital, path: str):
    for role in ("radiologist", "pacs-administrator", "reception", "referrer"):
        assert looked.signed_in(role).get(path, headers=HTML).status_code == 403
    assert used(looked) == []


def test_the_trail_leaves_as_csv_json_and_dicom_audit_messages(looked: Hospital):
    client = looked.signed_in("administrator")
    sheet = client.get("/audit/export.csv?event=sign-in-failed")
    assert 'filename="audit-20260302-083000.csv"' in sheet.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(sheet.text.removeprefix("\ufeff")))
    assert (row["who"], row["outcome"]) == ("'=cmd|'/c calc'!A1", "4"), "no spreadsheet carries it out"
    found = json.loads(client.get("/audit/export.json?patient=P9").text)
    assert {one["event"] for one in found} >= {"study-began", "viewed", "report-signed"}
    assert {one["study_uid"] for one in found} == {OLD, None}
    assert "CANARY" not in json.dumps(found)
    whole = ElementTree.fromstring(client.get("/audit/export.xml?event=viewed").text)  # noqa: S314  our own
    assert len(whole) == 4
    assert [audit_schema.faults(ElementTree.tostring(one)) for one in whole] == [[]] * 4
    assert json.loads(client.get("/audit/export.json?event=restored").text) == []
    assert client.get("/audit/export.exe").status_code == 404


def test_more_than_fits_into_a_file_is_refused_with_what_to_do(looked: Hospital, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(audit_export, "MOST", 3)
    answer = looked.signed_in("administrator").get("/audit/export.csv?event=viewed", headers=HTML)
    assert answer.status_code == 413
    assert "Reduza o período" in answer.text
    assert used(looked) == []
