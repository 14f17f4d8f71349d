"""The door: asks the filter, and sees to it that what it lets through is on record.

The first view of a study in a session is committed to the journal before the answer is yes; without that
commit the answer is no. It answers from memory and the journal alone: Orthanc waits for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from sqlite3 import Error as JournalError

from plugins import http_filter
from plugins.http_filter import Decision, Request
from plugins.journal import Journal
from plugins.refusals import Refusals
from plugins.replaced import Replaced
from zambezi.access.tokens import Token

#: So many (session, study) pairs are remembered; what is forgotten is recorded once more.
REMEMBERED = 50000
OLD = (
    "another node replaced or deleted images of the study since this one showed it; it may have kept them, and shows"
    " the study again when its Orthanc was started anew"
)


class Door:
    """One for the whole of Orthanc; asked by many threads."""

    def __init__(
        self,
        key: str,
        journal: Journal,
        refusals: Refusals,
        revoked: Callable[[], frozenset[str]],
        has_room: Callable[[int, str], bool] = lambda _size, _way: True,
        replaced: Replaced | None = None,
    ) -> None:
        """`replaced`: of several nodes, what this one may show as it was before another one deleted it."""
        self._key = key
        self._journal = journal
        self._refusals = refusals
        self._revoked = revoked
        self._has_room = has_room
        self._replaced = replaced
        self._viewed: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._lock = threading.Lock()

    def ask(self, request: Request, now: datetime) -> bool:
        """Whether the request may pass."""
        decision = http_filter.decide(
            request, self._key, self._revoked(), int(now.timestamp()), self._journal.study_of, self._journal.patients_of
        )
        if decision.allowed and decision.views and self._replaced and not self._replaced.may_show(decision.views):
            decision = Decision(False, OLD, decision.who, decision.token)
        if decision.allowed and decision.token and decision.views:
            decision = self._recorded(request, decision, decision.token, decision.views, now)
        if decision.allowed and http_filter.stores(request) and not self._has_room(request.size, request.user):
            return False  # and the refusal is noted already
        if not decision.allowed:
            self._refusals.note(request.address, request.method, request.path, decision.reason, decision.who)
        return decision.allowed

    def _recorded(self, request: Request, decision: Decision, token: Token, study_uid: str, now: datetime) -> Decision:
        view = (token.session, study_uid)
        with self._lock:
            if view in self._viewed:
                self._viewed.move_to_end(view)
                return decision
        try:
            with self._journal.transaction() as transaction:
                transaction.append(
                    "viewed", now, who=token.subject, session=token.session, role=token.role, kind=token.kind,
                    study_uid=study_uid, path=request.path[:200], ip=request.address,
                )  # fmt: skip
        except JournalError as error:
            return Decision(False, f"the view could not be recorded: {type(error).__name__}", decision.who, token)
        with self._lock:
            self._viewed[view] = None
            while len(self._viewed) > REMEMBERED:
                self._viewed.popitem(last=False)
        return decision
