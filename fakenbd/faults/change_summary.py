"""Clauses about what a fault changed: fields of messages, numbers of messages, ends, byte counts.

Each kind describes its own change; the wording that several of them share is here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

from fakenbd.faults.answer import Answer, CloseConnection, NeverSend, Step
from fakenbd.faults.fields import field_of
from fakenbd.faults.selection import is_message, noun
from fakenbd.faults.stream import length
from fakenbd.protocol.constants import ChunkType, Error, Reply, spec_name
from fakenbd.protocol.messages import OptionReply, ServerMessage

__all__ = ["FieldChange", "apart", "counted", "ended", "field_changes", "listed", "pacing"]

_ENDS: Final = {
    "close": "close",
    "reset": "reset",
    "half-close": "half-close",
    "truncate": "close without close_notify",
}
_HEXADECIMAL: Final = ("magic", "option_magic", "cliserv_magic", "flags", "cookie")
_MOST: Final = 4

FieldChange = tuple[str, str, ServerMessage, ServerMessage]
"""The name of a field, what the message is called, and the message before and after."""


def counted(number: int, what: str) -> str:
    """A number of things: "1 byte", "2 bytes"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def listed(steps: Iterable[Step], times: int = 1) -> str:
    """Messages by what they are called: "2 x data chunk, none chunk"."""
    names = Counter(noun(step) if is_message(step) else "bytes" for step in steps)  # type: ignore[arg-type]
    return ", ".join(
        name if count * times == 1 else f"{count * times} x {name}" for name, count in names.items()
    )


def ended(before: Answer, after: Answer) -> str:
    """How much still leaves of an answer whose last step now is an end, or a stall."""
    if before == after:
        return ""
    end, sent, total = after[-1], length(after), length(before)
    if isinstance(end, NeverSend):
        return f"stalled after {sent} of {counted(total, 'byte')}"
    assert isinstance(end, CloseConnection)
    how = _ENDS[end.how]
    if end.reading:
        how += f" after taking {counted(end.reading, 'byte')}"
    if not total:
        return f"{how} instead of going on"
    return f"cut after {sent} of {counted(total, 'byte')}, then {how}"


def pacing(size: int, seconds: float) -> str:
    """In what writes bytes are sent."""
    return f"sent {counted(size, 'byte')} a write{apart(seconds)}"


def apart(seconds: float) -> str:
    """The clause ", 2 s apart"; "" for 0 seconds."""
    return f", {seconds:g} s apart" if seconds else ""


def field_changes(changes: Sequence[FieldChange]) -> str:
    """What fields of messages were set to; of many only the first."""
    shown = changes if len(changes) <= _MOST else changes[: _MOST - 1]
    parts = [
        f"set {field} of the {name}: {_transition(field, before, after)}"
        for field, name, before, after in shown
    ]
    if len(shown) < len(changes):
        parts.append(f"and {len(changes) - len(shown)} more")
    return "; ".join(parts)


def _transition(field: str, before: ServerMessage, after: ServerMessage) -> str:
    was, now = field_of(before, field), field_of(after, field)
    if isinstance(was, int) and isinstance(now, int):
        if field in _HEXADECIMAL:
            return f"{was:#x} -> {now:#x}"
        name = _name(after, field, now)
        return f"{was} -> {now}{' ' + name if name else ''}"
    if isinstance(was, (bytes, bytearray, memoryview)):
        if len(was) == len(now):
            return f"{counted(len(now), 'byte')} of other content"
        return f"{len(was)} -> {counted(len(now), 'byte')}"
    if isinstance(now, str):
        return f"{_quoted(was)} -> {_quoted(now)}"
    if isinstance(now, Sequence):
        return f"{_extents(was)} -> {_extents(now)}"
    return f"{was} -> {now}"


def _name(message: Any, field: str, value: int) -> str:
    kind: type[IntEnum]
    if field == "error":
        kind = Error
    elif field == "type":
        kind = Reply if isinstance(message, OptionReply) else ChunkType
    else:
        return ""
    return spec_name(kind, value) if value in {int(member) for member in kind} else ""


def _quoted(value: str | None) -> str:
    value = value or ""
    return repr(value) if len(value) <= 40 else f"{len(value)} characters"


def _extents(extents: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(f"({size}, {flags})" for size, flags in extents[:4])
    return f"[{shown}{', …' if len(extents) > 4 else ''}]"
