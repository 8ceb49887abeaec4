"""The messages of NBD as values, of both client and server.

A message is a header and, where the protocol gives it structure, a body. Fields hold what goes on
the wire, wrong values included: nothing is validated. A field whose correct value follows from the
others (a length, a count, a reply type, a magic) is None or a default, and the encoder computes
it; if it is set, the encoder writes it as it is. Strings are `str` with surrogate escapes, so
that bytes which are not UTF-8 survive a round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import attrs

from fakenbd.protocol.constants import (
    CLISERV_MAGIC,
    IHAVEOPT,
    NBDMAGIC,
    OPTION_REPLY_MAGIC,
)

__all__ = [
    "Ack",
    "Buffer",
    "Chunk",
    "ChunkBody",
    "ClientFlags",
    "ClientMessage",
    "Data",
    "ErrorChunk",
    "ErrorReply",
    "ExportName",
    "ExportNameReply",
    "Extent",
    "Greeting",
    "Hole",
    "InfoBlockSize",
    "InfoExport",
    "InfoQuery",
    "InfoText",
    "MetaContext",
    "MetaContextQuery",
    "NoneChunk",
    "OldstyleGreeting",
    "OptionBody",
    "OptionReply",
    "OptionRequest",
    "Raw",
    "RawBody",
    "ReplyBody",
    "Request",
    "Server",
    "ServerMessage",
    "SimpleReply",
    "Status",
]

Buffer: TypeAlias = bytes | bytearray | memoryview


class Extent(NamedTuple):
    """`length` bytes of the export that share `flags` in one metadata context."""

    length: int
    flags: int = 0


# --- bodies ------------------------------------------------------------------------------------


@attrs.frozen
class RawBody:
    """Bytes as they are: of an unknown type, or of a known one whose layout they lack."""

    data: Buffer = b""


@attrs.frozen
class ExportName:
    """NBD_OPT_EXPORT_NAME: the name is the whole data."""

    name: str = ""


@attrs.frozen
class InfoQuery:
    """NBD_OPT_INFO and NBD_OPT_GO: an export and the info types asked for."""

    name: str = ""
    infos: Sequence[int] = ()
    name_length: int | None = None
    count: int | None = None


@attrs.frozen
class MetaContextQuery:
    """NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT: an export and queries."""

    name: str = ""
    queries: Sequence[str] = ()
    name_length: int | None = None
    count: int | None = None


@attrs.frozen
class Ack:
    """NBD_REP_ACK; any `data` violates S-25."""

    data: Buffer = b""


@attrs.frozen
class Server:
    """NBD_REP_SERVER: one export of a list."""

    name: str = ""
    description: str = ""
    name_length: int | None = None


@attrs.frozen
class InfoExport:
    """NBD_INFO_EXPORT: size in bytes and transmission flags."""

    size: int = 0
    flags: int = 0


@attrs.frozen
class InfoText:
    """NBD_INFO_NAME (1), NBD_INFO_DESCRIPTION (2), or any other info type as text."""

    info: int
    text: str = ""


@attrs.frozen
class InfoBlockSize:
    """NBD_INFO_BLOCK_SIZE: minimum and preferred block, maximum payload, in bytes."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = 1 << 25


@attrs.frozen
class MetaContext:
    """NBD_REP_META_CONTEXT: the id that BLOCK_STATUS chunks will carry, and the context's name."""

    context_id: int = 0
    name: str = ""


@attrs.frozen
class ErrorReply:
    """Any NBD_REP_ERR_…: the type stands in the header, the text is the whole data."""

    text: str = ""


@attrs.frozen
class NoneChunk:
    """NBD_REPLY_TYPE_NONE: a chunk without content."""


@attrs.frozen
class Data:
    """NBD_REPLY_TYPE_OFFSET_DATA: content at an absolute offset."""

    offset: int
    data: Buffer


