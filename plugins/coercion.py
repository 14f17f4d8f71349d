"""Coercion as images come: by C-STORE, and by the gateway's coercing port. The shell around zambezi.coercion.

What services store by HTTP (reports, corrections, restores, recovery, a move) is never coerced by these rules: it was
when it came first. What is being migrated must stay what its source has, but for what its plan declares, study by
study (zambezi.coercion.declared), whichever way it comes. An image whose coercion fails is stored as it came, once the
journal says so. Without a rule, and without a declared change, nothing is read or loaded here.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from plugins import header
from plugins.facts import Came
from plugins.header import Header, HeaderFault
from plugins.journal import Journal
from plugins.pushed import Announced, Pushed
from zambezi import causes
from zambezi.coercion import envelope
from zambezi.config.settings import Coercion as Settings

if TYPE_CHECKING:  # they load pydicom: only where there is a rule
    from zambezi.coercion.orders import Orders
    from zambezi.coercion.rules import Rule, Rules

log = logging.getLogger("zambezi.coercion")

#: So many images are remembered with the moment of their coercion: one that is sent again becomes the same bytes.
REMEMBERED = 50_000


@dataclass(frozen=True)
class Treated:
    """What Orthanc is to get. `came` where it isn't what came; `read` its header, where that is known already."""

    content: bytes
    came: Came | None = None
    read: Header | None = None
    is_listed: bool = True  # False: it could neither be coerced nor be put before a person


