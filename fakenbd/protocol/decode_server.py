"""Decoders of the server's messages; decode.py states the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fakenbd.errors import ProtocolError
from fakenbd.protocol import layout, messages
from fakenbd.protocol.constants import (
    CLISERV_MAGIC,
    EXTENDED_REPLY_MAGIC,
    IHAVEOPT,
    NBDMAGIC,
    OPTION_REPLY_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Info,
    Option,
    Reply,
    spec_name,
)
from fakenbd.protocol.layout import unpack_string
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ChunkBody,
    ExportNameReply,
    Greeting,
    OldstyleGreeting,
    OptionReply,
    RawBody,
    ReplyBody,
    SimpleReply,
)

__all__ = [
    "decode_export_name_reply",
    "decode_greeting",
    "decode_option_reply",
    "decode_reply",
]

_ERROR_REPLY: Final = 1 << 31
_ERROR_CHUNK: Final = 1 << 15

# --- handshake ---------------------------------------------------------------------------------


def decode_greeting(view: Buffer) -> tuple[Greeting | OldstyleGreeting, int] | None:
    """The greeting, newstyle or oldstyle."""
    if len(view) < 8:
        return None
    (magic,) = layout.U64.unpack_from(view)
    if magic != NBDMAGIC:  # S-01
        raise ProtocolError(
            f"the server's greeting begins with {magic:#018x}, not with NBDMAGIC"
            f" ({NBDMAGIC:#018x})",
            rule="S-01",
        )
    if len(view) < 16:
        return None
    (second,) = layout.U64.unpack_from(view, 8)
    style = _STYLES.get(second)
    if style is None:  # S-02
        raise ProtocolError(
            f"the server's greeting goes on with {second:#018x}, neither with IHAVEOPT"
            f" ({IHAVEOPT:#018x}) nor with the oldstyle magic ({CLISERV_MAGIC:#018x})",
            rule="S-02",
        )
    return style(view)


def _newstyle(view: Buffer) -> tuple[Greeting, int] | None:
    if len(view) < layout.GREETING.size:
        return None
    _, _, flags = layout.GREETING.unpack_from(view)
    return Greeting(flags), layout.GREETING.size


def _oldstyle(view: Buffer) -> tuple[OldstyleGreeting, int] | None:
    start = layout.OLDSTYLE_GREETING.size
    end = start + layout.RESERVED_ZEROES
    if len(view) < end:
        return None
    _, _, size, flags = layout.OLDSTYLE_GREETING.unpack_from(view)
    return OldstyleGreeting(size, flags, reserved=bytes(view[start:end])), end


_STYLES: Final[
    dict[int, Callable[[Buffer], tuple[Greeting, int] | tuple[OldstyleGreeting, int] | None]]
] = {IHAVEOPT: _newstyle, CLISERV_MAGIC: _oldstyle}


def decode_export_name_reply(view: Buffer, *, zeroes: bool) -> tuple[ExportNameReply, int] | None:
    """The answer to NBD_OPT_EXPORT_NAME; `zeroes` unless both sides set NO_ZEROES."""
    start = layout.EXPORT_NAME_REPLY.size
    end = start + layout.RESERVED_ZEROES if zeroes else start
    if len(view) < end:
        return None
    size, flags = layout.EXPORT_NAME_REPLY.unpack_from(view)
    return ExportNameReply(size, flags, bytes(view[start:end])), end


def decode_option_reply(view: Buffer, *, limit: int) -> tuple[OptionReply, int] | None:
    """A reply to an option with its data, of which there may be `limit` bytes.

    `type` is None where the class of the body implies it: not for ErrorReply nor RawBody.
    """
    if len(view) < layout.U64.size:
        return None
    (magic,) = layout.U64.unpack_from(view)
    if magic != OPTION_REPLY_MAGIC:  # S-20
        raise ProtocolError(
            f"the server's option reply begins with {magic:#018x}, not with"
            f" {OPTION_REPLY_MAGIC:#018x}",
            rule="S-20",
        )
    start = layout.OPTION_REPLY.size
    if len(view) < start:
        return None
    _, option, kind, length = layout.OPTION_REPLY.unpack_from(view)
    if length > limit:  # S-26
        raise ProtocolError(
            f"the server's {spec_name(Reply, kind)} to {spec_name(Option, option)} announces"
            f" {length} bytes of data; at most {limit} are taken",
            rule="S-26",
        )
    end = start + length
    if len(view) < end:
        return None
    data = memoryview(view)[start:end]
    if kind & _ERROR_REPLY:
        return OptionReply(option, messages.ErrorReply(unpack_string(data)), kind), end
    decode_body = _REPLY_BODIES.get(kind)
    body = decode_body(data) if decode_body is not None else None
    if body is None:
        return OptionReply(option, RawBody(bytes(data)), kind), end
    return OptionReply(option, body), end


def _server(data: memoryview) -> messages.Server | None:
    start = layout.U32.size
    if len(data) < start:  # S-41
        return None
    end = start + int(layout.U32.unpack_from(data)[0])
    if len(data) < end:  # S-40
        return None
    return messages.Server(unpack_string(data[start:end]), unpack_string(data[end:]))


def _info(data: memoryview) -> ReplyBody | None:
    if len(data) < layout.U16.size:  # S-71
        return None
    (info,) = layout.U16.unpack_from(data)
    decode_info = _INFOS.get(info)
    if decode_info is not None:
        return decode_info(data)
    return messages.InfoText(info, unpack_string(data[layout.U16.size :]))


def _info_export(data: memoryview) -> messages.InfoExport | None:
    if len(data) != layout.INFO_EXPORT.size:  # S-51
        return None
    return messages.InfoExport(*layout.INFO_EXPORT.unpack(data)[1:])


def _info_block_size(data: memoryview) -> messages.InfoBlockSize | None:
    if len(data) != layout.INFO_BLOCK_SIZE.size:  # S-53
        return None
    return messages.InfoBlockSize(*layout.INFO_BLOCK_SIZE.unpack(data)[1:])


def _meta_context(data: memoryview) -> messages.MetaContext | None:
    start = layout.U32.size
    if len(data) < start:  # S-84
        return None
    return messages.MetaContext(layout.U32.unpack_from(data)[0], unpack_string(data[start:]))


_INFOS: Final[dict[int, Callable[[memoryview], ReplyBody | None]]] = {
    Info.EXPORT: _info_export,
    Info.BLOCK_SIZE: _info_block_size,
}
_REPLY_BODIES: Final[dict[int, Callable[[memoryview], ReplyBody | None]]] = {
    Reply.ACK: lambda data: messages.Ack(bytes(data)),
    Reply.SERVER: _server,
    Reply.INFO: _info,
    Reply.META_CONTEXT: _meta_context,
}

# --- transmission ------------------------------------------------------------------------------


def decode_reply(
    view: Buffer,
    *,
    extended: bool,
    structured: bool,
    data_length: Callable[[int], int],
    limit: int,
) -> tuple[SimpleReply | Chunk, int] | None:
    """A simple reply or one chunk of a structured or extended reply.

    `data_length(cookie)` returns how many bytes follow a simple reply without error; `limit` bounds
    the payload of a chunk. `type` is None where the class of the body and the header imply it: not
    for RawBody, an unknown error type, nor the status type of the other header.
    """
    if len(view) < layout.U32.size:
        return None
    (magic,) = layout.U32.unpack_from(view)
    if extended and magic == EXTENDED_REPLY_MAGIC:
        return _extended_chunk(view, limit)
    if structured and not extended and magic == STRUCTURED_REPLY_MAGIC:
        return _structured_chunk(view, limit)
    if not extended and magic == SIMPLE_REPLY_MAGIC:
        return _simple_reply(view, data_length)
    raise _unexpected_reply(magic, extended=extended, structured=structured)


def _unexpected_reply(magic: int, *, extended: bool, structured: bool) -> ProtocolError:
    allowed = [EXTENDED_REPLY_MAGIC] if extended else [SIMPLE_REPLY_MAGIC]
    if structured and not extended:
        allowed.append(STRUCTURED_REPLY_MAGIC)
    if not extended and magic == STRUCTURED_REPLY_MAGIC:
        rule = "S-121"
    elif magic in (SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, EXTENDED_REPLY_MAGIC):
        rule = "S-90"
    else:
        rule = "S-120"
    words = " or ".join(f"{expected:#010x}" for expected in allowed)
    return ProtocolError(
        f"the server's reply begins with {magic:#010x}, not with {words}", rule=rule
    )


def _simple_reply(
    view: Buffer, data_length: Callable[[int], int]
) -> tuple[SimpleReply, int] | None:
    start = layout.SIMPLE_REPLY.size
    if len(view) < start:
        return None
    _, error, cookie = layout.SIMPLE_REPLY.unpack_from(view)
    if error:
        return SimpleReply(cookie, error), start
    end = start + data_length(cookie)
    if len(view) < end:
        return None
    return SimpleReply(cookie, 0, bytes(view[start:end])), end


def _structured_chunk(view: Buffer, limit: int) -> tuple[Chunk, int] | None:
    start = layout.STRUCTURED_CHUNK.size
    if len(view) < start:
        return None
    _, flags, kind, cookie, length = layout.STRUCTURED_CHUNK.unpack_from(view)
    if length > limit:  # S-144
        raise _oversized_chunk(kind, cookie, length, limit, "S-144")
    end = start + length
    if len(view) < end:
        return None
    body, implied = _chunk_body(kind, memoryview(view)[start:end])
    if kind == ChunkType.BLOCK_STATUS_EXT:
        implied = False
    return Chunk(cookie, body, flags, None if implied else kind), end


def _extended_chunk(view: Buffer, limit: int) -> tuple[Chunk, int] | None:
    start = layout.EXTENDED_CHUNK.size
    if len(view) < start:
        return None
    _, flags, kind, cookie, offset, length = layout.EXTENDED_CHUNK.unpack_from(view)
    if length > limit:  # S-144, S-146
        rule = "S-144" if length < 1 << 32 else "S-146"
        raise _oversized_chunk(kind, cookie, length, limit, rule)
    end = start + length
    if len(view) < end:
        return None
    body, implied = _chunk_body(kind, memoryview(view)[start:end])
    if kind == ChunkType.BLOCK_STATUS:
        implied = False
    return Chunk(cookie, body, flags, None if implied else kind, None, offset), end


def _oversized_chunk(kind: int, cookie: int, length: int, limit: int, rule: str) -> ProtocolError:
    return ProtocolError(
        f"the server's {spec_name(ChunkType, kind)} chunk for cookie {cookie} announces {length}"
        f" bytes of payload; at most {limit} are taken",
        rule=rule,
    )


def _chunk_body(kind: int, data: memoryview) -> tuple[ChunkBody, bool]:
    """The body of a chunk, and whether its class implies the type."""
    decode_body = _CHUNK_BODIES.get(kind)
    if decode_body is None and kind & _ERROR_CHUNK:
        return _error(data) or RawBody(bytes(data)), False
    body = decode_body(data) if decode_body is not None else None
    return (RawBody(bytes(data)), False) if body is None else (body, True)


def _none(data: memoryview) -> messages.NoneChunk | None:
    return None if data else messages.NoneChunk()  # S-139


def _data(data: memoryview) -> messages.Data | None:
    start = layout.U64.size
    if len(data) < start:  # S-150
        return None
    return messages.Data(layout.U64.unpack_from(data)[0], bytes(data[start:]))


def _hole(data: memoryview) -> messages.Hole | None:
    if len(data) != layout.HOLE.size:  # S-151
        return None
    return messages.Hole(*layout.HOLE.unpack(data))


def _status(data: memoryview) -> messages.Status | None:
    if len(data) % 8 != 4:  # S-203
        return None
    (context_id,) = layout.STATUS.unpack_from(data)
    extents = layout.EXTENT.iter_unpack(data[layout.STATUS.size :])
    return messages.Status(context_id, tuple(extents))


def _status_ext(data: memoryview) -> messages.Status | None:
    if len(data) % 16 != 8:  # S-203
        return None
    context_id, count = layout.STATUS_EXT.unpack_from(data)
    if count != len(data) // 16:  # S-216
        return None
    extents = layout.EXTENT_EXT.iter_unpack(data[layout.STATUS_EXT.size :])
    return messages.Status(context_id, tuple(extents))


def _error(data: memoryview) -> messages.ErrorChunk | None:
    start = layout.ERROR.size
    if len(data) < start:  # S-142, S-165
        return None
    error, length = layout.ERROR.unpack_from(data)
    end = start + length
    if len(data) < end:  # S-142, S-166
        return None
    text = unpack_string(data[start:end])
    return messages.ErrorChunk(error, text, rest=bytes(data[end:]))


def _error_offset(data: memoryview) -> messages.ErrorChunk | None:
    chunk = _error(data)
    if chunk is None or len(chunk.rest) < layout.U64.size:  # S-165, S-166
        return None
    (offset,) = layout.U64.unpack_from(chunk.rest)
    rest = chunk.rest[layout.U64.size :]
    return messages.ErrorChunk(chunk.error, chunk.message, offset, rest=rest)


_CHUNK_BODIES: Final[dict[int, Callable[[memoryview], ChunkBody | None]]] = {
    ChunkType.NONE: _none,
    ChunkType.OFFSET_DATA: _data,
    ChunkType.OFFSET_HOLE: _hole,
    ChunkType.BLOCK_STATUS: _status,
    ChunkType.BLOCK_STATUS_EXT: _status_ext,
    ChunkType.ERROR: _error,
    ChunkType.ERROR_OFFSET: _error_offset,
}
