"""What a journal consists of: one frozen value for each thing that happened.

Every entry has its serial number, the seconds since the journal began, and the connection (from 1;
None where none is concerned). `Received` is a message of the client, `Sent` one of the server; `at`
is where the message begins in the stream of its side. `about` is the index of the entry that
another one belongs to: the request or option that a reply answers, whose answer a fault changed, or
that broke a rule.

Properties give the values that filters compare, in the words that profiles use; one that a message
does not have is None, and `conditions` lists those that a filter may name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Generic, Self, TypeAlias, TypeVar

import attrs

from fakenbd.journal.payload import Payload, reattach
from fakenbd.protocol.constants import ChunkType, Command, Error, Info, Option, Reply, slug
from fakenbd.protocol.encode import correct_value
from fakenbd.protocol.messages import (
    Chunk,
    ClientFlags,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportNameReply,
    Greeting,
    Hole,
    InfoBlockSize,
    InfoExport,
    InfoText,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Raw,
    Request,
    ServerMessage,
    SimpleReply,
    Status,
)

__all__ = [
    "Closed",
    "Connected",
    "Entry",
    "FaultFired",
    "InternalFailure",
    "Received",
    "Sent",
    "Violated",
    "chunk_type",
    "reply_type",
]

_Message = TypeVar("_Message", bound=ClientMessage | ServerMessage)

_ALWAYS = ("connection",)

_TYPE_WORDS: dict[type, str] = {
    ClientFlags: "client-flags",
    OptionRequest: "option",
    Request: "request",
    Greeting: "greeting",
    OldstyleGreeting: "greeting",
    ExportNameReply: "export-name",
    SimpleReply: "simple",
    Raw: "raw",
}


def chunk_type(message: Chunk) -> int:
    """The type on the wire: the one it was given, or the one its body implies."""
    return message.type if message.type is not None else correct_value(message, "type")


def reply_type(message: OptionReply) -> int:
    """The type on the wire: the one it was given, or the one its body implies."""
    return message.type if message.type is not None else correct_value(message, "type")


def _tuple(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(words)


@attrs.frozen
class _Event:
    """The fields of every entry."""

    index: int
    time: float
    connection: int | None


@attrs.frozen
class Connected(_Event):
    """A client connected. `peer` and `local` are addresses as people write them."""

    kind: ClassVar = "connected"
    conditions: ClassVar = (*_ALWAYS, "peer", "transport")

    peer: str
    transport: str
    local: str = ""


@attrs.frozen
class _MessageEntry(_Event, Generic[_Message]):
    """A message of either side; `payload` is its bulk data, which `message` leaves out."""

    message: _Message
    payload: Payload | None = None
    at: int = 0

    def lighter(self) -> Self:
        """The same entry without the bulk data."""
        payload = self.payload
        return self if payload is None else attrs.evolve(self, payload=payload.lighter())

    @property
    def whole(self) -> _Message:
        """The message with its bulk data; without it where the journal no longer holds it."""
        return reattach(self.message, self.payload)

    @property
    def data(self) -> bytes | None:
        """The bulk data: content read or written. None where there is none or it was dropped."""
        data = self.payload.data if self.payload is not None else None
        return bytes(data) if data is not None else None

    @property
    def digest(self) -> str | None:
        """16 hexadecimal digits that identify the bulk data."""
        return self.payload.digest if self.payload is not None else None

    @property
    def cookie(self) -> int | None:
        return getattr(self.message, "cookie", None)

    @property
    def option(self) -> str | None:
        """The option, as a word: "go"."""
        value = getattr(self.message, "option", None)
        return slug(Option, value) if value is not None else None

    @property
    def flags(self) -> int | None:
        """The flags of the message's header or, of an InfoExport, the transmission flags."""
        value: int | None = getattr(self.message, "flags", None)
        if value is None:
            value = getattr(self._body, "flags", None)
        return value

    @property
    def name(self) -> str | None:
        """The name of an export (or of a metadata context, in a reply) that the message carries."""
        name: str | None = getattr(self._body, "name", None)
        return name

    @property
    def _body(self) -> Any:
        return getattr(self.message, "body", None)


@attrs.frozen
class Received(_MessageEntry[ClientMessage]):
    """A message was received from the client."""

    kind: ClassVar = "received"
    conditions: ClassVar = (
        "command",
        "option",
        "cookie",
        "offset",
        "length",
        "flags",
        "name",
        "data",
        "digest",
        "at",
        *_ALWAYS,
    )

    @property
    def type(self) -> str:
        return _TYPE_WORDS[type(self.message)]

    @property
    def command(self) -> str | None:
        """The command, as a word: "block-status"."""
        return slug(Command, self.message.command) if isinstance(self.message, Request) else None

    @property
    def offset(self) -> int | None:
        return self.message.offset if isinstance(self.message, Request) else None

    @property
    def length(self) -> int | None:
        return self.message.length if isinstance(self.message, Request) else None

    @property
    def error(self) -> None:
        """Clients report no errors."""


