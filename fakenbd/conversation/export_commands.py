"""The correct reply of an export to every command of the transmission phase.

One table: for each command the flags it may carry, the transmission flag it needs, how its range
is checked, and the function that does it. A request that fails a check gets an error and has no
effect. `command_limits` returns the bounds within which a plain READ or WRITE passes all of these
checks: such requests may be answered elsewhere, byte for byte as here (a test compares the two).
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
    MAXIMUM_PAYLOAD,
    ChunkFlag,
    Command,
    CommandFlag,
    Error,
    State,
    TransmissionFlag,
)
from fakenbd.protocol.limits import Limits
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
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = [
    "LARGEST_PAYLOAD",
    "answer_command",
    "command_limits",
    "maximum_payload",
    "offered_flags",
]

LARGEST_PAYLOAD: Final = 1 << 26
"""The most bytes that one request may carry or ask for, regardless of what was advertised."""

_MAXIMUM_CHUNKS: Final = 1 << 16
_ALWAYS_WHOLE: Final = 1 << 16
_STATUS_HEAD: Final = 8


# Plain integers: arithmetic with members of enumerations is ten times as slow.
_ZERO: Final = int(State.ZERO)
_FUA: Final = int(CommandFlag.FUA)
_DF: Final = int(CommandFlag.DF)
_FAST_ZERO: Final = int(CommandFlag.FAST_ZERO)
_PAYLOAD_LEN: Final = int(CommandFlag.PAYLOAD_LEN)
_READ_ONLY: Final = int(TransmissionFlag.READ_ONLY)
_SEND_FUA: Final = int(TransmissionFlag.SEND_FUA)
_SEND_DF: Final = int(TransmissionFlag.SEND_DF)
_SEND_FAST_ZERO: Final = int(TransmissionFlag.SEND_FAST_ZERO)
_BLOCK_STATUS_PAYLOAD: Final = int(TransmissionFlag.BLOCK_STATUS_PAYLOAD)


@attrs.frozen
class _Rules:
    """The checks of one command; `needs` is the transmission flag it depends on."""

    act: Callable[[NegotiatedState, Export, Request, int], Answer]
    needs: int = attrs.field(default=0, converter=int)
    flags: int = attrs.field(default=0, converter=int)
    ranged: bool = True
    writes: bool = False
    past_end: int = Error.EINVAL


def maximum_payload(export: Export) -> int:
    """The most bytes of a WRITE, or of a READ with simple replies."""
    advertised = MAXIMUM_PAYLOAD if export.block_size is None else export.block_size.maximum
    return min(max(advertised, 1), LARGEST_PAYLOAD)


def offered_flags(export: Export, state: NegotiatedState) -> int:
    """The transmission flags to advertise, without those that depend on what was not negotiated."""
    flags = export.flags
    if not state.chunks:
        flags &= ~_SEND_DF
    if not state.extended:
        flags &= ~_BLOCK_STATUS_PAYLOAD
    return flags


def command_limits(export: Export, state: NegotiatedState, command: int) -> Limits | None:
    """The bounds within which a plain READ or WRITE succeeds with one reply; None if none does."""
    if state.extended or (command == Command.READ and state.structured and export.sparse):
        return None
    if command == Command.WRITE and offered_flags(export, state) & _READ_ONLY:
        return None
    mask = 0
    if export.block_size is not None and not export.any_alignment:
        minimum = export.block_size.minimum
        if minimum & (minimum - 1):
            return None
        mask = max(minimum, 1) - 1
    return Limits(export.size, maximum_payload(export), mask)


def answer_command(
    export: Export, state: NegotiatedState, request: Request, *, effect: bool = True
) -> Answer:
    """The correct reply to one request; performs it on the export if `effect`."""
    rules = _COMMANDS.get(request.command)
    if rules is None:
        return _fail(state, request, Error.EINVAL, "unknown command")
    refusal = _check(state, export, request, rules)
    if refusal is not None:
        return _fail(state, request, *refusal)
    if rules.writes and not effect:
        return _succeed(state, request)
    length = request.length
    if request.command == Command.BLOCK_STATUS and request.flags & _PAYLOAD_LEN:
        length = int.from_bytes(request.payload[:8], "big")
    try:
        return rules.act(state, export, request, length)
    except (OSError, ServeError) as error:
        return _fail(state, request, Error.EIO, str(error))


def _check(
    state: NegotiatedState, export: Export, request: Request, rules: _Rules
) -> tuple[int, str] | None:
    offered = offered_flags(export, state)
    command = request.command
    allowed = rules.flags
    if offered & _SEND_FUA:
        allowed |= _FUA
    if not offered & _SEND_DF:
        allowed &= ~_DF
    if not offered & _SEND_FAST_ZERO:
        allowed &= ~_FAST_ZERO
    if (state.extended and command == Command.WRITE) or (
        offered & _BLOCK_STATUS_PAYLOAD and command == Command.BLOCK_STATUS
    ):
        allowed |= _PAYLOAD_LEN
    if request.flags & ~allowed:
        return Error.EINVAL, "invalid or unnegotiated command flag"
    if rules.needs & ~offered:
        return Error.EINVAL, "command not offered by this export"
    if rules.writes and offered & _READ_ONLY:
        return Error.EPERM, "the export is read-only"
    if not rules.ranged:
        if request.offset or request.length:
            return Error.EINVAL, "offset and length must be 0"
        return None
    length = request.length
    if request.command == Command.BLOCK_STATUS and request.flags & _PAYLOAD_LEN:
        if len(request.payload) < 12 or len(request.payload) % 4:
            return Error.EINVAL, "the payload is an effect length and context ids"
        length = int.from_bytes(request.payload[:8], "big")
    if request.offset + length > export.size:
        return rules.past_end, "request extends past the end of the export"
    if export.block_size is not None and not export.any_alignment:
        minimum = export.block_size.minimum
        if minimum > 1 and (request.offset % minimum or length % minimum):
            return Error.EINVAL, f"the range is not aligned to {minimum} bytes"
    if request.command == Command.WRITE:
        if request.length > maximum_payload(export):
            return Error.EINVAL, "request exceeds the maximum payload"
        if len(request.payload) != request.length:
            return Error.EINVAL, "a write has a payload"
    return None


def _fail(state: NegotiatedState, request: Request, error: int, message: str = "") -> Answer:
    return error_answer(
        request, error, structured=state.structured, extended=state.extended, message=message
    )


def _chunks(state: NegotiatedState, request: Request, bodies: list[ChunkBody]) -> Answer:
    """One chunk for each body, DONE on the last."""
    offset = request.offset if state.extended else None
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


def _succeed(state: NegotiatedState, request: Request) -> Answer:
    if state.extended:
        return _chunks(state, request, [NoneChunk()])
    return [SimpleReply(request.cookie)]


def _read(state: NegotiatedState, export: Export, request: Request, length: int) -> Answer:
    maximum = maximum_payload(export)
    offset = request.offset
    if not state.chunks:
        if length > maximum:
            return _fail(state, request, Error.EINVAL)
        return [SimpleReply(request.cookie, 0, export.read(offset, length))]
    if length == 0:
        return _chunks(state, request, [NoneChunk()])
    whole = bool(request.flags & _DF)
    most = maximum * _MAXIMUM_CHUNKS
    if whole:
        # S-161: 64 KiB fit into one chunk, unless the client knows a smaller maximum (S-144).
        most = maximum if state.block_size_asked else max(maximum, _ALWAYS_WHOLE)
    if length > min(LARGEST_PAYLOAD, most):
        return _fail(state, request, Error.EOVERFLOW, "request exceeds the maximum payload")
    if whole or not export.sparse:
        segments = [Extent(length, 0)]
    else:
        segments = export.segments(offset, length)
    bodies: list[ChunkBody] = []
    piece = most if whole else maximum
    for size, flags in segments:
        if flags & _ZERO and not whole:
            bodies.append(Hole(offset, size))
        else:
            bodies.extend(
                Data(start, export.read(start, min(piece, offset + size - start)))
                for start in range(offset, offset + size, piece)
            )
        offset += size
    return _chunks(state, request, bodies)


def _write(state: NegotiatedState, export: Export, request: Request, length: int) -> Answer:
    if length:
        export.write(request.offset, request.payload)
    return _succeed(state, request)


def _trim(state: NegotiatedState, export: Export, request: Request, length: int) -> Answer:
    if length:
        export.trim(request.offset, length)
    return _succeed(state, request)


def _write_zeroes(state: NegotiatedState, export: Export, request: Request, length: int) -> Answer:
    if length:
        export.zero(request.offset, length, hole=not request.flags & CommandFlag.NO_HOLE)
    return _succeed(state, request)


def _nothing_to_do(
    state: NegotiatedState, _export: Export, request: Request, _length: int
) -> Answer:
    # Nothing to do: content is in memory, and written data need no flush.
    return _succeed(state, request)


def _block_status(state: NegotiatedState, export: Export, request: Request, length: int) -> Answer:
    contexts = state.contexts
    if request.flags & _PAYLOAD_LEN:
        ids = struct.unpack(f">{len(request.payload) // 4 - 2}L", request.payload[8:])
        if len(set(ids)) != len(ids) or not contexts.keys() >= set(ids):
            return _fail(state, request, Error.EINVAL, "unknown or repeated context ids")
        contexts = {id_: contexts[id_] for id_ in ids}
    if not contexts or not state.chunks:
        return _fail(state, request, Error.EINVAL, "no metadata context was selected")
    if length == 0:
        return _fail(state, request, Error.EINVAL, "the range is empty")
    bodies: list[ChunkBody] = []
    for id_, name in contexts.items():
        extents = export.block_status(name, request.offset, length, request.flags)
        if not state.extended:
            extents = capped(extents, export.block_size.minimum if export.block_size else 1)
        # S-144: no chunk exceeds the maximum payload; S-203: each has an extent.
        room = (maximum_payload(export) - _STATUS_HEAD) // (16 if state.extended else 8)
        bodies.append(Status(id_, extents[: max(room, 1)]))
    return _chunks(state, request, bodies)


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
