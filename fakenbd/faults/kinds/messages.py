"""Changes to the messages of the true answer: their fields, their number and their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, Final

import attrs

from fakenbd.faults.answer import Answer, Forever, Step
from fakenbd.faults.fields import Setting, read_setting, with_field
from fakenbd.faults.literal import Literal, literal
from fakenbd.faults.registry import Kind, register
from fakenbd.faults.selection import Selector, optional_selector, selected, selector
from fakenbd.faults.stream import step_bytes
from fakenbd.faults.strike import Strike
from fakenbd.faults.values import TableError, boolean, byte_size, duration, positive, shown
from fakenbd.protocol.constants import ChunkFlag
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    Data,
    ErrorReply,
    Extent,
    Hole,
    NoneChunk,
    ServerMessage,
    Status,
)

__all__ = ["Drop", "Insert", "Repeat", "Reverse", "Set", "Shuffle", "Split"]

_DONE: Final = int(ChunkFlag.DONE)
_SECTOR: Final = 512
_MAXIMUM_PIECES: Final = 1 << 16


# --- fields ------------------------------------------------------------------------------------


def _settings(value: Any) -> dict[str, Setting]:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"expected a table of fields to set, got {shown(value)}")
    settings, mistakes = {}, []
    for key, item in value.items():
        name = key.replace("-", "_")
        try:
            settings[name] = read_setting(name, item)
        except ValueError as error:
            mistakes.append(f"{key}: {error}")
    if mistakes:
        raise TableError(mistakes)
    return settings


@register("set", family="message", main="fields", may_stall=True)
@attrs.frozen
class Set(Kind):
    """Set any field of any message, in header or body.

    Numbers: a value, a word ("EIO", "done"), a list of flag words, a size ("64KiB"), a change of
    the honest value ("+1", "-1"), or "swapped" for its bytes in the other order. Values wrap at
    the field's width. Bytes (`data`, `payload`, `rest`, `reserved`): hexadecimal digits,
    { text = "…" }, { zeros = 512 }, { resize = "-1" }; `payload` is the whole body. Texts: a text,
    or { text = "x", times = 5000 }, { hex = "ff" }. `extents`: a list. Messages without the field
    stay as they are. In Python the fields are keywords: `.set(at="info-export", size=0)`.

    Example: do = { set = { size = "+1", flags = ["has-flags"] }, at = "info-export" }

    fields: the fields and what to set them to (required)
    at: which messages (default "each")
    """

    fields: dict[str, Setting] = attrs.field(converter=_settings)
    at: Selector = attrs.field(default="each", converter=selector)

    @classmethod
    def gather(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        named = {name: value for name, value in parameters.items() if name in ("fields", "at")}
        loose = {name: value for name, value in parameters.items() if name not in named}
        if loose:
            named["fields"] = {**named.get("fields", {}), **loose}
        return named

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        changed = list(answer)
        for place in selected(answer, self.at):
            message = _message(answer[place])
            for name, setting in self.fields.items():
                message = with_field(message, name, setting)
            changed[place] = message
        return changed


def _message(step: Step) -> ServerMessage:
    return step  # type: ignore[return-value]


# --- number ------------------------------------------------------------------------------------


def _nth(value: Any) -> int | None:
    return None if value is None else positive(value)


@register("drop", family="message", main="at", may_stall=True)
@attrs.frozen
class Drop(Kind):
    """Leave messages out. DONE goes with the chunk that carried it.

    Example: do = { drop = "last" }

    at: which messages (default "each")
    nth: only the n-th of them, if there are so many (default nothing)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    nth: int | None = attrs.field(default=None, converter=_nth)

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        places = selected(answer, self.at)
        if self.nth is not None:
            places = places[self.nth - 1 : self.nth]
        return [step for place, step in enumerate(answer) if place not in places]


def _times(value: Any) -> int | None:
    if value == "forever":
        return None
    if isinstance(value, str):
        raise ValueError(f'expected a whole number from 1 or "forever", got {shown(value)}')
    return positive(value)


