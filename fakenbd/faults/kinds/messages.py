"""Changes to the messages of the correct reply: their fields, their number and their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import attrs
from attrs.converters import optional

from fakenbd.faults.answer import Answer, RepeatMessages, SendPieces, Step
from fakenbd.faults.change_summary import FieldChange, apart, counted, field_changes, listed
from fakenbd.faults.fields import Setting, read_setting, with_field
from fakenbd.faults.firing import Firing
from fakenbd.faults.message_template import MessageTemplate, message_template
from fakenbd.faults.pieces import MAXIMUM_PIECES, piece_lengths, runs
from fakenbd.faults.readers import TableError, boolean, byte_size, duration, positive, shown
from fakenbd.faults.registry import Kind, register
from fakenbd.faults.selection import (
    Selector,
    materialised,
    noun,
    optional_selector,
    selected,
    selector,
)
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
_MOST_NOTES: Final = 4
_MAXIMUM_EXTENTS: Final = 1 << 21


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
    the correct value ("+1", "-1"), or "swapped" for its bytes in the other order. Values wrap at
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

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        changed, changes = list(materialised(answer)), list[FieldChange]()
        for place in selected(changed, self.at):
            message = _message(changed[place])
            called = noun(message)
            for name, setting in self.fields.items():
                before, message = message, with_field(message, name, setting)
                if message is not before:
                    changes.append((name, called, before, message))
            changed[place] = message
        return changed, field_changes(changes)


def _message(step: Step) -> ServerMessage:
    return step  # type: ignore[return-value]


# --- number ------------------------------------------------------------------------------------


@register("drop", family="message", main="at", may_stall=True)
@attrs.frozen
class Drop(Kind):
    """Leave messages out. DONE goes with the chunk that carried it.

    Example: do = { drop = "last" }

    at: which messages (default "each")
    nth: only the n-th of them, if there are so many (default nothing)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    nth: int | None = attrs.field(default=None, converter=optional(positive))

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        places = selected(answer, self.at)
        if self.nth is not None:
            places = places[self.nth - 1 : self.nth]
        if not places:
            return answer, ""
        gone = set(places)
        changed = [step for place, step in enumerate(answer) if place not in gone]
        return changed, f"dropped {listed(answer[place] for place in places)}"


def _times(value: Any) -> int | None:
    if value == "forever":
        return None
    if isinstance(value, str):
        raise ValueError(f'expected a whole number from 1 or "forever", got {shown(value)}')
    return positive(value)


