"""The HIS that listens: python-hl7's own MLLP server; every message becomes a file and is answered AA.

Usage: python -m demo.his PORT FOLDER
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import hl7
from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server


async def serve(port: int, folder: Path) -> None:
    """Listen for ever."""

    async def answer(reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                name = f"{time.time():.6f}-{message.segment('MSH')(10)}.hl7"
                (folder / name).write_text(str(message), encoding="utf-8", newline="")
                writer.writemessage(message.create_ack())
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the sender hung up, as senders do
        finally:
            writer.close()

    server = await start_hl7_server(answer, host="127.0.0.1", port=port, encoding="utf-8", limit=32 * 1024 * 1024)
    async with server:
        await server.serve_forever()


def received(folder: Path) -> list[hl7.Message]:
    """Every message so far, oldest first."""
    return [hl7.parse(_text(file)) for file in sorted(folder.glob("*.hl7"))]


def _text(file: Path) -> str:
    with file.open(encoding="utf-8", newline="") as source:
        return source.read()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
