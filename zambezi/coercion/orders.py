"""The worklist as coercion sees it: what each order says of its patient and itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from zambezi import character_sets, elements

#: Values of an order by tag, as text.
Order = Mapping[int, str]

_STUDY_UID, _ACCESSION_NUMBER = 0x0020000D, 0x00080050


class Ambiguous(ValueError):
    """Several orders fit; the text says which key they share, and names nobody."""


class Orders:
    """Orders by Study Instance UID and accession number."""

    def __init__(self, items: Iterable[bytes] = (), before: Orders | None = None) -> None:
        """From items as stations get them (DICOM files); the same order for several stations counts once.

        What stood there `before` isn't taken apart again: a worklist of thousands changes by one order at a time.
        """
        known = before.told if before else {}
        self.told: dict[bytes, Order] = {content: known.get(content) or _told(content) for content in set(items)}
        self._by_study = {order.get(_STUDY_UID, ""): order for order in self.told.values()}
        self._by_accession: dict[str, list[Order]] = {}
        for order in self._by_study.values():
            self._by_accession.setdefault(order.get(_ACCESSION_NUMBER, ""), []).append(order)

    def find(self, study_uid: str, accession_number: str, by: Sequence[str]) -> Order | None:
        """The order of an image, by the first of the keys that finds one; Ambiguous where it finds several."""
        for key in by:
            if key == "StudyInstanceUID" and study_uid in self._by_study:
                return self._by_study[study_uid]
            if key == "AccessionNumber" and accession_number:
                found = self._by_accession.get(accession_number, [])
                if len(found) > 1:
                    raise Ambiguous(f"{len(found)} orders on the worklist have its accession number")
                if found:
                    return found[0]
        return None


def _told(content: bytes) -> Order:
    item = elements.read(content)
    charset = item.get(character_sets.TAG)
    terms = character_sets.terms(charset.value if charset else None)
    return {
        one.tag: character_sets.decoded(one.value, one.known_vr, terms) for one in item.elements if one.known_vr != "SQ"
    }
