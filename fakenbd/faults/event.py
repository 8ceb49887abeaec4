"""What happened on a connection: the moment that an answer is made for, and a fault may strike.

An event holds only what was known when the answer was made, so that the same events, read back
from a journal, tell why a fault never struck.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.protocol.constants import Command, Option, spec_name
from fakenbd.protocol.messages import OptionRequest, Request

__all__ = ["ANY", "EVENT_KINDS", "Event", "EventKind"]

ANY: Final = "any"
"""Stands for all options or commands, where numbers could stand."""

EventKind: TypeAlias = Literal["connect", "greeting", "option", "command"]
EVENT_KINDS: Final[tuple[EventKind, ...]] = ("connect", "greeting", "option", "command")


@attrs.frozen
class Event:
    """One thing to answer, on connection number `connection` (from 1).

    `option` is the number of the option and `option_request` the message, for kind "option";
    `request` is the message for kind "command". `occurrence` counts events of the same kind and
    number on the connection, from 1; 0 where nobody counted.
    """

    kind: EventKind
    connection: int
    option: int | None = None
    request: Request | None = None
    option_request: OptionRequest | None = None
    tls: bool = False
    structured: bool = False
    extended: bool = False
    export: str = ""
    occurrence: int = 0

    @property
    def command(self) -> int | None:
        """The number of the command, None for other kinds of events."""
        return None if self.request is None else self.request.command

    @property
    def number(self) -> int | None:
        """The number of the option or of the command, None for a connect or a greeting."""
        return self.option if self.kind == "option" else self.command

    def describe(self, occurrence: int | None = None) -> str:
        """The event in words: "NBD_CMD_READ number 1 on connection 1"."""
        if self.kind == "option":
            words = spec_name(Option, self.option or 0)
        elif self.request is not None:
            words = spec_name(Command, self.request.command)
        else:
            return f"the {self.kind} of connection {self.connection}"
        count = self.occurrence if occurrence is None else occurrence
        counted = f" number {count}" if count else ""
        return f"{words}{counted} on connection {self.connection}"
