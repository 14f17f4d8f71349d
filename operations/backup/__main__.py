"""The backup of the day, as a process of its own that `operations` starts (`python -m operations.backup`)."""

from __future__ import annotations

import logging
import os
import sys

from operations.backup import making
from operations.backup.repository import BackupFault
from zambezi import config
from zambezi.environment import Environment

log = logging.getLogger("operations.backup")


def main() -> None:
    """One backup; exit code 1 where it failed. What came of it is in ZAMBEZI_HOME/backup/last.json, too."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    os.umask(0o077)
    os.nice(10)  # modalities and viewers come first
    environment = Environment.read()
    found = config.load(environment.config_dir, {**os.environ, **environment.variables()})
    try:
        making.Backup(environment, found, lambda words: log.info(words.strip()), "schedule").run()
    except BackupFault as fault:
        log.error(str(fault))
        sys.exit(1)


if __name__ == "__main__":
    main()
