"""Faults in one line of Python: `on("read", nth=2).error("EIO")`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from fakenbd.faults.condition import When, parse_when
from fakenbd.faults.fault import Change, Fault
from fakenbd.faults.readers import TableError, unknown
from fakenbd.faults.registry import KINDS, make_kind

__all__ = ["On"]


@attrs.frozen(eq=False)
class On:
    """A fault that does nothing yet: a method for each kind, named as in profiles.

    Hyphens become underscores: `on("connect").refuse_connection()`. Each method adds the fault,
    and returns it; its main parameter comes first, the others by name.
    """

    _add: Callable[[Fault], Fault]
    _when: When
    _name: str = ""
    _also: bool = False

    @classmethod
    def when(
        cls,
        add: Callable[[Fault], Fault],
        event: str | int | None,
        conditions: Mapping[str, Any],
        *,
        name: str = "",
        also: bool = False,
    ) -> On:
        """The beginning of a fault on a command, "connect", "greeting", or conditions alone."""
        table = dict(conditions)
        if event in ("connect", "greeting"):
            table[str(event)] = True
        elif event is not None:
            if "command" in table:
                raise TableError(["when.command: expected once, got it twice"])
            table["command"] = event
        return cls(add, parse_when(table), name, also)

    def do(self, *changes: Change) -> Fault:
        """Apply several kinds, or functions, in order."""
        return self._add(Fault(self._name, self._when, changes, self._also))

    def call(self, change: Change) -> Fault:
        """Apply a function `(answer, firing) -> answer`."""
        return self.do(change)

    def __getattr__(self, name: str) -> Callable[..., Fault]:
        slug = name.replace("_", "-")
        if slug not in KINDS:
            raise AttributeError(unknown("kind", name, [kind.replace("-", "_") for kind in KINDS]))
        return lambda *values, **named: self.do(make_kind(slug, *values, **named))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *(kind.replace("-", "_") for kind in KINDS)]
