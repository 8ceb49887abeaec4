"""From bytes to messages: pure functions over a buffer, one for each thing that may come next.

Each returns the message and the number of bytes it took, or None when more bytes are needed, and
raises ProtocolError (with the id of the rule) where the framing itself is broken. No memory is
allocated from a length field alone: a length over `limit` raises, and data below it is copied when
all of it has been received. A body that does not have the layout of its type comes back as
RawBody with the type kept, so that whatever is accepted encodes to the bytes it was decoded from.
Values are not validated: a hole of 0 bytes is decoded as a hole.
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
