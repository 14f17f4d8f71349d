"""The front door of an installation with several Orthancs and RIS processes."""

from __future__ import annotations

from operations import front_door
from zambezi.environment import Environment

TEMPLATE = "upstream orthanc { server @ORTHANC@; keepalive 8; } upstream ris { server @RIS@; keepalive 8; }"


def test_one_of_each_is_what_it_was():
    filled = front_door.filled(TEMPLATE, Environment.read({}), "127.0.0.1", None)
    assert "{ server 127.0.0.1:8042; keepalive 8; }" in filled
    assert "{ server 127.0.0.1:8000; keepalive 8; }" in filled


def test_another_orthanc_is_asked_where_the_first_does_not_answer_and_pages_are_shared():
    several = {"ZAMBEZI_NODES": "one=8042/4242,two=archive2:8142/4252", "ZAMBEZI_RIS_OTHERS": "8001"}
    filled = front_door.filled(TEMPLATE, Environment.read(several), "127.0.0.1", None)
    assert "{ server 127.0.0.1:8042 max_fails=1 fail_timeout=10s; server archive2:8142 backup; keepalive" in filled
    assert "{ server 127.0.0.1:8000; server 127.0.0.1:8001; keepalive" in filled
