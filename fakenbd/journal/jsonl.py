"""A journal on disk: JSON, one entry a line, after a header line that says which format it is.

Every field that differs from its default is written under its own name, so a line reads back as
the entry it was; "name" is for people and their tools, and is not read. Bytes are hexadecimal, the
bulk data of a message its length and digest, or all of it in base64 if that was asked for. Each
record is flushed, so that the file is complete whatever ends the server.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from os import PathLike
from typing import IO, Any, Final

import attrs

from fakenbd.errors import FakenbdError
from fakenbd.journal.entries import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Noted,
    Received,
    Sent,
    Violated,
    chunk_type,
    reply_type,
)
from fakenbd.journal.payload import Payload
from fakenbd.journal.record import Part
from fakenbd.protocol import messages
from fakenbd.protocol.constants import ChunkType, Command, Option, Reply, spec_name

__all__ = ["FORMAT", "Header", "JsonlSink", "entry_from_json", "entry_to_json", "load"]

FORMAT: Final = 2
_MARK: Final = "fakenbd-journal"

_KINDS: Final[dict[str, type[Entry]]] = {
    kind.kind: kind
    for kind in (Connected, Received, Sent, FaultFired, Violated, Closed, InternalFailure, Noted)
}
_VALUES: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        messages.Ack,
        messages.Chunk,
        messages.ClientFlags,
        messages.Data,
        messages.ErrorChunk,
        messages.ErrorReply,
        messages.ExportName,
        messages.ExportNameReply,
        messages.Greeting,
        messages.Hole,
        messages.InfoBlockSize,
        messages.InfoExport,
        messages.InfoQuery,
        messages.InfoText,
        messages.MetaContext,
        messages.MetaContextQuery,
        messages.NoneChunk,
        messages.OldstyleGreeting,
        messages.OptionReply,
        messages.OptionRequest,
        messages.Raw,
        messages.RawBody,
        messages.Request,
        messages.Server,
        messages.SimpleReply,
        messages.Status,
    )
}
_BUFFERS: Final = frozenset({"data", "reserved", "payload", "rest"})
_FIELDS: Final[dict[type, tuple[tuple[str, Any], ...]]] = {
    kind: tuple((field.name, field.default) for field in attrs.fields(kind))
    for kind in (*_VALUES.values(), *_KINDS.values())
}
_SPEC_NAMES: Final[dict[type, Callable[[Any], str]]] = {
    messages.Request: lambda message: spec_name(Command, message.command),
    messages.OptionRequest: lambda message: spec_name(Option, message.option),
    messages.OptionReply: lambda message: spec_name(Reply, reply_type(message)),
    messages.Chunk: lambda message: spec_name(ChunkType, chunk_type(message)),
}


@attrs.frozen
class Header:
    """What was recorded: the first line of a journal file. `began` is the Unix time of second 0."""

    version: str = ""
    profile: str = ""
    seed: int | None = None
    began: float | None = None


@attrs.define(eq=False)
class JsonlSink:
    """Writes a journal to `stream`, which it closes at the end; `whole` writes all bulk data."""

    stream: IO[bytes]
    header: Header = Header()
    whole: bool = False

    def __attrs_post_init__(self) -> None:
        header = {_MARK: FORMAT, **attrs.asdict(self.header)}
        self.stream.write(json.dumps(header).encode() + b"\n")
        self.stream.flush()

    def write(self, record: Part) -> None:
        """Append the entries of one record."""
        whole = self.whole
        self.stream.write(
            b"".join(
                json.dumps(entry_to_json(entry, whole=whole)).encode() + b"\n"
                for entry in record.entries()
            )
        )
        self.stream.flush()

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def __str__(self) -> str:
        return f"the journal file {getattr(self.stream, 'name', '')}".rstrip()


def load(path: str | PathLike[str]) -> tuple[Header, list[Entry]]:
    """The header and the entries of a journal file.

    The last line may be cut, as a server that was killed leaves it. Raises FakenbdError for
    anything else that is no journal, and OSError for a file that cannot be read.
    """
    with open(path, "rb") as file:
        lines = file.read().split(b"\n")
    complete = lines[:-1]
    header = _header(path, complete)
    entries = []
    for place, line in enumerate(complete[1:], start=2):
        try:
            entries.append(entry_from_json(json.loads(line)))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FakenbdError(f"{path}: line {place} is no entry of a journal: {error}") from error
    return header, entries


def _header(path: str | PathLike[str], lines: list[bytes]) -> Header:
    try:
        header = json.loads(lines[0])
        form = header.pop(_MARK)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise FakenbdError(f"{path}: is no journal of fakenbd: its first line is no header") from (
            error
        )
    if form != FORMAT:
        raise FakenbdError(
            f"{path}: is a journal of format {form}; this fakenbd reads format {FORMAT}"
        )
    known = {field.name for field in attrs.fields(Header)}
    return Header(**{name: value for name, value in header.items() if name in known})


def entry_to_json(entry: Entry, *, whole: bool = False) -> dict[str, Any]:
    """One entry as a JSON object."""
    shown: dict[str, Any] = {"kind": entry.kind}
    if isinstance(entry, Received | Sent):
        spelled = _SPEC_NAMES.get(type(entry.message))
        shown |= {"index": entry.index, "time": entry.time, "connection": entry.connection}
        shown["at"] = entry.at
        if isinstance(entry, Sent):
            shown["about"] = entry.about
        if spelled is not None:
            shown["name"] = spelled(entry.message)
        shown["message"] = _value_to_json(entry.message)
        if entry.payload is not None:
            shown["payload"] = _payload_to_json(entry.payload, whole)
        return shown
    for name, _ in _FIELDS[type(entry)]:
        shown[name] = getattr(entry, name)
    return shown


def entry_from_json(shown: dict[str, Any]) -> Entry:
    """The entry of a JSON object. A malformed one raises KeyError, TypeError or ValueError."""
    kind = _KINDS[shown["kind"]]
    fields = {name: shown[name] for name, _ in _FIELDS[kind] if name in shown}
    if kind is Received or kind is Sent:
        fields["message"] = _value_from_json(fields["message"])
        if "payload" in fields:
            fields["payload"] = _payload_from_json(fields["payload"])
    return kind(**fields)


def _value_to_json(value: Any) -> dict[str, Any]:
    kind = type(value)
    shown: dict[str, Any] = {"is": kind.__name__}
    for name, default in _FIELDS[kind]:
        field = getattr(value, name)
        if field is default or field == default:
            continue
        if name in _BUFFERS:
            shown[name] = bytes(field).hex()
        elif name == "body":
            shown[name] = _value_to_json(field)
        else:
            shown[name] = field
    return shown


def _value_from_json(shown: dict[str, Any]) -> Any:
    kind = _VALUES[shown["is"]]
    fields = {name: shown[name] for name, _ in _FIELDS[kind] if name in shown}
    for name, field in fields.items():
        if name in _BUFFERS:
            fields[name] = bytes.fromhex(field)
        elif name == "body":
            fields[name] = _value_from_json(field)
        elif name == "extents":
            fields[name] = tuple(messages.Extent(*extent) for extent in field)
        elif isinstance(field, list):
            fields[name] = tuple(field)
    return kind(**fields)


def _payload_to_json(payload: Payload, whole: bool) -> dict[str, Any]:
    shown: dict[str, Any] = {"length": payload.length, "digest": payload.digest}
    if whole and (data := payload.data) is not None:
        shown["data"] = b64encode(data).decode()
    return shown


def _payload_from_json(shown: dict[str, Any]) -> Payload:
    data = b64decode(shown["data"]) if "data" in shown else None
    return Payload(shown["length"], data, digest=shown["digest"])
