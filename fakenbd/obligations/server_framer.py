"""The server's stream, cut into the greeting, option replies, and replies of transmission.

What is due follows from what the client was shown; in transmission the magic decides between simple
replies and chunks of both forms. Content is counted, and only its length is kept in the message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final, NamedTuple, TypeAlias

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.obligations.negotiation_rules import Negotiation
from fakenbd.obligations.reply_progress import RequestFacts
from fakenbd.obligations.server_end_rules import EndPart
from fakenbd.obligations.server_reply_rules import judge_chunk_length
from fakenbd.obligations.server_tls_rules import judge_clear_bytes
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.obligations.stream import Framer, counted
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REPLY_MAGIC,
    NBDMAGIC,
    OPTION_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Command,
    Option,
    Reply,
    spec_name,
)
from fakenbd.protocol.decode_server import (
    decode_export_name_reply,
    decode_greeting,
    decode_option_reply,
    decode_reply,
)
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    ErrorReply,
    OptionReply,
    RawBody,
    ServerMessage,
    SimpleReply,
)

__all__ = ["FromServer", "MissedReply", "ServerEvent", "ServerFramer", "Unreadable"]

_U32: Final = layout.U32.size
_U64: Final = layout.U64.size
_GREETING_MAGIC: Final = NBDMAGIC.to_bytes(8, "big")
_OPTION_REPLY_MAGIC: Final = OPTION_REPLY_MAGIC.to_bytes(8, "big")
_REPLY_MAGICS: Final = {
    SIMPLE_REPLY_MAGIC: layout.SIMPLE_REPLY,
    STRUCTURED_REPLY_MAGIC: layout.STRUCTURED_CHUNK,
    EXTENDED_REPLY_MAGIC: layout.EXTENDED_CHUNK,
}
_LARGEST_OPTION_REPLY: Final = 1 << 16
_LARGEST_CHUNK: Final = 1 << 20
"""Bytes of a body that are kept to be judged; of a larger one only the length is."""
_ERROR: Final = 1 << 31


class FromServer(NamedTuple):
    """A whole message that begins at `offset`."""

    message: ServerMessage
    offset: int


class Unreadable(NamedTuple):
    """The server broke `rule`, so that what follows cannot be decoded, or may never come."""

    rule: str
    sentence: str
    offset: int


class MissedReply(NamedTuple):
    """Bytes of this stream were never seen."""


ServerEvent: TypeAlias = FromServer | Unreadable | MissedReply


@attrs.define(eq=False)
class ServerFramer(Framer[ServerEvent]):
    """Cuts the server's stream; `in_flight` are the requests by cookie.

    `greeted`: the greeting is over, whatever it was.
    """

    MAGICS: ClassVar[tuple[bytes, ...]] = (
        _OPTION_REPLY_MAGIC,
        *(magic.to_bytes(4, "big") for magic in _REPLY_MAGICS),
    )

    shown: ShownState = attrs.field(kw_only=True)
    negotiation: Negotiation = attrs.field(kw_only=True)
    in_flight: dict[int, RequestFacts] = attrs.field(kw_only=True)
    greeted: bool = False
    _stage: Callable[[], Iterable[ServerEvent]] = attrs.field(init=False)
    _last: ServerMessage | None = None

    @property
    def part(self) -> EndPart:
        """Which part of a message was received, if the stream ends here."""
        if self.skip:
            return "read-data" if isinstance(self._last, SimpleReply) else "body"
        if not self.head:
            return ""
        bodies = (self._option_reply, self._export_name, self._data, self._chunk)
        return "body" if self._stage in bodies else "header"

    def _begin(self) -> None:
        self.begin = self.offset
        self._last = None
        phase = self.shown.phase
        if not (self.greeted or self.hunted):
            self._stage, self.want = self._greeting, _U64
        elif phase is Phase.TLS_HANDSHAKE:
            self._stage, self.want = self._clear_bytes, 1
        elif self.hunted or phase in (Phase.TRANSMISSION, Phase.DISCONNECTING):
            self._stage, self.want = self._reply_magic, _U32
        else:
            self._stage, self.want = self._option_magic, _U64

    def _step(self) -> Iterable[ServerEvent]:
        return self._stage()

    def _message(self, message: ServerMessage) -> Iterable[ServerEvent]:
        return self._give(FromServer(message, self.begin))

    def _unreadable(self, error: ProtocolError) -> Iterable[ServerEvent]:
        return self._lose(error.rule or "S-120", str(error))

    def _lose(self, rule: str, sentence: str) -> Iterable[ServerEvent]:
        return self._refuse(Unreadable(rule, sentence, self.begin))

    def _clear_bytes(self) -> Iterable[ServerEvent]:
        # TLS records are not shown to the observer, so whether the client began is unknown.
        (breach,) = judge_clear_bytes(self.head, client_began=False)
        return self._lose(breach.rule, breach.sentence)

    def _missed(self) -> Iterable[ServerEvent]:
        return (MissedReply(),)

    def _ended(self) -> Iterable[ServerEvent]:
        if self._last is not None:
            return self._message(self._last)
        self._clear()
        return ()

    # --- handshake -----------------------------------------------------------------------------

    def _greeting(self) -> Iterable[ServerEvent]:
        try:
            decoded = decode_greeting(self.head)
        except ProtocolError as error:
            self.greeted = True
            return self._unreadable(error)
        if decoded is None:
            self.want = self._greeting_size()
            return ()
        self.greeted = True
        return self._message(decoded[0])

    def _greeting_size(self) -> int:
        if len(self.head) < 2 * _U64:
            return 2 * _U64
        if len(self.head) < layout.GREETING.size:
            return layout.GREETING.size
        return layout.OLDSTYLE_GREETING.size + layout.RESERVED_ZEROES

    def _option_magic(self) -> Iterable[ServerEvent]:
        if self.head != _OPTION_REPLY_MAGIC and self.is_export_name_due():
            self._stage, self.want = self._export_name, layout.EXPORT_NAME_REPLY.size
            if not self.shown.no_zeroes:
                self.want += layout.RESERVED_ZEROES
            return ()
        try:
            decode_option_reply(self.head, limit=0)
        except ProtocolError as error:
            return self._unreadable(error)
        self._stage, self.want = self._option_header, layout.OPTION_REPLY.size
        return ()

    def is_export_name_due(self) -> bool:
        """Whether the reply to NBD_OPT_EXPORT_NAME is due; a server may end instead."""
        unanswered = self.negotiation.unanswered
        return any(each.request.option == Option.EXPORT_NAME for each in unanswered)

    def _export_name(self) -> Iterable[ServerEvent]:
        decoded = decode_export_name_reply(self.head, zeroes=not self.shown.no_zeroes)
        assert decoded is not None, "the reply is whole"
        return self._message(decoded[0])

    def _option_header(self) -> Iterable[ServerEvent]:
        _, option, kind, length = layout.OPTION_REPLY.unpack_from(self.head)
        if length <= _LARGEST_OPTION_REPLY:
            self._stage, self.want = self._option_reply, self.want + length
            return ()
        body = ErrorReply() if kind & _ERROR else RawBody(counted(length))
        self._last, self.skip = OptionReply(option, body, kind), length
        if not self.trusted:
            return ()
        sentence = (
            f"{spec_name(Reply, kind)} announces {length} bytes of data, more than its strings"
            " can have"
        )
        return (Unreadable("S-26", sentence, self.begin),)  # S-26

    def _option_reply(self) -> Iterable[ServerEvent]:
        decoded = decode_option_reply(self.head, limit=_LARGEST_OPTION_REPLY)
        assert decoded is not None, "the reply is whole"
        return self._message(decoded[0])

    # --- transmission --------------------------------------------------------------------------

    def _reply_magic(self) -> Iterable[ServerEvent]:
        (magic,) = layout.U32.unpack_from(self.head)
        form = _REPLY_MAGICS.get(magic)
        if form is not None:
            self._stage, self.want = self._reply_header, form.size
            return ()
        if self.head == _OPTION_REPLY_MAGIC[:_U32]:
            # One reply too many, or the client considered the handshake over too early.
            self._stage, self.want = self._option_magic, _U64
            return ()
        return self._unreadable_reply()

    def _unreadable_reply(self) -> Iterable[ServerEvent]:
        shown = self.shown
        try:
            decode_reply(
                self.head,
                extended=shown.extended,
                structured=shown.structured,
                data_length=self._content_length,
                limit=_LARGEST_CHUNK,
            )
        except ProtocolError as error:
            return self._unreadable(error)
        raise AssertionError("a magic that is none is refused")

    def _reply_header(self) -> Iterable[ServerEvent]:
        (magic,) = layout.U32.unpack_from(self.head)
        if magic == SIMPLE_REPLY_MAGIC:
            return self._simple_reply()
        offset = None
        if magic == STRUCTURED_REPLY_MAGIC:
            _, flags, kind, cookie, length = layout.STRUCTURED_CHUNK.unpack_from(self.head)
        else:
            _, flags, kind, cookie, offset, length = layout.EXTENDED_CHUNK.unpack_from(self.head)
        if kind == ChunkType.OFFSET_DATA and length > _U64:
            self._stage, self.want = self._data, self.want + _U64
        elif length <= _LARGEST_CHUNK:
            self._stage, self.want = self._chunk, self.want + length
        else:
            body = RawBody(counted(length))
            self._last = Chunk(cookie, body, flags, kind, None, offset)
            self.skip = length
        return ()

    def _simple_reply(self) -> Iterable[ServerEvent]:
        _, error, cookie = layout.SIMPLE_REPLY.unpack_from(self.head)
        length = 0 if error else self._content_length(cookie)
        if not length:
            return self._message(SimpleReply(cookie, error))
        if self.shown.chunks:
            # A breach in itself (S-122), whose content may never come.
            found = self._message(SimpleReply(cookie))
            self._last, self.skip = None, length
            return found
        self._last, self.skip = SimpleReply(cookie, 0, counted(length)), length
        return ()

    def _content_length(self, cookie: int) -> int:
        """How many bytes of content a simple reply without an error to that request has."""
        request = self.in_flight.get(cookie)
        return request.length if request is not None and request.command == Command.READ else 0

    def _data(self) -> Iterable[ServerEvent]:
        request_offset = None
        (magic,) = layout.U32.unpack_from(self.head)
        if magic == STRUCTURED_REPLY_MAGIC:
            _, flags, _, cookie, length = layout.STRUCTURED_CHUNK.unpack_from(self.head)
        else:
            form = layout.EXTENDED_CHUNK
            _, flags, _, cookie, request_offset, length = form.unpack_from(self.head)
        (start,) = layout.U64.unpack_from(self.head, len(self.head) - _U64)
        body = Data(start, counted(length - _U64))
        self._last = Chunk(cookie, body, flags, None, None, request_offset)
        self.skip = length - _U64
        request = self.in_flight.get(cookie)
        if request is None or not self.trusted:
            return ()
        # Its end may never come.
        found = judge_chunk_length(request, ChunkType.OFFSET_DATA, length, self.shown)
        return [Unreadable(breach.rule, breach.sentence, self.begin) for breach in found]

    def _chunk(self) -> Iterable[ServerEvent]:
        (magic,) = layout.U32.unpack_from(self.head)
        decoded = decode_reply(
            self.head,
            extended=magic == EXTENDED_REPLY_MAGIC,
            structured=True,
            data_length=self._content_length,
            limit=_LARGEST_CHUNK,
        )
        assert decoded is not None, "the chunk is whole"
        return self._message(decoded[0])
