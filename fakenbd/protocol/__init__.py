"""The vocabulary: NBD's numbers, every message as a value, and the way to bytes and back."""

from __future__ import annotations

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
from fakenbd.protocol.encode import encode, encode_buffers, honest

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
