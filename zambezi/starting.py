"""How a process begins: `python -P -m zambezi.starting gateway.service` imports the module and calls its `main`.

What modules make when they are imported stays for as long as the process does. A collector that runs meanwhile finds
nothing and takes a sixth of a start; one that runs later would go through all of it each time.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module


@contextmanager
def importing() -> Iterator[None]:
    """Nothing is collected inside the block, and what was made there (and before) is never looked at again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Run the module that the command line names; its exit code."""
    with importing():
        module = import_module(sys.argv[1])
    sys.exit(module.main())


if __name__ == "__main__":
    main()
