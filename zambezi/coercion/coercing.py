"""What becomes of an image by the rules that it meets: bytes in, bytes out, the old values kept inside. Pure.

Nothing but the named attributes, (0040,0275) and (0040,A370) where they repeat the order's number, and the Original
Attributes Sequence (0400,0561) changes; pixels and transfer syntax never. Elements that nobody names aren't even
looked at, so this is quick enough for Orthanc to wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from zambezi import elements, rewriting
from zambezi.coercion.orders import Ambiguous, Orders
from zambezi.coercion.rules import Rule
from zambezi.coercion.steps import CoercionFailed, Draft
from zambezi.elements import NotFaithful
from zambezi.rewriting import Changed, Replaced, Stamp

_LONGEST_SYSTEM = 64  # LO


@dataclass(frozen=True)
class Coerced:
    """What became of an image; the same bytes where it has all that was asked already."""

    content: bytes
    replaced: Replaced | None

    def told(self) -> tuple[Changed, ...]:
        """What is different, in words; it shows a patient's data."""
        return self.replaced.told() if self.replaced else ()


def coerce(content: bytes, rules: Sequence[Rule], orders: Orders, at: datetime) -> Coerced:
    """The image as these rules want it, one after another; CoercionFailed where that can't be done."""
    touched = rewriting.touched(tag for rule in rules for tag in rule.steps.tags)
    try:
        file = elements.scan(content, touched)
        if any(rule.settings.character_set for rule in rules):
            file = file.whole()
        draft = Draft(file)
        for rule in rules:
            rule.steps.take(draft, orders)
        replaced = rewriting.changed(file, draft.checked(), _stamp(rules, at), draft.vrs)
    except (NotFaithful, Ambiguous) as why:
        raise CoercionFailed(str(why)) from why
    return Coerced(replaced.content if replaced else content, replaced)


def _stamp(rules: Sequence[Rule], at: datetime) -> Stamp:
    return Stamp(at, f"ZAMBEZI {', '.join(rule.name for rule in rules)}"[:_LONGEST_SYSTEM], "COERCE")
