"""Declared coercions: what the plan of a migration changes in a study, decided for each study before it moves. Pure.

The changes are final values by DICOM keyword, and SpecificCharacterSet as what the text is really written in. They are
carried out as the study's images come, as a rule of the configuration is: what was there goes into the Original
Attributes Sequence. An image that has the values already stays byte for byte as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from zambezi import digest, elements, rewriting
from zambezi.coercion import attributes
from zambezi.coercion.coercing import coerce
from zambezi.coercion.orders import Orders
from zambezi.coercion.rules import Rule
from zambezi.config.settings import Coercion

CHARACTER_SET = "SpecificCharacterSet"
_ORIGINALS = elements.name(rewriting.ORIGINALS)


def rule(changes: Mapping[str, str], reference: str) -> Rule:
    """These changes as one rule; `reference` (a migration's name) stands in the images that it changes.

    ValueError (pydantic's) where an attribute can't be given such a value.
    """
    return _rule(tuple(sorted(changes.items())), reference)


def coerced(content: bytes, changes: Mapping[str, str], reference: str, at: datetime) -> bytes:
    """The file as these changes make it; the same bytes where it is so already. CoercionFailed as zambezi.coercion."""
    return coerce(content, (rule(changes, reference),), Orders(), at).content


def tags(changes: Mapping[str, str]) -> frozenset[str]:
    """The top-level elements, as (gggg,eeee), in which a stored image may differ from its source by these changes."""
    if not changes:
        return frozenset()
    named = {int(attributes.find(keyword).tag, 16) for keyword in changes}
    follow = rewriting.follows(named)
    return frozenset(elements.name(tag) for tag in named | follow)


def differences(source: bytes, stored: bytes, changes: Mapping[str, str], reference: str, at: datetime) -> list[str]:
    """In which elements, as (gggg,eeee), the stored file isn't what the source's becomes by these changes.

    The proof of a declared coercion: the changes are carried out once more, on the source's side, and nothing may
    differ then but the moment at which it was done. CoercionFailed, digest.Unreadable.
    """
    made = coerced(source, changes, reference, at)
    found = digest.differences(digest.fingerprint(made), digest.fingerprint(stored))
    if _ORIGINALS in found and rewriting.is_same_but_for_moment(made, stored):
        found.remove(_ORIGINALS)
    return found


@lru_cache(maxsize=4096)
def _rule(changes: tuple[tuple[str, str], ...], reference: str) -> Rule:
    values = dict(changes)
    charset = values.pop(CHARACTER_SET, "")
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", f"migration-{reference}")[:64]
    return Rule(Coercion.model_validate({"Name": name, "CharacterSet": charset, "Set": values}))
