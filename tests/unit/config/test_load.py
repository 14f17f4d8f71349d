"""Reading the administrator's JSON: what it takes, and how it says what it can't take."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from zambezi.config import ConfigurationFaults, load
from zambezi.environment import REPOSITORY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the configuration that is delivered."""
    return Path(shutil.copytree(REPOSITORY / "orthanc-config", tmp_path / "config"))


def edit(folder: Path, name: str, pattern: str, by: str) -> None:
    text = (folder / name).read_text()
    assert re.search(pattern, text), f"{name} has no {pattern}"
    (folder / name).write_text(re.sub(pattern, by, text, count=1))


def zambezi(folder: Path, section: object) -> None:
    (folder / "30-zambezi.json").write_text(json.dumps({"Zambezi": section}))


def faults(folder: Path, **environ: str) -> list[str]:
    with pytest.raises(ConfigurationFaults) as caught:
        load(folder, environ)
    return [str(fault) for fault in caught.value.faults]


def test_what_is_delivered_is_good():
    found = load(REPOSITORY / "orthanc-config", {})
    assert found.orthanc["DicomAet"] == "ZAMBEZI"
    assert found.zambezi.site.time_zone == "Africa/Maputo"


def test_variables_and_their_defaults_are_put_in(folder: Path):
    found = load(folder, {"ZAMBEZI_DICOM_PORT": "11112", "ZAMBEZI_HOME": '/srv/with"quote'})
    assert (found.orthanc["DicomPort"], found.orthanc["HttpPort"]) == (11112, 8042)
    assert found.orthanc["StorageDirectory"] == '/srv/with"quote/orthanc/storage'


def test_every_variable_without_value_and_default_is_named(folder: Path):
    zambezi(folder, {"Site": {"Name": "${FIRST} ${SECOND}"}})
    found = faults(folder)
    assert [re.search(r"\$\{(\w+)\}", fault).group(1) for fault in found] == ["FIRST", "SECOND"]


def test_a_variable_in_a_comment_needs_no_value(folder: Path):
    (folder / "50-more.json").write_text('// ${NOT_SET}\n{ /* ${NOR_THIS} */ "Name2": "http://x" }')
    assert load(folder, {}).orthanc["Name2"] == "http://x"


def test_every_fault_is_told_at_once_with_its_path(folder: Path):
    edit(
        folder,
        "10-orthanc.json",
        r'"SslEnabled": false',
        '"SslEnabled": true, "IngestTranscoding": "1.2.840.10008.1.2.4.80"',
    )
    edit(folder, "20-plugins.json", r'"AllowThreads": true', '"AllowThread": true')
    edit(folder, "40-peers.json", r'"DicomModalities": \{', '"DicomModalities": { "CT1": ["CT1", "10.0.0.9", 0]')
    zambezi(
        folder,
        {
            "Site": {"TimeZone": "Mars/Olympus", "Colour": "blue"},
            "Completeness": {"QuietSeconds": "30"},
            "Routing": [{"Name": "r", "SendTo": []}, {"SendTo": ["X"]}],
        },
    )
    found = "\n".join(faults(folder))
    for path in (
        "10-orthanc.json: SslEnabled: found True, allowed is False only",
        "10-orthanc.json: IngestTranscoding: take it out: files stay the bytes that were received",
        "20-plugins.json: Python.AllowThreads: found 'nothing', allowed is True only",
        "40-peers.json: DicomModalities.CT1: Port: found 0",
        '30-zambezi.json: Zambezi.Site.TimeZone: found "Mars/Olympus"',
        "Zambezi.Site.Colour: no such key",
        'Zambezi.Completeness.QuietSeconds: found "30"',
        "Zambezi.Routing[0].SendTo",
        "Zambezi.Routing[1].Name: is missing",
    ):
        assert path in found


def test_names_that_point_nowhere_are_told_each_at_its_path(folder: Path):
    trigger = {"Name": "t", "On": "study-completed", "SendTo": "HIS", "Message": "ORM^O01"}
    zambezi(
        folder,
        {"Routing": [{"Name": "t", "SendTo": ["FAR"]}], "Hl7": {"Triggers": [trigger]}},
    )
    assert faults(folder) == [
        '30-zambezi.json: Zambezi.Routing[0].SendTo: no destination "FAR" (known: none)',
        '30-zambezi.json: Zambezi.Hl7.Triggers[0].SendTo: no HL7 peer "HIS" (known: none)',
        '30-zambezi.json: Zambezi.Hl7.Triggers[0].Name: found "t", the name of Routing[0].Name; '
        "each rule needs its own",
    ]


