import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.hl7.mllp import FrameFault, Framer, frame

MESSAGES = st.lists(st.binary(max_size=60).map(lambda raw: raw.replace(b"\x1c", b"")), max_size=5)


@given(MESSAGES, st.lists(st.integers(0, 400)), st.booleans())
def test_messages_come_whole_and_in_order_however_the_bytes_are_cut(messages, cuts, with_return):
    wire = b"".join(frame(one) if with_return else frame(one)[:-1] for one in messages)
    places = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    framer, got = Framer(1000), []
    for begin, end in itertools.pairwise(places):
        got += framer.feed(wire[begin:end])
    assert got == messages
    assert framer.is_idle


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"\x1c\r", frame(b"one") + b"junk"])
def test_bytes_outside_of_a_block_are_a_fault(data):
    with pytest.raises(FrameFault, match="outside"):
        Framer(100).feed(data)


def test_a_message_over_the_limit_is_a_fault_before_it_is_whole():
    framer = Framer(100)
    framer.feed(b"\x0b" + b"x" * 100)
    with pytest.raises(FrameFault, match="more than 100"):
        framer.feed(b"x")


def test_a_half_message_is_known_to_be_half():
    framer = Framer(100)
    framer.feed(b"\x0bMSH|")
    assert not framer.is_idle
