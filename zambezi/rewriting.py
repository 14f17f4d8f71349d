"""Another copy of one instance: the named attributes changed, their old values kept inside, all else byte by byte.

What an attribute was goes into the Original Attributes Sequence (0400,0561) (PS3.3 C.12.1.1.9), behind what stood
there before. Of a correction (`rewrite`) it is shown with the canonical digest (zambezi.digest), which takes both files
apart in another way, that nothing else has changed. Pure: time and reason are parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.datadict import keyword_for_tag

from zambezi import character_sets, digest, elements, orthanc_ids
from zambezi.correctable import ATTRIBUTES
from zambezi.elements import Element, File, NotFaithful

ORIGINALS, _MOMENT = 0x04000561, 0x04000562
_CHARACTER_SET = character_sets.TAG
_STUDY_UID, _SERIES_UID, _SOP_UID, _PATIENT_ID = 0x0020000D, 0x0020000E, 0x00080018, 0x00100020
_ACCESSION_NUMBER, _INSTITUTION = 0x00080050, 0x00080080
#: Sequences whose items name the order and the study once more: Request Attributes, Referenced Request (of reports).
_REQUESTS = (0x00400275, 0x0040A370)
#: VR of every attribute that a correction may change.
CORRECTABLE = {int(tag, 16): one.vr for tag, one in ATTRIBUTES.items()}


@dataclass(frozen=True)
class Stamp:
    """What the Original Attributes Sequence says of this change: when, by what (LO), and COERCE or CORRECT."""

    at: datetime
    system: str
    reason: str


@dataclass(frozen=True)
class Changed:
    """One attribute that becomes another, in words for a person; "" where it isn't there."""

    tag: str  # (gggg,eeee)
    keyword: str
    old: str
    new: str


@dataclass(frozen=True)
class Rewritten:
    """The corrected file and what is different in it; nothing is where the file has all that was asked already."""

    content: bytes
    changed: tuple[Changed, ...]


@dataclass(frozen=True)
class Identity:
    """What Orthanc knows an instance by; the same UIDs under another patient ID are another instance."""

    patient_id: str
    study_uid: str
    series_uid: str
    sop_uid: str

    @property
    def orthanc_id(self) -> str:
        return orthanc_ids.instance(self.patient_id, self.study_uid, self.series_uid, self.sop_uid)

    @property
    def study_orthanc_id(self) -> str:
        return orthanc_ids.study(self.patient_id, self.study_uid)


def identity(content: bytes) -> Identity:
    """Of a file; NotFaithful where it has none."""
    file = elements.read(content)
    encodings = _terms(file.get(_CHARACTER_SET))
    found = [_text(file.get(tag), encodings) for tag in (_PATIENT_ID, _STUDY_UID, _SERIES_UID, _SOP_UID)]
    if not all(found[1:]):
        raise NotFaithful("it has no Study, Series or SOP Instance UID")
    return Identity(*found)


def values(content: bytes, tags: Iterable[str]) -> dict[str, str]:
    """The values of attributes (ggggeeee) of a file, in words; those that are there."""
    file = elements.read(content)
    terms = _terms(file.get(_CHARACTER_SET))
    found = {tag: file.get(int(tag, 16)) for tag in tags}
    return {tag: _text(one, terms) for tag, one in found.items() if one is not None}


def rewrite(content: bytes, changes: Mapping[str, str | None], stamp: Stamp) -> Rewritten:
    """The file with these attributes (ggggeeee) as they are to be; None takes one away. For corrections.

    NotFaithful, with the reason, where that can't be done without touching anything else.
    """
    wanted = {int(tag, 16): value for tag, value in changes.items()}
    strange = [tag for tag in wanted if tag not in CORRECTABLE]
    if strange:
        raise NotFaithful(f"{elements.name(strange[0])} is no attribute that may be corrected")
    rewritten = changed(elements.read(content), wanted, stamp, CORRECTABLE)
    if rewritten is None:
        return Rewritten(content, ())
    _prove(content, rewritten.content, rewritten.tags)
    return Rewritten(rewritten.content, rewritten.told())


@dataclass(frozen=True)
class Replaced:
    """A file whose elements `tags` are others than in `file`."""

    content: bytes
    tags: frozenset[int]
    file: File
    before: tuple[str, ...]  # character sets
    after: tuple[str, ...]

    def told(self) -> tuple[Changed, ...]:
        """What is different, in words; it shows a patient's data."""
        new = elements.read(self.content)
        return tuple(
            _told(tag, self.file, new, self.before, self.after) for tag in sorted(self.tags) if tag != ORIGINALS
        )


