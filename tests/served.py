"""Pages behind the server they run with, for a browser: in this process, on a free port."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask

from ris_service.service import serve


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The address; at the end nothing of the server is left, whatever a browser keeps open."""
    server = serve(app, 0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def stop() -> None:
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        server.close()

    try:
        yield f"http://127.0.0.1:{server.effective_port}"
    finally:
        server.trigger.pull_trigger(stop)  # by the thread that waits for those very connections
        thread.join(10)
        server.task_dispatcher.shutdown()
    assert not thread.is_alive(), "the server of the pages goes on"
