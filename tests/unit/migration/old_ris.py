"""An old RIS: its tables as CSV files of Windows, its mapping, and a job that imports them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import select

from migration.records import importing, mapping
from migration.records.importing import Job
from zambezi.database import engine as database
from zambezi.database.engine import Sessions
from zambezi.database.tables import LegacyRow

NOW = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
ZONE = ZoneInfo("Africa/Maputo")

PATIENTS = """NUM;APELIDO;NOMES;NASC;SEXO
101;Machava;João António;03/02/1958;Masculino
102;Conceição;Maria da;12/11/1990;Feminino
103;Tembe;Rosa;31/02/1970;Feminino
104;Sitoe;Elias;;Masculino
"""
EXAMS = """ID;NUM;ACESSO;UID;DATA;HORA;PROC;MOD;ESTADO
1;101;A1;1.2.3.1;05/03/2015;09:30;Tórax PA;CR;FEITO
2;101;A2;;06/03/2015;10:00;Crânio;CT;FEITO
3;102;A3;1.2.3.3;07/03/2015;11:00;Abdómen;US;MARCADO
4;102;A4;1.2.3.4;08/03/2015;12:00;Abdómen;US;FEITO
5;999;A5;1.2.3.5;09/03/2015;12:00;Joelho;CR;FEITO
6;102;A-NUMBER-TOO-LONG-FOR-DICOM;1.2.3.6;08/03/2015;12:00;Abdómen;US;FEITO
"""
REPORTS = """ID;NUM;ACESSO;TEXTO;AUTOR;DATA
1;101;A1;"Sem alterações; ""normal"".

Coração no limite.";Dr. Muianga;05/03/2015 15:00
2;101;A2;"{\\rtf1\\ansi\\ansicpg1252{\\fonttbl{\\f0 Arial;}}\\f0 Conclus\\'e3o: normal.\\par Fim}";M.;06/03/2015 15:00
3;;A77;Laudo sem exame;;
4;102;A4;;;08/03/2015 15:00
"""

MAPPING: dict[str, Any] = {
    "Name": "old-ris", "Issuer": "HCM-OLD",
    "Patients": {
        "From": {"Csv": "patients.csv"}, "Key": "NUM",
        "Fields": {
            "PatientID": "NUM", "FamilyName": "APELIDO", "GivenName": "NOMES",
            "BirthDate": {"Column": "NASC", "Formats": ["%d/%m/%Y"]},
            "Sex": {"Column": "SEXO", "Values": {"Masculino": "M", "Feminino": "F"}},
        },
    },
    "Exams": {
        "From": {"Csv": "exams.csv"}, "Key": "ID",
        "Fields": {
            "PatientID": "NUM", "AccessionNumber": "ACESSO", "StudyUID": "UID", "ProcedureText": "PROC",
            "Modality": "MOD", "PerformedAt": {"Columns": ["DATA", "HORA"], "Formats": ["%d/%m/%Y %H:%M"]},
            "Status": {"Column": "ESTADO", "Values": {"FEITO": "completed", "MARCADO": "scheduled"}},
        },
    },
    "Reports": {
        "From": {"Csv": "reports.csv"}, "Key": "ID",
        "Fields": {
            "PatientID": "NUM", "AccessionNumber": "ACESSO", "Text": "TEXTO", "Author": "AUTOR",
            "WrittenAt": {"Column": "DATA", "Formats": ["%d/%m/%Y %H:%M"]},
        },
    },
}  # fmt: skip


def written(folder: Path, encoding: str = "cp1252", **texts: str) -> None:
    """The files of the old RIS, or those of `texts` in their place."""
    for name, text in {"patients": PATIENTS, "exams": EXAMS, "reports": REPORTS, **texts}.items():
        (folder / f"{name}.csv").write_bytes(text.replace("\n", "\r\n").encode(encoding))


def job(sessions: Sessions, folder: Path, document: dict[str, Any] | None = None, who: str = "ana") -> Job:
    """What imports the folder by a mapping that lies in it."""
    file = folder / "mapping.json"
    file.write_text(json.dumps(document or MAPPING))
    found, document, sha256 = mapping.load(file)
    return Job(sessions, found, document, sha256, folder, ZONE, who, lambda: NOW)


def import_and_die(url: str, folder: Path, crash: Path, batch: int) -> None:
    """A process of its own that imports, and dies where `crash` says (zambezi.crash)."""
    os.environ["ZAMBEZI_CRASH_DIR"] = str(crash)
    importing.BATCH = batch
    importing.run(job(database.sessions(database.connect(url, "migration"), "migration"), folder))


def rows(sessions: Sessions, kind: str) -> dict[str, LegacyRow]:
    """The ledger's rows of a kind by key."""
    with sessions() as session:
        return {row.key: row for row in session.scalars(select(LegacyRow).where(LegacyRow.kind == kind))}
