"""Moving an installation from one engine to the other: Orthanc's index and the central database, SQLite or PostgreSQL.

`commands` is the door; `steps` puts one step behind the other; `engines` knows what an installation ran on; `source`
reads the old index; `ledger` remembers how far each instance is; `copying` brings instances to the new archive and
reads them back; `central` copies the central database; `proof` writes, signs and verifies what was shown.
"""
