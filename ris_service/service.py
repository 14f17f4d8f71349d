"""The process `ris`: waitress on loopback, the thread that stores signed reports, signs of life.

It stops on SIGTERM after the requests in flight. Everything durable is in the database before an answer leaves, so it
may be killed at any moment.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from types import FrameType

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError
from waitress.server import BaseWSGIServer, create_server

from ris_service.app import LARGEST_BODY, create_app
from ris_service.archive_pdf import Storing
from zambezi import clock, composition, config, keys
from zambezi.config import Configuration, ConfigurationFaults
from zambezi.database.engine import Sessions, connect, sessions
from zambezi.environment import Environment, EnvironmentFault
from zambezi.orthanc_client import OrthancClient
from zambezi.processes import heartbeat

log = logging.getLogger("ris")

PROCESS = "ris"
HEARTBEAT_S = 5
#: Pages take milliseconds and wait for nobody else; more threads would only queue at the database.
THREADS = 8
CONNECTIONS = 200


def serve(app: Flask, port: int, host: str = "127.0.0.1") -> BaseWSGIServer:
    """The server, listening (port 0: any free one, see `effective_port`); `run()` it."""
    server: BaseWSGIServer = create_server(
        app, host=host, port=port, threads=THREADS, connection_limit=CONNECTIONS, channel_timeout=60,
        max_request_body_size=LARGEST_BODY, max_request_header_size=32 * 1024, ident=None,
        # The application takes X-Forwarded-* from the front door itself (ProxyFix); nobody else reaches loopback.
        clear_untrusted_proxy_headers=False,
    )  # fmt: skip
    return server


def tell(made: Sessions, configuration: Configuration, storing: Storing, stop: threading.Event) -> None:
    """Write the sign of life until the process stops."""
    while True:
        try:
            with made.begin() as session:
                details = {"reports_to_store": storing.waiting}
                heartbeat(session, PROCESS, clock.now(), configuration.hash, details, storing.last_error)
        except SQLAlchemyError as error:
            log.warning("the database takes no sign of life (%s); trying again", type(error).__name__)
        if stop.wait(HEARTBEAT_S):
            return


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        environment = Environment.read()
        configuration = config.load(environment.config_dir, os.environ)
        kept = keys.load(environment.keys_file)
    except (ConfigurationFaults, EnvironmentFault) as faults:
        sys.exit(f"The configuration can't be used:\n{faults}")
    except FileNotFoundError:
        sys.exit(f"{environment.keys_file} is not there; `zambezi up` makes it and starts everything")
    made = sessions(connect(environment.database_url, PROCESS), PROCESS)
    settings = configuration.zambezi
    app = create_app(environment, settings, made, kept, clock.now, composition.PAGE_SETS)
    server = serve(app, environment.ports.ris)
    stop = threading.Event()
    storing = Storing(made, lambda: OrthancClient(environment, kept, PROCESS), settings.site.zone, stop)

    def ends(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, ends)
    signal.signal(signal.SIGINT, ends)
    telling = threading.Thread(target=tell, args=(made, configuration, storing, stop), name="telling", daemon=True)
    storing.start()
    telling.start()
    log.info("listening on 127.0.0.1:%s", environment.ports.ris)
    try:
        server.run()
    finally:
        stop.set()
        server.close()
        deadline = time.monotonic() + 10
        for thread in (storing, telling):
            thread.join(max(0, deadline - time.monotonic()))
        log.info("stopped")
