"""orthanc-config/README.md: every key that may be written, every safe default with its reason."""

from __future__ import annotations

import re

import pytest

from zambezi.config import load, safety, schema
from zambezi.environment import PORTS, REPOSITORY

MANUAL = (REPOSITORY / "orthanc-config" / "README.md").read_text(encoding="utf-8")


def test_every_key_of_ours_is_in_the_manual_as_the_settings_say_it():
    """`zambezi config keys` prints the part of orthanc-config/README.md that follows the marker."""
    _, _, kept = MANUAL.partition("<!-- printed by `zambezi config keys`; a test compares -->\n")
    assert kept.strip() == schema.manual().strip()


def test_every_key_of_ours_says_what_it_is_for():
    assert [line for line in schema.manual().splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


@pytest.mark.parametrize("key", [path for path, *_ in (*safety.REQUIRED, *safety.ABSENT)])
def test_every_safe_default_is_in_the_manual(key: str):
    assert f"`{key}`" in MANUAL


def test_every_key_that_is_delivered_is_in_the_manual():
    delivered = load(REPOSITORY / "orthanc-config", {}).orthanc
    assert [key for key in delivered if f"`{key}`" not in MANUAL] == []


def test_every_variable_is_in_the_manual():
    named = {variable for variable, _ in PORTS.values()} | {"ZAMBEZI_HOME", "ZAMBEZI_CONFIG", "ZAMBEZI_DATABASE_URL"}
    rooms = ("zambezi", "plugins", "operations", "gateway", "ris_service", "migration", "demo")
    code = "".join(file.read_text() for room in rooms for file in (REPOSITORY / room).rglob("*.py"))
    named |= set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", code)) - {"PATH"}
    assert [variable for variable in sorted(named) if f"`{variable}`" not in MANUAL] == []


@pytest.mark.parametrize("name", sorted(PORTS.keys() - {"orthanc_http", "ris"}))
def test_every_port_for_others_is_published_by_the_containers_as_the_manual_has_it(name: str):
    variable, default = PORTS[name]
    assert f'${{{variable}:-{default}}}:{default}"' in (REPOSITORY / "docker" / "compose.yml").read_text()
    assert f"| `{variable}` | {default} |" in MANUAL
