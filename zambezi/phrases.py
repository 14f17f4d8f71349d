"""Reasons in Portuguese. They are kept as English sentences with facts in them, in whatever table or journal; a page
(or a mail, or a paper) translates one when it shows it, by the sentence as the code writes it: `{0} instances did not
arrive`.

A reason often holds another (`the archive: ...`) or several (`...; ...`); each part is translated by itself. What no
sentence fits stays as it is: an old archive's own words, a person's reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import import_module
from pathlib import Path

from babel.messages import pofile

from zambezi import composition

#: The catalogue of a room's reasons, in its translations/.
FILE = "reasons.pt.po"
_FIELD = re.compile(r"\{([0-9])\}")
_OTHERS = re.compile("[;:] ")
#: A reason is cut at 2000 characters where it is kept; what is longer is no reason.
_LONGEST = 4000
_DEEPEST = 8
#: So many are remembered: pages show the same few again and again.
_REMEMBERED = 4096
_MOST_PATTERNS = 40


@dataclass(frozen=True)
class _Sentence:
    """What stands between the facts of a sentence, its translation, and which fact stands where in it."""

    between: tuple[str, ...]
    facts: tuple[int, ...]
    said: str

    @property
    def weight(self) -> int:
        return sum(map(len, self.between))

    def with_facts(self, facts: Mapping[int, str]) -> str:
        return _FIELD.sub(lambda field: facts[int(field[1])], self.said)

    def facts_in(self, text: str) -> dict[int, str] | None:
        """The facts, by number; None where it is another sentence. Linear in the length of the text."""
        first, *inner = self.between
        if not text.startswith(first):
            return None
        found, at, end = dict[int, str](), len(first), len(text)
        for number, piece in zip(self.facts, inner, strict=True):
            is_last = number == self.facts[-1]
            behind = (
                (end if not piece or text.endswith(piece) else -1) - len(piece) if is_last else text.find(piece, at)
            )
            if behind < at:
                return None
            found[number], at = text[at:behind], behind + len(piece)
        return found


class Phrases:
    """All sentences that reasons are made of, by the English; facts are `{0}`, `{1}` ... in both languages."""

    def __init__(self, said: Mapping[str, str]) -> None:
        self._whole = {english: words for english, words in said.items() if not _FIELD.search(english)}
        made = (
            _Sentence(
                tuple(_FIELD.split(english)[::2]), tuple(int(number) for number in _FIELD.findall(english)), words
            )
            for english, words in said.items() if english not in self._whole
        )  # fmt: skip
        # The one that says most of itself is meant; `{0} of {1}` fits too much to be asked early.
        self._sentences = sorted(made, key=lambda sentence: -sentence.weight)
        #: Each with its longest piece: most sentences are ruled out by looking for that one alone.
        self._sought = [(max(one.between, key=len), one) for one in self._sentences]
        self._remembered = lru_cache(_REMEMBERED)(self._said)

    def said(self, reason: str) -> str | None:
        """The reason in Portuguese, as far as its parts are known; None where none of them is."""
        found = self._remembered(reason, 0)
        return None if found == reason else found

    def _said(self, text: str, depth: int) -> str:
        bare = text.strip()
        if not bare or len(bare) > _LONGEST or depth > _DEEPEST:
            return text
        if words := self._whole.get(bare):
            return text.replace(bare, words)
        for piece, sentence in self._sought if "\n" not in bare else ():
            if piece in bare and (facts := sentence.facts_in(bare)) is not None:
                if not sentence.between[0] and _OTHERS.search(facts[sentence.facts[0]]):
                    continue  # `images, index: 3 GB of 9 GB are free`: two reasons, and not a fact that begins so
                parts = {number: self._remembered(fact, depth + 1) for number, fact in facts.items()}
                return text.replace(bare, sentence.with_facts(parts))
        several = (_several(bare, joint) for joint in ("\n", "; "))
        for pieces in (*several, _with_brackets(bare), _several(bare, ": "), _several(bare, ", ")):
            found = "".join(self._remembered(piece, depth + 1) for piece in pieces if piece)
            if found != "".join(pieces):
                return text.replace(bare, found)
        return text

    def written_as(self, portuguese: str) -> list[str]:
        """Patterns for SQL's LIKE: the English sentences whose Portuguese holds this text."""
        wanted = portuguese.casefold()
        between = [(one.between, one.said) for one in self._sentences]
        between += [((english,), words) for english, words in self._whole.items()]
        return ["%" + "%".join(pieces) + "%" for pieces, words in between if wanted in words.casefold()][
            :_MOST_PATTERNS
        ]


@cache
def portuguese() -> Phrases:
    """What all rooms have in their catalogues (composition.SPEAKERS); read once."""
    said = dict[str, str]()
    for room in composition.SPEAKERS:
        with (Path(str(import_module(room).__file__)).parent / "translations" / FILE).open("rb") as source:
            said |= {str(one.id): str(one.string) for one in pofile.read_po(source, locale="pt_PT") if one.id}
    return Phrases(said)


def told(kept: str, language: str) -> str:
    """A reason in pt or en, as far as its words are known."""
    return (portuguese().said(kept) if language == "pt" else None) or kept


def _several(text: str, joint: str) -> list[str]:
    """The parts between which the joint stands outside of brackets, and the joints; nothing where it doesn't."""
    pieces, depth, begin = list[str](), 0, 0
    for mark in re.finditer(rf"[()]|{re.escape(joint)}", text):
        if mark[0] == joint:
            if not depth:
                pieces += [text[begin : mark.start()], joint]
                begin = mark.end()
        else:
            depth = max(0, depth + (1 if mark[0] == "(" else -1))
    return [*pieces, text[begin:]] if pieces else []


def _with_brackets(text: str) -> list[str]:
    """What stands before the brackets at the end, and what in them; nothing where there are none."""
    if not text.endswith(")"):
        return []
    depth = 0
    for at in range(len(text) - 1, 0, -1):
        depth += (text[at] == ")") - (text[at] == "(")
        if not depth:
            return [text[:at], "(", text[at + 1 : -1], ")"]
    return []
