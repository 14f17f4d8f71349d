"""What came by C-STORE to an association of ours, as the file in which it is handed over to the archive."""

from __future__ import annotations

from typing import Any

from zambezi.coercion import envelope


def file_of(event: Any, caller: str, called: str, address: str) -> bytes:
    """The file of one C-STORE request, byte by byte as it came, with who sent it; empty where nothing was sent.

    `caller`, `called`: AE titles; `address`: the caller's.
    """
    request = event.request
    data_set = request.DataSet.getvalue() if request.DataSet is not None else b""
    if not data_set:
        return b""
    return envelope.wrap(
        data_set, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID),
        str(event.context.transfer_syntax), caller, called, address,
    )  # fmt: skip