def test_a_trigger_names_a_peer_that_listens_a_destination_and_a_template_whose_segments_make_sense(folder: Path):
    his = {"Application": "HIS"}
    trigger = {
        "Name": "t",
        "On": "study-delivered",
        "SendTo": "his",
        "Template": "lost",
        "When": {"Destination": ["B"]},
    }
    zambezi(folder, {"Hl7": {"Peers": {"his": his}, "Triggers": [trigger]}})
    assert faults(folder) == [
        "30-zambezi.json: Zambezi.Hl7.Triggers[0].SendTo: his has no Host, so it gets no messages",
        '30-zambezi.json: Zambezi.Hl7.Triggers[0].Template: no template "lost" (known: none)',
        '30-zambezi.json: Zambezi.Hl7.Triggers[0].When.Destination: no destination "B" (known: none)',
    ]
    zambezi(
        folder,
        {"Hl7": {"Templates": {"own": {"Type": "ORM^O01", "Segments": ["PID|{patient_id}", "ORC|{acession_number}"]}}}},
    )
    assert faults(folder) == [
        "30-zambezi.json: Zambezi.Hl7.Templates.own.Segments[1]: no placeholder {acession_number} "
        "(nearest: accession_number)"
    ]


def test_a_destination_must_be_a_dicom_peer(folder: Path):
    zambezi(folder, {"Destinations": {"FAR": {}}})
    assert faults(folder) == [
        '30-zambezi.json: Zambezi.Destinations.FAR: no modality "FAR" in DicomModalities (known: none)'
    ]


def test_an_archive_to_fetch_from_is_a_dicom_peer_that_may_store_here_and_has_no_cap(folder: Path):
    zambezi(folder, {"PriorSources": {"FAR": {}, "DEAF": {}}})
    deaf = '{ "DEAF": {"AET": "DEAF", "Host": "10.0.0.9", "Port": 104, "AllowStore": false}'
    edit(folder, "40-peers.json", r'"DicomModalities": \{', f'"DicomModalities": {deaf}')
    told = "\n".join(faults(folder))
    assert 'Zambezi.PriorSources.FAR: no modality "FAR" in DicomModalities (known: DEAF)' in told
    assert "Zambezi.PriorSources.DEAF: its entry in DicomModalities has AllowStore false" in told
    zambezi(folder, {"PriorSources": {"DEAF": {"Windows": [{"KilobitsPerSecond": 512}]}}})
    assert "KilobitsPerSecond can't be kept" in "\n".join(faults(folder))
    zambezi(folder, {"PriorSources": {"DEAF": {"Retrieve": "get", "Windows": [{"KilobitsPerSecond": 512}]}}})
    load(folder, {})  # no fault


def test_broken_json_is_told_with_its_own_line(folder: Path):
    (folder / "50-more.json").write_text('/* a comment\n of two lines */\n{ "A": 1,\n  "B" }\n')
    assert "50-more.json: can't be read as JSON: Expecting ':' delimiter: line 4" in "\n".join(faults(folder))


def test_a_key_twice_is_a_fault_in_one_file_and_in_two(folder: Path):
    (folder / "50-more.json").write_text('{ "Name": "other", "X": { "Y": 1, "Y": 2 } }')
    assert faults(folder) == [
        "50-more.json: Y: stands twice in one object; only one of them would count",
        "50-more.json: Name: stands in 10-orthanc.json, too; Orthanc allows it in one file only",
    ]


def test_a_file_that_holds_no_object_is_a_fault(folder: Path):
    (folder / "50-more.json").write_text("[]")
    assert faults(folder) == ["50-more.json: found something else than an object { ... }"]


def test_a_folder_without_json_says_which_variable_names_it(tmp_path: Path):
    assert "ZAMBEZI_CONFIG" in faults(tmp_path)[0]


def test_passwords_of_orthanc_are_not_the_administrators(folder: Path):
    (folder / "50-more.json").write_text('{ "RegisteredUsers": { "orthanc": "orthanc" } }')
    assert "RegisteredUsers: is made by `zambezi up`" in faults(folder)[0]


def test_the_users_that_up_adds_are_no_part_of_it(folder: Path):
    before = load(folder, {}).hash
    (folder / "99-secrets.json").write_text('{ "RegisteredUsers": { "ris": "secret" } }')
    assert load(folder, {}).hash == before


