"""The whole `Zambezi` section."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from zambezi.attributes import nearest
from zambezi.config.settings.access import Access
from zambezi.config.settings.admission import Admission
from zambezi.config.settings.alerts import Alerts, Disk
from zambezi.config.settings.audit import Audit
from zambezi.config.settings.coercion import Coercion
from zambezi.config.settings.commitment import StorageCommitment
from zambezi.config.settings.destinations import Destination
from zambezi.config.settings.hl7 import Hl7
from zambezi.config.settings.keeping import Backup, Deletion, Hold
from zambezi.config.settings.migration import Migration
from zambezi.config.settings.modalities import DicomTls, Worklist
from zambezi.config.settings.priors import PriorSource
from zambezi.config.settings.routing import Completeness, Route
from zambezi.config.settings.section import Name, NamesUnknown, Section
from zambezi.config.settings.site import Session, Site


class Zambezi(Section):
    """The whole `Zambezi` section."""

    site: Site = Field(Site(), description="The hospital.")
    completeness: Completeness = Field(Completeness(), description="When a study is complete.")
    destinations: dict[Name, Destination] = Field(
        default_factory=dict, description="Routing destinations, by their name in DicomModalities or OrthancPeers."
    )
    prior_sources: dict[Name, PriorSource] = Field(
        default_factory=dict,
        description="Archives that a patient's earlier studies are fetched from, by their name in DicomModalities.",
    )
    routing: tuple[Route, ...] = Field((), description="Rules: which images go where once a study is complete.")
    coercions: tuple[Coercion, ...] = Field(
        (), description="Rules: which attributes of which images are put right as they come; all that fit, in order."
    )
    hl7: Hl7 = Field(Hl7(), alias="Hl7", description="Messages with the hospital's information systems.")
    worklist: Worklist = Field(Worklist(), description="What modalities see when they ask for their worklist.")
    session: Session = Field(Session(), description="How long a sign-in lasts, and when an account closes.")
    migration: Migration = Field(Migration(), description="Legacy archives whose studies are brought over.")
    hold: Hold = Field(Hold(), description="What lies apart until somebody decides, and safe copies.")
    deletion: Deletion = Field(Deletion(), description="Images that are to leave the archive.")
    alerts: Alerts = Field(Alerts(), description="Who is told that something waits for a person.")
    disk: Disk = Field(Disk(), description="What is done when a disk gets full.")
    backup: Backup = Field(Backup(), description="Copies of everything, encrypted, on another disk.")
    storage_commitment: StorageCommitment = Field(
        StorageCommitment(), description="Answers to modalities that ask whether their images are safe."
    )
    audit: Audit = Field(Audit(), description="The audit trail: copies elsewhere, signatures, retention.")
    admission: Admission = Field(Admission(), description="Who may send what, besides what DicomModalities allows.")
    access: Access = Field(Access(), description="Who sees a part of the site alone; emergencies; shared studies.")
    dicom_tls: DicomTls = Field(DicomTls(), description="Peers that send over TLS, known by their certificates.")

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        faults: list[tuple[str, str]] = []
        for n, route in enumerate(self.routing):
            for name in route.send_to:
                if name not in self.destinations:
                    known = ", ".join(sorted(self.destinations)) or "none"
                    said = f'no destination "{name}" (known: {known}){nearest(name, self.destinations)}'
                    faults.append((f"Routing[{n}].SendTo", said))
            for name in route.priors.fetch_from if route.priors else ():
                if name not in self.prior_sources:
                    known = ", ".join(sorted(self.prior_sources)) or "none"
                    said = f'no archive "{name}" in PriorSources (known: {known}){nearest(name, self.prior_sources)}'
                    faults.append((f"Routing[{n}].Priors.FetchFrom", said))
            for name in sorted(route.when.sites - self.access.sites.keys()):
                known = ", ".join(sorted(self.access.sites)) or "none"
                said = f'no site "{name}" in Access.Sites (known: {known}){nearest(name, self.access.sites)}'
                faults.append((f"Routing[{n}].When", said))
        for name, destination in self.destinations.items():
            other = self.destinations.get(destination.alternate)
            if destination.alternate and (other is None or other.alternate or destination.alternate == name):
                known = ", ".join(sorted(n for n, d in self.destinations.items() if n != name and not d.alternate))
                what = f'found "{destination.alternate}", allowed is a destination that has no Alternate itself'
                faults.append((f"Destinations.{name}.Alternate", f"{what} ({known or 'there is none'})"))
        for n, trigger in enumerate(self.hl7.triggers):
            if trigger.send_to not in self.hl7.peers:
                known = ", ".join(sorted(self.hl7.peers)) or "none"
                faults.append((f"Hl7.Triggers[{n}].SendTo", f'no HL7 peer "{trigger.send_to}" (known: {known})'))
            elif not self.hl7.peers[trigger.send_to].host:
                faults.append((f"Hl7.Triggers[{n}].SendTo", f"{trigger.send_to} has no Host, so it gets no messages"))
            if trigger.template and trigger.template not in self.hl7.templates:
                known = ", ".join(sorted(self.hl7.templates)) or "none"
                faults.append((f"Hl7.Triggers[{n}].Template", f'no template "{trigger.template}" (known: {known})'))
            for name in trigger.when.destination:
                if name not in self.destinations:
                    known = ", ".join(sorted(self.destinations)) or "none"
                    what = f'no destination "{name}" (known: {known})'
                    faults.append((f"Hl7.Triggers[{n}].When.Destination", what))
        if self.audit.checkpoint_mail_to and not self.alerts.mail.host:
            faults.append(("Audit.CheckpointMailTo", "goes with Alerts.Mail, whose server sends it; that has no Host"))
        named = [(f"Routing[{n}].Name", route.name) for n, route in enumerate(self.routing)]
        named += [(f"Hl7.Triggers[{n}].Name", trigger.name) for n, trigger in enumerate(self.hl7.triggers)]
        named += [(f"Coercions[{n}].Name", rule.name) for n, rule in enumerate(self.coercions)]
        first: dict[str, str] = {}
        for path, name in named:
            if name in first:
                faults.append((path, f'found "{name}", the name of {first[name]}; each rule needs its own'))
            first.setdefault(name, path)
        if faults:
            raise NamesUnknown(faults)
        return self
