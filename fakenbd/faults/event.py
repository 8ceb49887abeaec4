"""What happened on a connection: a message that needs a reply, or only that time has passed.

An event holds what was known when it happened. Events that are read back from a journal lack the
times and the number of clients, which is why two events are equal without regard to these.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.protocol.constants import Command, Option, spec_name
from fakenbd.protocol.messages import OptionRequest, Request

__all__ = ["ANY", "EVENT_KINDS", "REPLY_EVENTS", "Event", "EventKind"]

ANY: Final = "any"
"""Stands for all options or commands, where numbers could stand."""

EventKind: TypeAlias = Literal["connect", "greeting", "option", "command", "timer"]
EVENT_KINDS: Final[tuple[EventKind, ...]] = ("connect", "greeting", "option", "command", "timer")

REPLY_EVENTS: Final[tuple[EventKind, ...]] = EVENT_KINDS[:4]
"""The kinds of events that have a reply: what conditions and kinds of faults are about."""


@attrs.frozen
class Event:
    """One event on connection number `connection` (from 1).

    `option` is the number of the option and `option_request` the message, for kind "option";
    `request` is the message for kind "command"; a "timer" has no message. `occurrence` counts
    events of the same kind and number on the connection, from 1; 0 if not counted. `now`,
    `connected_at` (when the connection began) and `last_received_at` (when the client last sent
    something) are seconds on the clock of the server, `clients` is the number of open connections.
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
    now: float = attrs.field(default=0.0, eq=False)
    connected_at: float = attrs.field(default=0.0, eq=False)
    last_received_at: float = attrs.field(default=0.0, eq=False)
    clients: int = attrs.field(default=0, eq=False)

    @property
    def command(self) -> int | None:
        """The number of the command, None for other kinds of events."""
        return None if self.request is None else self.request.command

    @property
    def number(self) -> int | None:
        """The number of the option or of the command, None for other kinds of events."""
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