def test_one_aet_belongs_to_one_peer(folder: Path):
    edit(
        folder,
        "40-peers.json",
        r'"DicomModalities": \{',
        '"DicomModalities": { "A": ["CT", "10.0.0.1", 104], "B": ["CT", "10.0.0.2", 104]',
    )
    assert faults(folder) == ["40-peers.json: DicomModalities.B: AE title CT belongs to A already"]


def test_orthanc_without_our_script_is_refused(folder: Path):
    edit(folder, "20-plugins.json", r'"PythonScript": "[^"]*",', "")
    assert "PythonScript: must name plugins/zambezi_plugin.py" in faults(folder)[0]


@pytest.mark.parametrize("wrong", ["true", "1", "null", '"false"'])
def test_a_safe_default_holds_by_value_and_type(folder: Path, wrong: str):
    edit(folder, "10-orthanc.json", r'"OverwriteInstances": false', f'"OverwriteInstances": {wrong}')
    assert "OverwriteInstances" in faults(folder)[0]


def test_a_certificate_stands_for_a_peer_with_an_address_of_its_own(folder: Path):
    one, other = "AB" * 20, ":".join(["cd"] * 20)
    peers = {"A": ["A", "127.0.10.1", 104], "B": {"AET": "B", "Host": "127.0.10.2", "Port": 104}}
    (folder / "40-peers.json").write_text(json.dumps({"DicomModalities": peers}))
    zambezi(folder, {"DicomTls": {"Certificates": {"A": one, "B": other}}})
    assert load(folder, {}).zambezi.dicom_tls.certificates == {"A": one, "B": other}

    zambezi(folder, {"DicomTls": {"Certificates": {"A": one, "B": one.lower(), "C": other}}})
    said = faults(folder)
    assert any("A, B have the same certificate" in fault for fault in said)
    assert any('Certificates.C: no modality "C"' in fault for fault in said)

    zambezi(folder, {"DicomTls": {"Certificates": {"A": "AB"}}})
    assert any("DicomTls.Certificates.A" in fault for fault in faults(folder))


@pytest.mark.parametrize("host", ["10.1.0.5", "127.0.0.1", "127.0.10.0", "127.0.10.255", "127.0.10.2"])
def test_a_certificates_address_is_nobody_elses(folder: Path, host: str):
    peers = {"A": ["A", host, 104], "B": ["B", "127.0.10.2", 104]}
    (folder / "40-peers.json").write_text(json.dumps({"DicomModalities": peers}))
    zambezi(folder, {"DicomTls": {"Certificates": {"A": "AB" * 20}}})
    assert "Zambezi.DicomTls.Certificates.A" in faults(folder)[0]


CT = {"DicomModalities": {"CT": ["CT", "127.0.0.1", 104]}}


@pytest.mark.parametrize(
    ("destinations", "said"),
    [
        ({"CT": {"Set": {"Institution": "X"}}}, 'no DICOM attribute has the keyword "Institution"'),
        ({"CT": {"Set": {"StudyInstanceUID": "1.2"}}}, "StudyInstanceUID goes out as it is"),
        ({"CT": {"Set": {"StudyDate": "today"}}}, "Invalid value for VR DA: 'today'"),
        ({"CT": {"Remove": ["PixelData"]}}, "PixelData goes out as it is"),
        ({"CT": {"Set": {"Rows": "8"}}}, "Rows holds no text"),
        ({"CT": {"Tls": {"CertificateFile": "us.pem"}}}, "CertificateFile goes with KeyFile"),
        ({"CT": {"Transcode": "jpeg-lossy"}}, "Zambezi.Destinations.CT.Transcode"),
        (
            {"CT": {"Alternate": "FAR"}},
            'found "FAR", allowed is a destination that has no Alternate itself (there is none)',
        ),
        ({"CT": {"Alternate": "CT"}}, 'found "CT", allowed is a destination that has no Alternate itself'),
        ({"HARARE": {"Kind": "peer", "Proof": "committed"}}, "Kind peer goes with Proof found or acknowledged"),
        ({"FAR": {"Kind": "peer"}}, 'no Orthanc "FAR" in OrthancPeers (known: HARARE)'),
        ({"HARARE": {}}, 'no modality "HARARE" in DicomModalities (known: CT)'),
    ],
)
def test_a_destination_that_cant_be_is_refused_by_name(folder: Path, destinations: object, said: str):
    peers = {**CT, "OrthancPeers": {"HARARE": ["https://pacs.harare.example/", "us", "secret"]}}
    (folder / "40-peers.json").write_text(json.dumps(peers))
    zambezi(folder, {"Destinations": destinations})
    (fault,) = faults(folder)
    assert said in fault


