"""The least server that answers truly, playing conversations against a Watch."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.journal.obligations import Clientele, Violation, Watch
from fakenbd.protocol.constants import (
    ChunkFlag,
    Command,
    Error,
    Option,
    Reply,
)
from fakenbd.protocol.decode_client import (
    decode_client_flags,
    decode_option_request,
    decode_request,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    ClientMessage,
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
    SimpleReply,
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

__all__ = ["Truth", "played"]


@attrs.define(eq=False)
class Truth:
    """The least server that answers truly, and tells a Watch of all that is heard and said."""

    setting: Setting
    watch: Watch
    phase: str = "flags"
    structured: bool = False
    extended: bool = False
    shutdown: bool = False
    buffer: bytes = b""

    def play(self, lines: tuple[Line, ...]) -> Iterator[Violation]:
        setting, watch = self.setting, self.watch
        if setting.oldstyle:
            self.phase = "requests"
            yield from watch.greeted(OldstyleGreeting(setting.size, setting.flags))
        else:
            yield from watch.greeted(Greeting(setting.greeting))
        for line in lines:
            if self.phase == "closed":
                return
            yield from self._line(line)

    def _line(self, line: Line) -> Iterator[Violation]:
        watch = self.watch
        if isinstance(line, Leave):
            yield from watch.ended(line.how, "client", len(self.buffer))
        elif isinstance(line, StartTLS):
            self.phase, self.structured = "options", False
            yield from watch.tls_started(line.version)
        elif isinstance(line, FailTLS):
            yield from watch.tls_failed()
        elif isinstance(line, Shutdown):
            self.shutdown = True
        elif isinstance(line, Meanwhile):
            other = Watch(watch.clientele, watch.client)
            yield from Truth(self.setting, other).play(line.lines)
        elif isinstance(line, Part):
            self.buffer += encode(line.message)[: line.count]
            yield from self._hear()
        else:
            messages = line.messages if isinstance(line, Together) else (line,)
            self.buffer += b"".join(encode(message) for message in messages)
            yield from self._hear()

    def _hear(self) -> Iterator[Violation]:
        early = False
        unanswered = []
        while self.buffer and self.phase != "closed":
            try:
                decoded = self._decode()
            except ProtocolError:
                yield from self.watch.misframed(self.buffer[:8])
                yield from self._close()
                return
            if decoded is None:
                break
            message, size = decoded
            self.buffer = self.buffer[size:]
            if isinstance(message, ClientFlags):
                found = self.watch.client_flags(message)
                yield from found
                self.phase = "options"
                if found:
                    yield from self._close()
            elif isinstance(message, OptionRequest):
                yield from self.watch.option(message, early=early)
                yield from self._answer_option(message)
                early = True
            else:
                yield from self.watch.request(message)
                if message.command == Command.DISC:
                    self.phase = "over"
                    yield from self.watch.bytes_after_disc(len(self.buffer))
                    self.buffer = b""
                else:
                    unanswered.append(message)
        for request in unanswered:
            yield from self.watch.replied(self._reply(request))

    def _decode(self) -> tuple[ClientMessage, int] | None:
        if self.phase == "flags":
            return decode_client_flags(self.buffer)
        if self.phase == "options":
            return decode_option_request(self.buffer, limit=1 << 20)
        if self.phase == "tls":
            raise ProtocolError("not TLS")
        return decode_request(self.buffer, extended=self.extended, limit=1 << 26)

    def _close(self) -> Iterator[Violation]:
        self.phase = "closed"
        yield from self.watch.ended("EOF", "server")

    def _answer_option(self, request: OptionRequest) -> Iterator[Violation]:
        option, body = request.option, request.body
        if option == Option.EXPORT_NAME and self.extended:
            yield from self._close()
            return
        if option == Option.EXPORT_NAME:
            self.phase = "requests"
            reply = ExportNameReply(self.setting.size, self.setting.flags)
            yield from self.watch.export_name_replied(reply)
            return
        refusal = self._refusal(request)
        if refusal:
            yield from self._say(OptionReply(option, ErrorReply("no"), refusal))
            return
        if option == Option.LIST:
            for name in self.setting.exports:
                yield from self._say(OptionReply(option, Server(name)))
        elif option in (Option.INFO, Option.GO):
            yield from self._say(
                OptionReply(option, InfoExport(self.setting.size, self.setting.flags))
            )
            if self.setting.block_size is not None:
                yield from self._say(OptionReply(option, self.setting.block_size))
            if option == Option.GO:
                self.phase = "requests"
        elif isinstance(body, MetaContextQuery) and "base:allocation" in body.queries:
            yield from self._say(OptionReply(option, MetaContext(1, "base:allocation")))
        elif option == Option.STRUCTURED_REPLY:
            self.structured = True
        elif option == Option.EXTENDED_HEADERS:
            self.extended = True
        elif option == Option.STARTTLS:
            self.phase = "tls"
        yield from self._say(OptionReply(option, Ack()))

    def _refusal(self, request: OptionRequest) -> int:
        """The error that the option deserves, or 0."""
        option, body, agreed = request.option, request.body, self.watch.agreed
        if self.shutdown and option != Option.ABORT:
            return Reply.ERR_SHUTDOWN
        if (
            self.setting.tls_required
            and not agreed.tls
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
        if option == Option.STARTTLS and (agreed.tls or not agreed.fixed):
            return Reply.ERR_INVALID
        if isinstance(body, RawBody) and body.data and option != Option.ABORT:
            return Reply.ERR_INVALID
        if isinstance(body, InfoQuery | MetaContextQuery) and body.name not in self.setting.exports:
            return Reply.ERR_UNKNOWN
        return 0

    def _say(self, reply: OptionReply) -> Iterator[Violation]:
        yield from self.watch.option_replied(reply)

    def _reply(self, request: Request) -> SimpleReply | Chunk:
        error = Error.ESHUTDOWN if self.shutdown else 0
        if not (self.structured or self.extended):
            return SimpleReply(request.cookie, error)
        body = ErrorChunk(error) if error else NoneChunk()
        offset = request.offset if self.extended else None
        return Chunk(request.cookie, body, ChunkFlag.DONE, request_offset=offset)


def played(setting: Setting, lines: tuple[Line, ...]) -> list[Violation]:
    return list(Truth(setting, Watch(Clientele(), "the client")).play(lines))
