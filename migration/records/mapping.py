"""The mapping file: where an old system's patients, exams and reports stand, and what each column means here."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from zambezi.config.settings.section import Name, Section

Kind = Literal["patient", "exam", "report"]
#: In this order they are taken: who is meant first.
KINDS: tuple[Kind, ...] = ("patient", "exam", "report")

#: What a kind's fields are -> how each is read (migration.records.evaluating) and whether a row must have it.
FIELDS: dict[Kind, dict[str, tuple[str, bool]]] = {
    "patient": {
        "PatientID": ("identifier", True), "Issuer": ("identifier", False), "Name": ("text", False),
        "FamilyName": ("text", False), "GivenName": ("text", False), "BirthDate": ("date", False),
        "Sex": ("sex", False),
    },
    "exam": {
        "PatientID": ("identifier", True), "Issuer": ("identifier", False), "AccessionNumber": ("short", False),
        "StudyUID": ("uid", False), "PlacerNumber": ("identifier", False), "FillerNumber": ("identifier", False),
        "ProcedureCode": ("identifier", False), "ProcedureText": ("text", False), "Modality": ("short", False),
        "PerformedAt": ("moment", True), "Status": ("status", False), "Priority": ("priority", False),
        "ReferringPhysician": ("text", False), "ClinicalInformation": ("long", False),
    },
    "report": {
        "PatientID": ("identifier", False), "Issuer": ("identifier", False), "AccessionNumber": ("text", False),
        "StudyUID": ("uid", False), "Text": ("long", False), "File": ("text", False), "Content": ("content", False),
        "WrittenAt": ("moment", False), "Author": ("text", False), "Status": ("text", False), "Title": ("text", False),
    },
}  # fmt: skip

_HL7_TIMES = ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d")


class MappingFault(ValueError):
    """The mapping can't be used; the text lists every fault with its place."""


class Take(Section):
    """How one field comes from a row; a bare string is the name of a column."""

    column: str = Field("", description="The column, or a path such as PID-3.1 of an HL7 message.")
    either: tuple[str, ...] = Field((), description="Instead: the first of these columns that holds anything.")
    columns: tuple[str, ...] = Field((), description="Instead: these columns, joined.")
    join: str = Field(" ", description="What stands between Columns.")
    constant: str = Field("", description="Instead: the same for every row.")
    pattern: str = Field("", description="A regular expression; its first group, else all that it matches, is taken.")
    values: dict[str, str] = Field(default_factory=dict, description="What the old system wrote, and what it means.")
    otherwise: str | None = Field(None, description="For what is not in Values; without it that is a fault.")
    formats: tuple[str, ...] = Field((), description="How dates are written, as strptime has it, such as %d/%m/%Y.")
    prefix: str = Field("", description="Put before what is there.")
    pad_to: int = Field(0, ge=0, le=64, description="Zeros before it up to so many characters.")
    if_bad: Literal["refuse", "empty"] = Field("refuse", description="empty: take the row without it, and say so.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        return {"Column": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(bool(one) for one in (self.column, self.either, self.columns, self.constant)) != 1:
            raise ValueError("give exactly one of Column, Either, Columns and Constant")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"Pattern: {error}") from None
        return self

    @property
    def origins(self) -> tuple[str, ...]:
        """The columns that it looks at."""
        return (self.column,) if self.column else self.either or self.columns


class Sql(Section):
    url: str = Field("", description="Such as sqlite:///old.db; never with a password in it.")
    url_file: str = Field("", description="Instead: a file that only its owner may read (0600) with the URL.")
    query: str = Field(min_length=1, description="One SELECT; joins belong here.")

    @model_validator(mode="after")
    def _one_url(self) -> Self:
        if bool(self.url) == bool(self.url_file):
            raise ValueError("give exactly one of Url and UrlFile")
        if re.search(r"//[^/@]*:[^/@]+@", self.url):
            raise ValueError("Url holds a password; write the URL into a file of mode 0600 and name it in UrlFile")
        return self