def touched(wanted: Iterable[int]) -> frozenset[int]:
    """The elements that `changed` looks at by themselves, where it changes these."""
    return frozenset({*wanted, *_REQUESTS, _CHARACTER_SET, _STUDY_UID, _INSTITUTION, ORIGINALS})


def follows(wanted: Iterable[int]) -> frozenset[int]:
    """The elements that may be others, too, where these are changed."""
    also = _REQUESTS if {_ACCESSION_NUMBER, _STUDY_UID} & set(wanted) else ()
    return frozenset({*also, _CHARACTER_SET, ORIGINALS})


def changed(file: File, wanted: Mapping[int, str | None], stamp: Stamp, vrs: Mapping[int, str]) -> Replaced | None:
    """The file with these attributes as they are to be (None takes one away); None where they are so already.

    `vrs` has the VR of each that gets a value. NotFaithful, with a reason that holds no value.
    """
    wanted = dict(wanted)
    before = _terms(file.get(_CHARACTER_SET))
    terms = [one for one in (wanted.pop(_CHARACTER_SET) or "").split("\\") if one] if _CHARACTER_SET in wanted else None
    differing = {tag: value for tag, value in wanted.items() if not _is_so_already(file, tag, value, before, terms)}
    if terms is None:
        terms = _terms_for(file, differing, before, vrs)
    new: dict[int, bytes | None] = {tag: _new(tag, value, file, terms, vrs) for tag, value in differing.items()}
    if terms != before:
        new[_CHARACTER_SET] = _new(_CHARACTER_SET, "\\".join(terms), file, terms, vrs) if terms else None
    for tag in _REQUESTS:
        requests = file.get(tag)
        follows = _requests(requests, differing, file, terms, vrs) if requests is not None else None
        if follows is not None and tag not in new:
            new[tag] = follows
    if not new:
        return None
    new[ORIGINALS] = _originals(file, sorted(new), stamp)
    return Replaced(elements.joined(file, new), frozenset(new), file, tuple(before), tuple(terms))


def is_same_but_for_moment(one: bytes, other: bytes) -> bool:
    """Whether files whose Original Attributes differ do so in Attribute Modification DateTime alone.

    So do two copies of one image that the same rules coerced twice, because it was sent twice.
    """
    try:
        found = [elements.read(content).get(ORIGINALS) for content in (one, other)]
        told = [
            [[part.whole for part in item if part.tag != _MOMENT] for item in elements.items(sequence)]
            for sequence in found
            if sequence is not None
        ]
    except NotFaithful:
        return False
    return len(told) == 2 and told[0] == told[1]


def _is_so_already(file: File, tag: int, value: str | None, before: Sequence[str], terms: Sequence[str] | None) -> bool:
    one = file.get(tag)
    if value is None or one is None:
        return value is None and one is None
    if terms is not None and terms != before and not one.value.isascii():
        return False
    return _text(one, before) == value


def _new(tag: int, value: str | None, file: File, terms: Sequence[str], vrs: Mapping[int, str]) -> bytes | None:
    if value is None:
        return None
    vr = vrs.get(tag, "CS")  # of the character set itself, which may follow without being named
    encoded = character_sets.encoded(value, vr, terms)
    if encoded is None:
        raise NotFaithful(f"{_keyword(tag)}: the character set {character_sets.said(terms)} can't hold the value")
    return elements.written(tag, vr, _padded(encoded, vr), file.coding)


def _padded(value: bytes, vr: str) -> bytes:
    return value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)


def _terms_for(file: File, wanted: Mapping[int, str | None], before: list[str], vrs: Mapping[int, str]) -> list[str]:
    """The character set in which the file can hold the new values: its own, else another if no other text minds."""
    texts = [value for tag, value in wanted.items() if value and vrs[tag] in character_sets.TEXT]
    if all(character_sets.encoded(value, "LO", before) is not None for value in texts):
        return before
    other = next(foreign_texts([one for one in file.whole().elements if one.tag not in wanted]), None)
    if other is not None:
        raise NotFaithful(
            f"its character set {character_sets.said(before)} can't hold one of the new values, and "
            f"{elements.name(other.tag)} has letters that would have to be written anew; write the value without "
            "these letters, or correct SpecificCharacterSet if it is wrong"
        )
    return [character_sets.character_set(texts)]


def foreign_texts(found: Iterable[Element]) -> Iterator[Element]:
    """The texts that aren't plain ASCII, and so would be others in another character set; in sequences, too."""
    for one in found:
        if one.known_vr == "SQ":
            for inside in elements.items(one):
                if not any(nested.tag == _CHARACTER_SET for nested in inside):
                    yield from foreign_texts(inside)
        elif one.known_vr in character_sets.TEXT and not character_sets.is_plain(one.value):
            yield one


