"""A journal as text for people: a line for each entry, firings and violations indented.

    0.003  #1  C> NBD_CMD_READ cookie 7 offset 4096 length 512
               ⚡ 'second read fails' (1st): set error of the simple reply: 0 -> 5 NBD_EIO
    0.003  #1  <S simple reply cookie 7 NBD_EIO

Time and connection stand in columns as wide as they must be. A firing stands between the request
and its reply; a violation below the message that broke the rule. Both leave the columns empty,
unless another connection came between. Text from a peer is escaped, so that only printing
characters reach the terminal.

With `links` two more columns hold the serial number of each entry and the stream offset of its
message, and an entry that belongs to another one ends with the number of that:

    0.003  #1  [16]   @84  C> NBD_CMD_READ cookie 7 offset 4096 length 512
    0.003  #1  [17]  @152  <S simple reply cookie 7 NBD_EIO -> [16]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs

from fakenbd.journal.entries import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Noted,
    Received,
    Sent,
    Violated,
)
from fakenbd.journal.message_text import message_text
from fakenbd.protocol.messages import MetaContext, OptionReply
from fakenbd.protocol.text import escaped

__all__ = ["phrase", "transcript"]

_AROUND: Final = 10
_SENTENCE: Final = 2000
_RESET: Final = "\x1b[0m"
_COLOURS: Final[dict[type, str]] = {
    Connected: "\x1b[2m",
    Received: "\x1b[36m",
    Sent: "\x1b[32m",
    FaultFired: "\x1b[33;1m",
    Violated: "\x1b[31;1m",
    Closed: "\x1b[2m",
    InternalFailure: "\x1b[31;1;7m",
}


def transcript(
    entries: Sequence[Entry],
    *,
    colour: bool = False,
    around: int | None = None,
    limit: int | None = None,
    ending: int = 0,
    links: bool = False,
) -> str:
    """The entries as lines of text; "" for none.

    `around` is a serial number: it shows that entry, marked, and `limit` others (20 if not given),
    half of them before it. Without it `limit` shows the first and the last so many entries. The
    last `ending` entries are shown in any case. `links` shows which entries belong together.
    """
    entries = list(entries)
    shown = _window(entries, around, limit)
    rest = shown[-1] + 1 if shown else 0
    shown += range(max(rest, len(entries) - ending), len(entries))
    held = [entries[position] for position in shown]
    table = _Table.sized_for(held, around, _COLUMNS + _LINKS if links else _COLUMNS)
    lines: list[str] = []
    expected = 0
    for position in shown:
        if position > expected:
            table.learn_contexts(entries[expected:position])
            lines.append(_gap(position - expected))
        lines.append(table.line(entries[position], colour))
        expected = position + 1
    if expected < len(entries):
        lines.append(_gap(len(entries) - expected))
    return "".join(f"{line}\n" for line in lines)


def phrase(entry: Entry) -> str:
    """One entry in words, without time and connection."""
    return _PHRASES[type(entry)](entry, _Table((), (), None))


def _window(entries: Sequence[Entry], around: int | None, limit: int | None) -> list[int]:
    """The positions to show."""
    count = len(entries)
    if around is not None:
        before = _AROUND if limit is None else (limit + 1) // 2
        after = _AROUND if limit is None else limit // 2
        centre = next((at for at, entry in enumerate(entries) if entry.index >= around), count)
        return list(range(max(0, centre - before), min(count, centre + after + 1)))
    if limit is None or count <= limit:
        return list(range(count))
    head = limit // 2
    return [*range(head), *range(count - (limit - head), count)]


def _gap(count: int) -> str:
    return f"… {count} {'entry' if count == 1 else 'entries'} left out"


@attrs.define(eq=False)
class _Table:
    """Writes the lines; holds the widths of the columns and the entries before."""

    columns: Sequence[_Column]
    widths: Sequence[int]
    marked: int | None
    previous: int | None = None
    _received: dict[int, Received] = attrs.field(factory=dict)
    _last_received: dict[int | None, int] = attrs.field(factory=dict)
    _contexts: dict[int | None, dict[int, str]] = attrs.field(factory=dict)

    @classmethod
    def sized_for(
        cls, entries: Sequence[Entry], marked: int | None, columns: Sequence[_Column]
    ) -> _Table:
        widths = [max((len(each.text(e)) for e in entries), default=0) for each in columns]
        return cls(columns, widths, marked)

    def learn_contexts(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._note(entry)

    def line(self, entry: Entry, colour: bool) -> str:
        mark = "▸ " if entry.index == self.marked else "  "
        margin = isinstance(entry, FaultFired | Violated) and entry.connection == self.previous
        lead = mark
        for column, width in zip(self.columns, self.widths, strict=True):
            text = "" if margin and column.left_empty else column.text(entry)
            lead += f"{text:{column.align}{width}}  "
        self._note(entry)
        words = _PHRASES[type(entry)](entry, self)
        if self.linked and (about := getattr(entry, "about", None)) is not None:
            words += f" -> [{about}]"
        if isinstance(entry, Received):
            self._received[entry.index] = entry
            self._last_received[entry.connection] = entry.index
        self.previous = entry.connection
        if not colour:
            return lead + words
        return f"\x1b[2m{lead}{_RESET}{_COLOURS[type(entry)]}{words}{_RESET}"

    def words(self, entry: Received | Sent) -> str:
        return message_text(entry, self._contexts.get(entry.connection))

    @property
    def linked(self) -> bool:
        """Whether entries show their numbers."""
        return len(self.columns) > len(_COLUMNS)

    def reference(self, entry: FaultFired | Violated) -> str:
        """Which message is meant; "" when it is the last received."""
        about = entry.about
        if about is None or self.linked or self._last_received.get(entry.connection) == about:
            return ""
        received = self._received.get(about)
        return f" (about {self.words(received) if received is not None else f'entry {about}'})"

    def _note(self, entry: Entry) -> None:
        if not isinstance(entry, Sent) or not isinstance(entry.message, OptionReply):
            return
        body = entry.message.body
        if isinstance(body, MetaContext):
            self._contexts.setdefault(entry.connection, {})[body.context_id] = body.name


def _time(entry: Entry) -> str:
    return f"{entry.time:.3f}"


def _connection(entry: Entry) -> str:
    return "" if entry.connection is None else f"#{entry.connection}"


def _offset(entry: Entry) -> str:
    at = getattr(entry, "at", None)
    return "" if at is None else f"@{at}"


@attrs.frozen
class _Column:
    text: Callable[[Entry], str]
    align: str
    left_empty: bool = False


_COLUMNS: Final = (_Column(_time, ">", True), _Column(_connection, "<", True))
_LINKS: Final = (_Column(lambda entry: f"[{entry.index}]", ">"), _Column(_offset, ">"))


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"


def _connected(entry: Connected, table: _Table) -> str:
    peer = f" from {escaped(entry.peer)}" if entry.peer else ""
    local = f" to {escaped(entry.local)}" if entry.local else ""
    return f"-- connected over {entry.transport}{peer}{local}"


def _fired(entry: FaultFired, table: _Table) -> str:
    change = entry.change or ", ".join(entry.kinds)
    fault = escaped(entry.fault)
    change = escaped(change, limit=_SENTENCE)
    return f"⚡ '{fault}' ({_ordinal(entry.occurrence)}): {change}{table.reference(entry)}"


def _violated(entry: Violated, table: _Table) -> str:
    reference = table.reference(entry)
    if entry.about is None and entry.at is not None and not table.linked:
        reference = f" (at byte {entry.at})"
    if entry.last:
        reference += f"; from here on {entry.rule} is only counted"
    return f"✗ {entry.rule} {entry.level}: {escaped(entry.sentence, limit=_SENTENCE)}{reference}"


def _closed(entry: Closed, table: _Table) -> str:
    if entry.how == "fault":
        return "-- a fault ended the connection"
    detail = f", {escaped(entry.detail)}" if entry.detail else ""
    return f"-- the {entry.by} ended the connection: {entry.how}{detail}"


_PHRASES: Final[dict[type, Callable[[Any, _Table], str]]] = {
    Connected: _connected,
    Received: lambda entry, table: f"C> {table.words(entry)}",
    Sent: lambda entry, table: f"<S {table.words(entry)}",
    FaultFired: _fired,
    Violated: _violated,
    Closed: _closed,
    Noted: lambda entry, table: f"-- {escaped(entry.sentence, limit=_SENTENCE)}",
    InternalFailure: lambda entry, table: f"!! {escaped(entry.sentence, limit=_SENTENCE)}",
}
