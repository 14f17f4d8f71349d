from __future__ import annotations

from zambezi.config import schema
from zambezi.environment import REPOSITORY


def test_the_schema_in_the_repository_is_the_one_that_the_settings_give():
    """`zambezi config schema > orthanc-config/schema/zambezi.schema.json` brings it up to date."""
    kept = REPOSITORY / "orthanc-config" / "schema" / "zambezi.schema.json"
    assert kept.read_text(encoding="utf-8") == schema.text()
