"""Bytes and texts that a fault puts into a message, as people write them.

A string is a text where the field is a text, and hexadecimal where it is bytes. There are tables
besides: { text = "x", times = 5000 }, { hex = "ff fe" }, { zeros = 512 }, or { resize = "-1" },
which keeps the correct bytes but cuts them, or fills them up with zeroes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from fakenbd.faults.readers import byte_size, bytes_table, integer, positive, shown, text, unknown
from fakenbd.protocol.messages import Buffer

__all__ = ["ByteValue", "byte_value", "hex_bytes", "text_value"]

_KEYS: Final = ("hex", "text", "zeros", "resize")
_MAXIMUM: Final = 1 << 28


@attrs.frozen
class ByteValue:
    """`data` as it is; or, where `resize` is given, the correct bytes made so long.

    `resize` is a length, or a change of the length where `relative` is true.
    """

    data: Buffer = b""
    resize: int | None = None
    relative: bool = False

    def to_toml(self) -> dict[str, Any]:
        """The table that is read as these bytes."""
        if self.resize is not None:
            return {"resize": f"{self.resize:+}" if self.relative else self.resize}
        return bytes_table(self.data)

    def over(self, correct: Buffer) -> Buffer:
        """The bytes to send in place of the correct ones."""
        if self.resize is None:
            return self.data
        length = max(0, len(correct) + self.resize if self.relative else self.resize)
        return bytes(correct[:length]).ljust(length, b"\0")


def hex_bytes(value: Any) -> bytes:
    """The bytes of hexadecimal digits, blanks between bytes allowed; bytes stay as they are."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    try:
        return bytes.fromhex(text(value))
    except ValueError:
        raise ValueError(f'expected bytes as hexadecimal "00 ff", got {shown(value)}') from None


def byte_value(value: Any) -> ByteValue:
    """Read the bytes of a field: hexadecimal digits, bytes, or a table."""
    if isinstance(value, ByteValue):
        return value
    return _table(value) if isinstance(value, Mapping) else ByteValue(hex_bytes(value))


def text_value(value: Any) -> ByteValue:
    """Read the text of a field: a text, or a table."""
    if isinstance(value, str):
        return ByteValue(value.encode("utf-8", "surrogateescape"))
    return byte_value(value)


def _table(table: Mapping[str, Any]) -> ByteValue:
    given = [key for key in _KEYS if key in table]
    if len(given) != 1:
        raise ValueError(f"expected exactly one of the keys {', '.join(_KEYS)}")
    key, value = given[0], table[given[0]]
    for other in table:
        if other not in (key, "times"):
            raise ValueError(unknown("key", other, (*_KEYS, "times")))
    times = positive(table.get("times", 1))
    if key == "resize":
        resize, relative = _length(value)
        return ByteValue(resize=_bounded(resize), relative=relative)
    if key == "zeros":
        return ByteValue(bytes(_bounded(byte_size(value) * times)))
    data = text(value).encode("utf-8", "surrogateescape") if key == "text" else hex_bytes(value)
    _bounded(len(data) * times)
    return ByteValue(data * times)


def _length(value: Any) -> tuple[int, bool]:
    if isinstance(value, str) and re.fullmatch(r"[+-].+", value):
        size = byte_size(value[1:])
        return (-size if value[0] == "-" else size), True
    if isinstance(value, int) and integer(value) < 0:
        raise ValueError(f'expected a length, or a change of it such as "-1", got {value}')
    return byte_size(value), False


def _bounded(length: int) -> int:
    if length > _MAXIMUM:
        raise ValueError(f"expected at most 256 MiB, got {length} bytes")
    return length
