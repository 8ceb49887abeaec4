"""The NBD protocol: its constants, its messages as values, and their encoding and decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.lazy import lazy_getattr
from fakenbd.protocol.encode import correct_value, encode, encode_buffers

if TYPE_CHECKING:
    from fakenbd.protocol.decode import (
        decode_client_flags,
        decode_export_name_reply,
        decode_greeting,
        decode_option_reply,
        decode_option_request,
        decode_reply,
        decode_request,
        decode_request_header,
        payload_length,
    )

__all__ = [
    "correct_value",
    "decode_client_flags",
    "decode_export_name_reply",
    "decode_greeting",
    "decode_option_reply",
    "decode_option_request",
    "decode_reply",
    "decode_request",
    "decode_request_header",
    "encode",
    "encode_buffers",
    "payload_length",
]

# Each side of a connection needs one half of the decoders.
__getattr__ = lazy_getattr(
    __name__, dict.fromkeys(set(__all__) - {"encode", "encode_buffers", "correct"}, "decode")
)
