"""Numbers of things in words: bytes, places, extents, lists."""

from __future__ import annotations

from typing import Final

from fakenbd.protocol.constants import State
from fakenbd.protocol.messages import Extent

__all__ = ["count", "extents", "listed", "octets", "ordinal"]

_UNITS: Final = "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"


def octets(number: int) -> str:
    """A number of bytes in the largest unit that it is a whole multiple of."""
    if abs(number) == 1:
        return f"{number} byte"
    power = 0
    while number and number % 1024 == 0 and power < len(_UNITS) - 1:
        number //= 1024
        power += 1
    return f"{number} {_UNITS[power]}"


def count(number: int, noun: str) -> str:
    """ "1 reply", "2 replies"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number} {noun[:-1]}ies" if noun.endswith("y") else f"{number} {noun}s"


def listed(words: list[str], last: str = "and") -> str:
    """ "a, b and c"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def ordinal(number: int) -> str:
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{({1: 'st', 2: 'nd', 3: 'rd'}).get(number % 10, 'th')}"


_STATES: Final = {
    0: "data",
    int(State.HOLE): "a hole",
    int(State.ZERO): "zeroes",
    int(State.HOLE | State.ZERO): "a hole that reads as zeroes",
}
_FEW: Final = 6


def extents(given: tuple[Extent, ...] | list[Extent]) -> str:
    """Extents in words; of many only the first few."""
    words = [
        f"{octets(length)} of {_STATES.get(flags, f'flags {flags:#x}')}" for length, flags in given
    ]
    if len(words) > _FEW:
        words = [*words[:_FEW], f"{len(words) - _FEW} more"]
    return listed(words) or "no extents at all"
