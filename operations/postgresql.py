"""Whether PostgreSQL can carry what the settings say it carries: each fault is a sentence with what to do.

Two databases may lie there: the central one (ZAMBEZI_DATABASE_URL) and Orthanc's index (the section PostgreSQL of
orthanc-config). A server that is away is told apart from settings that are wrong: an archive that has run before starts
without it, and everything catches up (DESIGN, rule 5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import conninfo

from zambezi.config import Configuration
from zambezi.environment import PASSWORD_FILE, Environment

#: The oldest that PostgreSQL's own project mended in 2025. Tried: 15 (Debian 12) and 17 (Debian 13).
OLDEST = 13
#: An answer takes no longer, or there is none.
ANSWER_S = 5

#: What libpq and the server say, in which case the server is away, and what helps. The first that is found counts.
_REFUSALS: tuple[tuple[str, bool, str], ...] = (
    (r"password authentication failed|no password supplied|authentication failed", False,
     "the role {user} was refused: wrong password, or there is no such role (PostgreSQL doesn't say which). The"
     " password is read from {password}; `tools/postgresql` makes both"),
    (r'role ".*" does not exist', False, "there is no role {user}; as root: tools/postgresql makes it"),
    (r'database ".*" does not exist', False, "there is no database {dbname}; as root: tools/postgresql makes it"),
    (r"no pg_hba.conf entry", False, "the server lets {user} in from elsewhere only; it needs a line in pg_hba.conf"),
    (r"translate host name|resolve host", True, "nobody knows the host {host}; correct its name"),
    (r"Connection refused|No such file|time-?out|timed out|No route|unreachable|closed the connection|starting up"
     r"|shutting down|recovery mode|too many", True,
     "the server doesn't answer; start it (systemctl start postgresql), or correct host and port"),
)  # fmt: skip

#: What is looked at once we are in, in one row.
_LOOK = """
SELECT current_setting('server_version_num')::int, current_setting('server_version'),
       current_setting('server_encoding'), current_setting('fsync'), current_setting('full_page_writes'),
       current_setting('synchronous_commit'), pg_is_in_recovery(),
       has_schema_privilege(coalesce(current_schema(), 'public'), 'CREATE')
"""


@dataclass(frozen=True)
class Fault:
    """What is wrong with one of the databases, for a person; `is_away`: it may come back by itself."""

    words: str
    is_away: bool = False


def faults(environment: Environment, configuration: Configuration) -> list[Fault]:
    """Everything that is wrong with the databases that lie in PostgreSQL; none where nothing lies there."""
    asked: list[tuple[str, dict[str, Any]]] = []
    if environment.database_url.startswith("postgres"):
        asked.append(("the central database", conninfo.conninfo_to_dict(environment.database_url)))
    if configuration.index_is_postgresql:
        asked.append(("Orthanc's index", index_of(configuration)))
    password = f"PGPASSWORD_FILE or {environment.home / PASSWORD_FILE}"
    return [fault for what, where in asked for fault in _look(what, where, password)]


def index_of(configuration: Configuration) -> dict[str, Any]:
    """Where Orthanc's index lies, in libpq's words; orthanc-postgresql's defaults where the section says nothing."""
    section = configuration.orthanc["PostgreSQL"]
    if section.get("ConnectionUri"):
        return dict(conninfo.conninfo_to_dict(section["ConnectionUri"]))
    found = {
        "host": section.get("Host", "localhost"),
        "port": section.get("Port", 5432),
        "dbname": section.get("Database") or "orthanc",
        "user": section.get("Username") or "orthanc",
    }
    return found | ({"password": section["Password"]} if section.get("Password") else {})


def _look(what: str, where: dict[str, Any], password: str) -> list[Fault]:
    name = f"{what} ({where.get('dbname', '?')} at {where.get('host', 'this machine')}:{where.get('port', 5432)})"
    try:
        with psycopg.connect(**where | {"connect_timeout": ANSWER_S}) as connection:
            row = connection.execute(_LOOK).fetchone()
    except psycopg.Error as error:
        return [_refusal(name, where, str(error), password)]
    return [Fault(f"{name}: {words}") for words in unfit(*row or ())]


def _refusal(name: str, where: dict[str, Any], said: str, password: str) -> Fault:
    for found, is_away, words in _REFUSALS:
        if re.search(found, said):
            told = {"user": "?", "dbname": "?", "host": "?"} | where | {"password": password}
            return Fault(f"{name}: {words.format(**told)}", is_away)
    return Fault(f"{name}: PostgreSQL says: {said.splitlines()[-1].strip()}")


def unfit(
    number: int, version: str, encoding: str, fsync: str, pages: str, commit: str, is_standby: bool, may_create: bool
) -> list[str]:
    """What makes a database that lets us in unfit for an archive."""
    words: list[str] = []
    if number < OLDEST * 10000:
        words.append(f"found PostgreSQL {version}, allowed is {OLDEST} or newer; upgrade it (pg_upgradecluster)")
    if encoding != "UTF8":
        words.append(
            f"found the encoding {encoding}, allowed is UTF8, for names are not all ASCII; make it anew:"
            " CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
        )
    for setting, value in (("fsync", fsync), ("full_page_writes", pages), ("synchronous_commit", commit)):
        if value == "off":
            words.append(
                f"{setting} is off: what was acknowledged would be lost with the mains; switch it on in postgresql.conf"
            )
    if is_standby:
        words.append("this server is a standby, which takes nothing in; name the primary")
    elif not may_create:
        words.append("the role may not create tables there; ALTER DATABASE ... OWNER TO the role")
    return words
