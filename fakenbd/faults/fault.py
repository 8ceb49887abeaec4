"""A fault as a value: its name, its conditions, and the kinds it applies in order.

The readers take tables as a TOML file gives them and list every mistake at once, under its key
path, so that all can be corrected together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import attrs

from fakenbd.faults import kinds as _all_kinds  # noqa: F401  (fills the registry)
from fakenbd.faults.answer import Answer
from fakenbd.faults.condition import When, parse_when
from fakenbd.faults.event import REPLY_EVENTS, Event, EventKind
from fakenbd.faults.firing import Firing
from fakenbd.faults.readers import TableError, boolean, shown, text, unknown
from fakenbd.faults.registry import KINDS, Kind, read_kind
from fakenbd.faults.selection import materialised

__all__ = ["Change", "Fault", "apply_change", "kind_name", "parse_do", "parse_fault"]

_KEYS: Final = ("name", "when", "do", "also", "armed")

Change: TypeAlias = Kind | Callable[[Answer, Firing], Answer]


def kind_name(change: Change) -> str:
    """The word of a kind, or the name of a function."""
    if isinstance(change, Kind):
        return change.slug
    return getattr(change, "__name__", type(change).__name__)


def apply_change(change: Change, answer: Answer, firing: Firing) -> tuple[Answer, str]:
    """The reply after a kind or a function, and what that changed; "" for nothing.

    Raises TypeError where a function returned no answer.
    """
    if isinstance(change, Kind):
        return change.apply(answer, firing)
    answer = materialised(answer)
    changed = change(list(answer), firing)
    name = kind_name(change)
    if not isinstance(changed, list):
        got = type(changed).__name__
        raise TypeError(f"fault '{firing.fault}': {name} returned {got}, not a list of steps")
    return changed, f"changed by {name}" if changed != answer else ""


def _changes(value: Any) -> tuple[Change, ...]:
    changes = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not changes:
        raise ValueError("expected at least one kind")
    for change in changes:
        if not isinstance(change, Kind) and not callable(change):
            raise ValueError(f"expected a kind or a function, got {shown(change)}")
    return changes


@attrs.frozen
class Fault:
    """What a server does wrong, and when.

    `do` is one kind or several, applied in order; a function `(answer, firing) -> answer` is a
    kind, too. Of the armed faults that match an event the first is applied, and every one with
    `also`. Without a name the engine gives one.
    """

    name: str
    when: When
    do: tuple[Change, ...] = attrs.field(converter=_changes)
    also: bool = attrs.field(default=False, converter=boolean)
    armed: bool = attrs.field(default=True, converter=boolean)

    def __attrs_post_init__(self) -> None:
        for change in self.do:
            if isinstance(change, Kind) and not self.when.kinds & change.events:
                raise ValueError(
                    f"{change.slug} changes replies to {_plural(change.events)}, "
                    f"not to {_plural(self.when.kinds)}"
                )
        if not self.events:
            raise ValueError(f"{self.words} have no kind of event in common")

    @property
    def events(self) -> frozenset[EventKind]:
        """The kinds of events that this fault can fire at."""
        events = self.when.kinds
        for change in self.do:
            if isinstance(change, Kind):
                events &= change.events
        return events

    def to_table(self) -> dict[str, Any]:
        """The table that `parse_fault` reads as this fault; raises TableError for a function."""
        table: dict[str, Any] = {"name": self.name} if self.name else {}
        when = self.when.to_table()
        if when:
            table["when"] = when
        table["do"] = [_written(change) for change in self.do]
        for key, default in (("also", False), ("armed", True)):
            if getattr(self, key) != default:
                table[key] = not default
        return table

    def keeps_effect(self, event: Event) -> bool:
        """Whether the command is still performed, or the option followed, where this is applied."""
        return all(change.keeps_effect(event) for change in self.do if isinstance(change, Kind))

    @property
    def replaces(self) -> bool:
        """Whether it makes a reply of its own in place of the correct one."""
        return any(isinstance(change, Kind) and change.replaces for change in self.do)

    @property
    def words(self) -> str:
        """Its kinds in words: "set and cut"."""
        return " and ".join(map(kind_name, self.do))


def _written(change: Change) -> dict[str, Any]:
    if not isinstance(change, Kind):
        raise TableError([f"the function {kind_name(change)} cannot be written as a table"])
    return change.to_table()


def _plural(kinds: frozenset[EventKind]) -> str:
    return " and ".join(f"{kind}s" for kind in REPLY_EVENTS if kind in kinds)


def parse_do(value: Any, path: str = "do") -> tuple[Kind, ...]:
    """The kinds of a table, a list of tables, or a bare word; raises TableError.

    A table has the word of its kind as a key, whose value is the main parameter (or true for its
    default), and the other parameters beside it.
    """
    if not isinstance(value, (list, tuple)):
        return (_parse_kind(value, path),)
    if not value:
        raise TableError([f"{path}: expected at least one kind, got an empty list"])
    kinds: list[Kind] = []
    mistakes: list[str] = []
    for index, item in enumerate(value):
        try:
            kinds.append(_parse_kind(item, f"{path}[{index}]"))
        except TableError as error:
            mistakes += error.mistakes
    if mistakes:
        raise TableError(mistakes)
    return tuple(kinds)


def _parse_kind(value: Any, path: str) -> Kind:
    if isinstance(value, str):
        value = {value: True}
    if not isinstance(value, Mapping):
        raise TableError([f"{path}: expected a table with a kind, got {shown(value)}"])
    words = [key for key in value if key in KINDS]
    if not words:
        name = next(iter(value), "")
        raise TableError([f"{path}: {unknown('kind', name, KINDS)}"])
    if len(words) > 1:
        listed = " and ".join(words)
        raise TableError(
            [f"{path}: expected one kind a table, got {listed}; write a list of tables"]
        )
    word = words[0]
    given = {key: item for key, item in value.items() if key != word}
    main = KINDS[word].main
    if value[word] is not True:
        if main is None:
            raise TableError([f"{path}.{word}: expected true, got {shown(value[word])}"])
        given[main] = value[word]
    return read_kind(word, given, f"{path}.")


def parse_fault(table: Any, path: str = "fault") -> Fault:
    """The fault of a table with the keys of Fault; raises TableError with all mistakes."""
    if not isinstance(table, Mapping):
        raise TableError([f"{path}: expected a table, got {shown(table)}"])
    mistakes = [
        f"{path}: {unknown('key', key, ('name', 'when', 'do', 'also'))}"
        for key in table
        if key not in _KEYS
    ]
    values: dict[str, Any] = {"name": "", "when": When()}
    readers: dict[str, Callable[[Any], Any]] = {
        "name": text,
        "when": lambda value: parse_when(value, f"{path}.when"),
        "do": lambda value: parse_do(value, f"{path}.do"),
        "also": boolean,
        "armed": boolean,
    }
    for key, read in readers.items():
        if key not in table:
            continue
        try:
            values[key] = read(table[key])
        except TableError as error:
            mistakes += error.mistakes
        except ValueError as error:
            mistakes.append(f"{path}.{key}: {error}")
    if "do" not in table:
        mistakes.append(f"{path}: expected a key do, which says what the fault does")
    if mistakes:
        raise TableError(mistakes)
    try:
        return Fault(**values)
    except ValueError as error:
        raise TableError([f"{path}: {error}"]) from None
