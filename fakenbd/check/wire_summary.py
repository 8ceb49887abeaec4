"""The summary of the journal of one operation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from fakenbd.check.operation_result import Breach, OperationResult, WireSummary
from fakenbd.journal import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Received,
    Violated,
)
from fakenbd.journal.transcript import transcript
from fakenbd.obligations import ENDS
from fakenbd.profile import Profile
from fakenbd.protocol.constants import TransmissionFlag
from fakenbd.protocol.messages import Request
from fakenbd.server import Server

__all__ = ["wire_summary"]

_LINES: Final = 40
_ENDING: Final = 10
"""Lines of a transcript, and how many of them are the last ones."""

_ABRUPT_CLOSES: Final = frozenset(("EOF", "RST", "TLS close"))


def wire_summary(result: OperationResult, server: Server, profile: Profile) -> OperationResult:
    """The result with the summary of the journal, once the server is closed."""
    entries = server.journal.entries()
    return attrs.evolve(
        result,
        wire=_summary(server, profile, result.operation, entries),
        transcript=_excerpt(entries),
    )


def _summary(
    server: Server, profile: Profile, operation: str, entries: Sequence[Entry]
) -> WireSummary:
    totals = server.journal.totals
    on_these = {entry.connection for entry in entries if isinstance(entry, FaultFired)}
    breaches = dict.fromkeys(
        Breach(entry.rule, entry.level, entry.sentence)
        for entry in entries
        if isinstance(entry, Violated)
    )
    return WireSummary(
        connections=totals.connections,
        fired=sum(totals.fired.values()),
        unfired=tuple(server.unfired()),
        standing=not profile.faults,
        asked=totals.connections > 0 and _asked(server, profile, operation),
        breaches=tuple(sorted(breaches, key=_order)),
        quit=() if profile.breaks_must is not False else _quit(entries, on_these),
        failures=tuple(entry.sentence for entry in entries if isinstance(entry, InternalFailure)),
    )


def _excerpt(entries: Sequence[Entry]) -> str:
    """The transcript around the first fault that fired, or else the first breach, and the end."""
    for kind in (FaultFired, Violated):
        for entry in entries:
            if isinstance(entry, kind):
                return transcript(entries, around=entry.index, limit=_LINES, ending=_ENDING)
    return transcript(entries, limit=_LINES)


def _order(breach: Breach) -> str:
    """The sort key of breaches: in order of occurrence, then those about the disconnect, by rule.

    Which of several connections ends first is random; the order of breaches must not be.
    """
    return breach.rule if breach.rule in ENDS else ""


def _asked(server: Server, profile: Profile, operation: str) -> bool:
    """Whether the client asked for what the operation is about, or could not have."""
    flags = server.export.flags
    handshake = profile.handshake
    can_map = (
        handshake.style == "fixed"
        and handshake.structured_replies
        and "base:allocation" in server.export.contexts
    )
    wanted = {
        "map": ("block-status", can_map),
        "zero": ("write-zeroes", bool(flags & TransmissionFlag.SEND_WRITE_ZEROES)),
        "trim": ("trim", bool(flags & TransmissionFlag.SEND_TRIM)),
        "flush": ("flush", bool(flags & TransmissionFlag.SEND_FLUSH)),
        "cache": ("cache", bool(flags & TransmissionFlag.SEND_CACHE)),
    }
    command, offered = wanted.get(operation, ("", False))
    return not offered or command in server.journal.totals.commands


def _quit(entries: Sequence[Entry], fired: set[int | None]) -> tuple[int, ...]:
    """Connections on which a fault fired and that the client dropped to make another."""
    left: dict[int, int] = {}
    last = 0
    talking = set()
    for entry in entries:
        if isinstance(entry, Connected):
            last = entry.index
        elif isinstance(entry, Received) and isinstance(entry.message, Request):
            talking.add(entry.connection)
        elif (
            isinstance(entry, Closed)
            and entry.connection in fired & talking
            and entry.by == "client"
            and entry.how in _ABRUPT_CLOSES
        ):
            left[entry.connection or 0] = entry.index
    return tuple(number for number, index in left.items() if index < last)
