"""Who may send what: the archive's answer to a C-STORE, by `Zambezi.Admission` (zambezi.admission decides).

Registered only where the configuration asks for it: Orthanc serialises this callback, too. It answers from the
bytes and from memory; what is to be held is on disk before the sender is answered.
"""

from __future__ import annotations

import logging
from datetime import datetime

from plugins import header
from plugins.arrivals import Arrivals
from plugins.header import HeaderFault
from plugins.refusals import ADMISSION, Refusals
from plugins.rules import Rules
from zambezi import admission
from zambezi.admission import Newcomer, Terms
from zambezi.config import Configuration

log = logging.getLogger("zambezi.admission")


class Gate:
    """Asked by Orthanc's threads for each C-STORE, after the look at arrivals."""

    def __init__(self, rules: Rules, arrivals: Arrivals, refusals: Refusals) -> None:
        self._rules = rules
        self._arrivals = arrivals
        self._refusals = refusals
        self._of: tuple[Configuration, dict[str, Terms]] | None = None

    def answer(self, content: bytes, aet: str, now: datetime) -> int:
        """The status of the C-STORE response; 0 where Orthanc is to store it."""
        try:
            newcomer = header.read(content)
        except HeaderFault:
            return admission.SUCCESS  # it lies in the hold already (plugins.arrivals); Orthanc decides
        one = Newcomer(
            newcomer.sop_class, newcomer.sop_uid, newcomer.study_uid, newcomer.series_uid, newcomer.patient_id,
            len(content),
        )  # fmt: skip
        verdict = admission.judge(one, self._terms(aet))
        if verdict.action == "accept":
            return admission.SUCCESS
        self._arrivals.turned_away(newcomer, content, now)
        self._refusals.note("", "C-STORE", ADMISSION, verdict.reason, aet)
        if verdict.action == "hold" and not self._arrivals.keep(content, newcomer, verdict.reason, aet, now):
            return admission.NO_RESOURCES
        return verdict.status

    def _terms(self, aet: str) -> Terms:
        configuration = self._rules.now
        if self._of is None or self._of[0] is not configuration:
            asked = configuration.zambezi.admission
            known = {peer.aet: admission.terms(asked, name) for name, peer in configuration.modalities.items()}
            self._of = configuration, {**known, "": admission.terms(asked, "")}
        terms = self._of[1]
        return terms.get(aet, terms[""])
