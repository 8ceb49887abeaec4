"""The kinds of faults, by the word that profiles use.

A kind is a frozen attrs value, its fields the parameters, with one pure function from an answer to
an answer. The docstring of its class is its documentation. `@register` is the only place where a
kind is made known: profiles, the `on(…)` builder and the tests read KINDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, TypeVar

import attrs

from fakenbd.faults.answer import Answer
from fakenbd.faults.event import REPLY_EVENTS, Event, EventKind
from fakenbd.faults.firing import Firing
from fakenbd.faults.readers import TableError, plain, unknown

__all__ = ["KINDS", "Kind", "make_kind", "parameters", "read_kind", "register"]


class Kind:
    """What all kinds have in common.

    `slug` is the word of the kind, `family` its row in the table of kinds, `main` the parameter
    that the word's own value stands for (None where that can only be `true`), `events` the kinds
    of events that it can do something to. `replaces`: it puts another reply in place of the correct
    one, whose effect does not happen either (unless its parameter `effect` says so). `breaks_must`:
    with values that the protocol has, what it sends can break a MUST. `may_stall`: it may leave the
    client waiting for ever.
    """

    slug: ClassVar[str]
    family: ClassVar[str]
    main: ClassVar[str | None]
    events: ClassVar[frozenset[EventKind]]
    replaces: ClassVar[bool]
    breaks_must: ClassVar[bool]
    may_stall: ClassVar[bool]

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        """The changed answer, and a clause on what was changed; "" if nothing was."""
        raise NotImplementedError

    def to_table(self) -> dict[str, Any]:
        """The table that is read as this kind; raises TableError for messages made in Python."""
        table: dict[str, Any] = {self.slug: True}
        for name, field in parameters(type(self)).items():
            value = getattr(self, name)
            if value != field.default:
                key = self.slug if name == self.main else name.replace("_", "-")
                table[key] = self.to_toml(name, value)
        return table

    def to_toml(self, name: str, value: Any) -> Any:
        """A parameter as TOML data."""
        return plain(value)

    def keeps_effect(self, event: Event) -> bool:
        """Whether the command is still performed, or the option followed, as if it were correct."""
        return not self.replaces or bool(getattr(self, "effect", False))

    @classmethod
    def gather(cls, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """The keyword arguments of the class from the parameters that a person gave."""
        return dict(parameters)


KINDS: Final[dict[str, type[Kind]]] = {}

_Class = TypeVar("_Class", bound=type[Kind])


def register(
    slug: str,
    *,
    family: str,
    main: str | None = None,
    events: Iterable[str] = REPLY_EVENTS,
    replaces: bool = False,
    breaks_must: bool = True,
    may_stall: bool = False,
) -> Callable[[_Class], _Class]:
    """Make a kind known under `slug`."""

    def registered(kind: _Class) -> _Class:
        kind.slug, kind.family, kind.main = slug, family, main
        kind.replaces, kind.breaks_must, kind.may_stall = replaces, breaks_must, may_stall
        kind.events = frozenset(each for each in REPLY_EVENTS if each in set(events))
        KINDS[slug] = kind
        return kind

    return registered


def parameters(kind: type[Kind]) -> dict[str, attrs.Attribute[Any]]:
    """The parameters of a kind by name, in order."""
    return {field.name: field for field in attrs.fields(kind)}  # type: ignore[arg-type]


def make_kind(slug: str, *values: Any, **named: Any) -> Kind:
    """A kind from Python: its main parameter first, if it has one, the others by name.

    Raises TableError (a ValueError) with all that is wrong.
    """
    kind = KINDS.get(slug)
    if kind is None:
        raise TableError([unknown("kind", slug, KINDS)])
    if len(values) > (kind.main is not None):
        most = "no value" if kind.main is None else "one value"
        raise TableError([f"{slug}: takes {most} without a name, got {len(values)}"])
    if values and kind.main is not None:
        named = {kind.main: values[0], **named}
    return read_kind(slug, named, "")


def read_kind(slug: str, given: Mapping[str, Any], path: str) -> Kind:
    """A kind from its parameters; every mistake is listed under its key path."""
    kind = KINDS[slug]
    known = parameters(kind)
    arguments = kind.gather({name.replace("-", "_"): value for name, value in given.items()})
    mistakes = []
    for name, value in arguments.items():
        place = path + (slug if name == kind.main else name.replace("_", "-"))
        if name not in known:
            words = [word.replace("_", "-") for word in known if word != kind.main]
            mistakes.append(f"{path}{slug}: " + unknown("parameter", name.replace("_", "-"), words))
            continue
        mistakes += _mistakes(known[name], value, place)
    for name, field in known.items():
        if field.default is attrs.NOTHING and name not in arguments:
            mistakes.append(f"{path}{slug}: expected a value, its {name.replace('_', '-')}")
    if not mistakes:
        try:
            return kind(**arguments)
        except ValueError as error:
            mistakes.append(f"{path}{slug}: {error}")
    raise TableError(mistakes)


def _mistakes(field: attrs.Attribute[Any], value: Any, place: str) -> list[str]:
    read: Callable[[Any], Any] = field.converter  # type: ignore[assignment]
    try:
        read(value)
    except TableError as error:
        return [f"{place}.{mistake}" for mistake in error.mistakes]
    except ValueError as error:
        return [f"{place}: {error}"]
    return []
