import pytest

from tests.unit.hl7.messages import ADT, ORM
from zambezi.hl7.ack import Trouble, acknowledge, answer
from zambezi.hl7.read import read
from zambezi.retries import of_ack


def test_an_acknowledgement_goes_back_where_the_message_came_from(now):
    got = read(acknowledge(read(ADT.replace("|HCM|ZAMBEZI|HCM|", "|HCM|ZAMBEZI|Z|").encode()), now, "A1", "AA"))
    assert [got.get(f"MSH-{n}") for n in (3, 4, 5, 6)] == ["ZAMBEZI", "Z", "HIS", "HCM"]
    assert (got.get("MSA-1"), got.get("MSA-2"), got.control_id) == ("AA", "CTL1", "A1")
    assert [got.get(f"MSH-9.{n}") for n in (1, 2, 3)] == ["ACK", "A04", "ACK"]
    assert (got.get("MSH-12"), got.get("MSH-18")) == ("2.5.1", "UNICODE UTF-8")


def test_the_reason_stands_in_err_from_version_2_5_on(now):
    trouble = Trouble("101", "the patient has no name | in PID-5", "PID^1^5")
    got = read(acknowledge(read(ADT.encode()), now, "A1", "AE", trouble))
    assert (got.get("ERR-2.1"), got.get("ERR-2.3"), got.get("ERR-3.1"), got.get("ERR-4")) == ("PID", "5", "101", "E")
    assert got.get("ERR-8") == "the patient has no name | in PID-5"
    assert answer(got).text.startswith("the patient has no name")


@pytest.mark.parametrize("version", ["2.3", "2.3.1", "2.4"])
def test_the_reason_stands_in_msa_before_that(now, version):
    got = read(
        acknowledge(read(ADT.replace("2.5.1", version).encode()), now, "A1", "AR", Trouble("201", "no A99 here"))
    )
    assert got.get("MSA-3") == "no A99 here"
    assert not got.has("ERR")
    assert answer(got).text == "no A99 here"


def test_the_answer_has_the_senders_character_set(now):
    raw = ADT.replace("UNICODE UTF-8", "8859/1").replace("|HIS|", "|São|").encode("latin-1")
    sent = acknowledge(read(raw), now, "A1", "AA")
    assert "|São|".encode("latin-1") in sent


@pytest.mark.parametrize("code", ["AA", "CA"])
def test_accepted_is_what_says_so(now, code):
    assert of_ack(answer(read(f"MSH|^~\\&|H\rMSA|{code}|X1\r".encode())).code) is None


@pytest.mark.parametrize("code", ["AE", "AR", "CE", "", "XX"])
def test_everything_else_is_not(now, code):
    assert of_ack(answer(read(f"MSH|^~\\&|H\rMSA|{code}|X1\r".encode())).code) is not None


def test_an_answer_without_msa_accepts_nothing():
    assert of_ack(answer(read(ORM.encode())).code) is not None
