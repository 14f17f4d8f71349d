"""What is asked of sources over HTTP, and what their answers are taken for; they misbehave as real ones do."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date

import pytest

from migration.asking import Asking
from migration.dicomweb_source import PAGE, DicomWebSource
from migration.orthanc_source import OrthancSource
from migration.source import Trouble
from migration.wire import NoAnswer, Server, Wire
from tests.misbehaving_web import Asked, Said, serving
from zambezi.retries import ErrorClass

TODAY = date(2026, 11, 22)


def as_json(content: object) -> Said:
    return Said(body=json.dumps(content).encode())


# --- lines and answers


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Said(401), ErrorClass.CONFIGURATION),
        (Said(302, headers={"Location": "https://elsewhere.example/"}), ErrorClass.CONFIGURATION),
        (Said(503), ErrorClass.TRANSIENT),
        (Said(429), ErrorClass.TRANSIENT),
        (Said(507), ErrorClass.TRANSIENT),  # its disk is not ours: nothing of ours waits for that
        (Said(500), ErrorClass.OBJECT),
        (Said(404), ErrorClass.OBJECT),
        (Said(body=b"x" * 1000, cut_after=400), ErrorClass.OBJECT),
        (Said(body=b"x" * 9, headers={"Content-Encoding": "gzip"}), ErrorClass.CONFIGURATION),
    ],
)
def test_what_helps_against_an_answer_is_told_apart(said: Said, kind: ErrorClass) -> None:
    with serving(lambda asked: said) as web, pytest.raises(Trouble) as trouble:
        Asking(Server(web.url), "/well").answer("GET", "/object", of_object=True)
    assert trouble.value.kind is kind
    assert "/object" in str(trouble.value)
    assert trouble.value.took_long is (said.status == 503), "busy with a tape"


@pytest.mark.parametrize(("is_well", "kind"), [(True, ErrorClass.OBJECT), (False, ErrorClass.TRANSIENT)])
def test_a_source_that_hangs_on_one_object_is_asked_whether_it_is_well(is_well: bool, kind: ErrorClass) -> None:
    def answer(asked: Asked) -> Said:
        return Said(200 if is_well else 503) if asked.path == "/well" else Said(silent=True)

    with serving(answer) as web, pytest.raises(Trouble) as trouble:
        Asking(Server(web.url), "/well", silence_s=0.2).answer("GET", "/object", of_object=True)
    assert trouble.value.kind is kind


def test_a_line_that_the_server_closed_meanwhile_is_opened_again() -> None:
    with serving(lambda asked: Said(body=b"yes", cut_after=3)) as web:
        wire = Wire(Server(web.url))
        assert [wire.ask("GET", "/").body for _ in range(3)] == [b"yes"] * 3
    with pytest.raises(NoAnswer):
        wire.ask("GET", "/")


def test_who_signs_in_does_so_at_once_and_asks_for_bytes_as_they_are() -> None:
    with serving(lambda asked: Said()) as web:
        Wire(Server(web.url + "/below", "reader", "sécret", {"X-Key": "k"})).ask("GET", "/path")
    (asked,) = web.asked
    assert asked.path == "/below/path"
    assert asked.headers["Authorization"] == "Basic cmVhZGVyOnPDqWNyZXQ="
    assert (asked.headers["X-Key"], asked.headers["Accept-Encoding"]) == ("k", "identity")


# --- DICOMweb


def study(number: int) -> dict[str, object]:
    def element(vr: str, value: object) -> dict[str, object]:
        return {"vr": vr, "Value": [value]}

    return {
        "0020000D": element("UI", f"1.2.{number}"), "00080020": element("DA", f"20{number % 20:02}0{1 + number % 9}11"),
        "00100020": element("LO", f"P{number:03}"), "00100010": element("PN", {"Alphabetic": "Doe^J"}),
    }  # fmt: skip


def qido(cap: int, knows_offset: bool | None, studies: int = 250) -> Callable[[Asked], Said]:
    """A server that gives at most `cap` answers at once; `knows_offset` None: it refuses to hear of one."""
    every = [study(number) for number in range(studies)]

    def answer(asked: Asked) -> Said:
        found = [one for one in every if matches(one, asked.query)]
        if knows_offset is None and "offset" in asked.query:
            return Said(400)
        offset = int(asked.query.get("offset", 0)) if knows_offset else 0
        page = found[offset : offset + min(int(asked.query["limit"]), cap)]
        return as_json(page) if page else Said(204)

    return answer


def matches(one: dict[str, object], query: dict[str, str]) -> bool:
    day = one["00080020"]["Value"][0]  # type: ignore[index]  # DICOM JSON
    patient = one["00100020"]["Value"][0]  # type: ignore[index]  # DICOM JSON
    first, _, last = query.get("StudyDate", "-99999999").partition("-")
    return first <= day <= last and patient.startswith(query.get("PatientID", "*").rstrip("*"))


@pytest.mark.parametrize(("cap", "knows_offset"), [(PAGE, True), (30, True), (PAGE, False), (9999, None)])
def test_no_way_of_cutting_answers_off_loses_a_study(cap: int, knows_offset: bool | None) -> None:
    with serving(qido(cap, knows_offset)) as web:
        found, coverage = DicomWebSource(Server(web.url), 2).find_studies(TODAY)
    assert len(found.uids) == coverage.studies == 250
    assert found.facts["1.2.7"]["PatientName"] == "Doe^J"
    # Without pages nobody can be sure, and the certificate says so.
    assert any("whatever the offset" in doubt for doubt in coverage.doubts) is not bool(knows_offset)


def test_short_pages_are_believed_of_who_fills_pages_on_that_level_alone() -> None:
    series = [{"0020000E": {"vr": "UI", "Value": [f"1.3.{number}"]}} for number in range(1100)]
    images = [{"00080018": {"vr": "UI", "Value": [f"1.4.{number}"]}} for number in range(40)]
    studies = qido(PAGE, True)

    def answer(asked: Asked) -> Said:
        if asked.path == "/studies":
            return studies(asked)
        every, cap = (series, 1000) if asked.path.endswith("/series") else (images, 30)
        offset = int(asked.query.get("offset", 0))
        return as_json(every[offset : offset + cap] if every is series or "1.3.7/" in asked.path else [])

    with serving(answer) as web:
        source = DicomWebSource(Server(web.url), 2)
        assert len(source.studies()) == 250
        before = len(web.asked)
        assert len(source.studies(PatientID="P00*")) == 10
        assert len(web.asked) == before + 1
        # It fills pages of studies and series, and gives no more than 30 images at once.
        assert len(source.count("1.2.7", times=1).instances) == 40


def test_a_question_that_is_too_broad_is_asked_in_smaller_parts() -> None:
    answers = qido(PAGE, True)

    def answer(asked: Asked) -> Said:
        return answers(asked) if "StudyDate" in asked.query or "PatientID" in asked.query else Said(413)

    with serving(answer) as web:
        found, _ = DicomWebSource(Server(web.url), 2).find_studies(TODAY)
    assert len(found.uids) == 250


def test_a_web_server_that_is_no_dicomweb_is_said_to_be_none() -> None:
    with serving(lambda asked: Said(body=b"<html>Welcome</html>")) as web:
        probe = DicomWebSource(Server(web.url), 2).probe()
    assert probe.abilities["QIDO-RS"][0] is False
    assert "something else than JSON" in probe.abilities["QIDO-RS"][1]


# --- Orthanc


class Shifting:
    """An Orthanc from whose list a study goes, and to which others come, while its pages are read."""

    def __init__(self) -> None:
        self.studies = {f"s{n:04}": f"1.2.{n}" for n in range(700)}

    def __call__(self, asked: Asked) -> Said:
        since, limit = int(asked.query.get("since", 0)), int(asked.query.get("limit", 1_000_000))
        if asked.path == "/statistics":
            return as_json({"CountStudies": len(self.studies)})
        if asked.path == "/patients":
            return as_json([{"ID": "p", "Studies": list(self.studies)}] if since == 0 else [])
        if asked.path.startswith("/studies/"):
            orthanc_id = asked.path.rpartition("/")[2]
            return as_json(self.content(orthanc_id)) if orthanc_id in self.studies else Said(404)
        ids = list(self.studies)[since : since + limit]
        if "limit" not in asked.query:
            return as_json(ids)
        page = [self.content(one) for one in ids]
        if since == 0:
            del self.studies["s0003"]  # what comes behind moves up: one of them is on no page
            self.studies["s9999"] = "1.2.9999"
        return as_json(page)

    def content(self, orthanc_id: str) -> dict[str, object]:
        return {
            "ID": orthanc_id, "PatientMainDicomTags": {"PatientID": "P"},
            "MainDicomTags": {"StudyInstanceUID": self.studies[orthanc_id], "StudyDate": "20260101"},
        }  # fmt: skip


def test_a_list_that_changes_while_it_is_read_loses_nothing() -> None:
    with serving(Shifting()) as web:
        found, coverage = OrthancSource(Server(web.url), 2).find_studies(TODAY)
    assert found.uids == {f"1.2.{n}" for n in range(700)} | {"1.2.9999"}
    assert coverage.doubts == ["1 studies were deleted at the source while it was read"]
    assert coverage.universal == 700


def test_a_source_that_lets_nobody_in_says_so_and_is_not_asked_on() -> None:
    with serving(lambda asked: Said(401, b"who are you?")) as web:
        probe = OrthancSource(Server(web.url), 2).probe()
        assert list(probe.abilities) == ["REST API"]
        assert "look at its user and password" in probe.abilities["REST API"][1]
        assert len(web.asked) == 1
