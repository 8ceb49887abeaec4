"""A message in words: the specification's names, and lengths instead of contents.

One table has a function for each class of message, one for each class of body. A field with a value
that does not follow from the rest (a wrong magic, length or count) is shown with that value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import IntFlag
from typing import Any, Final, TypeAlias

from fakenbd.journal.entries import Received, Sent, chunk_type, reply_type
from fakenbd.journal.payload import Payload
from fakenbd.protocol import messages
from fakenbd.protocol.constants import (
    CLISERV_MAGIC,
    IHAVEOPT,
    ChunkFlag,
    ChunkType,
    ClientFlag,
    Command,
    CommandFlag,
    Error,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    State,
    TransmissionFlag,
    flag_names,
    spec_name,
)
from fakenbd.protocol.encode import correct_value
from fakenbd.protocol.messages import Buffer
from fakenbd.protocol.text import escaped, quoted

__all__ = ["Contexts", "message_text"]

Contexts: TypeAlias = Mapping[int, str]

_HEX_BYTES: Final = 16
_EXTENTS: Final = 6
_ITEMS: Final = 6
_OFFSETLESS: Final = (Command.DISC, Command.FLUSH)
_PREFIXES: Final = ("NBD_CMD_FLAG_", "NBD_REPLY_FLAG_", "NBD_FLAG_C_", "NBD_FLAG_", "NBD_STATE_")


def message_text(entry: Received | Sent, contexts: Contexts | None = None) -> str:
    """A message in words; `contexts` are the names of the metadata contexts by id, where known."""
    return _MESSAGES[type(entry.message)](entry.message, entry.payload, contexts or {})


def _flags(kind: type[IntFlag], value: int) -> str:
    text = flag_names(kind, value)
    for prefix in _PREFIXES:
        text = text.replace(prefix, "")
    return text


def _hexadecimal(data: Buffer, length: int) -> str:
    shown = bytes(data[:_HEX_BYTES]).hex(" ")
    return shown + " …" if length > _HEX_BYTES else shown


def _bytes(length: int) -> str:
    return "1 byte" if length == 1 else f"{length} bytes"


def _raw_bytes(data: Buffer, payload: Payload | None) -> str:
    """Bytes without a structure: how many, and the first of them if they are still held."""
    length = payload.length if payload is not None else len(data)
    held = payload.data if payload is not None else data
    if not held:
        return _bytes(length)
    return f"{_bytes(length)}: {_hexadecimal(held, length)}"


def _overridden_fields(message: Any, *fields: str) -> str:
    """The magic and the announced length where they are not what follows from the rest."""
    overridden = ""
    if message.magic is not None and message.magic != correct_value(message, "magic"):
        overridden += f", magic {message.magic:#x}"
    if "length" in fields and message.length is not None:
        overridden += f", announcing {_bytes(message.length)}"
    return overridden


# --- bodies ------------------------------------------------------------------------------------


def _listed(items: list[str]) -> str:
    more = [f"… {len(items) - _ITEMS} more"] if len(items) > _ITEMS else []
    return ", ".join(items[:_ITEMS] + more)


def _info_query(body: messages.InfoQuery) -> str:
    infos = _listed([spec_name(Info, info) for info in body.infos])
    words = f"export {quoted(body.name)}"
    if infos:
        words += f", asking for {infos}"
    return words + _counts(body)


def _meta_context_query(body: messages.MetaContextQuery) -> str:
    queries = _listed([quoted(query) for query in body.queries])
    return f"export {quoted(body.name)}, queries {queries or 'none'}" + _counts(body)


def _counts(body: Any) -> str:
    words = ""
    if body.name_length is not None:
        words += f", announcing a name of {_bytes(body.name_length)}"
    if getattr(body, "count", None) is not None:
        words += f", announcing a count of {body.count}"
    return words


def _server(body: messages.Server) -> str:
    words = f"export {quoted(body.name)}"
    if body.description:
        words += f", {quoted(body.description)}"
    return words + _counts(body)


def _info_text(body: messages.InfoText) -> str:
    return f"{spec_name(Info, body.info)} {quoted(body.text)}"


def _info_export(body: messages.InfoExport) -> str:
    return f"NBD_INFO_EXPORT size {body.size}, flags {_flags(TransmissionFlag, body.flags)}"


def _info_block_size(body: messages.InfoBlockSize) -> str:
    return (
        f"NBD_INFO_BLOCK_SIZE minimum {body.minimum}, preferred {body.preferred},"
        f" maximum {body.maximum}"
    )


def _error_chunk(body: messages.ErrorChunk) -> str:
    words = spec_name(Error, body.error)
    if body.offset is not None:
        words += f" at offset {body.offset}"
    if body.message:
        words += f" {quoted(body.message)}"
    if body.message_length is not None:
        words += f", announcing a message of {_bytes(body.message_length)}"
    if body.rest:
        words += f", then {_bytes(len(body.rest))} too many"
    return words


_OPTION_BODIES: Final[dict[type, Callable[[Any], str]]] = {
    messages.ExportName: lambda body: f"export {quoted(body.name)}",
    messages.InfoQuery: _info_query,
    messages.MetaContextQuery: _meta_context_query,
    messages.Server: _server,
    messages.InfoExport: _info_export,
    messages.InfoText: _info_text,
    messages.InfoBlockSize: _info_block_size,
    messages.MetaContext: lambda body: f"context {body.context_id} is {quoted(body.name)}",
    messages.ErrorReply: lambda body: quoted(body.text) if body.text else "",
}


def _option_body(body: Any, payload: Payload | None) -> str:
    if isinstance(body, messages.RawBody | messages.Ack):
        empty = payload is None and not body.data
        return "" if empty else f"with {_raw_bytes(body.data, payload)}"
    return _OPTION_BODIES[type(body)](body)


def _extents(body: messages.Status, contexts: Contexts) -> str:
    name = contexts.get(body.context_id)
    shown = []
    for length, flags in body.extents[:_EXTENTS]:
        if name == "base:allocation":
            state = _flags(State, flags).lower() if flags else "data"
        else:
            state = f"{flags:#x}"
        shown.append(f"{length} {state}")
    if len(body.extents) > _EXTENTS:
        shown.append(f"… {len(body.extents) - _EXTENTS} more")
    title = f"context {body.context_id}" + (f" ({escaped(name)})" if name else "")
    words = f"{title}: {', '.join(shown) or 'no extents'}"
    return words if body.count is None else f"{words}, announcing a count of {body.count}"


# --- messages ----------------------------------------------------------------------------------


def _raw(message: messages.Raw, payload: Payload | None, contexts: Contexts) -> str:
    return f"raw {_raw_bytes(message.data, payload)}"


def _client_flags(
    message: messages.ClientFlags, payload: Payload | None, contexts: Contexts
) -> str:
    return f"client flags {_flags(ClientFlag, message.flags)}"


def _option_request(
    message: messages.OptionRequest, payload: Payload | None, contexts: Contexts
) -> str:
    words = f"{spec_name(Option, message.option)} {_option_body(message.body, payload)}"
    return words.rstrip() + _overridden_fields(message, "length")


def _request(message: messages.Request, payload: Payload | None, contexts: Contexts) -> str:
    words = spec_name(Command, message.command)
    if message.flags:
        words += f" {_flags(CommandFlag, message.flags)}"
    words += f" cookie {message.cookie}"
    if message.command not in _OFFSETLESS or message.offset or message.length:
        words += f" offset {message.offset} length {message.length}"
    if message.payload:
        words += f" payload {_raw_bytes(message.payload, None)}"
    elif payload is not None and payload.length != message.length:
        words += f" payload {_bytes(payload.length)}"
    return words + _overridden_fields(message)


def _greeting(message: messages.Greeting, payload: Payload | None, contexts: Contexts) -> str:
    words = f"greeting {_flags(HandshakeFlag, message.flags)}" + _overridden_fields(message)
    if message.option_magic != IHAVEOPT:
        words += f", option magic {message.option_magic:#x}"
    return words


def _oldstyle_greeting(
    message: messages.OldstyleGreeting, payload: Payload | None, contexts: Contexts
) -> str:
    flags = _flags(TransmissionFlag, message.flags)
    words = f"oldstyle greeting size {message.size}, flags {flags}" + _overridden_fields(message)
    if message.cliserv_magic != CLISERV_MAGIC:
        words += f", second magic {message.cliserv_magic:#x}"
    return words


def _option_reply(
    message: messages.OptionReply, payload: Payload | None, contexts: Contexts
) -> str:
    kind = spec_name(Reply, reply_type(message))
    words = f"{kind} to {spec_name(Option, message.option)}"
    body = _option_body(message.body, payload)
    return (f"{words}: {body}" if body else words) + _overridden_fields(message, "length")


def _export_name_reply(
    message: messages.ExportNameReply, payload: Payload | None, contexts: Contexts
) -> str:
    flags = _flags(TransmissionFlag, message.flags)
    words = f"export size {message.size}, flags {flags}"
    return f"{words}, then {_bytes(len(message.reserved))}" if len(message.reserved) else words


def _simple_reply(
    message: messages.SimpleReply, payload: Payload | None, contexts: Contexts
) -> str:
    words = f"simple reply cookie {message.cookie}"
    if message.error:
        words += f" {spec_name(Error, message.error)}"
    if payload is not None:
        words += f", {_bytes(payload.length)}"
    return words + _overridden_fields(message)


def _chunk(message: messages.Chunk, payload: Payload | None, contexts: Contexts) -> str:
    words = f"chunk {spec_name(ChunkType, chunk_type(message))}"
    if message.flags:
        words += f" {_flags(ChunkFlag, message.flags)}"
    words += f" cookie {message.cookie}"
    body = message.body
    if isinstance(body, messages.Data):
        words += f" offset {body.offset}, {_bytes(payload.length if payload is not None else 0)}"
    elif isinstance(body, messages.Hole):
        words += f" offset {body.offset}, hole of {_bytes(body.size)}"
    elif isinstance(body, messages.Status):
        words += f" {_extents(body, contexts)}"
    elif isinstance(body, messages.ErrorChunk):
        words += f" {_error_chunk(body)}"
    elif isinstance(body, messages.RawBody) and (body.data or payload is not None):
        words += f" with {_raw_bytes(body.data, payload)}"
    return words + _overridden_fields(message, "length")


_MESSAGES: Final[dict[type, Callable[[Any, Payload | None, Contexts], str]]] = {
    messages.Raw: _raw,
    messages.ClientFlags: _client_flags,
    messages.OptionRequest: _option_request,
    messages.Request: _request,
    messages.Greeting: _greeting,
    messages.OldstyleGreeting: _oldstyle_greeting,
    messages.OptionReply: _option_reply,
    messages.ExportNameReply: _export_name_reply,
    messages.SimpleReply: _simple_reply,
    messages.Chunk: _chunk,
}
