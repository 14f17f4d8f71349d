"""A picture of an object, drawn from its bytes by dcmtk (Debian's package), in a process of its own with tight limits.

Bytes of strangers are decoded here: never inside a process of ours, never for longer or larger than a page can bear.
"""

from __future__ import annotations

import subprocess
import tempfile
import threading
import warnings
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import UID

#: Pixels across, at most: both sides stand beside each other on a page, and lines are thin.
WIDEST = 720
SECONDS = 15
_MEMORY = 2 * 2**30
_LARGEST_PNG = 8 * 2**20
#: So many are drawn at once; who waits longer than the limit is told so.
_AT_ONCE = threading.BoundedSemaphore(2)
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
#: The window that stands in the object, else one that spans its values, else (colour) none.
_WINDOWS: tuple[tuple[str, ...], ...] = (("+Wi", "1"), ("+Wm",), ())
_TAGS = ["Columns"]


class NoPicture(Exception):
    """It can't be drawn; the text says why."""


def draw(content: bytes) -> bytes:
    """The first frame as PNG; NoPicture where there is none."""
    columns, syntax = _facts(content)
    program = "dcml2pnm" if syntax in _JPEG_LS else "dcmj2pnm"
    smaller = ["+Sxv", str(WIDEST)] if columns > WIDEST else []
    if not _AT_ONCE.acquire(timeout=SECONDS):
        raise NoPicture("too many pictures are being drawn; load the page again")
    try:
        with tempfile.TemporaryDirectory(prefix="zambezi-picture-") as folder:
            source, drawn = Path(folder, "object.dcm"), Path(folder, "picture.png")
            source.write_bytes(content)
            said = ""
            for window in _WINDOWS:
                said = _run([program, "-q", "+F", "1", "+on", *window, *smaller, str(source), str(drawn)])
                if drawn.exists() and drawn.stat().st_size:
                    return drawn.read_bytes()
            raise NoPicture(f"dcmtk can't draw {UID(syntax).name or 'it'}: {said or 'no reason given'}")
    finally:
        _AT_ONCE.release()


def _run(command: list[str]) -> str:
    """Run it inside its limits; what is in its way, as its own last line says it."""
    limits = ["prlimit", f"--as={_MEMORY}", f"--cpu={SECONDS}", f"--fsize={_LARGEST_PNG}", "--core=0", "--"]
    try:
        done = subprocess.run(
            [*limits, *command], capture_output=True, timeout=SECONDS, check=False, env={"PATH": "/usr/bin:/bin"}
        )
    except subprocess.TimeoutExpired:
        raise NoPicture(f"drawing it took longer than {SECONDS} s") from None
    except FileNotFoundError:
        raise NoPicture("prlimit is not installed; on Debian: apt-get install util-linux dcmtk") from None
    if done.returncode == 127:
        raise NoPicture(f"{command[0]} is not installed; on Debian: apt-get install dcmtk")
    lines = [line for line in done.stderr.decode(errors="replace").splitlines() if line[:2] in ("E:", "F:")]
    return lines[-1][2:].partition(": reading file:")[0].strip() if lines else ""


def _facts(content: bytes) -> tuple[int, str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd values are no obstacle here
            found = dcmread(BytesIO(content), force=True, stop_before_pixels=True, specific_tags=list(_TAGS))
            columns, syntax = int(found.get("Columns") or 0), str(found.file_meta.get("TransferSyntaxUID", ""))
    except (ValueError, TypeError, KeyError, EOFError, OSError, AttributeError, NotImplementedError) as why:
        raise NoPicture(f"it can't be read: {type(why).__name__}") from why
    if not columns:
        raise NoPicture("it is no image")
    return columns, syntax
