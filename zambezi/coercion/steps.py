"""What a coercion rule does to the values of an image, step by step, in the order of the rule's keys. Pure."""

from __future__ import annotations

from zambezi import character_sets, rewriting
from zambezi.coercion import attributes
from zambezi.coercion.orders import Order, Orders
from zambezi.config.settings import Coercion, FromWorklist
from zambezi.correctable import Attribute, ValueRefused, checked_value
from zambezi.elements import File

_STUDY_UID, _ACCESSION_NUMBER, _PATIENT_ID = 0x0020000D, 0x00080050, 0x00100020


class CoercionFailed(ValueError):
    """The image stays as it came; the text says why, and holds no value of it."""


class Draft:
    """Values as the steps make them; nothing is written yet."""

    def __init__(self, file: File) -> None:
        self.file = file
        charset = file.get(character_sets.TAG)
        self.terms = character_sets.terms(charset.value if charset else None)
        self._made: dict[int, tuple[Attribute, str | None]] = {}
        self._charset: str | None = None

    @property
    def vrs(self) -> dict[int, str]:
        return {tag: attribute.vr for tag, (attribute, _) in self._made.items()}

    def get(self, attribute: Attribute) -> str:
        """The value now; empty where there is none."""
        tag = int(attribute.tag, 16)
        if tag in self._made:
            return self._made[tag][1] or ""
        return self._came(tag, attribute)

    def put(self, attribute: Attribute, value: str | None) -> None:
        self._made[int(attribute.tag, 16)] = (attribute, value)

    def declare(self, term: str) -> None:
        """The text is in this character set, whatever the image says."""
        self.terms = [term]
        self._charset = term

    def checked(self) -> dict[int, str | None]:
        """What is to change; CoercionFailed where a value can't stand in its attribute."""
        changes: dict[int, str | None] = {}
        for tag, (attribute, value) in self._made.items():
            is_there = self.file.get(tag) is not None
            if value is None or (is_there and value == self._came(tag, attribute)):
                if value is None and is_there:
                    changes[tag] = None
                continue
            try:
                changes[tag] = checked_value(attribute, value)
            except ValueRefused as refused:  # which repeats the value: it may be a patient's
                said = f"{attribute.keyword}: the value that it would get can't be one ({attribute.vr} of PS3.5 6.2)"
                raise CoercionFailed(said) from refused
        if self._charset is not None:
            changes[character_sets.TAG] = self._charset
        return changes

    def _came(self, tag: int, attribute: Attribute) -> str:
        element = self.file.get(tag)
        return character_sets.decoded(element.value, attribute.vr, self.terms) if element is not None else ""


class Steps:
    """What one rule does, in the order of its keys. `tags` are the elements that it needs."""

    def __init__(self, settings: Coercion) -> None:
        self._settings = settings
        find = attributes.find
        self._copy = [(find(to), find(source)) for to, source in settings.copy_.items()]
        self._map = [(find(named), values) for named, values in settings.map_.items()]
        self._set = [(find(named), value) for named, value in settings.set_.items()]
        self._fill = [(find(named), value) for named, value in settings.fill.items()]
        self._prefix = [(find(named), value) for named, value in settings.prefix.items()]
        self._remove = [find(named) for named in settings.remove]
        self._take = [find(named) for named in settings.from_worklist.take] if settings.from_worklist else []
        named = [one for pair in self._copy for one in pair] + self._remove + self._take
        named += [one for one, _ in (*self._map, *self._set, *self._fill, *self._prefix)]
        self.tags = {int(one.tag, 16) for one in named} | {_STUDY_UID, _ACCESSION_NUMBER, _PATIENT_ID}

    def take(self, draft: Draft, orders: Orders) -> None:
        """Do it."""
        if self._settings.character_set:
            _put_right(draft, self._settings.character_set)
        if self._settings.from_worklist:
            self._from_worklist(draft, orders, self._settings.from_worklist)
        for to, source in self._copy:
            if draft.get(source):
                draft.put(to, draft.get(source))
        for attribute, values in self._map:
            if draft.get(attribute) in values:
                draft.put(attribute, values[draft.get(attribute)])
        for attribute, value in self._set:
            draft.put(attribute, value)
        for attribute, value in self._fill:
            if not draft.get(attribute):
                draft.put(attribute, value)
        for attribute, begins in self._prefix:
            value = draft.get(attribute)
            if value and not value.startswith(begins):
                draft.put(attribute, begins + value)
        for attribute in self._remove:
            draft.put(attribute, None)

    def _from_worklist(self, draft: Draft, orders: Orders, settings: FromWorklist) -> None:
        keys = [draft.get(attributes.find(named)) for named in ("StudyInstanceUID", "AccessionNumber")]
        order = orders.find(keys[0], keys[1], settings.match_by)
        if order is None:
            if settings.must_match:
                raise CoercionFailed(f"no order on the worklist has its {' or '.join(settings.match_by)}")
            return
        self._check_patient(draft, order, settings)
        for attribute in self._take:
            value = order.get(int(attribute.tag, 16))
            if value:
                draft.put(attribute, value)

    def _check_patient(self, draft: Draft, order: Order, settings: FromWorklist) -> None:
        """An order of another patient must not lend its name or birth date: numbers are used twice."""
        number = draft.get(attributes.find("PatientID"))
        ordered = order.get(_PATIENT_ID, "")
        same = (number, self._settings.prefix.get("PatientID", "") + number)
        if number and ordered and ordered not in same and "PatientID" not in settings.take:
            raise CoercionFailed("the order with its Study Instance UID or accession number has another patient ID")


def _put_right(draft: Draft, wanted: str) -> None:
    """Name the character set that the text is really in; CoercionFailed where it can't be that one."""
    texts = [one.value for one in rewriting.foreign_texts(draft.file.elements)]
    if not texts or draft.terms == [wanted]:
        return
    if wanted != "guess":
        if not all(character_sets.can_be_read(text, wanted) for text in texts):
            raise CoercionFailed(f"its text can't be read as {wanted}")
        draft.declare(wanted)
        return
    if any("2022" in term for term in draft.terms):
        return  # its own escapes say what it is written in
    if all(character_sets.can_be_read(text, "ISO_IR 192") for text in texts):
        guessed = "ISO_IR 192"
    elif not [term for term in draft.terms if term not in ("", "ISO_IR 6")]:
        guessed = "ISO_IR 100"
    else:
        return
    if draft.terms != [guessed]:
        draft.declare(guessed)