@register("repeat", family="message", main="times")
@attrs.frozen
class Repeat(Kind):
    """Send messages again, all of the selected ones in order, right after the last of them.

    Example: do = { repeat = 2, at = "each" }

    times: how often more, or "forever" (default 1)
    at: which messages (default "last")
    seconds: pause between two rounds (default 0.0)
    """

    times: int | None = attrs.field(default=1, converter=_times)
    at: Selector = attrs.field(default="last", converter=selector)
    seconds: float = attrs.field(default=0.0, converter=duration)

    def to_toml(self, name: str, value: Any) -> Any:
        return "forever" if value is None else super().to_toml(name, value)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        places = selected(answer, self.at)
        messages = tuple(_message(answer[place]) for place in places)
        again = RepeatMessages(messages, self.times, self.seconds)
        size = again.size()
        if not size:
            return answer, ""
        if self.times is None:
            note = f"repeated {counted(size, 'byte')} for ever{apart(self.seconds)}"
        else:
            note = f"inserted {listed(messages, self.times)}{apart(self.seconds)}"
        after = places[-1] + 1
        return [*answer[:after], again, *answer[after:]], note


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

    message: MessageTemplate | ServerMessage = attrs.field(converter=message_template)
    before: Selector | None = attrs.field(default=None, converter=optional_selector)
    after: Selector | None = attrs.field(default=None, converter=optional_selector)

    def __attrs_post_init__(self) -> None:
        if self.before is not None and self.after is not None:
            raise ValueError("expected only one of before and after")

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        message = self.message
        if isinstance(message, MessageTemplate):
            message = message.build(firing.event)
        at = self.after if self.before is None else self.before
        at = "last" if at is None else at
        answer = materialised(answer)
        places = set(selected(answer, at))
        if not selected(answer, "each") and at in ("first", "last", "each"):
            return [*answer, message], f"inserted {listed([message])}"
        changed: Answer = []
        for place, step in enumerate(answer):
            pair = [message, step] if self.before is not None else [step, message]
            changed += pair if place in places else [step]
        return changed, f"inserted {listed([message], len(places))}" if places else ""


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
    """Send in several chunks, or extents, what the correct reply has in one.

    Data and hole chunks become chunks of so many bytes; extents of a status chunk become runs of
    equal ones of that length. "holes" turns each aligned 512 zero bytes of a data chunk into part
    of a hole chunk, "random" draws the sizes, addressed. DONE stays on the last piece. A chunk or
    extent gives at most 65536 pieces, the last of which takes what is left, and a status chunk has
    at most 2097152 extents in the end. A simple reply cannot be split.

    Example: do = { split = 512, at = "data" }

    size: bytes a piece, "holes" or "random" (required)
    at: which messages (default "each")
    """

    size: int | str = attrs.field(converter=_pieces)
    at: Selector = attrs.field(default="each", converter=selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        changed, notes = list(answer), list[str]()
        for index, place in enumerate(selected(answer, self.at)):
            step = answer[place]
            if isinstance(step, Chunk):
                changed[place], note = self._split(
                    step, firing.address(str(index) if index else "")
                )
                notes += [note] if note else []
        return changed, "; ".join(notes[:_MOST_NOTES])

    def _split(self, chunk: Chunk, address: str) -> tuple[Step, str]:
        body = chunk.body
        if isinstance(body, Status):
            if self.size == "holes":
                return chunk, ""
            after = _split_status(chunk, body, piece_lengths(self.size, address))
            changes = [("extents", noun(chunk), chunk, after)] if after is not chunk else []
            return after, field_changes(changes)
        if not isinstance(body, Data) and (not isinstance(body, Hole) or self.size == "holes"):
            return chunk, ""
        pieces = SendPieces(chunk, self.size, address)
        count = pieces.count()
        if count > 1:
            return pieces, f"split the {noun(chunk)} into {count}"
        (only,) = pieces.messages()
        return (only, f"replaced {noun(chunk)} by {noun(only)}") if only != chunk else (chunk, "")


def _split_status(chunk: Chunk, body: Status, lengths: Iterator[int]) -> Chunk:
    extents: list[Extent] = []
    for left, (total, flags) in zip(
        range(len(body.extents) - 1, -1, -1), body.extents, strict=True
    ):
        most = min(MAXIMUM_PIECES, max(1, _MAXIMUM_EXTENTS - len(extents) - left))
        extents += [Extent(stop - start, flags) for start, stop in runs(total, lengths, most)]
    if len(extents) == len(body.extents):
        return chunk
    return attrs.evolve(chunk, body=attrs.evolve(body, extents=extents))


# --- order -------------------------------------------------------------------------------------


def _ends_reply(message: ServerMessage) -> bool:
    return isinstance(getattr(message, "body", None), (Ack, ErrorReply, NoneChunk))


def _reordered(answer: Answer, at: Selector, order: list[int], travels: bool) -> tuple[Answer, str]:
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
    shown = [str(index + 1) for index in order[:16]] + (["…"] if len(order) > 16 else [])
    return changed, f"sent in the order {', '.join(shown)}" if changed != answer else ""


def _movable(answer: Answer, at: Selector, travels: bool) -> tuple[int, int]:
    """How many messages are selected, and how many of them change places."""
    places = selected(answer, at)
    fixed = not travels and bool(places) and _ends_reply(_message(answer[places[-1]]))
    return len(places), len(places) - fixed


@register("shuffle", family="message", main="at")
@attrs.frozen
class Shuffle(Kind):
    """Send the messages in another order, drawn by seed and never the correct one.

    What ends the reply stays at its end: an ack, a refusal, a none chunk, and DONE.

    Example: do = { shuffle = "each" }

    at: which messages change places among each other (default "each")
    travels: whether the end of the reply moves like the rest (default false)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    travels: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        count, movable = _movable(answer, self.at, self.travels)
        if movable < 2:
            return answer, ""
        correct = list(range(movable))
        order, random = list(correct), firing.random()
        while order == correct:
            random.shuffle(order)
        return _reordered(answer, self.at, order + list(range(movable, count)), self.travels)


@register("reverse", family="message", main="at")
@attrs.frozen
class Reverse(Kind):
    """Send the messages last to first.

    What ends the reply stays at its end: an ack, a refusal, a none chunk, and DONE.

    Example: do = { reverse = true }

    at: which messages change places among each other (default "each")
    travels: whether the end of the reply moves like the rest (default false)
    """

    at: Selector = attrs.field(default="each", converter=selector)
    travels: bool = attrs.field(default=False, converter=boolean)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        count, movable = _movable(answer, self.at, self.travels)
        if movable < 2:
            return answer, ""
        order = [*range(movable - 1, -1, -1), *range(movable, count)]
        return _reordered(answer, self.at, order, self.travels)
