"""Decoders of the client's messages; decode.py states the contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import attrs

from fakenbd.errors import ProtocolError
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    IHAVEOPT,
    REQUEST_MAGIC,
    Command,
    CommandFlag,
    Option,
    spec_name,
)
from fakenbd.protocol.layout import unpack_string
from fakenbd.protocol.messages import (
    Buffer,
    ClientFlags,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionBody,
    OptionRequest,
    RawBody,
    Request,
)

__all__ = [
    "complete_request",
    "decode_client_flags",
    "decode_option_request",
    "decode_request",
    "decode_request_header",
    "payload_length",
]


# Arithmetic with members of enumerations is ten times as slow.
_PAYLOAD_LEN: Final = int(CommandFlag.PAYLOAD_LEN)
_WRITE: Final = int(Command.WRITE)


def decode_client_flags(view: Buffer) -> tuple[ClientFlags, int] | None:
    """The four bytes of client flags that follow the newstyle greeting."""
    if len(view) < layout.U32.size:
        return None
    return ClientFlags(*layout.U32.unpack_from(view)), layout.U32.size


def decode_option_request(view: Buffer, *, limit: int) -> tuple[OptionRequest, int] | None:
    """An option with its data, of which there may be `limit` bytes."""
    if len(view) < layout.U64.size:
        return None
    (magic,) = layout.U64.unpack_from(view)
    if magic != IHAVEOPT:  # C-07
        raise ProtocolError(
            f"the client's option begins with {magic:#018x}, not with IHAVEOPT ({IHAVEOPT:#018x})",
            rule="C-07",
        )
    start = layout.OPTION_REQUEST.size
    if len(view) < start:
        return None
    _, option, length = layout.OPTION_REQUEST.unpack_from(view)
    if length > limit:  # C-12
        raise ProtocolError(
            f"the client's {spec_name(Option, option)} announces {length} bytes of data;"
            f" at most {limit} are taken",
            rule="C-12",
        )
    end = start + length
    if len(view) < end:
        return None
    data = memoryview(view)[start:end]
    decode_body = _OPTION_BODIES.get(option)
    body = decode_body(data) if decode_body is not None else None
    return OptionRequest(option, body if body is not None else RawBody(bytes(data))), end


def _export_name(data: memoryview) -> ExportName:
    return ExportName(unpack_string(data))


def _info_query(data: memoryview) -> InfoQuery | None:
    named = _name(data)
    if named is None:  # C-25
        return None
    name, rest = named
    if len(rest) < layout.U16.size:
        return None
    (count,) = layout.U16.unpack_from(rest)
    numbers = rest[layout.U16.size :]
    if len(numbers) != count * layout.U16.size:  # C-08
        return None
    return InfoQuery(name, tuple(number for (number,) in layout.U16.iter_unpack(numbers)))


def _meta_context_query(data: memoryview) -> MetaContextQuery | None:
    named = _name(data)
    if named is None:  # C-08
        return None
    name, rest = named
    if len(rest) < layout.U32.size:
        return None
    (count,) = layout.U32.unpack_from(rest)
    rest = rest[layout.U32.size :]
    queries: list[str] = []
    for _ in range(count):
        named = _name(rest)
        if named is None:  # C-40
            return None
        query, rest = named
        queries.append(query)
    if rest:  # C-08
        return None
    return MetaContextQuery(name, tuple(queries))


def _name(data: memoryview) -> tuple[str, memoryview] | None:
    """A string preceded by its length, and the rest; None if it extends past the end."""
    if len(data) < layout.U32.size:
        return None
    end = layout.U32.size + int(layout.U32.unpack_from(data)[0])
    if len(data) < end:
        return None
    return unpack_string(data[layout.U32.size : end]), data[end:]


_OPTION_BODIES: Final[dict[int, Callable[[memoryview], OptionBody | None]]] = {
    Option.EXPORT_NAME: _export_name,
    Option.INFO: _info_query,
    Option.GO: _info_query,
    Option.LIST_META_CONTEXT: _meta_context_query,
    Option.SET_META_CONTEXT: _meta_context_query,
}


def decode_request(view: Buffer, *, extended: bool, limit: int) -> tuple[Request, int] | None:
    """A command with its payload, of which there may be `limit` bytes.

    Use `decode_request_header` to learn of a payload before it has come.
    """
    header = decode_request_header(view, extended=extended)
    return None if header is None else complete_request(header, view, limit=limit)


def complete_request(header: Request, view: Buffer, *, limit: int) -> tuple[Request, int] | None:
    """The command whose header stands at the front of `view`, with its payload and its size."""
    start = layout.EXTENDED_REQUEST.size if header.extended else layout.COMPACT_REQUEST.size
    length = payload_length(header)
    if not length:
        return header, start
    if length > limit:  # C-92
        raise ProtocolError(
            f"the client's {spec_name(Command, header.command)} with cookie {header.cookie}"
            f" announces {length} bytes of payload; at most {limit} are taken",
            rule="C-92",
        )
    end = start + length
    if len(view) < end:
        return None
    return attrs.evolve(header, payload=bytes(view[start:end])), end


def decode_request_header(view: Buffer, *, extended: bool) -> Request | None:
    """The header of a command, of 28 bytes, or 32 when `extended`; its payload is still empty."""
    if len(view) < layout.U32.size:
        return None
    (magic,) = layout.U32.unpack_from(view)
    expected = EXTENDED_REQUEST_MAGIC if extended else REQUEST_MAGIC
    if magic != expected:  # C-70, C-71
        raise ProtocolError(
            f"the client's request begins with {magic:#010x}, not with {expected:#010x}",
            rule="C-71" if magic in (REQUEST_MAGIC, EXTENDED_REQUEST_MAGIC) else "C-70",
        )
    form = layout.EXTENDED_REQUEST if extended else layout.COMPACT_REQUEST
    if len(view) < form.size:
        return None
    _, flags, command, cookie, offset, length = form.unpack_from(view)
    return Request(command, cookie, offset, length, flags, b"", extended)


def payload_length(request: Request) -> int:
    """How many bytes follow the header of `request`.

    A WRITE has a payload even without the flag PAYLOAD_LEN (C-106), or framing would be lost.
    """
    announced = request.extended and request.flags & _PAYLOAD_LEN
    return request.length if announced or request.command == _WRITE else 0
