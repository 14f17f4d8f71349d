"""What may stand in the `Zambezi` section, from the typed settings: JSON Schema for editors, a table for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from zambezi.config.settings import Zambezi


def document() -> dict[str, Any]:
    """The schema of a file that holds {"Zambezi": ...}, whatever of Orthanc's own stands beside it."""
    section = Zambezi.model_json_schema(by_alias=True)
    definitions = section.pop("$defs", {})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Zambezi's configuration",
        "type": "object",
        "properties": {"Zambezi": section},
        "$defs": definitions,
    }


def manual() -> str:
    """Every key as Markdown, section by section: the table in orthanc-config/README.md."""
    found: dict[str, type[BaseModel]] = {}
    _collect("Zambezi", Zambezi, found)
    return "\n".join(line for path, model in found.items() for line in _table(path, model))


def _collect(
    path: str, model: type[BaseModel], found: dict[str, type[BaseModel]], above: tuple[type[BaseModel], ...] = ()
) -> None:
    found[path] = model
    for name, field in model.model_fields.items():
        for below, suffix in _sections(field.annotation):
            if below not in (*above, model):  # conditions hold conditions
                _collect(f"{path}.{field.alias or name}{suffix}", below, found, (*above, model))


def _sections(annotation: Any, suffix: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, suffix
    origin = get_origin(annotation)
    mark = ".NAME" if origin is dict else "[n]" if origin is tuple else suffix
    for inner in get_args(annotation):
        yield from _sections(inner, mark)


def _table(path: str, model: type[BaseModel]) -> list[str]:
    rows = [f"### {path}", "", "| key | default | what it says |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if field.is_required():
            shown = "must be given"
        elif isinstance(default, BaseModel) or default in ((), {}):
            shown = ""
        elif isinstance(default, tuple) and isinstance(default[0], BaseModel):
            shown = "one, with its defaults"
        else:
            shown = f"`{json.dumps(default, default=str, ensure_ascii=False)}`"
        said = field.description or ""
        allowed = _allowed(field.annotation)
        if allowed:
            said += f" One of: {allowed}."
        rows.append(f"| `{field.alias or name}` | {shown} | {said.strip()} |")
    return [*rows, ""]


def _allowed(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    return ", ".join(found for inner in get_args(annotation) if (found := _allowed(inner)))


def text() -> str:
    """The schema as it stands in orthanc-config/schema/zambezi.schema.json."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"
