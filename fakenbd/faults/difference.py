"""What a strike changed, as a sentence, found by comparing the answer before and after.

One kind changes one thing, so a few shapes of difference are enough: fields of messages, bytes,
messages that came, went or moved, an end, a pause. What fits no shape is told as a replacement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, Final

import attrs

from fakenbd.faults.answer import (
    Answer,
    Away,
    End,
    Forever,
    Hold,
    Paced,
    Pause,
    Shutdown,
    Stall,
    StartTLS,
    Step,
    StopReading,
)
from fakenbd.faults.fields import field_of
from fakenbd.faults.selection import is_message, noun
from fakenbd.faults.stream import carries_bytes, length, step_bytes
from fakenbd.protocol.constants import ChunkType, Error, Reply, spec_name
from fakenbd.protocol.messages import Chunk, Data, OptionReply, Raw

__all__ = ["difference"]

_ENDS: Final = {
    "close": "close",
    "reset": "reset",
    "half-close": "half-close",
    "truncate": "close without TLS's goodbye",
}


def difference(before: Answer, after: Answer) -> str:
    """What changed between two answers, in words; "" if nothing did."""
    old, new, left = _parted(before, after)
    if not old and not new:
        return ""
    aside = [step for step in new if not carries_bytes(step)]
    said = [step for step in new if carries_bytes(step)]
    unsaid = [step for step in old if carries_bytes(step)]
    ends = [step for step in aside if isinstance(step, (End, Stall))]
    parts = _counted(words for step in aside if (words := _told(step)))
    if ends and _begins(said, unsaid) and after[-1] is ends[-1]:
        return "; ".join([*parts, _cut(ends[-1], left + length(said), length(before))])
    paced = next((step for step in new if isinstance(step, Paced)), None)
    if paced is not None:
        parts.append(_pacing(paced))
    elif said != unsaid:
        parts.append(_content(unsaid, said, left))
    parts += [_ended(end) for end in ends]
    parts += _undone(old, new)
    return "; ".join(parts)


def _counted(words: Iterable[str]) -> list[str]:
    """Each of the words once, in order, with how often it came."""
    return [
        told if times == 1 else f"{told}, {times} times" for told, times in Counter(words).items()
    ]


def _parted(before: Answer, after: Answer) -> tuple[Answer, Answer, int]:
    """The steps that differ, old and new, and how many bytes leave before them."""
    head = 0
    shortest = min(len(before), len(after))
    while head < shortest and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < shortest - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    stop = -tail or None
    return before[head:stop], after[head:stop], length(before[:head])


def _begins(said: Sequence[Step], unsaid: Sequence[Step]) -> bool:
    """Whether what is said is how the truth begins."""
    if len(said) > len(unsaid):
        return False
    for new, old in zip(said, unsaid, strict=False):
        if new is not old and not step_bytes(old).startswith(step_bytes(new)):
            return False
    return True


# --- steps -------------------------------------------------------------------------------------


def _told(step: Step) -> str:
    if isinstance(step, Pause):
        return f"delayed by {step.seconds:g} s"
    if isinstance(step, Hold):
        if step.replies is None:
            return "held until idle"
        return f"held until {_count(step.replies, 'other answer')} left"
    if isinstance(step, StopReading):
        return "stopped reading"
    if isinstance(step, Shutdown):
        return "shut down"
    if isinstance(step, Away):
        if step.attempts is not None:
            return f"took the listener away for {_count(step.attempts, 'attempt')}"
        return f"took the listener away for {step.seconds:g} s"
    if isinstance(step, StartTLS):
        honest = StartTLS()
        changed = [
            f"{field.name} {getattr(step, field.name)}"
            for field in attrs.fields(StartTLS)
            if getattr(step, field.name) != getattr(honest, field.name)
        ]
        return "began TLS with " + ", ".join(changed) if changed else "began TLS"
    return ""


def _cut(end: Step, sent: int, total: int) -> str:
    if isinstance(end, Stall):
        return f"stalled after {sent} of {_count(total, 'byte')}"
    how = _how(end)
    if not total:
        return f"{how} instead of going on"
    return f"cut after {sent} of {_count(total, 'byte')}, then {how}"


def _how(end: Step) -> str:
    assert isinstance(end, End)
    reading = f" after taking {_count(end.reading, 'byte')}" if end.reading else ""
    return _ENDS[end.how] + reading


def _ended(end: Step) -> str:
    return "then stall" if isinstance(end, Stall) else f"then {_how(end)}"


def _undone(old: Iterable[Step], new: Iterable[Step]) -> list[str]:
    """Steps of the truth that are gone, where nothing of their type came in place."""
    types = {type(step) for step in new}
    gone = (step for step in old if not carries_bytes(step) and type(step) not in types)
    return [f"left out: {type(step).__name__}" for step in gone]


def _pacing(paced: Paced) -> str:
    apart = f", {paced.seconds:g} s apart" if paced.seconds else ""
    if isinstance(paced.size, int):
        return f"sent {_count(paced.size, 'byte')} a write{apart}"
    sizes = ", ".join(str(len(write)) for write in paced.writes())
    return f"sent in writes of {sizes} bytes{apart}"


# --- messages ----------------------------------------------------------------------------------


def _content(old: Sequence[Step], new: Sequence[Step], left: int) -> str:
    endless = [step for step in new if isinstance(step, Forever)]
    if endless:
        apart = f", {endless[0].seconds:g} s apart" if endless[0].seconds else ""
        return f"repeated {_count(len(endless[0].data), 'byte')} for ever{apart}"
    if not new:
        return f"dropped {_listed(old)}"
    if not old:
        return f"inserted {_listed(new)}"
    moved = _moved(old, new)
    if moved:
        return moved
    if len(old) == len(new):
        fields = _fields(old, new)
        if fields:
            return fields
    pieces = _pieces(old, new)
    if pieces:
        return pieces
    if any(isinstance(step, Raw) for step in new):
        lie, truth = (b"".join(map(step_bytes, steps)) for steps in (new, old))
        if len(lie) == len(truth):
            return _bytes(truth, lie, left)
    return f"replaced {_listed(old)} by {_listed(new)}"


def _fields(old: Sequence[Step], new: Sequence[Step]) -> str:
    """The fields that differ in messages of the same types, "" where the types differ."""
    parts: list[str] = []
    for before, after in zip(old, new, strict=True):
        if before == after:
            continue
        if type(before) is not type(after) or isinstance(before, (Raw, Paced, Forever)):
            return ""
        fields = _changed_fields(before, after)
        if not fields:
            return ""
        parts += [
            f"set {field} of the {noun(_message(before))}: {words}" for field, words in fields
        ]
    if len(parts) > 4:
        parts = [*parts[:3], f"and {len(parts) - 3} more"]
    return "; ".join(parts)


def _message(step: Step) -> Any:
    return step


def _changed_fields(before: Any, after: Any) -> list[tuple[str, str]]:
    owners = [(before, after)]
    bodies = getattr(before, "body", None), getattr(after, "body", None)
    if type(bodies[0]) is type(bodies[1]):
        if bodies[0] is not None:
            owners.append(bodies)
    elif type(bodies[1]).__name__ == "RawBody":
        now = field_of(after, "payload")
        return [("payload", f"{len(field_of(before, 'payload'))} -> {_count(len(now), 'byte')}")]
    else:
        return []
    changed = []
    for left, right in owners:
        for field in attrs.fields(type(left)):
            if field.name == "body":
                continue
            was, now = field_of(before, field.name), field_of(after, field.name)
            is_computed = getattr(left, field.name) is getattr(right, field.name) is None
            if was != now and not is_computed:
                changed.append((field.name, _transition(after, field.name, was, now)))
    return changed


def _transition(message: Any, field: str, was: Any, now: Any) -> str:
    if isinstance(was, int) and isinstance(now, int):
        if field in ("magic", "option_magic", "cliserv_magic", "flags", "cookie"):
            return f"{was:#x} -> {now:#x}"
        name = _name(message, field, now)
        return f"{was} -> {now}{' ' + name if name else ''}"
    if isinstance(was, (bytes, bytearray, memoryview)):
        if len(was) == len(now):
            return f"{_count(len(now), 'byte')} of other content"
        return f"{len(was)} -> {_count(len(now), 'byte')}"
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
    listed = ", ".join(f"({size}, {flags})" for size, flags in extents[:4])
    return f"[{listed}{', …' if len(extents) > 4 else ''}]"


def _moved(old: Sequence[Step], new: Sequence[Step]) -> str:
    """The new order, where the same bodies are said in another one."""
    places = {_identity(step): place for place, step in enumerate(old, 1)}
    order = [_identity(step) for step in new]
    if len(places) < 2 or Counter(order) != Counter(places.keys()):
        return ""
    shown = [str(places[identity]) for identity in order]
    if len(old) == len(new) and order == [_identity(step) for step in old]:
        return ""
    return "said in the order " + ", ".join(shown[:16]) + (", …" if len(shown) > 16 else "")


def _pieces(old: Sequence[Step], new: Sequence[Step]) -> str:
    """Into how many one chunk of data was split, if its pieces say no more and no less."""
    if len(old) != 1 or len(new) < 2 or not _is_data(old[0]) or not all(map(_is_data, new)):
        return ""
    place, data = _content_of(old[0])
    for step in new:
        offset, piece = _content_of(step)
        if offset != place or not data.startswith(piece):
            return ""
        place, data = place + len(piece), data[len(piece) :]
    return "" if data else f"split the data chunk into {len(new)}"


def _is_data(step: Step) -> bool:
    return isinstance(step, Chunk) and isinstance(step.body, Data)


def _content_of(step: Any) -> tuple[int, bytes]:
    return step.body.offset, bytes(step.body.data)


def _identity(step: Step) -> int:
    return id(step.body) if isinstance(step, Chunk) else id(step)


def _bytes(truth: bytes, lie: bytes, left: int) -> str:
    changed = [place for place in range(len(lie)) if truth[place] != lie[place]]
    if len(changed) == 1:
        place = changed[0]
        return f"changed byte {left + place}: {truth[place]:#04x} -> {lie[place]:#04x}"
    return f"changed {len(changed)} bytes, the first at {left + changed[0]}" if changed else ""


def _listed(steps: Sequence[Step]) -> str:
    names = Counter(noun(_message(step)) if is_message(step) else "bytes" for step in steps)
    return ", ".join((name if count == 1 else f"{count} x {name}") for name, count in names.items())


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
