"""Scripts of clients that break a rule and of twins that do not, and the server's replies.

A conversation is a `Setting` and a list of lines. A line is a message of the client's, sent when
everything before it was answered, or one of the actions below. The lines are played against an
Observer alone, or as bytes against a server.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from fakenbd.protocol.constants import (
    Command,
    CommandFlag,
    HandshakeFlag,
    Info,
    Option,
    TransmissionFlag,
)
from fakenbd.protocol.messages import (
    Buffer,
    ClientFlags,
    ClientMessage,
    ExportName,
    InfoBlockSize,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
    RawBody,
    Request,
)

__all__ = [
    "ABORT",
    "DISC",
    "EXTENDED",
    "HELLO",
    "LEAVE",
    "LIST",
    "STARTTLS",
    "STRUCTURED",
    "FailTLS",
    "Leave",
    "Line",
    "Meanwhile",
    "Part",
    "Setting",
    "Shutdown",
    "StartTLS",
    "Together",
    "Twins",
    "command",
    "export_name",
    "extended_session",
    "go",
    "info",
    "list_contexts",
    "negotiating",
    "option",
    "read",
    "session",
    "set_contexts",
    "write",
]

_EVERYTHING = sum(TransmissionFlag) & ~(TransmissionFlag.READ_ONLY | TransmissionFlag.SEND_RESIZE)
_USUAL_BLOCKS = InfoBlockSize(1, 4096, 1 << 25)


@attrs.frozen
class Setting:
    """What the server offers. Exports differ only in their names.

    `with_flags` and `without_flags` change the transmission flags, of which all but READ_ONLY and
    SEND_RESIZE are set.
    """

    greeting: int = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES
    oldstyle: bool = False
    tls: bool = False
    tls_required: bool = False
    extended: bool = False
    exports: tuple[str, ...] = ("",)
    size: int = 1 << 20
    block_size: InfoBlockSize | None = _USUAL_BLOCKS
    with_flags: int = 0
    without_flags: int = 0

    @property
    def flags(self) -> int:
        return (_EVERYTHING | self.with_flags) & ~self.without_flags


# --- what a client does -------------------------------------------------------------------------


@attrs.frozen
class Together:
    """Messages sent at once, before any of them can have been answered."""

    messages: tuple[ClientMessage, ...]


@attrs.frozen
class Part:
    """The first `count` bytes of a message, and no more of it."""

    message: ClientMessage
    count: int


@attrs.frozen
class StartTLS:
    """Both sides go over to TLS."""

    version: str = "TLSv1.2"


@attrs.frozen
class FailTLS:
    """The TLS handshake fails."""


@attrs.frozen
class Shutdown:
    """From now on the server answers everything with ESHUTDOWN or ERR_SHUTDOWN."""


@attrs.frozen
class Meanwhile:
    """The same client plays these lines on another connection, and leaves that one open."""

    lines: tuple[Line, ...]


@attrs.frozen
class Leave:
    """The client ends the connection: "EOF" or "RST", or "TLS close" with close_notify."""

    how: str = "EOF"


Line: TypeAlias = (
    ClientMessage | Together | Part | StartTLS | FailTLS | Shutdown | Meanwhile | Leave
)


@attrs.frozen
class Twins:
    """Two clients in one setting: one breaks `rule` and hears `sentence`, the other breaks none.

    `also` are rules that cannot but be broken on the way.
    """

    rule: str
    rude: tuple[Line, ...]
    polite: tuple[Line, ...]
    sentence: str
    setting: Setting = Setting()
    level: str | None = None
    also: tuple[str, ...] = ()


# --- words for the lines ------------------------------------------------------------------------

HELLO = ClientFlags(3)
LEAVE = Leave()
ABORT = OptionRequest(Option.ABORT)
LIST = OptionRequest(Option.LIST)
STARTTLS = OptionRequest(Option.STARTTLS)
STRUCTURED = OptionRequest(Option.STRUCTURED_REPLY)
EXTENDED = OptionRequest(Option.EXTENDED_HEADERS)
DISC = Request(Command.DISC, cookie=0xD15C)


def option(number: int, data: Buffer = b"") -> OptionRequest:
    return OptionRequest(number, RawBody(data))


def info(name: str = "", infos: tuple[int, ...] = (Info.BLOCK_SIZE,)) -> OptionRequest:
    return OptionRequest(Option.INFO, InfoQuery(name, infos))


def go(name: str = "", infos: tuple[int, ...] = (Info.BLOCK_SIZE,)) -> OptionRequest:
    return OptionRequest(Option.GO, InfoQuery(name, infos))


def export_name(name: str = "") -> OptionRequest:
    return OptionRequest(Option.EXPORT_NAME, ExportName(name))


def set_contexts(*queries: str, name: str = "") -> OptionRequest:
    body = MetaContextQuery(name, queries or ("base:allocation",))
    return OptionRequest(Option.SET_META_CONTEXT, body)


def list_contexts(*queries: str, name: str = "") -> OptionRequest:
    return OptionRequest(Option.LIST_META_CONTEXT, MetaContextQuery(name, queries))


def command(
    number: int, offset: int = 0, length: int = 0, flags: int = 0, cookie: int = 1
) -> Request:
    return Request(number, cookie, offset, length, flags)


def read(offset: int = 0, length: int = 4096, flags: int = 0, cookie: int = 1) -> Request:
    return Request(Command.READ, cookie, offset, length, flags)


def write(offset: int = 0, length: int = 4096, flags: int = 0, cookie: int = 1) -> Request:
    return Request(Command.WRITE, cookie, offset, length, flags, bytes(length))


def negotiating(*lines: Line, hello: ClientFlags = HELLO) -> tuple[Line, ...]:
    """A client that haggles and leaves by ABORT."""
    return (hello, *lines, ABORT, LEAVE)


def session(
    *lines: Line, opening: tuple[Line, ...] = (STRUCTURED, set_contexts(), go()), end: Line = LEAVE
) -> tuple[Line, ...]:
    """A client that opens an export, sends requests and leaves by DISC."""
    return (HELLO, *opening, *lines, DISC, end)


def extended_session(*requests: Request) -> tuple[Line, ...]:
    """The same with extended headers; a WRITE gets the flag that it needs."""
    needed = {Command.WRITE: CommandFlag.PAYLOAD_LEN}
    lines = [
        attrs.evolve(request, extended=True, flags=request.flags ^ needed.get(request.command, 0))
        for request in (*requests, DISC)
    ]
    return (HELLO, EXTENDED, set_contexts(), go(), *lines, LEAVE)