@register("repeat", family="message", main="times")
@attrs.frozen
class Repeat(Kind):
    """Say messages again, all of the selected ones in order, right after the last of them.

    Example: do = { repeat = 2, at = "each" }

    times: how often more, or "forever" (default 1)
    at: which messages (default "last")
    seconds: pause between two rounds of those that go on for ever (default 0.0)
    """

    times: int | None = attrs.field(default=1, converter=_times)
    at: Selector = attrs.field(default="last", converter=selector)
    seconds: float = attrs.field(default=0.0, converter=duration)

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        places = selected(answer, self.at)
        if not places:
            return answer
        again = [answer[place] for place in places]
        if self.times is None:
            again = [Forever(b"".join(map(step_bytes, again)), self.seconds)]
        else:
            again *= self.times
        after = places[-1] + 1
        return [*answer[:after], *again, *answer[after:]]


@register("insert", family="message", main="message", may_stall=True)
@attrs.frozen
class Insert(Kind):
    """Put a message, or raw bytes, before or after others (once for each selected message).

    Where the answer holds no message at all, "first", "last" and "each" put it at the end. The
    message is written as for `reply`; a string is hexadecimal digits. DONE is set on `none` only,
    unless the message sets its flags.

    Example: do = { insert = { message = "none", flags = 0 }, before = "first" }

    message: the message or the bytes (required)
    before: the messages before which it goes (default nothing)
    after: the messages after which it goes; "last" if `before` is not given (default nothing)
    """

    message: Literal | ServerMessage = attrs.field(converter=literal)
    before: Selector | None = attrs.field(default=None, converter=optional_selector)
    after: Selector | None = attrs.field(default=None, converter=optional_selector)

    def __attrs_post_init__(self) -> None:
        if self.before is not None and self.after is not None:
            raise ValueError("expected only one of before and after")

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        message = self.message
        if isinstance(message, Literal):
            message = message.build(strike.event)
        at = self.after if self.before is None else self.before
        at = "last" if at is None else at
        places = set(selected(answer, at))
        if not selected(answer, "each") and at in ("first", "last", "each"):
            return [*answer, message]
        changed: Answer = []
        for place, step in enumerate(answer):
            pair = [message, step] if self.before is not None else [step, message]
            changed += pair if place in places else [step]
        return changed


# --- splitting ---------------------------------------------------------------------------------


def _pieces(value: Any) -> int | str:
    if value in ("holes", "random"):
        return str(value)
    size = byte_size(value)
    if not size:
        raise ValueError('expected a size from 1, "holes" or "random", got 0')
    return size


@register("split", family="message", main="size", events=("command",))
@attrs.frozen
class Split(Kind):
    """Say in several chunks, or extents, what the truth says in one.

    Data and hole chunks become chunks of so many bytes; extents of a status chunk become runs of
    equal ones of that length. "holes" turns each aligned 512 zero bytes of a data chunk into part
    of a hole chunk, "random" draws the sizes, addressed. DONE stays on the last piece. A chunk or
    extent gives at most 65536 pieces, the last of which takes what is left. A simple reply cannot
    be split.

    Example: do = { split = 512, at = "data" }

    size: bytes a piece, "holes" or "random" (required)
    at: which messages (default "each")
    """

    size: int | str = attrs.field(converter=_pieces)
    at: Selector = attrs.field(default="each", converter=selector)

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        places = set(selected(answer, self.at))
        random = strike.random()

        def lengths() -> Iterator[int]:
            while True:
                yield self.size if isinstance(self.size, int) else random.randint(1, 2 * _SECTOR)

        changed: Answer = []
        for place, step in enumerate(answer):
            if place in places and isinstance(step, Chunk):
                changed += self._split(step, lengths())
            else:
                changed.append(step)
        return changed

    def _split(self, chunk: Chunk, lengths: Iterator[int]) -> list[Chunk]:
        body = chunk.body
        if isinstance(body, Status):
            return [chunk if self.size == "holes" else _split_status(chunk, body, lengths)]
        bodies: list[Data | Hole]
        if isinstance(body, Data):
            bodies = _holes(body) if self.size == "holes" else list(_split_data(body, lengths))
        elif isinstance(body, Hole) and self.size != "holes":
            runs = _runs(body.size, lengths)
            bodies = [Hole(body.offset + start, stop - start) for start, stop in runs]
        else:
            return [chunk]
        if len(bodies) < 2 and type(bodies[0]) is type(body):
            return [chunk]
        pieces = [attrs.evolve(chunk, body=piece, flags=chunk.flags & ~_DONE) for piece in bodies]
        return [*pieces[:-1], attrs.evolve(pieces[-1], flags=chunk.flags)]


