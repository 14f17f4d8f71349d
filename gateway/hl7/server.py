"""The MLLP server: who may connect, how much, how long; what is received goes to the inbox.

asyncio holds the connections, a few threads the database. A connection is answered in the order of its
messages; whatever breaks the protocol is closed with a line in the log.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from sqlalchemy.exc import DBAPIError

from gateway.hl7.inbox import WRITER, Inbox, NoAnswer, Stranger
from gateway.hl7.mllp import FrameFault, Framer, frame
from gateway.refusals import Refusals
from zambezi import audit, clock
from zambezi.config.settings import Hl7
from zambezi.database.engine import Sessions

log = logging.getLogger("zambezi.hl7.in")

#: How much is read at once.
CHUNK = 65536
#: Messages carried out at the same time, whatever the number of connections.
WORKERS = 4


class MllpServer:
    """Listens in a thread of its own from `start` to `stop`."""

    def __init__(self, sessions: Sessions, settings: Hl7, inbox: Inbox, port: int, host: str = "0.0.0.0") -> None:
        self._sessions = sessions
        self._settings = settings
        self._inbox = inbox
        self._host = host
        self.port = port
        self._limit = int(settings.maximum_message_megabytes * 1024 * 1024)
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="hl7-in")
        self._refusals = Refusals()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="hl7-in")
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._fault: OSError | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Listen; OSError where the port is taken."""
        self._thread.start()
        self._listening.wait()
        if self._fault:
            raise self._fault

    def stop(self) -> None:
        """Close every connection; messages that are being carried out are finished and answered first."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
        self._workers.shutdown()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._listening.set()
            self._loop.close()

    async def _serve(self) -> None:
        try:
            server = await asyncio.start_server(self._connected, self._host, self.port, limit=CHUNK)
        except OSError as error:
            self._fault = error
            return
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._stop.wait()
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        address = str(writer.get_extra_info("peername", ("?",))[0])
        try:
            await self._converse(reader, writer, address)
        except Stranger as error:
            await self._in_worker(self._refuse, address, str(error))
        except (FrameFault, NoAnswer) as error:
            log.warning("%s: connection closed: %s", address, error)
        except TimeoutError:
            log.info("%s: connection closed: silent for %s s", address, self._settings.idle_seconds)
        except OSError as error:
            log.info("%s: connection lost: %s", address, type(error).__name__)
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, address: str) -> None:
        if not self._inbox.knows(address):
            raise Stranger("no HL7 peer may connect from there")
        if len(self._connections) > self._settings.maximum_connections:
            raise FrameFault(f"more than {self._settings.maximum_connections} connections at once")
        framer = Framer(self._limit)
        while True:
            data = await asyncio.wait_for(reader.read(CHUNK), self._settings.idle_seconds)
            if not data:
                if not framer.is_idle:
                    log.warning("%s: connection ended in the middle of a message, which was not acknowledged", address)
                return
            for message in framer.feed(data):
                # Shielded: a stop may close the connection, but what is committed gets its answer out first.
                await asyncio.shield(self._answer(message, writer, address))

    async def _answer(self, message: bytes, writer: asyncio.StreamWriter, address: str) -> None:
        answer = await self._in_worker(self._inbox.receive, message, address)
        writer.write(frame(answer))
        await asyncio.wait_for(writer.drain(), self._settings.idle_seconds)

    async def _in_worker(self, act: object, *arguments: object) -> bytes:
        answer: bytes = await asyncio.get_running_loop().run_in_executor(self._workers, act, *arguments)  # type: ignore[arg-type]
        return answer

    def _refuse(self, address: str, reason: str) -> None:
        log.warning("%s: connection refused: %s", address, reason)
        now: datetime = clock.now()
        times = self._refusals.due(f"{address} {reason}", now)
        if not times:
            return
        try:
            with self._sessions.begin() as session:
                audit.append(session, WRITER, "refused", now, ip=address, door="hl7", reason=reason, times=times)
        except DBAPIError as error:
            log.warning("the refusal could not be recorded: %s", type(error.orig).__name__)
