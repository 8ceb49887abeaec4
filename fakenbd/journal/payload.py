"""Bulk data, held apart from the message that carried it.

A journal of a million reads must not keep a million blocks. So an entry holds its message without
the bulk, and beside it a `Payload` that keeps the length for ever, the bytes for as long as the
journal's budget allows, and the digest if it was computed before the bytes were dropped. Short
bytes that are evidence (a body that fits no type, bytes that are no message) stay in the message.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, TypeVar

import attrs

from fakenbd.protocol.constants import Command
from fakenbd.protocol.messages import (
    Ack,
    Buffer,
    Chunk,
    ClientMessage,
    Data,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    Raw,
    RawBody,
    Request,
    ServerMessage,
    SimpleReply,
    Status,
)

__all__ = [
    "EVIDENCE",
    "Payload",
    "detach",
    "fixed_weight",
    "payload_length",
    "reattach",
]

EVIDENCE: Final = 256
_EXTENT_WEIGHT: Final = 120
_STRING_WEIGHT: Final = 50
_Message = TypeVar("_Message", bound=ClientMessage | ServerMessage)


@attrs.define(eq=False)
class Payload:
    """`length` bytes that a message carried: held, available from a function, or no longer held."""

    length: int
    _data: Buffer | Callable[[], Buffer] | None = attrs.field(default=None, alias="data")
    _digest: str | None = attrs.field(default=None, alias="digest")

    @property
    def data(self) -> Buffer | None:
        """The bytes, None once they are no longer held."""
        return self._data() if callable(self._data) else self._data

    @property
    def digest(self) -> str | None:
        """16 hexadecimal digits of the bytes' SHA-256; None if they were dropped before."""
        if self._digest is None and (data := self.data) is not None:
            self._digest = sha256(data).hexdigest()[:16]
        return self._digest

    def lighter(self) -> Payload:
        """Length and digest, without the bytes."""
        return Payload(self.length, None, self._digest)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Payload):
            return NotImplemented
        return self.length == other.length and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.length)


def _of_request(message: Request) -> int:
    length = len(message.payload)
    return length if length > EVIDENCE or message.command == Command.WRITE else 0


def _of_simple_reply(message: SimpleReply) -> int:
    return len(message.data)


def _of_body(message: Chunk | OptionReply | OptionRequest) -> int:
    body = message.body
    if isinstance(body, Data):
        return len(body.data)
    if isinstance(body, RawBody | Ack):
        length = len(body.data)
        return length if length > EVIDENCE else 0
    return 0


def _of_raw(message: Raw) -> int:
    length = len(message.data)
    return length if length > EVIDENCE else 0


_LENGTHS: Final[dict[type, Callable[..., int]]] = {
    Request: _of_request,
    SimpleReply: _of_simple_reply,
    Chunk: _of_body,
    OptionReply: _of_body,
    OptionRequest: _of_body,
    Raw: _of_raw,
}

_SEQUENCES: Final = {InfoQuery: "infos", MetaContextQuery: "queries", Status: "extents"}
_BULK_FIELDS: Final = {Request: "payload", SimpleReply: "data", Raw: "data"}


def payload_length(message: ClientMessage | ServerMessage) -> int:
    """How many bytes of `message` are bulk data; 0 where the message keeps them itself."""
    measure = _LENGTHS.get(type(message))
    return measure(message) if measure is not None else 0


def _of_extents(message: Chunk) -> int:
    body = message.body
    return len(body.extents) * _EXTENT_WEIGHT if isinstance(body, Status) else 0


def _of_strings(message: OptionRequest) -> int:
    body = message.body
    if isinstance(body, MetaContextQuery):
        return len(body.name) + sum(_STRING_WEIGHT + len(query) for query in body.queries)
    return len(body.name) if isinstance(body, ExportName | InfoQuery) else 0


_WEIGHTS: Final[dict[type, Callable[..., int]]] = {Chunk: _of_extents, OptionRequest: _of_strings}


def fixed_weight(message: ClientMessage | ServerMessage) -> int:
    """About how many bytes of memory `message` takes beyond its bulk, where that is a lot."""
    measure = _WEIGHTS.get(type(message))
    return measure(message) if measure is not None else 0


def detach(message: _Message) -> tuple[_Message, Payload | None]:
    """`message` without its bulk, and the bulk (None when there is none).

    A message that keeps its bytes keeps a copy as `bytes`, not the sender's buffer, and its lists
    become tuples.
    """
    message = _frozen(message)
    field = _BULK_FIELDS.get(type(message), "body")
    holder = getattr(message, "body", None) if field == "body" else message
    data: Buffer | None = getattr(holder, "payload" if field == "payload" else "data", None)
    if data is None:
        return message, None
    length = payload_length(message)
    kept = b"" if length else bytes(data)
    stripped: _Message = _replace(message, field, kept) if length or data is not kept else message
    return stripped, Payload(length, data) if length else None


def reattach(message: _Message, payload: Payload | None) -> _Message:
    """The message as it was on the wire; without its bulk where that is no longer held."""
    data = payload.data if payload is not None else None
    if data is None:
        return message
    field = _BULK_FIELDS.get(type(message), "body")
    whole: _Message = _replace(message, field, data)
    return whole


def _frozen(message: Any) -> Any:
    """`message` with tuples for lists, so that equal messages compare equal."""
    body: Any = getattr(message, "body", None)
    field = _SEQUENCES.get(type(body))
    if field is None or type(getattr(body, field)) is tuple:
        return message
    items = tuple(getattr(body, field))
    return attrs.evolve(message, body=attrs.evolve(body, **{field: items}))


def _replace(message: Any, field: str, data: Buffer) -> Any:
    if field == "body":
        return attrs.evolve(message, body=attrs.evolve(message.body, data=data))
    return attrs.evolve(message, **{field: data})
