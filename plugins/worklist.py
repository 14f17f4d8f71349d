"""The worklist answer (PS3.4 K): from the plugin's own copy, to the AE title that asks.

Orthanc compares and converts (DefaultEncoding); which items a caller may see is decided here.
"""

from __future__ import annotations

from typing import Any

from plugins.pushed import Pushed


class WorklistAnswer:
    """The callback. It answers from memory. What raises here makes the query fail: an empty list would be a lie."""

    def __init__(self, items: Pushed[dict[str, list[bytes]]]) -> None:
        self._items = items

    def answer(self, answers: Any, query: Any, issuer_aet: str, called_aet: str) -> None:
        for item in self._items.content.get(issuer_aet.strip(), ()):
            if query.WorklistIsMatch(item):
                answers.WorklistAddAnswer(query, item)
