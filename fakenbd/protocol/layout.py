"""The fixed parts of every message as struct layouts, shared by the encoder and the decoders.

`pack` accepts any integer: a value that does not fit its field is cut to the field's width, because
a fault may set -1 or 2**70. Values that fit take the direct path.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

__all__ = [
    "COMPACT_REQUEST",
    "ERROR",
    "EXPORT_NAME_REPLY",
    "EXTENDED_CHUNK",
    "EXTENDED_REQUEST",
    "EXTENT",
    "EXTENT_EXT",
    "GREETING",
    "HOLE",
    "INFO_BLOCK_SIZE",
    "INFO_EXPORT",
    "OLDSTYLE_GREETING",
    "OPTION_REPLY",
    "OPTION_REQUEST",
    "RESERVED_ZEROES",
    "SIMPLE_REPLY",
    "STATUS",
    "STATUS_EXT",
    "STRUCTURED_CHUNK",
    "U16",
    "U32",
    "U64",
    "pack",
    "pack_array",
    "pack_string",
    "unpack_string",
]

U16: Final = struct.Struct("!H")
U32: Final = struct.Struct("!I")
U64: Final = struct.Struct("!Q")

GREETING: Final = struct.Struct("!QQH")
OLDSTYLE_GREETING: Final = struct.Struct("!QQQI")
RESERVED_ZEROES: Final = 124

OPTION_REQUEST: Final = struct.Struct("!QII")
OPTION_REPLY: Final = struct.Struct("!QIII")
EXPORT_NAME_REPLY: Final = struct.Struct("!QH")
INFO_EXPORT: Final = struct.Struct("!HQH")
INFO_BLOCK_SIZE: Final = struct.Struct("!HIII")

COMPACT_REQUEST: Final = struct.Struct("!IHHQQI")
EXTENDED_REQUEST: Final = struct.Struct("!IHHQQQ")
SIMPLE_REPLY: Final = struct.Struct("!IIQ")
STRUCTURED_CHUNK: Final = struct.Struct("!IHHQI")
EXTENDED_CHUNK: Final = struct.Struct("!IHHQQQ")

HOLE: Final = struct.Struct("!QI")
STATUS: Final = U32
STATUS_EXT: Final = struct.Struct("!II")
EXTENT: Final = struct.Struct("!II")
EXTENT_EXT: Final = struct.Struct("!QQ")
ERROR: Final = struct.Struct("!IH")

_MASKS: Final = {"H": (1 << 16) - 1, "I": (1 << 32) - 1, "Q": (1 << 64) - 1}


def pack(layout: struct.Struct, *values: int) -> bytes:
    """The bytes of `values` in `layout`, each cut to the width of its field."""
    try:
        return layout.pack(*values)
    except struct.error:
        masks = (_MASKS[code] for code in layout.format.removeprefix("!"))
        return layout.pack(*(value & mask for value, mask in zip(values, masks, strict=True)))


def pack_array(code: str, values: Sequence[int]) -> bytes:
    """The bytes of many fields of one width, given by its struct code: "H", "I" or "Q"."""
    layout = f"!{len(values)}{code}"
    try:
        return struct.pack(layout, *values)
    except struct.error:
        mask = _MASKS[code]
        return struct.pack(layout, *(value & mask for value in values))


def pack_string(text: str) -> bytes:
    """The bytes of a string; surrogate escapes become the bytes that they stand for."""
    return text.encode("utf-8", "surrogateescape")


def unpack_string(data: bytes | bytearray | memoryview) -> str:
    """The string of some bytes; those that are not UTF-8 become surrogate escapes."""
    return str(data, "utf-8", "surrogateescape")