@attrs.frozen
class Hole:
    """NBD_REPLY_TYPE_OFFSET_HOLE: `size` zero bytes at an absolute offset."""

    offset: int
    size: int


@attrs.frozen
class Status:
    """NBD_REPLY_TYPE_BLOCK_STATUS, or …_EXT when `count` is used: extents of one context.

    In the extended form `count` defaults to the number of extents.
    """

    context_id: int
    extents: Sequence[tuple[int, int]]
    count: int | None = None


@attrs.frozen
class ErrorChunk:
    """NBD_REPLY_TYPE_ERROR, or ERROR_OFFSET where `offset` is not None; `rest` comes after it."""

    error: int
    message: str = ""
    offset: int | None = None
    message_length: int | None = None
    rest: Buffer = b""


OptionBody: TypeAlias = ExportName | InfoQuery | MetaContextQuery | RawBody
ReplyBody: TypeAlias = (
    Ack | Server | InfoExport | InfoText | InfoBlockSize | MetaContext | ErrorReply | RawBody
)
ChunkBody: TypeAlias = NoneChunk | Data | Hole | Status | ErrorChunk | RawBody


# --- messages of the server -------------------------------------------------------------------


@attrs.frozen
class Raw:
    """Bytes that are no message of NBD."""

    data: Buffer


@attrs.frozen
class Greeting:
    """The newstyle greeting: 18 bytes."""

    flags: int = 3
    magic: int = NBDMAGIC
    option_magic: int = IHAVEOPT


@attrs.frozen
class OldstyleGreeting:
    """The oldstyle greeting: 152 bytes, then transmission. `flags` are all 32 bits of the field."""

    size: int = 0
    flags: int = 0
    magic: int = NBDMAGIC
    cliserv_magic: int = CLISERV_MAGIC
    reserved: Buffer = bytes(124)


@attrs.frozen
class OptionReply:
    """An answer to option `option`; `type` None means the type that the body implies."""

    option: int
    body: ReplyBody
    type: int | None = None
    length: int | None = None
    magic: int = OPTION_REPLY_MAGIC


@attrs.frozen
class ExportNameReply:
    """The reply to NBD_OPT_EXPORT_NAME; `reserved` is 124 zero bytes or empty."""

    size: int = 0
    flags: int = 0
    reserved: Buffer = bytes(124)


@attrs.frozen
class SimpleReply:
    """A simple reply; `data` is the content of a successful READ."""

    cookie: int
    error: int = 0
    data: Buffer = b""
    magic: int | None = None


@attrs.frozen
class Chunk:
    """A structured reply chunk, or an extended one where `request_offset` is not None.

    `magic` None means the magic of that form; `type` None the type that the body implies.
    """

    cookie: int
    body: ChunkBody
    flags: int = 0
    type: int | None = None
    length: int | None = None
    request_offset: int | None = None
    magic: int | None = None


# --- messages of the client -------------------------------------------------------------------


@attrs.frozen
class ClientFlags:
    """The client's four bytes after the newstyle greeting."""

    flags: int = 3


@attrs.frozen
class OptionRequest:
    """An option; `length` None means the length of the encoded body."""

    option: int
    body: OptionBody = RawBody()
    length: int | None = None
    magic: int = IHAVEOPT


@attrs.frozen
class Request:
    """A command of the transmission phase.

    `length` is the field of the header: of the payload for WRITE and wherever PAYLOAD_LEN is set,
    else of the effect. `extended` chooses the 32-byte header; `magic` None means that form's magic.
    """

    command: int
    cookie: int = 0
    offset: int = 0
    length: int = 0
    flags: int = 0
    payload: Buffer = b""
    extended: bool = False
    magic: int | None = None


ServerMessage: TypeAlias = (
    Greeting | OldstyleGreeting | OptionReply | ExportNameReply | SimpleReply | Chunk | Raw
)
ClientMessage: TypeAlias = ClientFlags | OptionRequest | Request | Raw
