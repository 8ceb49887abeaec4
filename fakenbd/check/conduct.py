"""What a journal tells about the conduct of a client during one operation."""

from __future__ import annotations

from typing import Final

from fakenbd.check.verdicts import Breach, Conduct
from fakenbd.journal import Connected, Ended, Failed, Heard, Journal, Struck, Violated
from fakenbd.journal.obligations import FORGIVEN
from fakenbd.profile import Profile
from fakenbd.protocol.constants import TransmissionFlag
from fakenbd.protocol.messages import Request
from fakenbd.server import Server

__all__ = ["conduct"]

_WITHOUT_GOODBYE: Final = frozenset(("EOF", "RST", "TLS close"))


def conduct(server: Server, profile: Profile, operation: str) -> Conduct:
    """What happened at a server during one operation, once it is over."""
    journal = server.journal
    entries = journal.entries()
    totals = journal.totals
    struck = {entry.connection for entry in entries if isinstance(entry, Struck)}
    lie = 0 if not profile.faults else next((e.index for e in entries if e.kind == "struck"), None)
    free = lie if profile.breaks_must else None
    breaches = dict.fromkeys(
        Breach(entry.rule, entry.level, entry.sentence)
        for entry in entries
        if isinstance(entry, Violated) and not _may_leave(free, entry)
    )
    return Conduct(
        connections=totals.connections,
        requests=totals.requests,
        strikes=sum(totals.strikes.values()),
        unfired=tuple(server.unfired()),
        standing=not profile.faults,
        asked=totals.connections > 0 and _asked(server, profile, operation),
        breaches=tuple(sorted(breaches, key=_order)),
        quit=() if profile.breaks_must is not False else _quit(journal, struck),
        failures=tuple(entry.sentence for entry in entries if isinstance(entry, Failed)),
    )


def _order(breach: Breach) -> str:
    """The order of breaches: as they came, but how the client left last, and always alike.

    Which of several connections ends first is chance.
    """
    return breach.rule if breach.rule in FORGIVEN else ""


def _may_leave(free: int | None, violated: Violated) -> bool:
    """Whether this is only leaving, by a client that is `free` to since an entry of that index.

    The server's own watch knows of the connection that a lie strikes. It does not know of lies
    that are no fault but stand there all the time, nor that the other connections of a client go
    with the one that it gives up.
    """
    return free is not None and violated.index >= free and violated.rule in FORGIVEN


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


def _quit(journal: Journal, struck: set[int | None]) -> tuple[int, ...]:
    """Connections that the client dropped after a strike, in the middle, to make another."""
    left: dict[int, int] = {}
    last = 0
    talking = set()
    for entry in journal:
        if isinstance(entry, Connected):
            last = entry.index
        elif isinstance(entry, Heard) and isinstance(entry.message, Request):
            talking.add(entry.connection)
        elif (
            isinstance(entry, Ended)
            and entry.connection in struck & talking
            and entry.by == "client"
            and entry.how in _WITHOUT_GOODBYE
        ):
            left[entry.connection or 0] = entry.index
    return tuple(number for number, index in left.items() if index < last)
