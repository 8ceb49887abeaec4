"""A conversation shown to the judges of the server's messages, byte stream by byte stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.obligations.breach import Breach
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.server_end_rules import EndPart, EndStage, judge_end
from fakenbd.obligations.server_greeting_rules import judge_export_name_reply, judge_greeting
from fakenbd.obligations.server_option_rules import judge_option_reply
from fakenbd.obligations.server_reply_rules import judge_chunk_length, judge_reply
from fakenbd.protocol import layout
from fakenbd.protocol.constants import SIMPLE_REPLY_MAGIC, Command, CommandFlag, Info, Option
from fakenbd.protocol.decode import (
    decode_export_name_reply,
    decode_greeting,
    decode_option_reply,
    decode_reply,
)
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
    ErrorReply,
    ExportName,
    ExportNameReply,
    Greeting,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    MetaContext,
    MetaContextQuery,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Raw,
    Request,
    ServerMessage,
    SimpleReply,
)
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState

__all__ = ["ServerJudge"]

LIMIT = 1 << 26


@attrs.define(eq=False)
class ServerJudge:
    """Keeps what a client has been shown; `breaches` are the server's."""

    breaches: list[Breach] = attrs.field(factory=list)
    judged: int = 0
    state: NegotiatedState = attrs.field(factory=NegotiatedState)
    progress: OptionProgress = attrs.field(factory=OptionProgress)
    option: OptionRequest | None = None
    requests: dict[int, tuple[RequestFacts, ReplyProgress]] = attrs.field(factory=dict)
    replies: dict[int, ReplyProgress] = attrs.field(factory=dict)
    incoming: bytearray = attrs.field(factory=bytearray)
    transmission: bool = False
    broken: bool = False
    decode: Callable[[memoryview], Any] = decode_greeting

    @property
    def rules(self) -> list[str]:
        return [breach.rule for breach in self.breaches]

    def show(self, message: ClientMessage | ServerMessage) -> None:
        """One message of either side."""
        if isinstance(message, ClientFlags | OptionRequest | Request):
            self.client(message)
        else:
            assert not isinstance(message, Raw)
            self.message(message)

    # --- the client ----------------------------------------------------------------------------

    def client(self, message: ClientMessage) -> None:
        if isinstance(message, ClientFlags):
            self.state.client_flags = message.flags
            self.decode = self._decode_option_reply
        elif isinstance(message, OptionRequest):
            self._begin(message)
        elif isinstance(message, Request):
            self._request(message)

    def _begin(self, option: OptionRequest) -> None:
        self.option = option
        self.progress.begin(option)
        if option.option == Option.EXPORT_NAME:
            self.decode = self._decode_export_name
        elif option.option == Option.SET_META_CONTEXT:
            self.state.contexts = {}
            self.state.contexts_export = None
        elif option.option in (Option.INFO, Option.GO):
            self.state.size = self.state.block_size = None

    def _request(self, request: Request) -> None:
        length, contexts = request.length, None
        if request.command == Command.BLOCK_STATUS and request.flags & CommandFlag.PAYLOAD_LEN:
            payload = bytes(request.payload)
            length = int.from_bytes(payload[:8], "big")
            contexts = {
                int.from_bytes(payload[at : at + 4], "big") for at in range(8, len(payload), 4)
            }
        facts = RequestFacts(request.command, request.flags, request.offset, length, contexts)
        self.requests[request.cookie] = facts, ReplyProgress()

    # --- the server ----------------------------------------------------------------------------

    def server(self, data: bytes) -> None:
        self.incoming += data
        while not self.broken:
            try:
                decoded = self.decode(memoryview(bytes(self.incoming)))
            except ProtocolError as error:
                self.broken = True
                self.breaches.append(Breach(error.rule, str(error)))
                return
            if decoded is None:
                self._announced()
                return
            message, length = decoded
            del self.incoming[:length]
            self.message(message)

    def message(self, message: ServerMessage) -> None:
        self.judged += 1
        if isinstance(message, Greeting | OldstyleGreeting):
            self.breaches += judge_greeting(message)
            self._greeted(message)
        elif isinstance(message, ExportNameReply):
            self.breaches += judge_export_name_reply(message, self.state)
            assert self.option is not None
            self._open(self.option, message.size, message.flags)
        elif isinstance(message, OptionReply):
            self.breaches += judge_option_reply(self.option, message, self.progress, self.state)
            self._option_replied(message)
        elif isinstance(message, SimpleReply | Chunk):
            self._replied(message)

    def _greeted(self, message: Greeting | OldstyleGreeting) -> None:
        if isinstance(message, Greeting):
            self.state.handshake_flags = message.flags
            return
        self.state.size, self.state.flags = message.size, message.flags & 0xFFFF
        self.transmission = True
        self.decode = self._decode_reply

    def _option_replied(self, reply: OptionReply) -> None:
        state, body, option = self.state, reply.body, self.option
        if option is None or reply.option != option.option:
            return
        if isinstance(body, InfoExport):
            state.size, state.flags = body.size, body.flags
        elif isinstance(body, InfoBlockSize):
            state.block_size = BlockSize(body.minimum, body.preferred, body.maximum)
        elif isinstance(body, MetaContext) and option.option == Option.SET_META_CONTEXT:
            state.contexts[body.context_id] = body.name
        elif isinstance(body, ErrorReply):
            if option.option == Option.SET_META_CONTEXT:
                state.contexts = {}
        elif isinstance(body, Ack):
            self._acked(option)

    def _acked(self, option: OptionRequest) -> None:
        state, body = self.state, option.body
        if option.option == Option.STRUCTURED_REPLY:
            state.structured = True
        elif option.option == Option.EXTENDED_HEADERS:
            state.extended = True
        elif option.option == Option.STARTTLS:
            state.forget()
        elif option.option == Option.SET_META_CONTEXT and isinstance(body, MetaContextQuery):
            state.contexts_export = body.name
        elif option.option == Option.GO and isinstance(body, InfoQuery):
            state.block_size_asked = Info.BLOCK_SIZE in body.infos
            self._open(option, state.size, state.flags)

    def _open(self, option: OptionRequest, size: int | None, flags: int) -> None:
        assert isinstance(option.body, ExportName | InfoQuery)
        self.state.export = option.body.name
        self.state.size, self.state.flags = size, flags
        self.transmission = True
        self.decode = self._decode_reply

    def _replied(self, reply: SimpleReply | Chunk) -> None:
        facts, progress = self.requests.get(reply.cookie, (None, None))
        if progress is None:
            progress = self.replies.get(reply.cookie, ReplyProgress())
        self.breaches += judge_reply(facts, reply, progress, self.state)
        if progress.done:
            self.requests.pop(reply.cookie, None)
            self.replies[reply.cookie] = progress

    # --- the end -------------------------------------------------------------------------------

    def ended(self, how: Any = "EOF") -> None:
        """The server ended the connection."""
        if self.broken:
            return
        self.breaches += judge_end(
            self.stage,
            how,
            self.state,
            part=self._part(),
            option=self.option,
            progress=self.progress,
            in_flight=sum(one.command != Command.DISC for one, _ in self.requests.values()),
        )

    @property
    def stage(self) -> EndStage:
        option = self.option
        if self.transmission:
            facts = (facts for facts, _ in self.requests.values())
            return "disc" if any(one.command == Command.DISC for one in facts) else "transmission"
        if self.decode is decode_greeting:
            return "client-flags" if self.judged else "greeting"
        if option is not None and option.option == Option.STARTTLS and self.progress.acked:
            return "tls"
        return "options"

    def _part(self) -> EndPart:
        size = len(self.incoming)
        if not size or not self.transmission:
            return "body" if size else ""
        if self.incoming[:4] == layout.U32.pack(SIMPLE_REPLY_MAGIC):
            return "read-data" if size >= layout.SIMPLE_REPLY.size else "header"
        header = layout.EXTENDED_CHUNK if self.state.extended else layout.STRUCTURED_CHUNK
        return "body" if size >= header.size else "header"

    def _announced(self) -> None:
        """A chunk of which the header came, and not all of its payload."""
        if self._part() != "body" or not self.transmission:
            return
        header = layout.EXTENDED_CHUNK if self.state.extended else layout.STRUCTURED_CHUNK
        _, _, kind, cookie, *_, length = header.unpack_from(self.incoming)
        facts, _ = self.requests.get(cookie, (None, None))
        if facts is not None:
            self.breaches += judge_chunk_length(facts, kind, length, self.state)

    # --- decoders ------------------------------------------------------------------------------

    def _decode_option_reply(self, view: memoryview) -> Any:
        return decode_option_reply(view, limit=LIMIT)

    def _decode_export_name(self, view: memoryview) -> Any:
        return decode_export_name_reply(view, zeroes=not self.state.no_zeroes)

    def _decode_reply(self, view: memoryview) -> Any:
        return decode_reply(
            view,
            extended=self.state.extended,
            structured=self.state.structured,
            data_length=self._data_length,
            limit=LIMIT,
        )

    def _data_length(self, cookie: int) -> int:
        if self.state.structured:
            return 0
        facts, _ = self.requests.get(cookie, (None, None))
        return facts.length if facts is not None and facts.command == Command.READ else 0