def test_another_orthanc_is_read_in_both_of_orthancs_forms(folder: Path):
    long = {"Url": "http://10.0.0.7:8042/", "Username": "us", "Password": "secret"}
    peers = {**CT, "OrthancPeers": {"A": ["https://a.example", "us", "secret"], "B": long, "C": ["http://c:8042"]}}
    (folder / "40-peers.json").write_text(json.dumps(peers))
    zambezi(folder, {"Destinations": {"A": {"Kind": "peer"}}})
    found = load(folder, {}).orthanc_peers
    assert [(one.url, one.user) for one in found.values()] == [
        ("https://a.example", "us"), ("http://10.0.0.7:8042", "us"), ("http://c:8042", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("entry", ["http://a", ["ftp://a"], ["http://a", "us"], {"Username": "us"}, {"Url": 7}])
def test_another_orthanc_that_cant_be_read_is_a_fault(folder: Path, entry: object):
    (folder / "40-peers.json").write_text(json.dumps({**CT, "OrthancPeers": {"A": entry}}))
    (fault,) = faults(folder)
    assert fault.startswith("40-peers.json: OrthancPeers.A: ")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"Peer": "OLD"}, 'Sources.S.Peer: no modality "OLD" in DicomModalities (known: CT)'),
        ({"Kind": "orthanc", "Peer": "CT"}, 'Sources.S.Peer: no Orthanc "CT" in OrthancPeers (known: OLD)'),
        ({"Kind": "dicomweb", "Peer": "OLD"}, 'Sources.S.Peer: no server "OLD" in DicomWeb.Servers (known: VNA)'),
        ({"Kind": "tape", "Peer": "CT"}, "Sources.S.Kind"),
    ],
)
def test_a_legacy_archive_is_named_in_the_section_of_its_kind(folder: Path, source: object, said: str):
    peers = {**CT, "OrthancPeers": {"OLD": ["https://old.example/", "us", "secret"]}}
    (folder / "40-peers.json").write_text(json.dumps(peers))
    edit(folder, "20-plugins.json", '"WadoRoot"', '"Servers": {"VNA": ["https://vna.example/rs/"]}, "WadoRoot"')
    zambezi(folder, {"Migration": {"Sources": {"S": source}}})
    (fault,) = faults(folder)
    assert said in fault
    zambezi(folder, {"Migration": {"Sources": {"S": {"Kind": "dicomweb", "Peer": "VNA"}}}})
    assert load(folder, {}).dicomweb_servers["VNA"].url == "https://vna.example/rs"


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (
            {"CertificateFile": "us.crt"},
            "OLD: CertificateFile: found 'us.crt', allowed is a text; a file begins with /",
        ),
        ({"CertificateKeyFile": "/us.key"}, "CertificateKeyFile and CertificateKeyPassword go with CertificateFile"),
        ({"Url": "http://old.example", "CertificateFile": "/us.crt"}, "CertificateFile is shown over https:// only"),
        ({"Pkcs11": True}, "OrthancPeers.OLD.Pkcs11: found true; a source is shown a certificate from files"),
    ],
)
def test_a_certificate_that_cant_be_shown_to_a_legacy_archive_is_a_fault(folder: Path, added: object, said: str):
    entry = {"Url": "https://old.example", **added}  # type: ignore[dict-item]  # an object of JSON
    (folder / "40-peers.json").write_text(json.dumps({**CT, "OrthancPeers": {"OLD": entry}}))
    zambezi(folder, {"Migration": {"Sources": {"S": {"Kind": "orthanc", "Peer": "OLD"}}}})
    (fault,) = faults(folder)
    assert said in fault


def test_nobody_is_spoken_with_unchecked(folder: Path):
    (folder / "45-tls.json").write_text(json.dumps({"HttpsVerifyPeers": False, "HttpsCACertificates": "ca.crt"}))
    assert [fault.split(",")[0] for fault in faults(folder)] == [
        "45-tls.json: HttpsVerifyPeers: found False", "45-tls.json: HttpsCACertificates: found 'ca.crt'",
    ]  # fmt: skip


def test_headers_of_a_dicomweb_server_are_text(folder: Path):
    server = {"Url": "https://vna.example/rs", "HttpHeaders": {"X-Key": 7}}
    edit(folder, "20-plugins.json", '"WadoRoot"', f'"Servers": {json.dumps({"VNA": server})}, "WadoRoot"')
    assert faults(folder) == ['20-plugins.json: DicomWeb.Servers.VNA: HttpHeaders: allowed is {"NAME": "value"}']
