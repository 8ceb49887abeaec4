"""The next message of a client, told by its magic: an option or a request, whatever is due.

A client that is shown something else than the server did sends what it believes to be due; only the
magic says what that is.
"""

from __future__ import annotations

from typing import Final

from fakenbd.conversation.export_commands import LARGEST_PAYLOAD
from fakenbd.protocol.constants import EXTENDED_REQUEST_MAGIC, IHAVEOPT, REQUEST_MAGIC
from fakenbd.protocol.decode_client import (
    complete_request,
    decode_option_request,
    decode_request_header,
    payload_length,
)
from fakenbd.protocol.messages import OptionRequest, Request

__all__ = ["HEADER", "frame"]

HEADER: Final = 28
"""Bytes of a compact request's header."""

_EXTENDED_HEADER: Final = 32
_LARGEST_OPTION: Final = 1 << 18
_MAGIC: Final = 8
_OPTION_MAGIC: Final = IHAVEOPT.to_bytes(_MAGIC, "big")
_EXTENDED: Final = {REQUEST_MAGIC: False, EXTENDED_REQUEST_MAGIC: True}


def frame(
    view: memoryview, *, option: bool = False, extended: bool = False
) -> tuple[OptionRequest | Request | None, int]:
    """The whole message at the front of `view`, with its size in bytes.

    (None, n) where it is not whole before n bytes are there, as far as is known. Raises
    ProtocolError for what is no message, or is too large; `option` and `extended` say what was due.
    """
    if len(view) < _MAGIC:
        return None, _MAGIC
    if view[:_MAGIC] == _OPTION_MAGIC:
        decoded = decode_option_request(view, limit=_LARGEST_OPTION)
        return (None, len(view) + 1) if decoded is None else decoded
    form = _EXTENDED.get(int.from_bytes(view[:4], "big"))
    if form is None and option:
        decode_option_request(view, limit=0)  # raises what is wrong with it
    header = decode_request_header(view, extended=extended if form is None else form)
    if header is None:
        return None, _EXTENDED_HEADER if form else HEADER
    whole = complete_request(header, view, limit=LARGEST_PAYLOAD)
    if whole is None:
        return None, (_EXTENDED_HEADER if form else HEADER) + payload_length(header)
    return whole