@attrs.frozen
class Sent(_MessageEntry[ServerMessage]):
    """A message left for the client; `about` is the index of the request or option it answers."""

    kind: ClassVar = "sent"
    conditions: ClassVar = (
        "type",
        "error",
        "text",
        "option",
        "cookie",
        "offset",
        "length",
        "flags",
        "name",
        "info",
        "data",
        "digest",
        "at",
        "about",
        *_ALWAYS,
    )

    about: int | None = None

    @property
    def type(self) -> str:
        """ "simple", a chunk type ("offset-data"), an option reply type ("ack"), "greeting", …"""
        if isinstance(self.message, Chunk):
            return slug(ChunkType, chunk_type(self.message))
        if isinstance(self.message, OptionReply):
            return slug(Reply, reply_type(self.message))
        return _TYPE_WORDS[type(self.message)]

    @property
    def error(self) -> str | None:
        """The error, as a word: "eio", or "err-unsup" of an option; None for a success."""
        message = self.message
        if isinstance(message, SimpleReply) and message.error:
            return slug(Error, message.error)
        if isinstance(message, Chunk) and isinstance(message.body, ErrorChunk):
            return slug(Error, message.body.error)
        if isinstance(message, OptionReply) and reply_type(message) >= 1 << 31:
            return slug(Reply, reply_type(message))
        return None

    @property
    def text(self) -> str | None:
        """The text of an error or an InfoText, for people."""
        body = self._body
        if isinstance(body, ErrorChunk):
            return body.message
        return body.text if isinstance(body, ErrorReply | InfoText) else None

    @property
    def info(self) -> str | None:
        """The info type of an NBD_REP_INFO, as a word: "block-size"."""
        body = self._body
        if isinstance(body, InfoExport):
            return slug(Info, Info.EXPORT)
        if isinstance(body, InfoBlockSize):
            return slug(Info, Info.BLOCK_SIZE)
        return slug(Info, body.info) if isinstance(body, InfoText) else None

    @property
    def offset(self) -> int | None:
        """Where content lies or an error occurred; else the offset in an extended header."""
        body = self._body
        if isinstance(body, Data | Hole | ErrorChunk) and body.offset is not None:
            return body.offset
        return self.message.request_offset if isinstance(self.message, Chunk) else None

    @property
    def length(self) -> int | None:
        """Bytes of content sent, or that a hole stands for; the sum of the extents."""
        if self.payload is not None:
            return self.payload.length
        body = self._body
        if isinstance(body, Hole):
            return body.size
        return sum(length for length, _ in body.extents) if isinstance(body, Status) else None

    @property
    def command(self) -> None:
        """None: a reply has a cookie, not a command."""


@attrs.frozen
class FaultFired(_Event):
    """A fault fired for the `occurrence`-th time; `change` describes its effect on the answer.

    `about` is the index of the request or option that was answered, None for connect and greeting.
    """

    kind: ClassVar = "fired"
    conditions: ClassVar = ("fault", "kinds", "occurrence", "change", "about", *_ALWAYS)

    fault: str
    kinds: Sequence[str] = attrs.field(converter=_tuple)
    occurrence: int
    change: str
    about: int | None = None


@attrs.frozen
class Violated(_Event):
    """The client broke an obligation; `about` is the index of the offending entry.

    `at` is where in the client's stream the offending message begins, None if that is unknown. With
    `last`, later violations of the rule on this connection are counted without entries.
    """

    kind: ClassVar = "violated"
    conditions: ClassVar = ("rule", "level", "sentence", "about", "at", *_ALWAYS)

    rule: str
    level: str
    sentence: str
    about: int | None = None
    at: int | None = None
    last: bool = False


@attrs.frozen
class Closed(_Event):
    """The connection ended, `by` "client" or "server", `how` "DISC", "ABORT", "EOF", "RST", …"""

    kind: ClassVar = "closed"
    conditions: ClassVar = ("by", "how", "detail", *_ALWAYS)

    by: str
    how: str
    detail: str = ""


@attrs.frozen
class InternalFailure(_Event):
    """An error of the server itself: a bug, or a full disk."""

    kind: ClassVar = "internal-failure"
    conditions: ClassVar = ("sentence", *_ALWAYS)

    sentence: str


@attrs.frozen
class Noted(_Event):
    """The server reached one of its bounds and acted on it; neither a fault nor an error."""

    kind: ClassVar = "noted"
    conditions: ClassVar = ("sentence", *_ALWAYS)

    sentence: str


Entry: TypeAlias = (
    Connected | Received | Sent | FaultFired | Violated | Closed | InternalFailure | Noted
)
