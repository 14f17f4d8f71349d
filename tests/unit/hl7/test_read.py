import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.hl7.messages import ADT, ORM, TWO_ORDERS
from zambezi.hl7.build import escape
from zambezi.hl7.read import Unreadable, read

NAME = "PID-5.1"


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\r", "\r\n\r\n"])
def test_any_line_ends_are_read(end):
    reading = read(ORM.replace("\r", end).encode())
    assert [str(segment[0]) for segment in reading.segments] == ["MSH", "PID", "PV1", "ORC", "OBR", "NTE", "ZDS"]
    assert reading.get("ZDS-1.1") == "1.2.840.1.7"


@pytest.mark.parametrize("junk", [b"\xef\xbb\xbf", b"\r\n\r\n", b"\x0b", b"HELO ", b"\x00\x00"])
def test_what_stands_before_msh_is_passed_over(junk):
    assert read(junk + ADT.encode()).get(NAME) == "Conceição"


def test_a_message_that_ends_without_a_segment_end_or_with_block_ends_is_read():
    assert read(ADT.rstrip("\r").encode()).get(NAME) == "Conceição"
    assert read(ADT.encode() + b"\x1c\r").get("PV1-2") == "O"


@pytest.mark.parametrize(
    "raw", [b"", b"hello", b"PID|1||x", b"MSH", b"MSH|", b"MSH\rPID|1", b"MSH||||", b"MSH|^^~&|HIS", b"MSHA^~B&AHIS"]
)
def test_what_is_no_message_is_said_to_be_none_without_quoting_it(raw):
    with pytest.raises(Unreadable, match=r"^(there is no MSH|its )[^|]*$"):
        read(raw)


def test_what_is_missing_is_empty():
    reading = read(ADT.encode())
    for path in ("ZDS-1.1", "PID-99", "PID-3[9].1", "PID-3.9", "PID-3.1.9", "OBR-18"):
        assert reading.get(path) == ""


def test_repetitions_components_and_sub_components_are_counted_from_one():
    reading = read(ADT.replace("^^^BI^NI", "^^^BI&2.999&ISO^NI").encode())
    assert reading.get("PID-3") == "4711"
    assert reading.get("PID-3[2].1") == "110100123456A"
    assert (reading.get("PID-3[2].4.1"), reading.get("PID-3[2].4.2")) == ("BI", "2.999")
    assert reading.get("PID-3[1].4.1") == "HIS"
    assert (reading.get("MSH-2"), reading.get("MSH-9.2")) == ("^~\\&", "A04")
    assert reading.repetitions("PID-3") == 2


def test_a_path_that_is_none_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="no HL7 path"):
        read(ADT.encode()).get("PID.3")


def test_other_delimiters_are_the_senders_right():
    raw = ORM.replace("^", "@").replace("|", "*").replace("MSH*@~", "MSH*@~")
    assert read(raw.encode()).get("PV1-8.2") == "Macuácua"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"a\F\b\S\c\T\d\R\e\E\f", "a|b^c&d~e\\f"),
        (r"a\.br\b", "a\nb"),
        (r"\H\bold\N\ ", "bold "),
        (r"\X48C3A3\ ", "Hã "),
        (r"\XZZ\ ", "\\XZZ\\ "),
        (r"\Zunknown\ ", "\\Zunknown\\ "),
        (r"one \ alone", r"one \ alone"),
        ('""', ""),
    ],
)
def test_escapes_are_undone_and_unknown_ones_are_kept(written, meant):
    assert read(ADT.replace("Conceição", written).encode()).get(NAME) == meant


@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1))
def test_what_we_escape_is_read_again(text):
    if text != '""':
        assert read(ADT.replace("Conceição", escape(text)).encode()).get(NAME) == text


def declaring(charset):
    return ADT.replace("UNICODE UTF-8", charset)


@pytest.mark.parametrize(
    ("charset", "codec", "encoding", "guessed"),
    [
        ("UNICODE UTF-8", "utf-8", "utf-8", False),
        ("UNICODE", "utf-8", "utf-8", False),
        ("8859/1", "latin-1", "latin-1", False),
        ("8859/1~UNICODE UTF-8", "latin-1", "latin-1", False),
        ("ISO-8859-1", "latin-1", "latin-1", False),
        ("", "utf-8", "utf-8", False),
        ("", "latin-1", "cp1252", True),
        ("UNICODE UTF-8", "latin-1", "cp1252", True),
        ("8859/1", "utf-8", "utf-8", True),
        ("ASCII", "utf-8", "utf-8", True),
        ("KLINGON", "latin-1", "cp1252", True),
    ],
)
def test_accents_survive_a_character_set_that_is_missing_or_wrongly_declared(charset, codec, encoding, guessed):
    reading = read(declaring(charset).encode(codec))
    assert reading.get(NAME) == "Conceição"
    assert (reading.encoding, reading.guessed) == (encoding, guessed)


def test_bytes_of_no_character_set_at_all_are_read_somehow():
    reading = read(ADT.encode("latin-1").replace(b"Jo", b"\x81\x8d"))
    assert reading.guessed
    assert reading.get("PID-3") == "4711"


def test_each_order_of_a_message_is_read_with_the_patient_before_it():
    first, second = read(TWO_ORDERS.encode()).orders()
    assert (first.get("OBR-18"), first.get("ZDS-1"), first.get("PID-3")) == ("ACC1", "1.2.840.1.7", "4711")
    assert (second.get("OBR-18"), second.get("ZDS-1"), second.get("PID-3")) == ("ACC2", "1.2.840.1.8", "4711")
    assert (first.has("NTE"), second.has("NTE")) == (True, False)


def test_a_null_is_not_the_same_as_nothing():
    reading = read(ADT.replace("|19800229|", '|""|').encode())
    assert reading.is_null("PID-7")
    assert reading.get("PID-7") == ""
    assert not read(ADT.encode()).is_null("PID-9")


@given(st.binary(max_size=300))
def test_no_bytes_bring_the_reader_down(raw):
    try:
        reading = read(b"MSH" + raw)
    except Unreadable:
        return
    for path in ("MSH-3", "MSH-9.1", "MSH-10", "MSH-12", "PID-3[2].4.1"):
        reading.get(path)
    reading.orders()
