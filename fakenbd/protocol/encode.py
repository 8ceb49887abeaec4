"""The encoder: messages to bytes, without validation.

Every field that is set goes on the wire as it is, cut to its width; every field that is None is
computed from the others. One table says how each kind of body is written, one which type it
implies, one how each kind of message is written: header and body head as one piece of bytes, a
payload as the buffer it came in, so that content is never copied here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from fakenbd.protocol import layout, messages
from fakenbd.protocol.constants import (
    CLISERV_MAGIC,
    EXTENDED_REPLY_MAGIC,
    EXTENDED_REQUEST_MAGIC,
    IHAVEOPT,
    NBDMAGIC,
    OPTION_REPLY_MAGIC,
    REQUEST_MAGIC,
    SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC,
    ChunkType,
    Info,
    Reply,
)
from fakenbd.protocol.layout import pack, pack_array, pack_string
from fakenbd.protocol.messages import Buffer, ClientMessage, ServerMessage

__all__ = ["correct_value", "encode", "encode_buffers"]

# The part of a body that is made here, and the part that is handed through uncopied.
_Parts: TypeAlias = tuple[bytes, Buffer]


def encode(message: ServerMessage | ClientMessage) -> bytes:
    """All bytes of a message."""
    head, payload = _MESSAGES[type(message)](message)
    return b"".join((head, payload))


def encode_buffers(message: ServerMessage | ClientMessage) -> list[Buffer]:
    """The bytes of a message as buffers to send in order; a payload is the very buffer given."""
    head, payload = _MESSAGES[type(message)](message)
    return [part for part in (head, payload) if len(part)]


def correct_value(message: ServerMessage | ClientMessage, field: str) -> int:
    """The value that the encoder computes for a field of `message`, or of its body, if it is None.

    Raises ValueError for a field that this kind of message does not compute.
    """
    body = getattr(message, "body", None)
    computed = _MESSAGE_FIELDS.get((type(message), field))
    if computed is not None:
        return computed(message)
    computed = _BODY_FIELDS.get((type(body), field))
    if computed is not None:
        return computed(body)
    kind = type(message).__name__
    if body is not None:
        kind += f" with {type(body).__name__}"
    raise ValueError(f"{kind} has no computed field {field!r}")


def _given(value: int | None, computed: int) -> int:
    return computed if value is None else value


# --- bodies ------------------------------------------------------------------------------------


def _prefixed(length: int | None, text: str) -> bytes:
    data = pack_string(text)
    return pack(layout.U32, _given(length, len(data))) + data


def _info_query(body: messages.InfoQuery) -> _Parts:
    name = _prefixed(body.name_length, body.name)
    count = pack(layout.U16, _given(body.count, len(body.infos)))
    return name + count + pack_array("H", body.infos), b""


def _meta_context_query(body: messages.MetaContextQuery) -> _Parts:
    name = _prefixed(body.name_length, body.name)
    count = pack(layout.U32, _given(body.count, len(body.queries)))
    queries = (_prefixed(None, query) for query in body.queries)
    return b"".join((name, count, *queries)), b""


def _server(body: messages.Server) -> _Parts:
    return _prefixed(body.name_length, body.name) + pack_string(body.description), b""


def _info_block_size(body: messages.InfoBlockSize) -> _Parts:
    sizes = (body.minimum, body.preferred, body.maximum)
    return pack(layout.INFO_BLOCK_SIZE, Info.BLOCK_SIZE, *sizes), b""


def _status(body: messages.Status) -> _Parts:
    fields = [field for extent in body.extents for field in extent]
    return pack(layout.STATUS, body.context_id) + pack_array("I", fields), b""


def _status_ext(body: messages.Status) -> _Parts:
    fields = [field for extent in body.extents for field in extent]
    count = _given(body.count, len(body.extents))
    return pack(layout.STATUS_EXT, body.context_id, count) + pack_array("Q", fields), b""


def _error_chunk(body: messages.ErrorChunk) -> _Parts:
    text = pack_string(body.message)
    head = pack(layout.ERROR, body.error, _given(body.message_length, len(text))) + text
    if body.offset is not None:
        head += pack(layout.U64, body.offset)
    return head, body.rest


_BODIES: Final[dict[type, Callable[[Any], _Parts]]] = {
    messages.RawBody: lambda body: (b"", body.data),
    messages.ExportName: lambda body: (pack_string(body.name), b""),
    messages.InfoQuery: _info_query,
    messages.MetaContextQuery: _meta_context_query,
    messages.Ack: lambda body: (b"", body.data),
    messages.Server: _server,
    messages.InfoExport: lambda body: (
        pack(layout.INFO_EXPORT, Info.EXPORT, body.size, body.flags),
        b"",
    ),
    messages.InfoText: lambda body: (pack(layout.U16, body.info) + pack_string(body.text), b""),
    messages.InfoBlockSize: _info_block_size,
    messages.MetaContext: lambda body: (
        pack(layout.U32, body.context_id) + pack_string(body.name),
        b"",
    ),
    messages.ErrorReply: lambda body: (pack_string(body.text), b""),
    messages.NoneChunk: lambda body: (b"", b""),
    messages.Data: lambda body: (pack(layout.U64, body.offset), body.data),
    messages.Hole: lambda body: (pack(layout.HOLE, body.offset, body.size), b""),
    messages.Status: _status,
    messages.ErrorChunk: _error_chunk,
}
_STATUS_FORMS: Final = {
    ChunkType.BLOCK_STATUS: _status,
    ChunkType.BLOCK_STATUS_EXT: _status_ext,
}

_REPLY_TYPES: Final[dict[type, int]] = {
    messages.Ack: Reply.ACK,
    messages.Server: Reply.SERVER,
    messages.InfoExport: Reply.INFO,
    messages.InfoText: Reply.INFO,
    messages.InfoBlockSize: Reply.INFO,
    messages.MetaContext: Reply.META_CONTEXT,
    messages.ErrorReply: Reply.ERR_UNSUP,
    messages.RawBody: 0,
}
_CHUNK_TYPES: Final[dict[type, int]] = {
    messages.NoneChunk: ChunkType.NONE,
    messages.Data: ChunkType.OFFSET_DATA,
    messages.Hole: ChunkType.OFFSET_HOLE,
    messages.RawBody: ChunkType.NONE,
}


def _status_type(chunk: messages.Chunk, body: messages.Status) -> int:
    if chunk.request_offset is None and body.count is None:
        return ChunkType.BLOCK_STATUS
    return ChunkType.BLOCK_STATUS_EXT


def _chunk_type(chunk: messages.Chunk) -> int:
    body = chunk.body
    if isinstance(body, messages.Status):
        return _status_type(chunk, body)
    if isinstance(body, messages.ErrorChunk):
        return ChunkType.ERROR if body.offset is None else ChunkType.ERROR_OFFSET
    return _CHUNK_TYPES[type(body)]


# --- messages ----------------------------------------------------------------------------------


def _chunk_parts(chunk: messages.Chunk, kind: int) -> _Parts:
    body = chunk.body
    if isinstance(body, messages.Status):
        # A status chunk set to carry another type keeps the form that its header implies.
        form = kind if kind in _STATUS_FORMS else _status_type(chunk, body)
        return _STATUS_FORMS[ChunkType(form)](body)
    return _BODIES[type(body)](body)


def _chunk(message: messages.Chunk) -> _Parts:
    kind = message.type if message.type is not None else _chunk_type(message)
    head, payload = _chunk_parts(message, kind)
    length = _given(message.length, len(head) + len(payload))
    start = (_given(message.magic, _chunk_magic(message)), message.flags, kind, message.cookie)
    if message.request_offset is None:
        header = pack(layout.STRUCTURED_CHUNK, *start, length)
    else:
        header = pack(layout.EXTENDED_CHUNK, *start, message.request_offset, length)
    return header + head, payload


def _simple_reply(message: messages.SimpleReply) -> _Parts:
    magic = _given(message.magic, SIMPLE_REPLY_MAGIC)
    return pack(layout.SIMPLE_REPLY, magic, message.error, message.cookie), message.data


def _request(message: messages.Request) -> _Parts:
    form = layout.EXTENDED_REQUEST if message.extended else layout.COMPACT_REQUEST
    magic = _given(message.magic, _request_magic(message))
    fields = (message.flags, message.command, message.cookie, message.offset, message.length)
    return pack(form, magic, *fields), message.payload


def _request_magic(message: messages.Request) -> int:
    return EXTENDED_REQUEST_MAGIC if message.extended else REQUEST_MAGIC


def _option_request(message: messages.OptionRequest) -> _Parts:
    head, payload = _BODIES[type(message.body)](message.body)
    length = _given(message.length, len(head) + len(payload))
    return pack(layout.OPTION_REQUEST, message.magic, message.option, length) + head, payload


def _option_reply(message: messages.OptionReply) -> _Parts:
    head, payload = _BODIES[type(message.body)](message.body)
    kind = _given(message.type, _REPLY_TYPES[type(message.body)])
    length = _given(message.length, len(head) + len(payload))
    return pack(layout.OPTION_REPLY, message.magic, message.option, kind, length) + head, payload


def _greeting(message: messages.Greeting) -> _Parts:
    return pack(layout.GREETING, message.magic, message.option_magic, message.flags), b""


def _oldstyle_greeting(message: messages.OldstyleGreeting) -> _Parts:
    fields = (message.magic, message.cliserv_magic, message.size, message.flags)
    return pack(layout.OLDSTYLE_GREETING, *fields), message.reserved


def _export_name_reply(message: messages.ExportNameReply) -> _Parts:
    return pack(layout.EXPORT_NAME_REPLY, message.size, message.flags), message.reserved


_MESSAGES: Final[dict[type, Callable[[Any], _Parts]]] = {
    messages.Raw: lambda message: (b"", message.data),
    messages.Greeting: _greeting,
    messages.OldstyleGreeting: _oldstyle_greeting,
    messages.ClientFlags: lambda message: (pack(layout.U32, message.flags), b""),
    messages.OptionRequest: _option_request,
    messages.OptionReply: _option_reply,
    messages.ExportNameReply: _export_name_reply,
    messages.Request: _request,
    messages.SimpleReply: _simple_reply,
    messages.Chunk: _chunk,
}


# --- computed fields ---------------------------------------------------------------------------


def _body_length(message: messages.OptionRequest | messages.OptionReply) -> int:
    head, payload = _BODIES[type(message.body)](message.body)
    return len(head) + len(payload)


def _chunk_length(message: messages.Chunk) -> int:
    head, payload = _chunk_parts(message, _given(message.type, _chunk_type(message)))
    return len(head) + len(payload)


def _chunk_magic(message: messages.Chunk) -> int:
    return STRUCTURED_REPLY_MAGIC if message.request_offset is None else EXTENDED_REPLY_MAGIC


def _name_length(body: Any) -> int:
    return len(pack_string(body.name))


_MESSAGE_FIELDS: Final[dict[tuple[type, str], Callable[[Any], int]]] = {
    (messages.Greeting, "magic"): lambda message: NBDMAGIC,
    (messages.Greeting, "option_magic"): lambda message: IHAVEOPT,
    (messages.OldstyleGreeting, "magic"): lambda message: NBDMAGIC,
    (messages.OldstyleGreeting, "cliserv_magic"): lambda message: CLISERV_MAGIC,
    (messages.OptionRequest, "magic"): lambda message: IHAVEOPT,
    (messages.OptionRequest, "length"): _body_length,
    (messages.OptionReply, "magic"): lambda message: OPTION_REPLY_MAGIC,
    (messages.OptionReply, "length"): _body_length,
    (messages.OptionReply, "type"): lambda message: _REPLY_TYPES[type(message.body)],
    (messages.Request, "magic"): _request_magic,
    (messages.SimpleReply, "magic"): lambda message: SIMPLE_REPLY_MAGIC,
    (messages.Chunk, "magic"): _chunk_magic,
    (messages.Chunk, "length"): _chunk_length,
    (messages.Chunk, "type"): _chunk_type,
}
_BODY_FIELDS: Final[dict[tuple[type, str], Callable[[Any], int]]] = {
    (messages.InfoQuery, "name_length"): _name_length,
    (messages.InfoQuery, "count"): lambda body: len(body.infos),
    (messages.MetaContextQuery, "name_length"): _name_length,
    (messages.MetaContextQuery, "count"): lambda body: len(body.queries),
    (messages.Server, "name_length"): _name_length,
    (messages.Status, "count"): lambda body: len(body.extents),
    (messages.ErrorChunk, "message_length"): lambda body: len(pack_string(body.message)),
}
