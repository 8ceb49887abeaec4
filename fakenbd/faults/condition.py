"""When a fault fires: conditions on the event itself, then on how many such events there were.

The fixed conditions look at one event only. Those on occurrence (`nth`, `after`, `every`, `times`)
count the events that met all fixed ones, since the fault was added, on the whole server or for
each connection. `chance` is drawn last, addressed by seed, connection, fault and occurrence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any, Final, Literal, TypeAlias

import attrs
from attrs.converters import optional

from fakenbd.faults.event import ANY, REPLY_EVENTS, Event, EventKind
from fakenbd.faults.fields import word_number
from fakenbd.faults.readers import (
    TableError,
    boolean,
    byte_size,
    one_of,
    plain,
    positive,
    shown,
    unknown,
    whole,
)
from fakenbd.protocol.constants import Command, CommandFlag, Option, flag_names, slug

__all__ = ["ANY", "Range", "When", "parse_when"]

Numbers: TypeAlias = frozenset[int] | Literal["any"]

_ENUMERATIONS: Final[dict[str, type[IntEnum]]] = {"option": Option, "command": Command}
_OF_COMMANDS: Final = ("offset", "length", "flags", "without")


@attrs.frozen
class Range:
    """From `start` up to `stop`, without an end where that is None."""

    start: int
    stop: int | None = None

    def to_toml(self) -> str:
        """The text that is read as this range."""
        return f"{self.start}..{'' if self.stop is None else self.stop}"

    def __str__(self) -> str:
        return f'"{self.to_toml()}"'


def _numbers(kind: type[IntEnum], value: Any) -> Numbers | None:
    if value is None or value == ANY:
        return value  # type: ignore[no-any-return]
    if isinstance(value, (frozenset, set, list, tuple)):
        if not value:
            raise ValueError("expected at least one name or number")
        return frozenset(word_number(word, kind) for word in value)
    return frozenset((word_number(value, kind),))


def _options(value: Any) -> Numbers | None:
    return _numbers(Option, value)


def _commands(value: Any) -> Numbers | None:
    return _numbers(Command, value)


def _connections(value: Any) -> frozenset[int]:
    many = value if isinstance(value, (frozenset, set, list, tuple)) else (value,)
    return frozenset(map(positive, many))


def _span(value: Any) -> int | Range:
    """A number of bytes, or a range "1MiB..2MiB", "1MiB.." or "..2MiB"."""
    if isinstance(value, Range):
        return value
    match = re.fullmatch(r"(.*)\.\.(.*)", value) if isinstance(value, str) else None
    if match is None:
        return byte_size(value)
    start = byte_size(match[1]) if match[1].strip() else 0
    stop = byte_size(match[2]) if match[2].strip() else None
    if stop is not None and stop < start:
        raise ValueError(f"expected a range that ends after its start, got {shown(value)}")
    return Range(start, stop)


def _flags(value: Any) -> int:
    return word_number(value, CommandFlag)


def _scope(value: Any) -> str:
    return one_of(value, ("connection", "server"))


def _chance(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {shown(value)}")
    return float(value)


@attrs.frozen
class When:
    """The conditions of a fault, all of which must hold; one that is None always holds.

    `connect`, `greeting`: whether the event is a connection's begin, or its greeting.
    `option`, `command`: names or numbers, one or a list, or "any".
    `connection`: numbers of connections, from 1.
    `offset`: where the request starts, or a half-open range of the export that it overlaps (in a
    range, a request of no length counts as one byte). `length`: its length, or a range of lengths,
    both ends included. `flags`: command flags, all of which must be set; `without`: those none of
    which may be set.
    `tls`, `structured`, `extended`: whether that is in force (extended headers count as structured
    replies, too).
    `nth`: only the n-th such event. `after`: only later than so many. `every`: only each n-th (of
    those after `after`). `times`: at most so many firings. `per`: counted for the whole "server"
    or for each "connection". `chance`: the probability that it fires, from 0 to 1.
    """

    connect: bool | None = attrs.field(default=None, converter=optional(boolean))
    greeting: bool | None = attrs.field(default=None, converter=optional(boolean))
    option: Numbers | None = attrs.field(default=None, converter=_options)
    command: Numbers | None = attrs.field(default=None, converter=_commands)
    connection: frozenset[int] | None = attrs.field(default=None, converter=optional(_connections))
    offset: int | Range | None = attrs.field(default=None, converter=optional(_span))
    length: int | Range | None = attrs.field(default=None, converter=optional(_span))
    flags: int | None = attrs.field(default=None, converter=optional(_flags))
    without: int | None = attrs.field(default=None, converter=optional(_flags))
    tls: bool | None = attrs.field(default=None, converter=optional(boolean))
    structured: bool | None = attrs.field(default=None, converter=optional(boolean))
    extended: bool | None = attrs.field(default=None, converter=optional(boolean))
    nth: int | None = attrs.field(default=None, converter=optional(positive))
    after: int | None = attrs.field(default=None, converter=optional(whole))
    every: int | None = attrs.field(default=None, converter=optional(positive))
    times: int | None = attrs.field(default=None, converter=optional(positive))
    per: str = attrs.field(default="server", converter=_scope)
    chance: float | None = attrs.field(default=None, converter=optional(_chance))
    _checks: tuple[tuple[str, Any, _Check], ...] = attrs.field(init=False, eq=False, repr=False)

    @_checks.default
    def _given(self) -> tuple[tuple[str, Any, _Check], ...]:
        given = ((name, getattr(self, name), check) for name, check in _FIXED.items())
        return tuple((name, value, check) for name, value, check in given if value is not None)

    def __attrs_post_init__(self) -> None:
        named = [name for name in REPLY_EVENTS if getattr(self, name) not in (None, False)]
        if len(named) > 1:
            raise ValueError(f"expected only one of {' and '.join(named)}")
        for name in _OF_COMMANDS:
            if getattr(self, name) is not None and named and named != ["command"]:
                raise ValueError(f"expected no {name} with {named[0]}, it belongs to commands")
        if self.nth is not None:
            for name in ("after", "every", "times"):
                if getattr(self, name) is not None:
                    raise ValueError(f"expected either nth, which names one event, or {name}")

    @property
    def kinds(self) -> frozenset[EventKind]:
        """The kinds of events that can meet these conditions."""
        for name in REPLY_EVENTS:
            if getattr(self, name) not in (None, False):
                return frozenset((name,))
        if any(getattr(self, name) is not None for name in _OF_COMMANDS):
            return frozenset(("command",))
        return frozenset(name for name in REPLY_EVENTS if getattr(self, name) is not False)

    def to_table(self) -> dict[str, Any]:
        """The table that is read as these conditions."""
        table = {}
        for field in attrs.fields(When):
            value = getattr(self, field.name)
            if field.init and value != field.default:
                table[field.name] = _written(field.name, value)
        return table

    @property
    def target(self) -> str:
        """What these conditions are about, in a few words: "read", "any option", "connect"."""
        for name, kind in _ENUMERATIONS.items():
            numbers = getattr(self, name)
            if numbers == ANY:
                return f"any {name}"
            if numbers is not None:
                return " or ".join(slug(kind, number) for number in sorted(numbers))
        return " or ".join(name for name in REPLY_EVENTS if name in self.kinds)

    def unmet(self, event: Event) -> int:
        """How many fixed conditions, from the first that fails on, stand between it and a match."""
        for index, (_, value, check) in enumerate(self._checks):
            if not check(value, event):
                return len(self._checks) - index
        return 0

    def matches(self, event: Event) -> bool:
        """Whether the event meets all fixed conditions."""
        return all(check(value, event) for _, value, check in self._checks)

    def differs(self, event: Event) -> str | None:
        """The first fixed condition that the event does not meet, in words, or None."""
        for name, value, check in self._checks:
            if not check(value, event):
                return f"wanted {name} = {_shown(name, value)}"
        return None

    def waits(self, seen: int, fired: int) -> str | None:
        """The condition on occurrence that the `seen`-th event does not meet, in words, or None.

        `fired` is the number of firings before.
        """
        if self.nth is not None and seen != self.nth:
            return f"wanted nth = {self.nth}"
        after = self.after or 0
        if seen <= after:
            return f"wanted after = {after}"
        if self.every is not None and (seen - after) % self.every:
            return f"wanted every = {self.every}"
        if self.times is not None and fired >= self.times:
            return f"wanted times = {self.times}"
        return None

    def exhausted(self, seen: int, fired: int) -> bool:
        """Whether no later event can meet the conditions on occurrence."""
        if self.nth is not None:
            return seen >= self.nth
        return self.times is not None and fired >= self.times


_Check: TypeAlias = Callable[[Any, Event], bool]


def _starts_or_overlaps(value: int | Range, event: Event) -> bool:
    request = event.request
    if request is None:
        return False
    if isinstance(value, int):
        return request.offset == value
    last = request.offset + max(request.length, 1)
    return last > value.start and (value.stop is None or request.offset < value.stop)


def _is_so_long(value: int | Range, event: Event) -> bool:
    request = event.request
    if request is None:
        return False
    if isinstance(value, int):
        return request.length == value
    return value.start <= request.length and (value.stop is None or request.length <= value.stop)


def _is_one_of(value: Numbers, number: int | None) -> bool:
    return number is not None and (value == ANY or number in value)


# In the order in which they are looked at: the later one fails, the closer the event was.
_FIXED: Final[dict[str, _Check]] = {
    "connect": lambda value, event: (event.kind == "connect") is value,
    "greeting": lambda value, event: (event.kind == "greeting") is value,
    "option": lambda value, event: _is_one_of(value, event.option),
    "command": lambda value, event: _is_one_of(value, event.command),
    "tls": lambda value, event: event.tls is value,
    "structured": lambda value, event: (event.structured or event.extended) is value,
    "extended": lambda value, event: event.extended is value,
    "length": _is_so_long,
    "flags": lambda value, event: (
        event.request is not None and event.request.flags & value == value
    ),
    "without": lambda value, event: event.request is not None and not event.request.flags & value,
    "offset": _starts_or_overlaps,
    "connection": lambda value, event: event.connection in value,
}


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if name in ("flags", "without"):
        return flag_names(CommandFlag, value)
    if value == ANY:
        return '"any"'
    if isinstance(value, frozenset):
        words = [
            f'"{each}"' if isinstance(each, str) else str(each) for each in _written(name, value)
        ]
        return words[0] if len(words) == 1 else f"[{', '.join(words)}]"
    return str(value)


def _written(name: str, value: Any) -> Any:
    if name in _ENUMERATIONS and isinstance(value, frozenset):
        words = [slug(_ENUMERATIONS[name], number) for number in sorted(value)]
        return [int(word) if word.isdigit() else word for word in words]
    return plain(sorted(value) if isinstance(value, frozenset) else value)


def parse_when(table: Any, path: str = "when") -> When:
    """The conditions of a table; raises TableError with every mistake under its key path."""
    if not isinstance(table, Mapping):
        raise TableError([f"{path}: expected a table of conditions, got {shown(table)}"])
    known = {field.name: field for field in attrs.fields(When) if field.init}
    mistakes = []
    for name, value in table.items():
        field = known.get(name)
        if field is None:
            mistakes.append(f"{path}: {unknown('condition', name, known)}")
            continue
        read: Callable[[Any], Any] = field.converter  # type: ignore[assignment]
        try:
            if value is None:
                raise ValueError("expected a value, got nothing")
            read(value)
        except ValueError as error:
            mistakes.append(f"{path}.{name}: {error}")
    if not mistakes:
        try:
            return When(**table)
        except ValueError as error:
            mistakes.append(f"{path}: {error}")
    raise TableError(mistakes)
