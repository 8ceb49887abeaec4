"""Readers of values in profiles and calls: strict about types, explicit about what was expected.

Each reader takes whatever stood in the profile or the call and returns the value to use, or raises
ValueError with one clause: "expected a whole number from 1, got "2"". Numbers never come from
other strings than sizes ("64KiB"), booleans never from "false".
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fakenbd.errors import FakenbdError
from fakenbd.export.extents import parse_size
from fakenbd.protocol.messages import Buffer, Raw

__all__ = [
    "TableError",
    "boolean",
    "byte_size",
    "bytes_table",
    "duration",
    "integer",
    "one_of",
    "plain",
    "positive",
    "shown",
    "text",
    "unknown",
    "whole",
]


class TableError(FakenbdError, ValueError):
    """All that is wrong with a table, one sentence each, in `mistakes`."""

    def __init__(self, mistakes: Sequence[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = tuple(mistakes)


def shown(value: object) -> str:
    """A value as a person wrote it, shortened: "2", true, a list, 7."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + (value if len(value) <= 40 else value[:37] + "...") + '"'
    if isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, (list, tuple)):
        return "a list"
    return "nothing" if value is None else f"a value of type {type(value).__name__}"


def unknown(what: str, name: object, known: Iterable[str]) -> str:
    """The sentence on a name that is not known, with the nearest one that is."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.6)
    hint = f'did you mean "{near[0]}"?' if near else "known are " + ", ".join(known)
    return f"unknown {what} {shown(name)}; {hint}"


def integer(value: Any) -> int:
    """Any whole number."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"expected a whole number, got {shown(value)}")
    return int(value)


def _from(minimum: int, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"expected a whole number from {minimum}, got {shown(value)}")
    return int(value)


def whole(value: Any) -> int:
    """A whole number from 0."""
    return _from(0, value)


def positive(value: Any) -> int:
    """A whole number from 1."""
    return _from(1, value)


def duration(value: Any) -> float:
    """A number of seconds from 0."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise ValueError(f"expected a number of seconds from 0, got {shown(value)}")
    return float(value)


def byte_size(value: Any) -> int:
    """A number of bytes from 0: an integer, or a size such as "64KiB"."""
    if isinstance(value, str):
        try:
            return parse_size(value)
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return int(value)
    raise ValueError(f'expected a size such as 512 or "64KiB", got {shown(value)}')


def boolean(value: Any) -> bool:
    """true or false, nothing that looks like them."""
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, got {shown(value)}")
    return value


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"expected a text, got {shown(value)}")
    return value


def bytes_table(data: Buffer) -> dict[str, Any]:
    """Bytes as a table: their number, if all are zero, or text, or hexadecimal digits."""
    data = bytes(data)
    if data and not any(data):
        return {"zeros": len(data)}
    if data and data.isascii() and data.decode().isprintable():
        return {"text": data.decode()}
    return {"hex": data.hex()}


def plain(value: Any) -> Any:
    """A parameter as a TOML file has it: numbers, text, lists, tables.

    Raises TableError for what only Python can make.
    """
    if isinstance(value, (bool, str, float)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).hex()
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key).replace("_", "-"): plain(item) for key, item in value.items()}
    if isinstance(value, Raw):
        return bytes_table(value.data)
    if hasattr(value, "to_toml"):
        return value.to_toml()
    raise TableError([f"expected something that a table can hold, got {shown(value)}"])


def one_of(value: Any, words: Sequence[str]) -> str:
    """One of a few words."""
    if value not in words:
        listed = ", ".join(f'"{word}"' for word in words)
        raise ValueError(f"expected one of {listed}, got {shown(value)}")
    return str(value)
