"""The server's rules on replies of the transmission phase, message by message.

A simple reply or a chunk is judged as the decoder of `protocol` returns it, against its request,
the earlier chunks of the same reply, and the state that the client has been shown. Of payloads only
`len()` is used. A plain correct reply (a READ in one piece, the success of a command that has no
content) is recognised by a few comparisons; everything else is checked in this order: is the cookie
in flight, is the form the negotiated one, does the body fit its type, does it fit the request, and,
with the last message, is anything missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fakenbd.obligations.breach import Breach, string_flaw
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.server_read_rules import judge_content, judge_read_end
from fakenbd.obligations.server_status_rules import judge_status, judge_status_end
from fakenbd.protocol import layout
from fakenbd.protocol.constants import (
    MAXIMUM_PAYLOAD,
    ChunkFlag,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    TransmissionFlag,
    spec_name,
)
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    ErrorChunk,
    Hole,
    NoneChunk,
    RawBody,
    SimpleReply,
    Status,
)
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["is_plain", "judge_chunk_length", "judge_reply"]

_NOTHING: Final[Sequence[Breach]] = ()
_ERROR: Final = 1 << 15
_DF_ALWAYS: Final = 1 << 16
"""Bytes of a READ with DF that every server has to give in one chunk."""
_KEPT_OFFSETS: Final = 64

_READ: Final = int(Command.READ)
_DONE: Final = int(ChunkFlag.DONE)
_READ_ONLY: Final = int(TransmissionFlag.READ_ONLY)
_PLAIN: Final = frozenset(
    (Command.WRITE, Command.FLUSH, Command.TRIM, Command.CACHE, Command.WRITE_ZEROES)
)
"""Commands whose success has no content."""
_WRITING: Final = frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES))
_RANGED: Final = frozenset((*_WRITING, Command.READ, Command.CACHE, Command.BLOCK_STATUS))


def judge_reply(
    request: RequestFacts | None,
    reply: SimpleReply | Chunk,
    progress: ReplyProgress,
    state: NegotiatedState,
) -> Sequence[Breach]:
    """The rules broken by a simple reply or a chunk; `progress` then includes it.

    `request` is the one in flight with the reply's cookie, None if there is none; `progress` is
    that request's, or that of the last one with this cookie, or a new one. A simple reply to READ
    where chunks were negotiated (S-122) may have data or none: it should be passed as soon as its
    header was received.
    """
    if request is not None and not progress.begun and is_plain(request, reply, state):
        progress.begun = progress.done = True
        return _NOTHING
    return tuple(_judge(request, reply, progress, state))


def is_plain(request: RequestFacts, reply: SimpleReply | Chunk, state: NegotiatedState) -> bool:
    """Whether the reply is a complete success that breaks no rule; False where that is costly."""
    if isinstance(reply, Chunk):
        body = reply.body
        if request.command != _READ or not isinstance(body, Data) or reply.flags != _DONE:
            return False
        length = len(body.data)
        sizes = state.block_size
        return (
            body.offset == request.offset
            and length == request.length > 0
            and (state.size is None or request.offset + length <= state.size)
            and (sizes is None or length <= sizes.maximum)
            and (
                reply.request_offset == request.offset
                if state.extended
                else state.structured and reply.request_offset is None
            )
        )
    if reply.error or state.extended:
        return False
    if request.command == _READ:
        length = len(reply.data)
        return (
            not state.structured
            and length == request.length
            and (state.size is None or request.offset + length <= state.size)
        )
    return request.command in _PLAIN and not state.flags & _READ_ONLY


def judge_chunk_length(
    request: RequestFacts, kind: int, length: int, state: NegotiatedState
) -> Iterator[Breach]:
    """The rules broken by the payload length that the header of a chunk announces.

    For chunks whose payload was not received, or never comes; `judge_reply` judges the others.
    """
    if kind != ChunkType.OFFSET_DATA or request.command != Command.READ:
        return
    sizes = state.block_size
    most = request.length if sizes is None else min(request.length, sizes.maximum)
    if length > most + layout.U64.size:  # S-144
        yield Breach("S-144", f"a data chunk announces {length} bytes of payload for {most} bytes")


# --- which request, and which form -------------------------------------------------------------


def _judge(
    request: RequestFacts | None,
    reply: SimpleReply | Chunk,
    progress: ReplyProgress,
    state: NegotiatedState,
) -> Iterator[Breach]:
    if progress.done:
        yield _after_the_last(request, reply, progress)
        return
    if request is None:  # S-123
        yield Breach("S-123", f"a reply came with cookie {reply.cookie}, which is not in flight")
        return
    if request.command == Command.DISC:  # S-126
        yield Breach("S-126", "NBD_CMD_DISC got a reply")
        return
    begun, progress.begun = progress.begun, True
    name = spec_name(Command, request.command)
    if isinstance(reply, SimpleReply):
        progress.done = True
        if state.extended:  # S-90
            yield Breach("S-90", f"{name} got a simple reply although extended headers are in use")
        elif begun:  # S-124
            yield Breach("S-124", f"{name} got a simple reply after chunks of a reply")
        elif state.structured and request.command == Command.READ:  # S-122
            yield Breach("S-122", "NBD_CMD_READ got a simple reply although chunks were negotiated")
        else:
            yield from _simple(request, reply, state)
        return
    progress.done = bool(reply.flags & ChunkFlag.DONE)
    if not state.chunks:  # S-121
        yield Breach("S-121", f"{name} got a chunk although structured replies were not negotiated")
    elif state.extended != (reply.request_offset is not None):  # S-90
        form, due = ("compact", "extended") if state.extended else ("extended", "compact")
        yield Breach("S-90", f"{name} got a chunk with {form} headers, not {due} ones")
    else:
        yield from _chunk(request, reply, progress, state)


def _after_the_last(
    request: RequestFacts | None, reply: SimpleReply | Chunk, progress: ReplyProgress
) -> Breach:
    if isinstance(reply, Chunk) and progress.incomplete:
        if isinstance(reply.body, Status):  # S-214
            return Breach("S-214", "extents of another context came after the chunk with DONE")
        return Breach(
            "S-138", "a chunk came after the one with DONE, which lacked content"
        )  # S-138
    return Breach("S-124", f"the reply with cookie {reply.cookie} was complete already")  # S-124


# --- simple replies, and the outcome of any reply ----------------------------------------------


def _simple(request: RequestFacts, reply: SimpleReply, state: NegotiatedState) -> Iterator[Breach]:
    size = len(reply.data)
    if reply.error:
        if size:  # S-130
            yield Breach(
                "S-130", f"a simple reply with error {reply.error} has {size} bytes of data"
            )
        yield from _error_number(request, reply.error, state)
        return
    yield from _success(request, state)
    if request.command == Command.READ and size != request.length:  # S-128, S-129
        rule = "S-128" if size < request.length else "S-129"
        yield Breach(rule, f"the simple reply to a READ of {request.length} has {size} bytes")
    if request.command == Command.BLOCK_STATUS:  # S-132
        yield Breach("S-132", "NBD_CMD_BLOCK_STATUS got a simple reply without an error")


def _success(request: RequestFacts, state: NegotiatedState) -> Iterator[Breach]:
    """Check that the command may succeed; for one of length 0 the outcome is unspecified."""
    command = request.command
    if not request.length:
        return
    if command in _WRITING and state.flags & TransmissionFlag.READ_ONLY:  # S-184
        yield Breach("S-184", f"{spec_name(Command, command)} succeeded on a read-only export")
    end = request.offset + request.length
    if command == Command.READ and state.size is not None and end > state.size:  # S-170
        yield Breach(
            "S-170", f"a READ up to {end} succeeded although the export ends at {state.size}"
        )


def _error_number(request: RequestFacts, error: int, state: NegotiatedState) -> Iterator[Breach]:
    """Check that the error is defined, and one that this request may get."""
    command, flags = request.command, request.flags
    name = spec_name(Command, command)
    if error not in _ERROR_NUMBERS:  # S-188
        yield Breach("S-188", f"{name} got the error {error}, which NBD does not define")
    elif error == Error.ENOTSUP:
        offered = state.flags & TransmissionFlag.SEND_FAST_ZERO
        if command == Command.WRITE_ZEROES and offered and not flags & CommandFlag.FAST_ZERO:
            yield Breach("S-182", f"{name} without FAST_ZERO got NBD_ENOTSUP")  # S-182
    elif error == Error.EOVERFLOW:
        maximum = MAXIMUM_PAYLOAD if state.block_size is None else state.block_size.maximum
        small = request.length <= maximum
        if command in (Command.TRIM, Command.WRITE_ZEROES):
            if small or flags & CommandFlag.FAST_ZERO:  # S-183
                yield Breach("S-183", f"{name} of {request.length} bytes got NBD_EOVERFLOW")
        elif (
            command == Command.READ
            and flags & CommandFlag.DF
            and small
            and request.length <= _DF_ALWAYS
        ):  # S-161
            yield Breach("S-161", f"a READ of {request.length} with DF got NBD_EOVERFLOW")


# --- chunks ------------------------------------------------------------------------------------


def _chunk(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    at = chunk.request_offset
    if at is not None and at != request.offset:  # S-145
        yield Breach("S-145", f"a chunk names the offset {at}, its request {request.offset}")
    yield from _BODIES[type(chunk.body)](request, chunk, progress, state)
    if not progress.done or progress.failed:
        return
    yield from _success(request, state)
    if progress.blind:
        return
    missing: Sequence[Breach] = ()
    if request.command == Command.READ:
        missing = tuple(judge_read_end(request, progress))
    elif request.command == Command.BLOCK_STATUS:
        missing = tuple(judge_status_end(request, progress, state))
    progress.incomplete = bool(missing)
    yield from missing


def _none(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    if not progress.done:  # S-139
        yield Breach("S-139", "an NBD_REPLY_TYPE_NONE chunk lacks DONE")


def _content(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    body = chunk.body
    if request.command == Command.READ and isinstance(body, Data | Hole):
        yield from judge_content(request, body, progress, state)
    else:
        yield from _wrong_command(request, chunk)


def _status(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    if request.command == Command.BLOCK_STATUS:
        yield from judge_status(request, chunk, progress, state)
    else:
        yield from _wrong_command(request, chunk)


def _wrong_command(request: RequestFacts, chunk: Chunk) -> Iterator[Breach]:
    if request.command <= Command.RESIZE:  # S-143
        name, what = spec_name(Command, request.command), type(chunk.body).__name__.lower()
        yield Breach("S-143", f"{name} got a chunk of the wrong type ({what})")


def _error(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    body = chunk.body
    assert isinstance(body, ErrorChunk)
    progress.failed = True
    kind = chunk.type
    known = kind is None or kind in _KNOWN
    if not known:  # S-141
        yield Breach("S-141", f"an error chunk has the unknown type {kind:#x}")
    elif not body.error:  # S-164
        yield Breach("S-164", "an error chunk has the error 0")
    flaw = string_flaw(body.message)
    if flaw is not None:  # S-167
        yield Breach("S-167", f"the message of an error chunk {flaw}")
    if not known:
        return
    if body.error:
        yield from _error_number(request, body.error, state)
    if progress.plain_error or (body.offset is None and progress.error_offsets):  # S-168
        yield Breach("S-168", "an error without an offset came beside another error")
    if body.offset is None:
        progress.plain_error = True
    else:
        yield from _error_offset(request, body.offset, progress)


def _error_offset(request: RequestFacts, offset: int, progress: ReplyProgress) -> Iterator[Breach]:
    name = spec_name(Command, request.command)
    if request.command == Command.FLUSH:  # S-143
        yield Breach("S-143", f"{name} got an error with an offset")
        return
    if request.command not in _RANGED:
        return
    end = request.offset + request.length
    if request.length and not request.offset <= offset < end:  # S-163
        yield Breach(
            "S-163", f"{name} of {request.offset}+{request.length} got an error at {offset}"
        )
    if progress.error_offsets is None:
        progress.error_offsets = []
    if len(progress.error_offsets) < _KEPT_OFFSETS:
        progress.error_offsets.append(offset)


def _raw(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """A chunk whose type is unknown, or whose bytes do not fit it."""
    body = chunk.body
    assert isinstance(body, RawBody)
    size, kind = len(body.data), chunk.type or 0
    # Its contents are unknown: nothing is reported as missing after it.
    progress.failed = True
    if kind not in _KNOWN:  # S-140, S-142
        if kind & _ERROR:
            yield Breach(
                "S-142", f"an error chunk of type {kind:#x} has {size} bytes that do not fit"
            )
        else:
            yield Breach("S-140", f"a chunk has the unknown type {kind}")
        return
    rule = _MISFITS.get(kind)
    if rule is None:
        rule = "S-165" if size < _LEAST[kind] else "S-166"  # S-165, S-166
    elif kind == ChunkType.BLOCK_STATUS_EXT and size % 16 == 8:  # the count is wrong
        rule = "S-216"
    yield Breach(rule, f"an {spec_name(ChunkType, kind)} chunk has {size} bytes that do not fit")


# --- tables ------------------------------------------------------------------------------------

_ERROR_NUMBERS: Final = frozenset(int(error) for error in Error)
_KNOWN: Final = frozenset(int(kind) for kind in ChunkType)
_LEAST: Final[dict[int, int]] = {ChunkType.ERROR: 6, ChunkType.ERROR_OFFSET: 14}
_MISFITS: Final[dict[int, str]] = {
    ChunkType.NONE: "S-139",
    ChunkType.OFFSET_DATA: "S-150",
    ChunkType.OFFSET_HOLE: "S-151",
    ChunkType.BLOCK_STATUS: "S-203",
    ChunkType.BLOCK_STATUS_EXT: "S-203",
}
_BODIES: Final[dict[type, Callable[..., Iterator[Breach]]]] = {
    NoneChunk: _none,
    Data: _content,
    Hole: _content,
    Status: _status,
    ErrorChunk: _error,
    RawBody: _raw,
}
