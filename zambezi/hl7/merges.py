"""Identifiers that are given up: A40 (merge) and A47 (change) of ADT, HL7 v2.5.1 3.3.40 and 3.3.47."""

from __future__ import annotations

from dataclasses import dataclass

from zambezi.hl7 import orders as told
from zambezi.hl7.orders import CannotApply, PatientFacts
from zambezi.hl7.read import Reading

#: Two identifiers are one patient's. A34 and A36 are what version 2.3 said instead of A40.
MERGING = ("A40", "A34", "A36")
#: A patient has another identifier from now on.
CHANGING = ("A47",)

LONGEST_ID = 64


@dataclass(frozen=True)
class Identifier:
    """A patient's ID and who gave it."""

    patient_id: str
    issuer: str


@dataclass(frozen=True)
class Merge:
    """One PID with its MRG: `prior` is given up for `survivor`; `facts` where PID-5 names the patient."""

    survivor: Identifier
    prior: Identifier
    facts: PatientFacts | None


def merges(reading: Reading, default_issuer: str) -> list[Merge]:
    """Every PID with its MRG, in the message's order; CannotApply where one lacks the other or an identifier."""
    groups = reading.patients()
    if not groups:
        raise CannotApply("101", "there is no PID in the message", "PID^1")
    return [_merge(group, number, default_issuer) for number, group in enumerate(groups, 1)]


def _merge(group: Reading, number: int, default_issuer: str) -> Merge:
    survivor = Identifier(*told.identifier(group, "PID-3", default_issuer, or_else="PID-2"))
    prior = Identifier(*told.identifier(group, "MRG-1", default_issuer))
    for found, place, segment in ((survivor, "PID-3", "PID"), (prior, "MRG-1", "MRG")):
        location = f"{segment}^{number}^{place[-1]}"
        if not found.patient_id:
            raise CannotApply("101", f"{place} names no identifier", location)
        if len(found.patient_id) > LONGEST_ID:
            raise CannotApply("102", f"the identifier in {place} has more than {LONGEST_ID} characters", location)
    if survivor == prior:
        raise CannotApply("205", "PID-3 and MRG-1 name the same identifier", f"MRG^{number}^1")
    facts = told.patient(group, default_issuer) if any(told.name(group)) else None
    return Merge(survivor, prior, facts)
