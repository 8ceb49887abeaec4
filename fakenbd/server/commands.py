"""The true answer to every command of the transmission phase.

One table: for each command the flags it may carry, the transmission flag it needs, how its range
is checked, and the function that does it. What fails a check is answered with an error and has no
effect. Plain READs and WRITEs do not come here: `transmission` answers them, byte for byte as this
module would (a test compares the two).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import attrs

from fakenbd.errors import ServeError
from fakenbd.export import Export
from fakenbd.export.extents import capped
from fakenbd.faults import error_answer
from fakenbd.faults.answer import Answer
from fakenbd.protocol.constants import (
    ChunkFlag,
    Command,
    CommandFlag,
    Error,
    State,
    TransmissionFlag,
)
from fakenbd.protocol.messages import (
    Chunk,
    ChunkBody,
    Data,
    Extent,
    Hole,
    NoneChunk,
    Request,
    SimpleReply,
    Status,
)
from fakenbd.server.terms import LARGEST_PAYLOAD, Terms

__all__ = ["answer_command"]


@attrs.frozen
class _Rules:
    """How one command is checked; `needs` is the transmission flag it depends on."""

    act: Callable[[Terms, Export, Request, int], Answer]
    needs: int = 0
    flags: int = 0
    ranged: bool = True
    writes: bool = False
    past_end: int = Error.EINVAL


def answer_command(terms: Terms, request: Request, *, shutting_down: bool = False) -> Answer:
    """The truth about one request, and its effect on the export."""
    export = terms.export
    assert export is not None, "commands come after an export was opened"
    if shutting_down:
        return _fail(terms, request, Error.ESHUTDOWN, "the server is shutting down")
    rules = _COMMANDS.get(request.command)
    if rules is None:
        return _fail(terms, request, Error.EINVAL, "unknown command")
    refusal = _check(terms, export, request, rules)
    if refusal is not None:
        return _fail(terms, request, *refusal)
    effect = request.length
    if request.command == Command.BLOCK_STATUS and request.flags & CommandFlag.PAYLOAD_LEN:
        effect = int.from_bytes(request.payload[:8], "big")
    try:
        return rules.act(terms, export, request, effect)
    except (OSError, ServeError) as error:
        return _fail(terms, request, Error.EIO, str(error))


def _check(terms: Terms, export: Export, request: Request, rules: _Rules) -> tuple[int, str] | None:
    offered = terms.flags(export)
    allowed = rules.flags
    if offered & TransmissionFlag.SEND_FUA:
        allowed |= CommandFlag.FUA
    if not offered & TransmissionFlag.SEND_DF:
        allowed &= ~CommandFlag.DF
    if not offered & TransmissionFlag.SEND_FAST_ZERO:
        allowed &= ~CommandFlag.FAST_ZERO
    if terms.extended and request.command == Command.WRITE:
        allowed |= CommandFlag.PAYLOAD_LEN
    if offered & TransmissionFlag.BLOCK_STATUS_PAYLOAD and request.command == Command.BLOCK_STATUS:
        allowed |= CommandFlag.PAYLOAD_LEN
    # The complement of an IntFlag has none of the bits without a name.
    if request.flags & ~int(allowed):
        return Error.EINVAL, "invalid or unnegotiated command flag"
    if rules.needs & ~offered:
        return Error.EINVAL, "command not offered by this export"
    if rules.writes and offered & TransmissionFlag.READ_ONLY:
        return Error.EPERM, "the export is read-only"
    if not rules.ranged:
        if request.offset or request.length:
            return Error.EINVAL, "offset and length must be 0"
        return None
    length = request.length
    if request.command == Command.BLOCK_STATUS and request.flags & CommandFlag.PAYLOAD_LEN:
        if len(request.payload) < 12 or len(request.payload) % 4:
            return Error.EINVAL, "the payload is an effect length and context ids"
        length = int.from_bytes(request.payload[:8], "big")
    if request.offset + length > export.size:
        return rules.past_end, "request extends past the end of the export"
    if export.block_size is not None and not export.any_alignment:
        minimum = export.block_size.minimum
        if minimum > 1 and (request.offset % minimum or length % minimum):
            return Error.EINVAL, f"the range is not aligned to {minimum} bytes"
    return None


def _fail(terms: Terms, request: Request, error: int, message: str = "") -> Answer:
    return error_answer(
        request, error, structured=terms.structured, extended=terms.extended, message=message
    )


def _chunks(terms: Terms, request: Request, bodies: list[ChunkBody]) -> Answer:
    """One chunk for each body, DONE on the last."""
    offset = request.offset if terms.extended else None
    last = len(bodies) - 1
    return [
        Chunk(
            request.cookie,
            body,
            flags=ChunkFlag.DONE if place == last else 0,
            request_offset=offset,
        )
        for place, body in enumerate(bodies)
    ]


def _succeed(terms: Terms, request: Request) -> Answer:
    if terms.extended:
        return _chunks(terms, request, [NoneChunk()])
    return [SimpleReply(request.cookie)]


def _read(terms: Terms, export: Export, request: Request, length: int) -> Answer:
    maximum = terms.maximum_payload
    offset = request.offset
    if not (terms.structured or terms.extended):
        if length > maximum:
            return _fail(terms, request, Error.EINVAL)
        return [SimpleReply(request.cookie, 0, export.read(offset, length))]
    if length == 0:
        return _chunks(terms, request, [NoneChunk()])
    whole = bool(request.flags & CommandFlag.DF)
    if length > LARGEST_PAYLOAD or (whole and length > maximum):
        return _fail(terms, request, Error.EOVERFLOW, "request exceeds the maximum payload")
    if whole or not export.sparse:
        segments = [Extent(length, 0)]
    else:
        segments = export.segments(offset, length)
    bodies: list[ChunkBody] = []
    for size, flags in segments:
        if flags & State.ZERO and not whole:
            bodies.append(Hole(offset, size))
        else:
            bodies.extend(
                Data(start, export.read(start, min(maximum, offset + size - start)))
                for start in range(offset, offset + size, maximum)
            )
        offset += size
    return _chunks(terms, request, bodies)


def _write(terms: Terms, export: Export, request: Request, length: int) -> Answer:
    if length > terms.maximum_payload:
        return _fail(terms, request, Error.EINVAL, "the payload is larger than the maximum")
    if len(request.payload) != length:
        return _fail(terms, request, Error.EINVAL, "a write has a payload")
    if length:
        export.write(request.offset, request.payload)
    return _succeed(terms, request)


def _trim(terms: Terms, export: Export, request: Request, length: int) -> Answer:
    if length:
        export.trim(request.offset, length)
    return _succeed(terms, request)


def _write_zeroes(terms: Terms, export: Export, request: Request, length: int) -> Answer:
    if length:
        export.zero(request.offset, length, hole=not request.flags & CommandFlag.NO_HOLE)
    return _succeed(terms, request)


def _nothing_to_do(terms: Terms, _export: Export, request: Request, _length: int) -> Answer:
    # Written data are as stable as this server gets at once, and all of it is in memory.
    return _succeed(terms, request)


def _block_status(terms: Terms, export: Export, request: Request, length: int) -> Answer:
    contexts = terms.contexts
    if request.flags & CommandFlag.PAYLOAD_LEN:
        ids = struct.unpack(f">{len(request.payload) // 4 - 2}L", request.payload[8:])
        known = dict(contexts)
        if len(set(ids)) != len(ids) or not known.keys() >= set(ids):
            return _fail(terms, request, Error.EINVAL, "unknown or repeated context ids")
        contexts = tuple((id_, known[id_]) for id_ in ids)
    if not contexts or not (terms.structured or terms.extended):
        return _fail(terms, request, Error.EINVAL, "no metadata context was selected")
    if length == 0:
        return _fail(terms, request, Error.EINVAL, "the range is empty")
    bodies: list[ChunkBody] = []
    for id_, name in contexts:
        extents = export.block_status(name, request.offset, length, request.flags)
        if not terms.extended:
            extents = capped(extents, export.block_size.minimum if export.block_size else 1)
        bodies.append(Status(id_, extents))
    return _chunks(terms, request, bodies)


_COMMANDS: Final[dict[int, _Rules]] = {
    Command.READ: _Rules(_read, flags=CommandFlag.DF),
    Command.WRITE: _Rules(_write, writes=True, past_end=Error.ENOSPC),
    Command.FLUSH: _Rules(_nothing_to_do, TransmissionFlag.SEND_FLUSH, ranged=False),
    Command.TRIM: _Rules(_trim, TransmissionFlag.SEND_TRIM, writes=True),
    Command.CACHE: _Rules(_nothing_to_do, TransmissionFlag.SEND_CACHE),
    Command.WRITE_ZEROES: _Rules(
        _write_zeroes,
        TransmissionFlag.SEND_WRITE_ZEROES,
        CommandFlag.NO_HOLE | CommandFlag.FAST_ZERO,
        writes=True,
        past_end=Error.ENOSPC,
    ),
    Command.BLOCK_STATUS: _Rules(_block_status, flags=CommandFlag.REQ_ONE),
}
