"""Families: one file with parameters, a profile for each of their values.

    [sweep]                          members @0 @1 … @17; several parameters give their product
    n = { from = 0, to = 17 }        or n = [0, 8, 16]

    [[sweep]]                        members named one by one, for values that belong together
    id = "sector"
    minimum = 512

A string that is exactly "$n" becomes the value, whatever its type; "{n}" inside a longer string
becomes its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from math import prod
from typing import Any, Final, TypeAlias

import attrs

from fakenbd.faults.readers import TableError, integer, positive, shown, unknown
from fakenbd.profile.table_reader import nested, read_table

__all__ = ["LIMIT", "Values", "read_sweep", "substitute", "substitute_text"]

LIMIT: Final = 10_000
"""The most members of a family."""

Values: TypeAlias = dict[str, Any]
"""The values of the parameters of one member."""

_PARAMETER: Final = re.compile(r"[a-z][a-z0-9-]*")
_MEMBER: Final = re.compile(r"[A-Za-z0-9._+-]+")
_WHOLE: Final = re.compile(r"\$([a-z][a-z0-9-]*)")
_WITHIN: Final = re.compile(r"\{([a-z][a-z0-9-]*)\}")
_QUOTED: Final = re.compile(r"""(["'])\$([a-z][a-z0-9-]*)\1""")
_SWEEP: Final = re.compile(r"^\[\[?sweep\b.*?(?=^\[(?!\[?sweep\b)|\Z)", re.MULTILINE | re.DOTALL)


def read_sweep(value: Any) -> dict[str, Values]:
    """The members of a family by name, in order."""
    if isinstance(value, (list, tuple)):
        return _listed(value)
    if not isinstance(value, Mapping):
        raise ValueError(f"expected a table of parameters, got {shown(value)}")
    if not value:
        raise ValueError("expected at least one parameter, got an empty table")
    axes, mistakes = [], []
    for name, given in value.items():
        try:
            _check_parameter(name)
            axes.append(_axis(given))
        except ValueError as error:
            mistakes += nested(name, error)
    if mistakes:
        raise TableError(mistakes)
    if prod(map(len, axes)) > LIMIT:
        raise ValueError(f"expected at most {LIMIT} members, got {prod(map(len, axes))}")
    return {
        ",".join(map(_spelled, values)): dict(zip(value, values, strict=True))
        for values in product(*axes)
    }


def _check_parameter(name: str) -> None:
    if not _PARAMETER.fullmatch(name):
        raise ValueError(f"expected small letters, digits and hyphens, got {shown(name)}")


def _axis(given: Any) -> Sequence[Any]:
    if isinstance(given, Mapping):
        bounds = read_table(
            given, {"from": integer, "to": integer, "step": positive}, required=("from", "to")
        )
        axis: Sequence[Any] = range(bounds["from"], bounds["to"] + 1, bounds.get("step", 1))
    elif isinstance(given, list):
        axis = given
        for item in axis:
            if not isinstance(item, (int, str)) or not _MEMBER.fullmatch(_spelled(item)):
                raise ValueError(
                    "expected numbers and words to name the members by ([[sweep]] with an id is "
                    f"for others), got {shown(item)}"
                )
    else:
        raise ValueError(f"expected a list or {{ from = 0, to = 17 }}, got {shown(given)}")
    if not axis:
        raise ValueError("expected at least one value, got none")
    if len(set(map(_spelled, axis[: LIMIT + 1]))) < min(len(axis), LIMIT + 1):
        raise ValueError("expected each value once, got one of them again")
    return axis


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _listed(tables: Sequence[Any]) -> dict[str, Values]:
    if not tables:
        raise ValueError("expected at least one member, got an empty list")
    members: dict[str, Values] = {}
    mistakes: list[str] = []
    names: set[str] = set()
    for index, table in enumerate(tables):
        try:
            member, values = _member(table)
            names = names or set(values)
            if member in members:
                raise TableError([f"id: expected each id once, got {shown(member)} again"])
            if set(values) != names:
                known = ", ".join(sorted(names))
                raise ValueError(f"expected the parameters of the first member: {known}")
            members[member] = values
        except ValueError as error:
            mistakes += nested(f"[{index}]", error)
    if mistakes:
        raise TableError(mistakes)
    return members


def _member(table: Any) -> tuple[str, Values]:
    if not isinstance(table, Mapping):
        raise ValueError(f"expected a table, got {shown(table)}")
    member = table.get("id")
    if not isinstance(member, str) or not _MEMBER.fullmatch(member):
        given = shown(member)
        raise TableError([f"id: expected letters, digits, and any of . _ + -, got {given}"])
    values = {name: value for name, value in table.items() if name != "id"}
    for name in values:
        _check_parameter(name)
    return member, values


def substitute(document: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """The document of one member, without its sweep.

    Raises TableError for a "$name" that is no parameter, and for a parameter that is never used.
    """
    filling = _Filling(values)
    result = {key: filling.fill(item, key) for key, item in document.items() if key != "sweep"}
    mistakes = filling.mistakes + [
        f'sweep: expected the parameter {name} to be used as "${name}", it is not'
        for name in values
        if name not in filling.used
    ]
    if mistakes:
        raise TableError(mistakes)
    return result


@attrs.define(eq=False)
class _Filling:
    """One pass over a document: the parameters used, and the mistakes."""

    values: Values
    used: set[str] = attrs.field(factory=set)
    mistakes: list[str] = attrs.field(factory=list)

    def fill(self, value: Any, path: str) -> Any:
        if isinstance(value, str):
            return self._fill_text(value, path)
        if isinstance(value, Mapping):
            return {key: self.fill(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return value

    def _fill_text(self, text: str, path: str) -> Any:
        whole = _WHOLE.fullmatch(text)
        if whole is None:
            return _WITHIN.sub(self._spell, text)
        name = whole[1]
        if name not in self.values:
            known = [f"${name}" for name in self.values]
            self.mistakes.append(f"{path}: {unknown('parameter', text, known)}")
            return text
        self.used.add(name)
        return self.values[name]

    def _spell(self, match: re.Match[str]) -> str:
        name = match[1]
        if name not in self.values:
            return match[0]
        self.used.add(name)
        return _spelled(self.values[name])


def substitute_text(toml: str, values: Values) -> str:
    """The TOML of one member as text, for people: `substitute` on the text of the file."""
    toml = _SWEEP.sub("", toml)
    toml = _QUOTED.sub(lambda match: _inline(values.get(match[2], match[0][1:-1])), toml)
    return _WITHIN.sub(lambda match: _spelled(values.get(match[1], match[0])), toml)


def _inline(value: Any) -> str:
    """A value as TOML on one line."""
    if isinstance(value, Mapping):
        pairs = [f"{json.dumps(key)} = {_inline(item)}" for key, item in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_inline, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _spelled(value)
