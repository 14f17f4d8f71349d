"""Legacy archives."""

from __future__ import annotations

import sys
from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, model_validator

from zambezi.config.settings.migration_hours import CeilingHours
from zambezi.config.settings.section import Name, Section, Window
from zambezi.retries import Policy

#: So often a near-line study is asked for before a person looks; a share of its deadline lies between.
_NEAR_LINE_ATTEMPTS = 12


class MigrationSource(Section):
    kind: Literal["dicom", "orthanc", "dicomweb", "folder"] = Field(
        "dicom",
        description="dicom: query/retrieve, a name of DicomModalities; orthanc: another Orthanc's REST, a name of "
        "OrthancPeers; dicomweb: QIDO-RS and WADO-RS, a name of DicomWeb.Servers; folder: files below a Folder.",
    )
    peer: Name = Field("", description="The legacy archive's name in the section that its Kind says; not of a folder.")
    folder: str = Field(
        "",
        description="Kind folder: where the files are, such as /mnt/archive; the account under which Zambezi runs "
        "must be able to read them.",
    )
    aet: str = Field(
        "ZAMBEZI_MIG", max_length=16, description="Our AE title for the second, independent retrieve (C-GET)."
    )
    retrieve: Literal["move", "get"] = Field(
        "move",
        description="How a DICOM source is retrieved from. get: C-GET under `Aet`, slower, only where it can't be told "
        "to move to us; an object that would come in another transfer syntax than the source names is left there.",
    )
    windows: tuple[Window, ...] = Field((Window(),), description="When it may be asked.")
    ceiling: int = Field(
        1, ge=1, le=32, description="Studies moved at once, at most; how many of them, its own answers decide."
    )
    ceilings: tuple[CeilingHours, ...] = Field(
        (), description="Hours with another ceiling, such as working hours; where several hold, the lowest."
    )
    parallel: int = Field(
        4,
        ge=1,
        le=16,
        description="Kinds orthanc, dicomweb and folder: objects of one study fetched or stored at once.",
    )
    study_deadline_seconds: float = Field(
        600,
        ge=5,
        le=86400,
        description="A study that takes longer is tried again later; where bytes pass through us: if no object of it "
        "came for so long.",
    )
    near_line: bool = Field(
        False,
        description="All of it lies on tape or in a jukebox. Studies that the source itself calls near-line or "
        "off-line are treated so in any case: long limits, slots of their own, and no failure of the source.",
    )
    near_line_at_once: int = Field(
        1, ge=1, le=8, description="Near-line studies asked for at once, beside the `Ceiling` of the others."
    )
    near_line_deadline_seconds: float = Field(
        14400, ge=5, le=604800, description="In place of `StudyDeadlineSeconds`, for a near-line study."
    )
    repeats_answers: bool = Field(
        False,
        description="Kind dicom: it is known to answer a query with the same more than once. An image that is named "
        "twice is one object then; otherwise its study waits for a person unless two came.",
    )
    retry_seconds: float = Field(5, ge=0.1, le=86400, description="Wait before a study is tried again.")
    retry_multiplier: float = Field(2, ge=1, le=10, description="Each further wait is so many times longer.")
    retry_cap_seconds: float = Field(1800, ge=0.1, le=86400, description="No wait is longer.")
    retry_jitter: float = Field(0.5, ge=0, le=1, description="The share of each wait that chance decides.")
    break_after: int = Field(
        5, ge=1, le=1000, description="After so many failures in a row it is paused; the pauses grow as the waits do."
    )

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.kind == "folder":
            if self.peer or not self.folder.startswith("/"):
                raise ValueError("a source of Kind folder has a Folder that begins with /, and no Peer")
        elif not self.peer or self.folder:
            raise ValueError(f"a source of Kind {self.kind} has a Peer, and no Folder")
        if self.repeats_answers and self.kind != "dicom":
            raise ValueError(f"RepeatsAnswers is for a source of Kind dicom, not {self.kind}")
        return self

    @property
    def deadline_seconds(self) -> float:
        """A study that takes longer is let go of."""
        return self.near_line_deadline_seconds if self.near_line else self.study_deadline_seconds

    @property
    def silence_seconds(self) -> float:
        """A source that we ask ourselves is given up when it says nothing for so long, whatever it fetches: nobody can
        tell whoever waits for it that its window has closed."""
        return min(self.deadline_seconds, 300)

    @property
    def policy(self) -> Policy:
        """A dead line is tried for ever; single objects that don't come wait for a person after three attempts.

        What is near-line is fetched meanwhile: it is asked for again now and then within its deadline.
        """
        if self.near_line:
            share = self.near_line_deadline_seconds / _NEAR_LINE_ATTEMPTS
            wait = timedelta(seconds=max(share, self.retry_seconds))
            return Policy(
                wait, 1, wait, sys.maxsize, object_attempts=_NEAR_LINE_ATTEMPTS, jitter=self.retry_jitter
            )  # fmt: skip
        return Policy(
            timedelta(seconds=self.retry_seconds), self.retry_multiplier, timedelta(seconds=self.retry_cap_seconds),
            sys.maxsize, jitter=self.retry_jitter,
        )  # fmt: skip


class Migration(Section):
    sources: dict[Name, MigrationSource] = Field(
        default_factory=dict, description="Legacy archives, by a name of ours."
    )
