"""ZAMBEZI_NODES: what it may say, and what belongs to a node alone."""

from __future__ import annotations

import pytest

from zambezi.environment import Environment, EnvironmentFault

NODES = {"ZAMBEZI_HOME": "/srv/z", "ZAMBEZI_NODES": "one=8042/4242, two=archive2:8142/4252"}


def test_without_it_nothing_is_where_it_was_not():
    found = Environment.read({"ZAMBEZI_HOME": "/srv/z"})
    assert (str(found.plugin_dir), found.orthanc_urls, found.node) == (
        "/srv/z/plugin", ["http://127.0.0.1:8042"], "",
    )  # fmt: skip


def test_the_first_node_stays_where_the_only_one_was_and_the_others_have_their_own():
    one, two = Environment.read(NODES), Environment.read({**NODES, "ZAMBEZI_NODE": "two"})
    assert (str(one.plugin_dir), str(two.plugin_dir)) == ("/srv/z/plugin", "/srv/z/nodes/two/plugin")
    assert (one.hold_dir, one.storage_dir, one.index_dir) == (two.hold_dir, two.storage_dir, two.index_dir)
    assert (one.ports.dicom, two.ports.dicom, two.ports.orthanc_http) == (4242, 4252, 8142)
    assert one.orthanc_urls == two.orthanc_urls == ["http://127.0.0.1:8042", "http://archive2:8142"]
    # What a process starts another with says the same.
    assert Environment.read(two.variables()) == two
    assert one.variables()["ZAMBEZI_DICOM_PORT"] == two.variables()["ZAMBEZI_DICOM_PORT"]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"ZAMBEZI_NODES": "one=8042"}, "'one=8042'"),
        ({"ZAMBEZI_NODES": "One=8042/4242"}, "'One=8042/4242'"),
        ({"ZAMBEZI_NODES": "one=8042/99999"}, "99999"),
        ({"ZAMBEZI_NODES": "one=8042/4242,one=8142/4252"}, "each name once"),
        ({**NODES, "ZAMBEZI_NODE": "three"}, "allowed are one, two"),
        ({"ZAMBEZI_NODES": "one=8080/4242"}, "ZAMBEZI_ORTHANC_HTTP_PORT"),
        ({"ZAMBEZI_RIS_OTHERS": "8001 x"}, "'8001 x'"),
    ],
)
def test_what_can_not_be_used_is_said(variables: dict[str, str], said: str):
    with pytest.raises(EnvironmentFault, match=said):
        Environment.read(variables)
