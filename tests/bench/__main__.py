"""`make bench`."""

import sys

from tests.bench import ingest

if __name__ == "__main__":
    sys.exit(ingest.main())
