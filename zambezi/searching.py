"""Finding names as people type them: without accents, in any case, in any order of words."""

from __future__ import annotations

import unicodedata


def folded(text: str) -> str:
    """`Conceição` becomes `conceicao`."""
    decomposed = unicodedata.normalize("NFKD", text)
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def matches(query: str, *texts: str | None) -> bool:
    """Whether each word of the query begins a word of the texts, or is part of a number in them."""
    wanted = folded(query).replace(",", " ").split()
    if not wanted:
        return True
    words = folded(" ".join(text for text in texts if text)).replace("^", " ").replace(",", " ").split()
    return all(
        any(word.startswith(part) or (any(c.isdigit() for c in part) and part in word) for word in words)
        for part in wanted
    )


def same_person(one: tuple[str, str, str | None], other: tuple[str, str, str | None]) -> bool:
    """Whether (family name, given name, birth date) could be one person, written twice.

    The same words in whatever order, or the same birth date and a name in common; a birth date that is
    known on both sides and differs by more than swapped digits speaks against it.
    """
    names = set(folded(f"{one[0]} {one[1]}").split()), set(folded(f"{other[0]} {other[1]}").split())
    if one[2] and other[2]:
        if one[2] == other[2]:
            return bool(names[0] & names[1])
        return names[0] == names[1] and sorted(one[2]) == sorted(other[2])
    return names[0] == names[1]