class From(Section):
    """Where rows stand: exactly one of Csv, Hl7 and Sql."""

    csv: tuple[str, ...] = Field((), description="A file, or the files that Query joins.")
    encoding: str = Field("", description="Of the CSV; empty: found out, and shown.")
    delimiter: str = Field("", max_length=1, description="Of the CSV; empty: found out, and shown.")
    header: tuple[str, ...] = Field((), description="Names of the columns where the CSV has no line with them.")
    query: str = Field("", description="A SELECT over the CSV files, each a table named as its file without suffix.")
    hl7: tuple[str, ...] = Field((), description="Files of HL7 v2 messages, with or without FHS and BHS.")
    sql: Sql | None = Field(None, description="A database.")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {k: [v] if k in ("Csv", "Hl7") and isinstance(v, str) else v for k, v in given.items()}
        return given

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if sum(bool(one) for one in (self.csv, self.hl7, self.sql)) != 1:
            raise ValueError("give exactly one of Csv, Hl7 and Sql")
        if len(self.csv) > 1 and not self.query:
            raise ValueError("several CSV files need a Query that joins them")
        if self.query and not self.csv:
            raise ValueError("Query is for CSV files; a database has its own in Sql.Query")
        return self


class Records(Section):
    from_: From = Field(alias="From")
    key: tuple[str, ...] = Field((), description="Columns that name a row for ever, whatever else of it changes.")
    fields: dict[str, Take] = Field(default_factory=dict, description="Our field, and where it comes from.")
    empty: tuple[str, ...] = Field(("NULL", "null", "N/A"), description="What means nothing is there.")
    repeats: Literal["refuse", "last"] | None = Field(
        None, description="The same key again with other content: a fault, or the newer word (default for HL7)."
    )

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("Key"), str):
            return {**given, "Key": [given["Key"]]}
        return given

    @property
    def last_counts(self) -> bool:
        """Whether the newer of two rows with one key is simply the newer word."""
        return (self.repeats or ("last" if self.from_.hl7 else "refuse")) == "last"

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is looked at."""
        named = [*self.key, *(origin for take in self.fields.values() for origin in take.origins)]
        return tuple(dict.fromkeys(named))


class Mapping(Section):
    name: Name = Field(description="What the old system is called here; imported records carry it.")
    issuer: str = Field(min_length=1, max_length=64, description="Who gave its patient identifiers out.")
    folder: str = Field("", description="Where files are; empty: beside this file.")
    time_zone: str = Field("", description="Of its times; empty: the site's.")
    to_archive: bool = Field(
        False,
        description="Reports that are PDF or DICOM documents go into the archive, too, as objects of their study.",
    )
    patients: Records | None = None
    exams: Records | None = None
    reports: Records | None = None

    def of(self, kind: Kind) -> Records | None:
        """The section of a kind."""
        return {"patient": self.patients, "exam": self.exams, "report": self.reports}[kind]

    @model_validator(mode="after")
    def _known(self) -> Self:
        faults = []
        for kind in KINDS:
            records = self.of(kind)
            if records is None:
                continue
            known = FIELDS[kind]
            where = f"{kind.capitalize()}s"
            faults += [f"{where}.Fields.{n}: no such field; there are {', '.join(known)}" for n in records.fields
                       if n not in known]  # fmt: skip
            if not records.key:
                faults.append(f"{where}.Key: name the column, or columns, by which a row is known again")
            missing = [name for name, (_how, needed) in known.items() if needed and name not in records.fields]
            faults += [f"{where}.Fields.{name}: must be given" for name in missing]
        faults += self._incomplete()
        if all(self.of(kind) is None for kind in KINDS):
            faults.append("none of Patients, Exams and Reports is given")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _incomplete(self) -> list[str]:
        faults = []
        if self.patients and not {"Name", "FamilyName", "GivenName"} & set(self.patients.fields):
            faults.append("Patients.Fields: give Name, or FamilyName and GivenName")
        if self.reports and not {"Text", "File", "Content"} & set(self.reports.fields):
            faults.append("Reports.Fields: give Text, File or Content")
        if self.reports and not {"StudyUID", "AccessionNumber", "PatientID"} & set(self.reports.fields):
            faults.append(
                "Reports.Fields: give StudyUID, AccessionNumber or PatientID, else nobody knows whose they are"
            )
        return faults


#: What a section of HL7 messages means where the mapping doesn't say otherwise (HL7 v2.5.1, 3.4.2, 4.5.1, 4.5.3, 7.4).
_HL7: dict[str, dict[str, Any]] = {
    "Patients": {
        "Key": ["PID-3.1"],
        "Fields": {
            "PatientID": "PID-3.1", "FamilyName": "PID-5.1.1", "GivenName": "PID-5.2",
            "BirthDate": {"Column": "PID-7", "Formats": _HL7_TIMES},
            "Sex": {"Column": "PID-8", "Values": {"M": "M", "F": "F", "O": "O", "A": "O", "N": "O", "U": "U"}},
        },
    },
    "Exams": {
        "Key": ["OBR-3.1", "OBR-2.1"],
        "Fields": {
            "PatientID": "PID-3.1", "AccessionNumber": {"Either": ["OBR-18", "OBR-3.1"]}, "StudyUID": "ZDS-1.1",
            "PlacerNumber": {"Either": ["ORC-2.1", "OBR-2.1"]}, "FillerNumber": {"Either": ["ORC-3.1", "OBR-3.1"]},
            "ProcedureCode": "OBR-4.1", "ProcedureText": "OBR-4.2", "Modality": "OBR-24",
            "PerformedAt": {"Either": ["OBR-7", "OBR-22", "OBR-36", "ORC-7.4"], "Formats": _HL7_TIMES},
            "Status": {
                "Either": ["OBR-25", "ORC-5"],
                "Values": {"F": "completed", "C": "completed", "P": "completed", "R": "completed", "A": "completed",
                           "CM": "completed", "X": "cancelled", "CA": "cancelled", "DC": "discontinued",
                           "O": "scheduled", "I": "scheduled", "S": "scheduled", "SC": "scheduled", "IP": "in-progress",
                           "": "scheduled"},
            },
            "ReferringPhysician": {"Columns": ["OBR-16.2", "OBR-16.3"], "Join": "^"},
            "ClinicalInformation": {"Either": ["OBR-13", "OBR-31.2"]},
        },
    },
    "Reports": {
        "Key": ["OBR-3.1", "OBR-2.1"],
        "Fields": {
            "PatientID": "PID-3.1", "AccessionNumber": {"Either": ["OBR-18", "OBR-3.1"]}, "StudyUID": "ZDS-1.1",
            "Text": "text", "Content": "document", "Title": "OBR-4.2", "Status": "OBR-25",
            "WrittenAt": {"Either": ["OBR-22", "OBX-14"], "Formats": _HL7_TIMES},
            "Author": {"Columns": ["OBR-32.1.2", "OBR-32.1.3"], "Join": "^"},
        },
    },
}  # fmt: skip


def load(path: Path) -> tuple[Mapping, dict[str, Any], str]:
    """The mapping of a file, the document and its SHA-256; MappingFault with every fault."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MappingFault(f"{path}: {error.strerror}") from error
    try:
        document = json.loads(raw)
    except ValueError as error:
        raise MappingFault(f"{path}: no JSON: {error}") from error
    return read(document, str(path)), document, hashlib.sha256(raw).hexdigest()


def read(document: Any, where: str = "mapping") -> Mapping:
    """The mapping of a document; what HL7 means by itself is filled in. MappingFault with every fault."""
    try:
        return Mapping.model_validate(_with_hl7(document))
    except ValidationError as error:
        faults = []
        for one in error.errors():
            place = ".".join(str(part) for part in one["loc"])
            faults += [f"{where}: {place}{': ' if place else ''}{line}"
                       for line in one["msg"].removeprefix("Value error, ").splitlines()]  # fmt: skip
        raise MappingFault("\n".join(faults)) from None


def schema() -> dict[str, Any]:
    """The JSON Schema of a mapping file, for editors."""
    return Mapping.model_json_schema(by_alias=True)


def _with_hl7(document: Any) -> Any:
    if not isinstance(document, dict):
        return document
    filled = dict(document)
    for section, usual in _HL7.items():
        given = document.get(section)
        if isinstance(given, dict) and isinstance(given.get("From"), dict) and "Hl7" in given["From"]:
            filled[section] = {**usual, **given, "Fields": {**usual["Fields"], **given.get("Fields", {})}}
    return filled
