"""The table of paths against what is installed: Orthanc's own list of its REST API, and the plugins it loads."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from zambezi.access import routes
from zambezi.access.routes import Shows

ORTHANC = Path("/usr/sbin/Orthanc")
PLUGINS = Path("/usr/share/orthanc/plugins")


def filled(path: str) -> str:
    """An example of a path that is written with `{name}`, or as a regular expression."""
    return re.sub(r"\{[^}]*\}|\(\[\^/\]\*\)|\(\.\*\)", "x", path)


def unlisted(paths: set[str]) -> list[str]:
    return sorted(path for path in paths if routes.find(filled(path).rstrip("/") or "/") is None)


def test_every_path_of_the_installed_orthanc_is_listed(tmp_path: Path):
    told = tmp_path / "openapi.json"
    subprocess.run([ORTHANC, f"--openapi={told}"], check=True, capture_output=True, timeout=60)
    paths = set(json.loads(told.read_text())["paths"])
    assert len(paths) > 150
    assert unlisted(paths) == []


def test_every_path_that_its_program_names_is_listed():
    """Its own list leaves out what is deprecated: here is what the program registers, documented or not."""
    words = re.findall(rb"(/[a-z][a-z0-9/{}_.-]{2,80})\x00", ORTHANC.read_bytes())
    paths = {word.decode() for word in words if b"{id}" in word or word.startswith(b"/tools/")}
    paths = {path for path in paths if re.fullmatch(r"(/([a-z0-9_.-]{2,}[a-z0-9]|\{[a-z]+\}))+", path)}
    assert {"/tools/execute-script", "/studies/{id}/archive"} <= paths
    assert unlisted(paths) == []


def test_every_path_of_the_plugins_is_listed():
    dicomweb = re.findall(
        rb"(?<!/)(?:studies|servers)/\(\[\^/\]\*\)[a-z/()\[\]^*.]*", (PLUGINS / "libOrthancDicomWeb.so").read_bytes()
    )
    paths = {f"/dicom-web/{path.decode()}" for path in dicomweb}
    viewer = re.findall(rb"/web-viewer/[a-z-]+/\(\.\*\)", (PLUGINS / "libOrthancWebViewer.so").read_bytes())
    paths |= {path.decode() for path in viewer}
    assert len(paths) > 20
    assert unlisted(paths) == []


def test_what_takes_many_studies_at_once_is_not_for_persons():
    for path in ("/tools/create-archive", "/tools/create-media", "/jobs/x/archive", "/patients/x/archive"):
        found = routes.find(path)
        assert found and found.shows is Shows.SERVICES
