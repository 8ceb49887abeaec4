"""The vocabulary: NBD's numbers, every message as a value, and the way to bytes and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.later import later
from fakenbd.protocol.encode import encode, encode_buffers, honest

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
    "honest",
    "payload_length",
]

# Each side of a connection needs one half of the decoders.
__getattr__ = later(
    __name__, dict.fromkeys(set(__all__) - {"encode", "encode_buffers", "honest"}, "decode")
)
