"""Conversations as bytes: what twins send to the least server that answers correctly, and replays.

A `Recording` is a sequence of steps: bytes that one side sent at once, TLS, ends. `replayed` shows
it to observers, with every send cut as one likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Literal, TypeAlias

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.obligations import Finding, Gap, Observer, Siblings
from fakenbd.protocol.constants import (
    ChunkFlag,
    Command,
    Error,
    Option,
    Reply,
    TransmissionFlag,
)
from fakenbd.protocol.decode_client import (
    decode_client_flags,
    decode_option_request,
    decode_request,
)
from fakenbd.protocol.encode import encode, encode_buffers
from fakenbd.protocol.messages import (
    Ack,
    Buffer,
    Chunk,
    ChunkBody,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportNameReply,
    Greeting,
    InfoExport,
    InfoQuery,
    MetaContext,
    MetaContextQuery,
    NoneChunk,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    RawBody,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)
from tests.obligations.stage import (
    FailTLS,
    Leave,
    Line,
    Meanwhile,
    Part,
    Setting,
    Shutdown,
    StartTLS,
    Together,
)

__all__ = ["Closed", "Cut", "Recording", "Sent", "TLSFailed", "TLSStarted", "record", "replayed"]

_BULK = 256
_ONE_CONTEXT = 12
_LONGEST_ANSWERED = 1 << 16

Message: TypeAlias = ClientMessage | ServerMessage


@attrs.frozen
class Sent:
    """What one side sent at once: messages in order, the last one cut after `count` bytes."""

    side: Literal["client", "server"]
    messages: tuple[Message, ...]
    count: int | None = None

    @cached_property
    def data(self) -> bytes:
        return b"".join(map(encode, self.messages))[: self.count]

    @cached_property
    def cuts(self) -> list[int]:
        """Where it may be cut: at every byte that is not inside of content or of a long string."""
        cuts, at = [], 0
        for message in self.messages:
            for part in encode_buffers(message):
                cuts += [at] if len(part) > _BULK else range(at, at + len(part))
                at += len(part)
        return [cut for cut in cuts if 0 < cut < len(self.data)]

    @cached_property
    def content(self) -> set[int]:
        """Where content begins."""
        found, at = set(), 0
        for message in self.messages:
            for part in encode_buffers(message):
                if len(part) > _BULK and isinstance(message, Request | SimpleReply | Chunk):
                    found.add(at)
                at += len(part)
        return found


@attrs.frozen
class TLSStarted:
    version: str


@attrs.frozen
class TLSFailed:
    by: str = "client"
    head: bytes = b""


@attrs.frozen
class Closed:
    side: Literal["client", "server"]
    how: Literal["EOF", "RST", "TLS close"] = "EOF"


Step: TypeAlias = Sent | TLSStarted | TLSFailed | Closed
Cut: TypeAlias = Callable[[Sent], Sequence[Buffer | Gap | Message]]
"""How the bytes of one send are shown: in which pieces, as gaps, or as messages."""


@attrs.frozen
class Recording:
    """Steps, each with the number of the connection on which it happened."""

    steps: tuple[tuple[int, Step], ...]


def record(setting: Setting, lines: tuple[Line, ...]) -> Recording:
    """Play the lines of one client against the least server that is correct."""
    steps: list[tuple[int, Step]] = []
    _LeastServer(setting, steps).play(lines)
    return Recording(tuple(steps))


def whole(sent: Sent) -> Sequence[Buffer | Gap | Message]:
    return [sent.data]


def replayed(recording: Recording, cut: Cut = whole) -> list[Finding]:
    """What observers of these connections, all of one client, find."""
    siblings = Siblings()
    observers: dict[int, Observer] = {}
    found: list[Finding] = []
    for connection, step in recording.steps:
        if connection not in observers:
            observers[connection] = Observer(client="the client", siblings=siblings)
        found += _shown(observers[connection], step, cut)
    return found


def _shown(observer: Observer, step: Step, cut: Cut) -> Iterator[Finding]:
    if isinstance(step, TLSStarted):
        yield from observer.tls_started(step.version, 0)
    elif isinstance(step, TLSFailed):
        yield from observer.tls_failed(step.by, step.head, 0)
    elif isinstance(step, Closed):
        closed = observer.client_closed if step.side == "client" else observer.server_closed
        yield from closed(step.how, 0)
    elif step.side == "client":
        for piece in cut(step):
            if isinstance(piece, Buffer | Gap):
                yield from observer.client_sent(piece, 0)
            else:
                yield from observer.client_message(piece, len(encode(piece)), 0)
    else:
        for piece in cut(step):
            if isinstance(piece, Buffer | Gap):
                yield from observer.server_sent(piece, 0)
            else:
                assert observer.server_at_boundary
                yield from observer.server_message(piece, len(encode(piece)), 0)


# --- the least server -----------------------------------------------------------------------------


@attrs.define(eq=False)
class _LeastServer:
    """One connection of it; it closes where it can make nothing of what came."""

    setting: Setting
    steps: list[tuple[int, Step]]
    connection: int = 1
    phase: str = "flags"
    fixed: bool = False
    no_zeroes: bool = False
    tls: bool = False
    structured: bool = False
    extended: bool = False
    shutdown: bool = False
    contexts: bool = False
    buffer: bytes = b""
    size: int = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.size = self.setting.size

    def play(self, lines: tuple[Line, ...]) -> None:
        setting = self.setting
        if setting.oldstyle:
            self.phase = "requests"
            self._send(OldstyleGreeting(setting.size, setting.flags))
        else:
            self._send(Greeting(setting.greeting))
        for line in lines:
            if self.phase == "closed":
                return
            self._line(line)

    def _step(self, step: Step) -> None:
        self.steps.append((self.connection, step))

    def _send(self, *messages: ServerMessage) -> None:
        self._step(Sent("server", messages))

    def _line(self, line: Line) -> None:
        if isinstance(line, Leave):
            self._step(Closed("client", line.how))
        elif isinstance(line, StartTLS):
            self.phase, self.tls = "options", True
            self.structured = self.extended = self.contexts = False
            self._step(TLSStarted(line.version))
        elif isinstance(line, FailTLS):
            self.phase = "failed"
            self._step(TLSFailed())
        elif isinstance(line, Shutdown):
            self.shutdown = True
        elif isinstance(line, Meanwhile):
            other = max(connection for connection, _ in self.steps) + 1
            _LeastServer(self.setting, self.steps, other).play(line.lines)
        elif isinstance(line, Part):
            self._receive((line.message,), line.count)
        else:
            self._receive(line.messages if isinstance(line, Together) else (line,))

    def _receive(self, messages: tuple[ClientMessage, ...], count: int | None = None) -> None:
        sent = Sent("client", messages, count)
        self._step(sent)
        self.buffer += sent.data
        replies: list[ServerMessage] = []
        closes = False
        while self.buffer and not closes:
            if self.phase == "over":
                self.buffer = b""
                break
            try:
                decoded = self._decode()
            except ProtocolError:
                closes = True
                break
            if decoded is None:
                break
            message, size = decoded
            self.buffer = self.buffer[size:]
            answer = self._answer(message)
            closes = answer is None
            replies += answer or ()
        if replies:
            self._send(*replies)
        if closes:
            self.phase = "closed"
            self._step(Closed("server", "TLS close" if self.tls else "EOF"))

    def _decode(self) -> tuple[ClientMessage, int] | None:
        if self.phase == "flags":
            return decode_client_flags(self.buffer)
        if self.phase == "options":
            return decode_option_request(self.buffer, limit=1 << 20)
        if self.phase in ("tls", "failed"):
            raise ProtocolError("not TLS")
        return decode_request(self.buffer, extended=self.extended, limit=1 << 26)

    def _answer(self, message: ClientMessage) -> Sequence[ServerMessage] | None:
        """What the message deserves, None where only closing is left."""
        if isinstance(message, ClientFlags):
            self.phase = "options"
            self.fixed = bool(message.flags & self.setting.greeting & 1)
            self.no_zeroes = bool(message.flags & 2)
            return None if message.flags & ~self.setting.greeting else ()
        if isinstance(message, OptionRequest):
            return self._option(message)
        assert isinstance(message, Request)
        if message.command == Command.DISC:
            self.phase = "over"
            return ()
        return self._request(message)

    # --- options -------------------------------------------------------------------------------

    def _option(self, request: OptionRequest) -> Sequence[ServerMessage] | None:
        option = request.option
        if option == Option.EXPORT_NAME:
            if self.extended:
                return None
            self.phase = "requests"
            zeroes = b"" if self.no_zeroes else bytes(124)
            return [ExportNameReply(self.setting.size, self._flags, zeroes)]
        if not self.setting.greeting & 1:
            return None
        refusal = self._refusal(request)
        if refusal:
            self.contexts = self.contexts and option != Option.SET_META_CONTEXT
            return [OptionReply(option, ErrorReply("no"), refusal)]
        if option == Option.ABORT:
            self.phase = "over"
        return [OptionReply(option, body) for body in (*self._bodies(request), Ack())]

    @property
    def _flags(self) -> int:
        chunks = self.structured or self.extended
        return self.setting.flags & ~(
            (0 if chunks else TransmissionFlag.SEND_DF)
            | (0 if self.extended else TransmissionFlag.BLOCK_STATUS_PAYLOAD)
        )

    def _bodies(self, request: OptionRequest) -> Iterator[ErrorReply]:
        option, body = request.option, request.body
        if option == Option.LIST:
            yield from map(Server, self.setting.exports)
        elif option in (Option.INFO, Option.GO):
            yield InfoExport(self.setting.size, self._flags)
            if self.setting.block_size is not None:
                yield self.setting.block_size
            if option == Option.GO:
                self.phase = "requests"
        elif isinstance(body, MetaContextQuery):
            chosen = "base:allocation" in body.queries
            if chosen:
                yield MetaContext(1, "base:allocation")
            if option == Option.SET_META_CONTEXT:
                self.contexts = chosen
        elif option == Option.STRUCTURED_REPLY:
            self.structured = True
        elif option == Option.EXTENDED_HEADERS:
            self.extended = True
        elif option == Option.STARTTLS:
            self.phase = "tls"

    def _refusal(self, request: OptionRequest) -> int:
        option, body = request.option, request.body
        if self.shutdown and option != Option.ABORT:
            return Reply.ERR_SHUTDOWN
        if (
            self.setting.tls_required
            and not self.tls
            and option not in (Option.STARTTLS, Option.ABORT)
        ):
            return Reply.ERR_TLS_REQD
        supported = {
            Option.STARTTLS: self.setting.tls,
            Option.EXTENDED_HEADERS: self.setting.extended,
            Option.PEEK_EXPORT: False,
        }
        if option not in set(Option) or not supported.get(Option(option), True):
            return Reply.ERR_UNSUP
        if option == Option.STARTTLS and (self.tls or not self.fixed):
            return Reply.ERR_INVALID
        if isinstance(body, RawBody) and body.data and option != Option.ABORT:
            return Reply.ERR_INVALID
        if option == Option.SET_META_CONTEXT and not (self.structured or self.extended):
            return Reply.ERR_INVALID
        if isinstance(body, InfoQuery | MetaContextQuery) and body.name not in self.setting.exports:
            return Reply.ERR_UNKNOWN
        if isinstance(body, MetaContextQuery) and any(
            query.partition(":")[0] == "" for query in body.queries
        ):
            return Reply.ERR_INVALID
        return 0

    # --- requests ------------------------------------------------------------------------------

    def _request(self, request: Request) -> Sequence[ServerMessage]:
        error = self._error(request)
        command, length = request.command, request.length
        content = bytes(length) if command == Command.READ and not error else b""
        if not (self.structured or self.extended):
            return [SimpleReply(request.cookie, error, content)]
        body: ChunkBody = NoneChunk()
        if error:
            body = ErrorChunk(error)
        elif content:
            body = Data(request.offset, content)
        elif command == Command.BLOCK_STATUS and length:
            body = Status(1, ((4096, 0),), 1 if self.extended else None)
        offset = request.offset if self.extended else None
        return [Chunk(request.cookie, body, ChunkFlag.DONE, request_offset=offset)]

    def _error(self, request: Request) -> int:
        command = request.command
        if self.shutdown:
            return Error.ESHUTDOWN
        if command == Command.READ and request.length > _LONGEST_ANSWERED:
            return Error.ENOMEM
        if command == Command.BLOCK_STATUS and not (
            self.contexts and request.length and request.payload[8:] in (b"", b"\0\0\0\1")
        ):
            return Error.EINVAL
        if command == Command.BLOCK_STATUS and request.payload:
            return 0 if len(request.payload) == _ONE_CONTEXT else Error.EINVAL
        if command == Command.RESIZE:
            self.size = request.offset
            return 0
        writes = command in (Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)
        past = request.offset + request.length > self.size
        if past or (writes and self.setting.flags & 2) or command > Command.RESIZE:
            return Error.EINVAL
        return 0
