"""One more peer in the administrator's own file: what was there stays, letter by letter."""

from __future__ import annotations

import difflib
import json
import shutil
from pathlib import Path

import pytest

from zambezi import config
from zambezi.config import peers
from zambezi.config.load import _without_comments
from zambezi.config.peers import PeersFault
from zambezi.environment import REPOSITORY

PEER = peers.entry("US2", "10.1.0.22", 104, ("echo", "store"))
ONE = '"A": ["A", "1", 1]'


@pytest.mark.parametrize(
    "text",
    [
        '{"DicomModalities": {}}',
        '{\n  "DicomModalities": {\n  }\n}\n',
        f'{{"DicomModalities": {{{ONE}}}}}',
        f'// "DicomModalities": {{ no }}\n{{\n  "X": "}}{{",\n "DicomModalities": {{\n    {ONE} // last }}, "\n }}\n}}',
        f'{{"O": {{"DicomModalities": {{}}}}, "DicomModalities" /* */ : /* {{ */ {{ {ONE} /* }} */ }}, "More": [1]}}',
        '{"DicomModalities": {"A": {"AET": "A\\"}", "Host": "1", "Port": 1}\n}, "More": {"B": {}}}',
    ],
)
def test_an_entry_is_added_and_nothing_else_changes(tmp_path: Path, text: str):
    (tmp_path / "before.json").write_text(text)
    new = peers.added(text, "US2", PEER)
    read = [json.loads(_without_comments(one)) for one in (text, new)]
    read[0]["DicomModalities"]["US2"] = PEER
    assert read[1] == read[0]
    kept = "".join(one[2:] for one in difflib.ndiff(list(text), list(new)) if one[0] != "+")
    assert kept == text


def test_the_delivered_file_takes_one_after_the_other_and_the_configuration_is_good(tmp_path: Path):
    folder = Path(shutil.copytree(REPOSITORY / "orthanc-config", tmp_path / "config"))
    file = folder / "40-peers.json"
    for name in ("US2", "CR3"):
        file.write_text(peers.added(file.read_text(), name, peers.entry(name, "10.1.0.22", 104, peers.OF_A_MODALITY)))
    found = config.load(folder, {})
    assert list(found.modalities) == ["US2", "CR3"]
    assert peers.allowed(found.orthanc["DicomModalities"]["CR3"]) == ("echo", "store", "worklist")
    assert file.read_text().startswith("// DICOM peers, each written once")


@pytest.mark.parametrize("text", ["{}", '{"DicomModalities": []}', '{"X": {"DicomModalities": {}}}', ""])
def test_a_file_without_the_section_is_refused(text: str):
    with pytest.raises(PeersFault):
        peers.added(text, "US2", PEER)


def test_the_short_form_allows_everything():
    assert peers.allowed(["CT1", "10.1.0.21", 104]) == tuple(peers.RIGHTS)