def _runs(total: int, lengths: Iterator[int]) -> Iterator[tuple[int, int]]:
    start = 0
    for size in islice(lengths, _MAXIMUM_PIECES - 1):
        if start + size >= total:
            break
        yield start, start + size
        start += size
    yield start, total


def _split_data(body: Data, lengths: Iterator[int]) -> Iterator[Data]:
    view = memoryview(body.data)
    for start, stop in _runs(len(view), lengths):
        yield Data(body.offset + start, view[start:stop])


def _split_status(chunk: Chunk, body: Status, lengths: Iterator[int]) -> Chunk:
    extents = [
        Extent(stop - start, flags)
        for total, flags in body.extents
        for start, stop in _runs(total, lengths)
    ]
    if len(extents) == len(body.extents):
        return chunk
    return attrs.evolve(chunk, body=attrs.evolve(body, extents=extents))


def _holes(body: Data) -> list[Data | Hole]:
    """The data with its zero sectors as holes; sectors are counted from the export's start."""
    view = memoryview(body.data)
    bodies: list[Data | Hole] = []
    begun, position, was_zero = 0, 0, None
    while position < len(view):
        stop = min(len(view), position + _SECTOR - (body.offset + position) % _SECTOR)
        is_zero = not any(view[position:stop])
        if was_zero is not None and is_zero != was_zero:
            bodies.append(_run(body, view, begun, position, was_zero))
            begun = position
        was_zero, position = is_zero, stop
    return [*bodies, _run(body, view, begun, position, bool(was_zero))]


def _run(body: Data, view: memoryview, start: int, stop: int, zero: bool) -> Data | Hole:
    if zero:
        return Hole(body.offset + start, stop - start)
    return Data(body.offset + start, view[start:stop])


# --- order -------------------------------------------------------------------------------------


def _ends_reply(message: ServerMessage) -> bool:
    return isinstance(getattr(message, "body", None), (Ack, ErrorReply, NoneChunk))


def _reordered(answer: Answer, at: Selector, order: list[int], travels: bool) -> Answer:
    """The answer with its selected messages in another order.

    Unless it `travels`, DONE goes from the chunk that had it to the one that is last now.
    """
    places = selected(answer, at)
    moved = [_message(answer[places[index]]) for index in order]
    if not travels:
        done = 0
        for index, message in enumerate(moved):
            if isinstance(message, Chunk) and message.flags & _DONE:
                moved[index] = attrs.evolve(message, flags=message.flags & ~_DONE)
                done = _DONE
        last = moved[-1]
        if done and isinstance(last, Chunk):
            moved[-1] = attrs.evolve(last, flags=last.flags | _DONE)
    changed = list(answer)
    for place, message in zip(places, moved, strict=True):
        changed[place] = message
    return changed


def _movable(answer: Answer, at: Selector, travels: bool) -> tuple[int, int]:
    """How many messages are selected, and how many of them change places."""
    places = selected(answer, at)
    fixed = not travels and bool(places) and _ends_reply(_message(answer[places[-1]]))
    return len(places), len(places) - fixed


@register("shuffle", family="message", main="at")
@attrs.frozen
class Shuffle(Kind):
    """Say the messages in another order, drawn by seed and never the honest one.

    What ends the reply stays at its end: an ack, a refusal, a none chunk, and DONE.

    Example: do = { shuffle = "each" }

    at: which messages change places among each other (default "each")
    travels: whether the end of the reply moves like the rest (default false)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    travels: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        count, movable = _movable(answer, self.at, self.travels)
        if movable < 2:
            return answer
        honest = list(range(movable))
        order, random = list(honest), strike.random()
        while order == honest:
            random.shuffle(order)
        return _reordered(answer, self.at, order + list(range(movable, count)), self.travels)


@register("reverse", family="message", main="at")
@attrs.frozen
class Reverse(Kind):
    """Say the messages last to first.

    What ends the reply stays at its end: an ack, a refusal, a none chunk, and DONE.

    Example: do = { reverse = true }

    at: which messages change places among each other (default "each")
    travels: whether the end of the reply moves like the rest (default false)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    travels: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, strike: Strike) -> Answer:
        count, movable = _movable(answer, self.at, self.travels)
        if movable < 2:
            return answer
        order = [*range(movable - 1, -1, -1), *range(movable, count)]
        return _reordered(answer, self.at, order, self.travels)