def _requests(
    sequence: Element, wanted: Mapping[int, str | None], file: File, terms: Sequence[str], vrs: Mapping[int, str]
) -> bytes | None:
    """The sequence with the order's number and the study's UID as they are to be, where they stand; None: as it is."""
    if not wanted.keys() & {_ACCESSION_NUMBER, _STUDY_UID}:
        return None
    own = file.get(_STUDY_UID)
    study = own.value.rstrip(b"\0 ") if own else b""
    changed = False
    made: list[bytes] = []
    for inside in elements.items(sequence):
        parts: list[bytes] = []
        for one in inside:
            is_ours = one.tag == _ACCESSION_NUMBER or (one.tag == _STUDY_UID and one.value.rstrip(b"\0 ") == study)
            if not (is_ours and one.tag in wanted):
                parts.append(one.whole)
                continue
            value = wanted[one.tag]
            vr = vrs[one.tag] if value is not None else one.known_vr
            encoded = character_sets.encoded(value, vr, terms) if value is not None else None
            part = b"" if encoded is None else elements.written(one.tag, vr, _padded(encoded, vr), one.coding)
            changed = changed or part != one.whole
            parts.append(part)
        made.append(elements.item(b"".join(parts), sequence.inner_coding))
    if not changed:
        return None
    return elements.written(sequence.tag, sequence.vr or "SQ", b"".join(made), file.coding)


def _originals(file: File, tags: Sequence[int], stamp: Stamp) -> bytes:
    """The Original Attributes Sequence with one more item: what these elements were, byte by byte."""
    earlier = file.get(ORIGINALS)
    if earlier is not None and earlier.vr == "UN":
        raise NotFaithful("its Original Attributes Sequence is written with VR UN, and can't be added to as it is")
    coding = file.coding
    was = b"".join(one.whole for one in file.elements if one.tag in tags)
    institution = file.get(_INSTITUTION)
    source = institution.value if institution is not None and len(institution.value) <= 64 else b""
    moment = f"{stamp.at.astimezone(UTC):%Y%m%d%H%M%S.%f}+0000"
    content = b"".join(
        (
            elements.written(0x04000550, "SQ", elements.item(was, coding), coding),
            elements.written(_MOMENT, "DT", _padded(moment.encode(), "DT"), coding),
            elements.written(0x04000563, "LO", _padded(stamp.system.encode("ascii"), "LO"), coding),
            elements.written(0x04000564, "LO", source, coding),
            elements.written(0x04000565, "CS", _padded(stamp.reason.encode("ascii"), "CS"), coding),
        )
    )
    value = (earlier.value if earlier is not None else b"") + elements.item(content, coding)
    return elements.written(ORIGINALS, "SQ", value, coding)


def _prove(old: bytes, new: bytes, named: Iterable[int]) -> None:
    """The two files differ in the named elements alone; else NotFaithful. The digest reads them in its own way."""
    try:
        one, other = digest.fingerprint(old), digest.fingerprint(new)
    except digest.Unreadable as error:
        raise NotFaithful(str(error)) from error
    found = set(digest.differences(one, other))
    strange = found - {elements.name(tag) for tag in named}
    if strange:
        raise NotFaithful(f"{', '.join(sorted(strange))} would change, too")
    if elements.name(ORIGINALS) not in found:
        raise NotFaithful("the old values could not be kept in the corrected copy")


def _told(tag: int, file: File, after: File, before: Sequence[str], terms: Sequence[str]) -> Changed:
    if tag in _REQUESTS:
        return Changed(elements.name(tag), _keyword(tag), _numbers(file, tag, before), _numbers(after, tag, terms))
    return Changed(elements.name(tag), _keyword(tag), _text(file.get(tag), before), _text(after.get(tag), terms))


def _numbers(file: File, tag: int, terms: Sequence[str]) -> str:
    sequence = file.get(tag)
    inside = elements.items(sequence) if sequence is not None else []
    return ", ".join(_text(one, terms) for item in inside for one in item if one.tag in (_ACCESSION_NUMBER, _STUDY_UID))


def _keyword(tag: int) -> str:
    return keyword_for_tag(tag) or elements.name(tag)


def _terms(element: Element | None) -> list[str]:
    return character_sets.terms(element.value if element is not None else None)


def _text(element: Element | None, terms: Sequence[str]) -> str:
    return character_sets.decoded(element.value, element.known_vr, terms) if element is not None else ""
