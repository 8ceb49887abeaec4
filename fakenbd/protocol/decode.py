"""From bytes to messages: pure functions over a buffer, one for each thing that may come next.

Each returns the message and the number of bytes it took, or None when more bytes are needed, and
raises ProtocolError (with the id of the rule) where the framing itself is broken. Nothing is
allocated because a length field asks for it: what is over `limit` is refused on sight, what is
under it is copied once it is there. A body that does not have the layout of its type comes back as
RawBody with the type kept, so whatever is accepted encodes to the bytes it was decoded from. Values
are not judged here: a hole of no bytes has the layout of a hole.
"""

from __future__ import annotations

from fakenbd.protocol.decode_client import (
    decode_client_flags,
    decode_option_request,
    decode_request,
    decode_request_header,
    payload_length,
)
from fakenbd.protocol.decode_server import (
    decode_export_name_reply,
    decode_greeting,
    decode_option_reply,
    decode_reply,
)

__all__ = [
    "decode_client_flags",
    "decode_export_name_reply",
    "decode_greeting",
    "decode_option_reply",
    "decode_option_request",
    "decode_reply",
    "decode_request",
    "decode_request_header",
    "payload_length",
]
