"""docs/access.md says who reaches what as the program has it: a path or page that is not in it fails here."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests import access_manual
from zambezi.access import routes
from zambezi.access.routes import Shows
from zambezi.environment import REPOSITORY


def test_the_manual_lists_every_path_and_page(tmp_path: Path):
    """`python -m tests.access_manual` brings it up to date; look at what it changes: it is who reaches what."""
    _, mark, kept = access_manual.MANUAL.read_text(encoding="utf-8").partition(access_manual.MARK)
    assert mark
    assert kept.strip() == access_manual.printed(access_manual.app(tmp_path))


def test_each_path_of_our_own_plugin_is_in_the_table_by_its_name():
    """Read from the source, as only a running plugin has them."""
    tree = ast.parse((REPOSITORY / "plugins" / "routes.py").read_text(encoding="utf-8"))
    named = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if ast.unparse(target) in ("reading", "writing", "self._pushed") and isinstance(node.value, ast.Dict):
                named |= {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
    assert {"journal", "worklist", "reload"} <= named
    for name in named:
        found = routes.find(f"/zambezi/{name}")
        assert found and found.path == f"/zambezi/{name}", f"/zambezi/{name} is not in zambezi/access/routes.py"


def test_the_front_door_hands_on_no_family_of_paths_that_the_table_does_not_know():
    nginx = (REPOSITORY / "docker" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    handed = set(re.findall(r"proxy_pass http://orthanc(/[^;]*);", nginx))
    pictures = "/web-viewer/instances/$picture$noughts$frame"  # of `/web-viewer/`, with noughts before a number
    assert handed == {"/zambezi/door", "/zambezi/viewer-door", "/dicom-web/", "/wado", "/web-viewer/", pictures, "/"}
    locations = set(re.findall(r"location (?:= |\^~ )?(\S+) \{", nginx))
    told = (REPOSITORY / "docs" / "access.md").read_text(encoding="utf-8")
    assert sorted(place for place in locations if not place.startswith("@") and f"`{place}`" not in told) == []


def test_what_nobody_may_and_what_hides_many_studies_stays_closed():
    """Written by hand, so that a slip in the table does not pass by itself."""
    closed = {
        "/tools/reset": Shows.NOBODY, "/tools/shutdown": Shows.NOBODY, "/tools/execute-script": Shows.NOBODY,
        "/tools/create-archive": Shows.SERVICES, "/tools/create-media": Shows.SERVICES,
        "/patients/x/archive": Shows.SERVICES, "/patients/x/media": Shows.SERVICES, "/jobs/x/archive": Shows.SERVICES,
        "/patients/x/attachments/dicom/data": Shows.SERVICES, "/zambezi/journal": Shows.SERVICES,
        "/zambezi/whatever": Shows.SERVICES,
    }  # fmt: skip
    for path, shows in closed.items():
        found = routes.find(path)
        assert found and found.shows is shows, path
