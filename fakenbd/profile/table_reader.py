"""Reads tables of TOML, and lists every mistake under its key path.

A reader takes the value of one key and returns what to use, or raises ValueError with a clause on
what was expected, or TableError with several mistakes. A table of readers reads a table; it
continues after a mistake, so that one run of `fakenbd profiles validate` shows them all.
A mistake that concerns a table as a whole begins with ": ", and gets the table's own key path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from fakenbd.faults.readers import TableError, byte_size, one_of, shown, unknown

__all__ = [
    "Reader",
    "list_of",
    "nested",
    "number",
    "outermost",
    "read_table",
    "size",
    "word",
]

Reader: TypeAlias = Callable[[Any], Any]


def nested(place: str, error: ValueError) -> list[str]:
    """The mistakes that one value holds, under the key path of that value."""
    if not isinstance(error, TableError):
        return [f"{place}: {error}"]
    return [
        place + ("" if mistake.startswith(("[", ": ")) else ".") + mistake
        for mistake in error.mistakes
    ]


def outermost(error: ValueError) -> list[str]:
    """The mistakes of a table that has no key path of its own."""
    mistakes = error.mistakes if isinstance(error, TableError) else [str(error)]
    return [mistake.removeprefix(": ") for mistake in mistakes]


def read_table(
    value: Any, readers: Mapping[str, Reader], *, required: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of a table by key, read; keys that were not given are left out."""
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table, got {shown(value)}")
    result: dict[str, Any] = {}
    mistakes: list[str] = []
    for key, item in value.items():
        reader = readers.get(key)
        if reader is None:
            mistakes.append(": " + unknown("key", key, readers))
            continue
        try:
            result[key] = reader(item)
        except ValueError as error:
            mistakes += nested(key, error)
    mistakes += [f"{key}: expected a value, got nothing" for key in required if key not in value]
    if mistakes:
        raise TableError(mistakes)
    return result


def list_of(reader: Reader) -> Callable[[Any], tuple[Any, ...]]:
    """A reader of lists whose items `reader` reads."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"expected a list, got {shown(value)}")
        result, mistakes = [], []
        for index, item in enumerate(value):
            try:
                result.append(reader(item))
            except ValueError as error:
                mistakes += nested(f"[{index}]", error)
        if mistakes:
            raise TableError(mistakes)
        return tuple(result)

    return read


def word(*words: str) -> Callable[[Any], str]:
    """A reader of one of a few words."""
    return lambda value: one_of(value, words)


def number(bits: int) -> Callable[[Any], int]:
    """A reader of whole numbers that fit in an unsigned field of so many bits."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
            raise ValueError(f"expected a whole number from 0 to 2^{bits} - 1, got {shown(value)}")
        return int(value)

    return read


def size(bits: int) -> Callable[[Any], int]:
    """A reader of sizes that fit in an unsigned field of so many bits."""

    def read(value: Any) -> int:
        result = byte_size(value)
        if result >= 1 << bits:
            raise ValueError(f"expected a size of at most 2^{bits} - 1 bytes, got {shown(value)}")
        return result

    return read
