"""Which coercion rules an image meets, and in words why not. Pure.

Conditions look at the image as it came, whatever an earlier rule does to it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from zambezi import character_sets
from zambezi.coercion import attributes
from zambezi.coercion.steps import Steps
from zambezi.config.settings import Coercion, Wanted
from zambezi.config.settings.coercion import ANNOUNCED, CALLING_AET
from zambezi.correctable import Attribute

#: So many decisions are remembered, of values no longer than so many bytes.
REMEMBERED, LONGEST = 4096, 256


@dataclass(frozen=True)
class Image:
    """What is known of an image when it comes: `raw` are values' bytes by tag, as far as rules ask for them."""

    raw: Mapping[int, bytes]
    calling_aet: str = ""
    announced: bool = False
    _texts: dict[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    def values(self, attribute: Attribute) -> tuple[str, ...]:
        """The attribute's values as text; none where it is missing or empty."""
        if attribute.tag not in self._texts:
            terms = character_sets.terms(self.raw.get(character_sets.TAG))
            text = character_sets.decoded(self.raw.get(int(attribute.tag, 16), b""), attribute.vr, terms)
            self._texts[attribute.tag] = tuple(part.strip() for part in text.split("\\")) if text else ()
        return self._texts[attribute.tag]


@dataclass(frozen=True)
class Rule:
    """A rule with its names looked up."""

    settings: Coercion
    conditions: tuple[tuple[Attribute, Wanted], ...] = field(init=False)
    steps: Steps = field(init=False)

    def __post_init__(self) -> None:
        asked = [
            (attributes.readable(named), wanted)
            for named, wanted in self.settings.when.items()
            if named not in (ANNOUNCED, CALLING_AET)
        ]
        object.__setattr__(self, "conditions", tuple(asked))
        object.__setattr__(self, "steps", Steps(self.settings))

    @property
    def name(self) -> str:
        return self.settings.name

    def mismatch(self, image: Image) -> str:
        """Why the image doesn't meet the conditions; empty if it does. It repeats values: for an administrator."""
        when = self.settings.when
        if CALLING_AET in when and not fits(when[CALLING_AET], _one(image.calling_aet)):
            return f"CallingAet is {image.calling_aet or 'not known'}, the rule wants {words(when[CALLING_AET])}"
        if ANNOUNCED in when and image.announced != when[ANNOUNCED].present:
            return f"the study is {'' if image.announced else 'not '}announced by an open order"
        for attribute, wanted in self.conditions:
            found = image.values(attribute)
            if not fits(wanted, found):
                return f"{attribute.keyword} is {' and '.join(found) or 'empty'}, the rule wants {words(wanted)}"
        return ""


class Rules:
    """All rules of a configuration. `tags` are those that conditions look at."""

    def __init__(self, settings: Sequence[Coercion]) -> None:
        self.all = tuple(Rule(one) for one in settings)
        asked = {int(attribute.tag, 16) for rule in self.all for attribute, _ in rule.conditions}
        self.tags = frozenset(asked | {character_sets.TAG} if asked else ())
        # Images of one series say the same of most that is asked: what was decided once needn't be decided again.
        self._decided = lru_cache(maxsize=REMEMBERED)(self._decide)

    def matching(self, image: Image) -> tuple[Rule, ...]:
        """The rules that the image meets, in their order."""
        raw = tuple(image.raw.items())
        decide = self._decided if all(len(value) <= LONGEST for _, value in raw) else self._decide
        return decide(raw, image.calling_aet, image.announced)

    def _decide(self, raw: tuple[tuple[int, bytes], ...], calling_aet: str, announced: bool) -> tuple[Rule, ...]:
        image = Image(dict(raw), calling_aet, announced)
        return tuple(rule for rule in self.all if not rule.mismatch(image))


def words(wanted: Wanted) -> str:
    """What is asked, as a person reads it."""
    if wanted.present is not None:
        return "it present" if wanted.present else "it missing"
    return " or ".join(wanted.equal or (f"like {one}" for one in wanted.pattern))


def fits(wanted: Wanted, found: tuple[str, ...]) -> bool:
    """Whether an attribute with these values, none where it is missing or empty, is as it is asked to be."""
    if wanted.present is not None:
        return bool(found) == wanted.present
    if wanted.equal:
        return any(one in wanted.equal for one in found)
    return any(_like(pattern).fullmatch(one) for one in found for pattern in wanted.pattern)


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


@lru_cache(maxsize=4096)
def _like(pattern: str) -> re.Pattern[str]:
    """* for anything, ? for one character (PS3.4 C.2.2.2.4); capitals count as small ones."""
    parts = {"*": ".*", "?": "."}
    # Stars in a row mean one: without that a pattern of many could take for ever.
    squeezed = re.sub(r"\*+", "*", pattern)
    return re.compile("".join(parts.get(one, re.escape(one)) for one in squeezed), re.IGNORECASE | re.DOTALL)