class Coercion:
    """Asked by Orthanc's threads for each instance; `known` says whether the archive has these very bytes."""

    def __init__(
        self,
        settings: Callable[[], tuple[Settings, ...]],
        journal: Journal,
        worklist: Pushed[dict[str, list[bytes]]],
        announced: Callable[[], Announced],
        known: Callable[[Header, str], bool],
        recovering: bool = False,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._worklist = worklist
        self._announced = announced
        self._known = known
        self._recovering = recovering  # what comes then was here before: it is what it is to be
        self._lock = threading.Lock()
        self._compiled: tuple[tuple[Settings, ...], Rules] | None = None
        self._orders: tuple[int, Orders] | None = None
        self._moments: OrderedDict[str, datetime] = OrderedDict()

    def treat(self, content: bytes, by_dicom: bool, now: datetime) -> Treated:
        """The image as it is to be stored. Never raises: what goes wrong here leaves the image as it came."""
        calling_aet = ""
        if not by_dicom:
            if not envelope.is_wrapped(content):
                return self._declared(content, now)
            try:
                content, calling_aet = envelope.unwrap(content)
            except envelope.NoEnvelope:
                return Treated(content)
        settings = self._settings()
        if not settings:
            return self._declared(content, now)
        try:
            return self._treat(content, settings, calling_aet, now)
        except Exception as error:  # noqa: BLE001  # edge: Orthanc must get the image, whatever is wrong with us or with it
            return self._failed(content, "", _reason(error), calling_aet, now)

    def _declared(self, content: bytes, now: datetime) -> Treated:
        """What no rule is asked for: it is read only while studies with declared changes are coming."""
        if self._recovering or not self._announced().is_changing:
            return Treated(content)
        try:
            return self._as_declared(content, header.read(content), now)
        except HeaderFault:
            return Treated(content)  # arrivals holds it
        except Exception as error:  # noqa: BLE001  # edge: as above
            return self._failed(content, "", _reason(error), "", now)

    def _as_declared(self, content: bytes, read: Header, now: datetime) -> Treated:
        """An image of a study whose migration changes it; what we store ourselves in such a study is as it is to be."""
        announced = self._announced()
        because = announced.studies.get(read.study_uid)
        is_ours = read.sop_uid in announced.instances
        if because is None or because.cause != causes.MIGRATION or not because.changes or is_ours or self._recovering:
            return Treated(content, read=read)
        from zambezi.coercion import declared
        from zambezi.coercion.orders import Orders

        try:
            rule = declared.rule(dict(because.changes), because.reference)
        except ValueError as error:
            log.error("declared changes can't be carried out: %s", type(error).__name__)
            return self._failed(content, because.reference, "the declared changes can't be carried out", "", now, read)
        return self._carried_out(content, (rule,), Orders(), "", now, read)

    def _treat(self, content: bytes, settings: tuple[Settings, ...], calling_aet: str, now: datetime) -> Treated:
        from zambezi.coercion.rules import Image

        rules = self._rules(settings)
        try:
            read = header.read(content, rules.tags)
        except HeaderFault as fault:
            header.read(content)  # what can't be read at all goes to the hold: arrivals sees to that
            return self._failed(content, "", str(fault), calling_aet, now)
        because = self._announced().studies.get(read.study_uid)
        if because and because.cause == causes.MIGRATION:
            return self._as_declared(content, read, now)
        matching = rules.matching(
            Image(read.also, calling_aet, because is not None and because.cause == causes.MODALITY)
        )
        if not matching:
            return Treated(content, read=read)
        return self._carried_out(content, matching, self._orders_for(matching), calling_aet, now, read)

    def _carried_out(
        self, content: bytes, rules: tuple[Rule, ...], orders: Orders, calling_aet: str, now: datetime, read: Header
    ) -> Treated:
        from zambezi.coercion.coercing import coerce

        came = hashlib.sha256(content).hexdigest()
        if self._known(read, came):
            return Treated(content, read=read)  # it is there as it came: before the rule was, or when that failed
        names = tuple(rule.name for rule in rules)
        try:
            made = coerce(content, rules, orders, self._moment(came, now)).content
            if made is content:
                return Treated(content, read=read)
            becomes = header.read(made)
            if becomes.sop_uid != read.sop_uid:
                raise HeaderFault("the SOP Instance UID would change")
        except Exception as error:  # noqa: BLE001  # edge: a rule that fails costs a line, never an image
            return self._failed(content, ", ".join(names), _reason(error), calling_aet, now, read)
        return Treated(made, Came(came, names), becomes)

    def _rules(self, settings: tuple[Settings, ...]) -> Rules:
        from zambezi.coercion.rules import Rules

        with self._lock:
            if self._compiled is None or self._compiled[0] is not settings:
                self._compiled = (settings, Rules(settings))
            return self._compiled[1]

    def _orders_for(self, rules: tuple[Rule, ...]) -> Orders:
        """The worklist, taken apart when another one has been pushed."""
        from zambezi.coercion.orders import Orders

        if not any(rule.settings.from_worklist for rule in rules):
            return Orders()
        with self._lock:
            generation = self._worklist.generation
            if self._orders is None or self._orders[0] != generation:
                content = self._worklist.content
                items = (item for items in content.values() for item in items)
                self._orders = (generation, Orders(items, self._orders[1] if self._orders else None))
            return self._orders[1]

    def _moment(self, sha256: str, now: datetime) -> datetime:
        with self._lock:
            moment = self._moments.setdefault(sha256, now)
            self._moments.move_to_end(sha256)
            if len(self._moments) > REMEMBERED:
                self._moments.popitem(last=False)
            return moment

    def _failed(
        self, content: bytes, rule: str, reason: str, calling_aet: str, now: datetime, read: Header | None = None
    ) -> Treated:
        """Let it in as it came, once the journal says so: a person is told."""
        try:
            told = read or header.read(content)
        except (HeaderFault, ValueError):
            return Treated(content)  # nobody can read it: arrivals holds it
        log.warning("an image is stored as it came: %s", reason)
        try:
            with self._journal.transaction() as transaction:
                transaction.append(
                    "coercion-failed", now, told.orthanc_id, rule=rule, reason=reason, study_uid=told.study_uid[:64],
                    series_uid=told.series_uid[:64], sop_uid=told.sop_uid[:64], sender=calling_aet or told.sender,
                )  # fmt: skip
        except Exception:  # edge: no room, no disk; the sender must not be told Success for what nobody will look at
            log.exception("a failed coercion could not be recorded: the image is refused")
            return Treated(content, is_listed=False)
        return Treated(content, read=told)


def _reason(error: Exception) -> str:
    """In words that hold no value of the image: only errors of ours have such."""
    from zambezi.coercion.steps import CoercionFailed

    if isinstance(error, CoercionFailed | HeaderFault):
        return str(error)
    log.error("coercing failed unexpectedly: %s at %s", type(error).__name__, _place(error))
    return f"carrying out the rule failed: {type(error).__name__}"


def _place(error: Exception) -> str:
    """Where it was raised. No traceback: the message of a decoding error holds the text that it could not decode."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
