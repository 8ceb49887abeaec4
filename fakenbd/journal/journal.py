"""The journal of a server: all messages of both sides, in a ring of bounded size.

Recording appends a record and counts; nothing is decoded, copied or hashed. Totals are counted on
arrival and so outlive what the ring evicts. Buffers are kept by reference and must not be changed
afterwards.

Sinks (a JSONL file, a capture) are handed each record as it happens. One that fails is detached,
which is recorded as `InternalFailure`, and the server goes on. Subscribers are called after each
record, and read the entries with `since`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, overload

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
from fakenbd.journal.expectations import Expectations
from fakenbd.journal.payload import fixed_weight, payload_length
from fakenbd.journal.plain_batch import PlainBatch
from fakenbd.journal.record import EventRecord, MessageRecord, Part, Record
from fakenbd.journal.ring import Ring
from fakenbd.journal.totals import Totals
from fakenbd.protocol.constants import Command, Option, slug
from fakenbd.protocol.messages import (
    Buffer,
    ClientMessage,
    OptionRequest,
    Request,
    ServerMessage,
)

if TYPE_CHECKING:
    from fakenbd.export import StableRead

__all__ = ["Journal", "Payloads", "Sink"]

Payloads: TypeAlias = Literal["digest", "whole"]


# Plain integers: members of an enumeration take ten times as long to look up and to hash.
_READ: Final = int(Command.READ)
_WRITE: Final = int(Command.WRITE)

_LISTED: Final = 8
"""Further violations of one rule and level on one connection are counted without entries."""


class Sink(Protocol):
    """A receiver of every record as it happens; an OSError from it is not fatal."""

    def write(self, record: Part) -> None:
        """Take one record; its wire bytes are complete only during the call."""

    def close(self) -> None:
        """Finish what was written."""


# Without on_setattr attrs would run validators at each assignment, five times a record.
@attrs.define(eq=False, repr=False, on_setattr=attrs.setters.NO_OP)
class Journal(Expectations):
    """Records what happens; `clock` gives seconds and is read once for each record.

    `payloads="whole"` keeps the bulk data of every entry that is held (so fewer entries fit into
    `payload_limit` bytes), and has it written to JSONL. `alarm` is called at once with each error
    of the server's own.
    """

    clock: Callable[[], float]
    limit: int = attrs.field(default=100_000, kw_only=True, validator=attrs.validators.ge(1))
    payload_limit: int = attrs.field(default=1 << 26, kw_only=True)
    payloads: Payloads = attrs.field(
        default="digest", kw_only=True, validator=attrs.validators.in_(("digest", "whole"))
    )
    alarm: Callable[[str], None] | None = attrs.field(default=None, kw_only=True)
    began: float = attrs.field(init=False)
    _ring: Ring = attrs.field(init=False)
    _next: int = attrs.field(init=False, default=0)
    _sinks: list[Sink] = attrs.field(init=False, factory=list)
    _subscribers: list[Callable[[], None]] = attrs.field(init=False, factory=list)
    _connections: int = attrs.field(init=False, default=0)
    _commands: Counter[int] = attrs.field(init=False, factory=Counter)
    _options: Counter[int] = attrs.field(init=False, factory=Counter)
    _received: int = attrs.field(init=False, default=0)
    _sent: int = attrs.field(init=False, default=0)
    _bytes_received: int = attrs.field(init=False, default=0)
    _bytes_sent: int = attrs.field(init=False, default=0)
    _fired: Counter[str] = attrs.field(init=False, factory=Counter)
    _violations: Counter[tuple[str, str]] = attrs.field(init=False, factory=Counter)
    _violators: dict[int, Counter[tuple[str, str]]] = attrs.field(init=False, factory=dict)
    _failures: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.began = self.clock()
        self._ring = Ring(self.limit, self.payload_limit, self.payloads == "whole")

    # --- recording: each returns the serial number of the entry ---------------------------------

    def connected(self, connection: int, peer: str, transport: str, local: str = "") -> int:
        """A client connected over `transport`; addresses are "host:port", or any other text."""
        self._connections += 1
        return self._record_event(Connected(*self._stamp(connection), peer, transport, local))

    def received(self, connection: int, message: ClientMessage, size: int, at: int) -> int:
        """`message` was received: `size` bytes, from byte `at` of all that the client sent."""
        if type(message) is Request:
            self._commands[message.command] += 1
        elif type(message) is OptionRequest:
            self._options[message.option] += 1
        self._received += 1
        self._bytes_received += size
        return self._record_message(Received, connection, message, (at,))

    def sent(
        self,
        connection: int,
        message: ServerMessage,
        size: int,
        at: int,
        about: int | None = None,
        wire: Sequence[Buffer] | None = None,
    ) -> int:
        """`message` left: `size` bytes, from byte `at` of all that the server sent.

        It answers entry `about`. `wire` are the bytes that really left, if not its encoding.
        """
        self._sent += 1
        self._bytes_sent += size
        return self._record_message(Sent, connection, message, (at, about), wire)

    def plain_batch(
        self,
        connection: int,
        headers: Buffer,
        count: int,
        payloads: Sequence[Sequence[Buffer]],
        buffers: Sequence[Buffer],
        *,
        extended: bool,
        structured: bool,
        received: int,
        sent: int,
        stable_read: StableRead | None = None,
        at: int = 0,
        sent_at: int = 0,
    ) -> None:
        """`count` plain requests with these headers were received, and all replies left.

        `payloads` are those of the WRITEs, each in pieces. The replies are in the same order: a
        successful READ is two buffers, header (of a data chunk: with the offset) and content;
        anything else is one. Where all are READs that succeeded and read from a `stable_read`,
        which can be read again at any time, they are not kept, unless there is a sink.

        `at` and `sent_at` are where the first request and the first reply begin in the bytes of
        their side; `received` and `sent` are how many bytes all requests and all replies are.
        """
        index = self._next
        self._next = index + 2 * count
        fixed = len(headers)
        bulk = received - fixed
        writes = len(payloads)
        if writes:
            self._commands[_WRITE] += writes
        self._received += count
        self._bytes_received += received
        self._sent += count
        self._bytes_sent += sent
        if writes < count:
            self._commands[_READ] += count - writes
            if stable_read is not None and not writes and not self._sinks:
                buffers = ()
            else:
                bulk += sent
        self._keep(
            PlainBatch(
                index,
                self.clock() - self.began,
                connection,
                2 * count,
                headers,
                payloads,
                buffers,
                extended,
                structured,
                stable_read,
                at,
                sent_at,
                bulk,
                fixed,
            )
        )

    def fired(
        self,
        connection: int | None,
        fault: str,
        kinds: Sequence[str],
        occurrence: int,
        change: str,
        about: int | None = None,
    ) -> int:
        """A fault fired; `change` describes what it did to the answer to entry `about`."""
        self._fired[fault] += 1
        return self._record_event(
            FaultFired(*self._stamp(connection), fault, kinds, occurrence, change, about)
        )

    def violated(
        self,
        connection: int,
        rule: str,
        level: str,
        sentence: str,
        about: int | None = None,
        at: int | None = None,
    ) -> int | None:
        """The client broke an obligation with entry `about`, at byte `at` of all that it sent.

        Returns None when the violation is only counted, because there are enough entries of it.
        """
        self._violations[rule, level] += 1
        broken = self._violators.setdefault(connection, Counter())
        broken[rule, level] += 1
        count = broken[rule, level]
        if count > _LISTED:
            self._notify()
            return None
        last = count == _LISTED
        return self._record_event(
            Violated(*self._stamp(connection), rule, level, sentence, about, at, last)
        )

    def closed(self, connection: int, by: str, how: str, detail: str = "") -> int:
        """The connection ended, by "client" or "server"; `how` as in `Closed`."""
        self._violators.pop(connection, None)
        return self._record_event(Closed(*self._stamp(connection), by, how, detail))

    def noted(self, connection: int, sentence: str) -> int:
        """The server reached a bound of its own on a connection, and went on."""
        return self._record_event(Noted(*self._stamp(connection), sentence))

    def internal_failure(self, connection: int | None, sentence: str) -> int:
        """An error of the server's own."""
        self._failures += 1
        if self.alarm is not None:
            self.alarm(sentence)
        return self._record_event(InternalFailure(*self._stamp(connection), sentence))

    # --- reading ---------------------------------------------------------------------------------

    @property
    def totals(self) -> Totals:
        """Everything counted so far."""
        return Totals(
            self._connections,
            {slug(Command, value): count for value, count in sorted(self._commands.items())},
            {slug(Option, value): count for value, count in sorted(self._options.items())},
            self._received,
            self._sent,
            self._bytes_received,
            self._bytes_sent,
            dict(self._fired),
            dict(self._violations),
            self._failures,
        )

    def entries(self) -> list[Entry]:
        """The entries still held, oldest first."""
        return self._ring.since(0)

    def since(self, index: int) -> list[Entry]:
        """The entries still held whose serial number is `index` or higher."""
        return self._ring.since(index)

    @property
    def next_index(self) -> int:
        """The serial number that the next entry will get; as many entries were ever recorded."""
        return self._next

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries())

    def __reversed__(self) -> Iterator[Entry]:
        return iter(self._ring.newest_first())

    def __len__(self) -> int:
        return len(self._ring)

    def __repr__(self) -> str:
        return f"<Journal of {self._next} entries, {len(self)} of them held>"

    def __bool__(self) -> bool:
        return True

    @overload
    def __getitem__(self, place: int) -> Entry: ...
    @overload
    def __getitem__(self, place: slice) -> list[Entry]: ...
    def __getitem__(self, place: int | slice) -> Entry | list[Entry]:
        return self.entries()[place]

    # --- sinks and subscribers -------------------------------------------------------------------

    def attach(self, sink: Sink) -> Callable[[], None]:
        """Hand every record from now on to `sink`; returns a function that closes and detaches it.

        A sink that raises OSError, or that finds a message it cannot write, is detached.
        """
        self._sinks.append(sink)

        def detach_sink() -> None:
            if sink in self._sinks:
                self._sinks.remove(sink)
                self._close(sink)

        return detach_sink

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` after each record; returns a function that ends this."""
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    # --- internals -------------------------------------------------------------------------------

    def _stamp(self, connection: int | None) -> tuple[int, float, int | None]:
        index = self._next
        self._next = index + 1
        return index, self.clock() - self.began, connection

    def _record_event(
        self, entry: Connected | FaultFired | Violated | Closed | InternalFailure | Noted
    ) -> int:
        self._keep(EventRecord(entry, entry.index, entry.time, entry.connection))
        return entry.index

    def _record_message(
        self,
        kind: type[Received] | type[Sent],
        connection: int,
        message: ClientMessage | ServerMessage,
        origin: tuple[int] | tuple[int, int | None],
        wire: Sequence[Buffer] | None = None,
    ) -> int:
        index = self._next
        self._next = index + 1
        record = MessageRecord(
            kind,
            index,
            self.clock() - self.began,
            connection,
            message,
            origin,
            payload_length(message),
            fixed_weight(message),
            wire if self._sinks else None,
        )
        self._keep(record)
        return index

    def _keep(self, record: Record) -> None:
        # The sinks come first: the ring may drop the bytes at once.
        broken = self._feed(record) if self._sinks else ()
        self._ring.append(record)
        for sink, error in broken:
            self._sinks.remove(sink)
            self._close(sink)
            self.internal_failure(None, f"{sink} is given up: {error.strerror or error}")
        if self._subscribers:
            self._notify()

    def _notify(self) -> None:
        for callback in tuple(self._subscribers):
            callback()

    def _feed(self, record: Record) -> list[tuple[Sink, OSError]]:
        broken = []
        for sink in tuple(self._sinks):
            try:
                for part in record.parts():
                    sink.write(part)
            except OSError as error:
                broken.append((sink, error))
        return broken

    @staticmethod
    def _close(sink: Sink) -> None:
        # A file that could not be written cannot be flushed either; the first error was recorded.
        with suppress(OSError):
            sink.close()
