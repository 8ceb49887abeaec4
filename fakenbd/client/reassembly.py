"""The reply to one command, assembled from its chunks; pure.

A reply object is made with the request, takes every chunk with its cookie, and gives the result at
the end. What no later chunk can correct raises ProtocolError at once and ends the connection:
content outside of the request or over other content, a chunk of the wrong kind, contents that
contradict their length. An error chunk fails the reply only: chunks may follow it and are still
checked, and no content of a reply with an error is used, whether it came before or after the error
(S-157, S-162, S-171, Q-27).

The content of a READ is kept as runs of bytes, not as a sum: an overlap and a gap of equal size
have the correct sum (S-172).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

from fakenbd.client.extents import repair
from fakenbd.client.noncompliance import Noncompliance
from fakenbd.errors import CommandError, ProtocolError, ShutdownError
from fakenbd.protocol.constants import (
    MAXIMUM_STRING,
    ChunkFlag,
    ChunkType,
    Command,
    Error,
    spec_name,
)
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    ErrorChunk,
    Extent,
    Hole,
    NoneChunk,
    RawBody,
    Status,
)
from fakenbd.protocol.text import escaped, quoted

__all__ = [
    "Coverage",
    "PlainReply",
    "ReadReply",
    "Reply",
    "StatusReply",
    "asked",
    "command_error",
]

KNOWN_ERRORS: Final = frozenset(int(error) for error in Error)

ERROR_PAYLOAD: Final = 1 << 17
"""The most payload of an error chunk: more than the longest message that it can announce."""

STATUS_PAYLOAD: Final = (1 << 25) + 8
"""The most payload of a status chunk: four times the 2^20 extents that it should not exceed."""

ZEROES: Final = bytes(1 << 16)

_MISFITS: Final[dict[int, str]] = {
    ChunkType.NONE: "S-139",
    ChunkType.OFFSET_DATA: "S-150",
    ChunkType.OFFSET_HOLE: "S-151",
    ChunkType.BLOCK_STATUS: "S-203",
    ChunkType.BLOCK_STATUS_EXT: "S-216",
    ChunkType.ERROR: "S-165",
    ChunkType.ERROR_OFFSET: "S-165",
}


def command_error(
    command: int, offset: int, length: int, error: int, text: str = "", at: int | None = None
) -> CommandError | ShutdownError:
    """The exception that an error number in a reply becomes.

    ESHUTDOWN is a ShutdownError; a number outside of the protocol's list counts as EINVAL (C-126).
    """
    known = error if error in KNOWN_ERRORS else int(Error.EINVAL)
    name = spec_name(Error, error) if known == error else f"error {error}, taken as NBD_EINVAL"
    message = f"the server answered {asked(command, offset, length)} with {name}"
    if at is not None:
        message += f" at {at}"
    if text:
        message += f": {escaped(text)}"
    if error == Error.ESHUTDOWN:
        return ShutdownError(message)
    return CommandError(message, error=known, number=error, offset=at)


def asked(command: int, offset: int, length: int) -> str:
    """A request as messages name it: "NBD_CMD_READ of 4096+512"."""
    name = spec_name(Command, command)
    return name if command == Command.FLUSH else f"{name} of {offset}+{length}"


@attrs.define(eq=False)
class Coverage:
    """The bytes of one request whose content was received, as runs that do not touch."""

    starts: list[int] = attrs.field(factory=list, init=False)
    ends: list[int] = attrs.field(factory=list, init=False)

    def add(self, start: int, end: int) -> bool:
        """Add the bytes from `start` to `end`; False if one of them was added before."""
        starts, ends = self.starts, self.ends
        index = bisect_right(starts, start)
        if (index and ends[index - 1] > start) or (index < len(starts) and starts[index] < end):
            return False
        touches_left = bool(index) and ends[index - 1] == start
        touches_right = index < len(starts) and starts[index] == end
        if touches_left and touches_right:
            ends[index - 1] = ends.pop(index)
            del starts[index]
        elif touches_left:
            ends[index - 1] = end
        elif touches_right:
            starts[index] = start
        else:
            starts.insert(index, start)
            ends.insert(index, end)
        return True

    def gap(self, start: int, end: int) -> int | None:
        """The first byte from `start` to `end` that was not added, or None."""
        for run_start, run_end in zip(self.starts, self.ends, strict=True):
            if run_start > start:
                break
            start = run_end
        return start if start < end else None


@attrs.define(eq=False, kw_only=True)
class Reply(ABC):
    """The reply to one command so far."""

    command: int
    offset: int = 0
    length: int = 0
    failure: CommandError | ShutdownError | None = attrs.field(default=None, init=False)
    notes: list[Noncompliance] = attrs.field(factory=list, init=False)

    def limit(self, kind: int) -> int:
        """The most bytes of payload of a chunk of type `kind` in this reply."""
        return ERROR_PAYLOAD

    def take(self, chunk: Chunk) -> bool:
        """Take one chunk; True when it was the last. Raises ProtocolError for a hard breach."""
        done = bool(chunk.flags & ChunkFlag.DONE)
        body = chunk.body
        if chunk.request_offset is not None:
            self.check_request_offset(chunk.request_offset)
        if isinstance(body, ErrorChunk):
            self._fail(chunk, body)
        elif isinstance(body, NoneChunk):
            if not done:
                raise self._breach("has an NBD_REPLY_TYPE_NONE chunk without DONE", "S-139")
        elif isinstance(body, RawBody):
            self._misfit(chunk, body)
        else:
            self._content(chunk)
        return done

    def check_request_offset(self, offset: int) -> None:
        """Extended chunks repeat the offset of their request (S-145)."""
        if offset != self.offset:
            raise self._breach(f"names offset {offset}", "S-145")

    def simple(self, error: int) -> None:
        """Take a simple reply, which is always the whole reply."""
        if error:
            self._set_failure(command_error(self.command, self.offset, self.length, error))

    @abstractmethod
    def finish(self) -> Any:
        """The result of the complete reply; raises the error that the server sent."""

    @abstractmethod
    def _content(self, chunk: Chunk) -> None:
        """Take a chunk that is neither an error nor of type NONE."""

    def _fail(self, chunk: Chunk, body: ErrorChunk) -> None:
        kind = chunk.type
        unknown = kind is not None and kind not in (ChunkType.ERROR, ChunkType.ERROR_OFFSET)
        if not body.error and not unknown:
            raise self._breach("has an error chunk with error 0", "S-164")
        if len(body.message) > MAXIMUM_STRING:
            came = f"an error message of {len(body.message)} characters came"
            self.notes.append(Noncompliance("S-167", came, "it is cut where it is shown"))
        at = body.offset
        ranged = self.command != Command.FLUSH
        if at is not None and ranged and not 0 <= at - self.offset < self.length:
            raise self._breach(f"has an error at offset {at}, outside of the request", "S-163")
        error = body.error or int(Error.EINVAL)
        self._set_failure(
            command_error(self.command, self.offset, self.length, error, body.message, at)
        )

    def _set_failure(self, failure: CommandError | ShutdownError) -> None:
        """Keep the first failure, but prefer ESHUTDOWN, which ends the session."""
        if self.failure is None or (
            isinstance(failure, ShutdownError) and not isinstance(self.failure, ShutdownError)
        ):
            self.failure = failure

    def _misfit(self, chunk: Chunk, body: RawBody) -> None:
        kind = chunk.type or 0
        name = spec_name(ChunkType, kind)
        rule = _MISFITS.get(kind)
        if rule is None and kind & 0x8000:
            rule = "S-142"
        if rule is None:
            raise self._breach(f"has a chunk of the unknown type {kind}", "S-140")
        raise self._breach(f"has an {name} chunk with {len(body.data)} bytes that do not fit", rule)

    def unexpected(self, kind: str) -> ProtocolError:
        """The error for a chunk type that replies to this command cannot have (S-143)."""
        return self._breach(f"has a chunk of the wrong kind ({kind})", "S-143")

    def _breach(self, what: str, rule: str) -> ProtocolError:
        request = asked(self.command, self.offset, self.length)
        return ProtocolError(f"the reply to {request} {what}", rule=rule)


@attrs.define(eq=False, kw_only=True)
class PlainReply(Reply):
    """The reply to a command without content."""

    def _content(self, chunk: Chunk) -> None:
        raise self.unexpected(type(chunk.body).__name__.lower())

    def finish(self) -> None:
        """Raise the error that the server sent, if any."""
        if self.failure is not None:
            raise self.failure


@attrs.define(eq=False, kw_only=True)
class ReadReply(Reply):
    """The content of a READ, assembled in `target`, a writable buffer as long as the request."""

    command: int = int(Command.READ)
    single: bool = False
    target: memoryview = attrs.field(
        default=attrs.Factory(lambda self: memoryview(bytearray(self.length)), takes_self=True)
    )
    coverage: Coverage = attrs.field(factory=Coverage, init=False)
    chunks: int = attrs.field(default=0, init=False)

    def limit(self, kind: int) -> int:
        """Content is never longer than the request, whatever its chunk announces (S-144)."""
        return self.length + 8 if kind == ChunkType.OFFSET_DATA else ERROR_PAYLOAD

    def claim(self, offset: int, size: int) -> memoryview:
        """The part of the target for `size` bytes of content at `offset`.

        Raises ProtocolError if `size` is 0, or if bytes lie outside of the request or came before.
        """
        self.chunks += 1
        if not size:
            raise self._breach(f"has a chunk without content at {offset}", "S-150")
        start = offset - self.offset
        if start < 0:
            raise self._breach(f"has content at {offset}, before the request", "S-152")
        if start + size > self.length:
            raise self._breach(f"has content at {offset}+{size}, past the request", "S-153")
        if self.single and self.chunks > 1:
            raise self._breach("has a second chunk of content in spite of DF", "S-159")
        if not self.coverage.add(offset, offset + size):
            raise self._breach(f"has content at {offset}+{size} over other content", "S-155")
        return self.target[start : start + size]

    def _content(self, chunk: Chunk) -> None:
        body = chunk.body
        if isinstance(body, Data):
            self.claim(body.offset, len(body.data))[:] = body.data
        elif isinstance(body, Hole):
            if not body.size:
                raise self._breach(f"has a hole without size at {body.offset}", "S-151")
            part = self.claim(body.offset, body.size)
            for start in range(0, body.size, len(ZEROES)):
                piece = part[start : start + len(ZEROES)]
                piece[:] = ZEROES[: len(piece)]
        else:
            raise self.unexpected(type(chunk.body).__name__.lower())

    def finish(self) -> memoryview:
        """All bytes requested. Raises the server's error, or ProtocolError for a gap."""
        if self.failure is not None:
            raise self.failure
        gap = self.coverage.gap(self.offset, self.offset + self.length)
        if gap is not None:
            rule = "S-157" if self.chunks else "S-158"
            raise self._breach(f"ended without content for byte {gap}", rule)
        return self.target


@attrs.define(eq=False, kw_only=True)
class StatusReply(Reply):
    """The extents of a BLOCK_STATUS for each selected context, as repaired by `extents`.

    `contexts` are the names of the selected contexts by their ids; `minimum` is the minimum block
    and `size` the size of the export.
    """

    command: int = int(Command.BLOCK_STATUS)
    contexts: Mapping[int, str]
    req_one: bool = False
    minimum: int = 1
    size: int | None = None
    extents: dict[str, Sequence[tuple[int, int]]] = attrs.field(factory=dict, init=False)

    def limit(self, kind: int) -> int:
        """Four times as many extents as a server should send are taken (S-210)."""
        status = kind in (ChunkType.BLOCK_STATUS, ChunkType.BLOCK_STATUS_EXT)
        return STATUS_PAYLOAD if status else ERROR_PAYLOAD

    def _content(self, chunk: Chunk) -> None:
        body = chunk.body
        if not isinstance(body, Status):
            raise self.unexpected(type(chunk.body).__name__.lower())
        if chunk.type is not None:
            name = spec_name(ChunkType, chunk.type)
            raise self._breach(f"has an {name} chunk under the other header", "S-216")
        name = self.contexts.get(body.context_id, "")
        if not name:
            raise self._breach(f"names context {body.context_id}, never selected", "S-202")
        if name in self.extents:
            raise self._breach(f"has a second chunk for {quoted(name)}", "S-201")
        if not body.extents:
            raise self._breach(f"has no extent for {quoted(name)}", "S-203")
        wide = chunk.request_offset is not None  # under compact headers flags have 32 bits
        if wide and name.startswith("base:") and any(flags >> 32 for _, flags in body.extents):
            raise self._breach(f"has 64-bit flags for {quoted(name)}", "S-216")
        self.extents[name] = body.extents

    def _misfit(self, chunk: Chunk, body: RawBody) -> None:
        """Ignore stray bytes behind the one extent asked for, row 5 of the table."""
        stray = (len(body.data) - 4) % 8
        if not self.req_one or chunk.type != ChunkType.BLOCK_STATUS or len(body.data) < 12:
            super()._misfit(chunk, body)
        data = memoryview(body.data)
        context_id = int.from_bytes(data[:4], "big")
        extent = Extent(int.from_bytes(data[4:8], "big"), int.from_bytes(data[8:12], "big"))
        came = f"{stray} stray bytes came behind the extents of {self.offset}+{self.length}"
        self.notes.append(Noncompliance("S-203", came, "they are ignored"))
        self._content(attrs.evolve(chunk, type=None, body=Status(context_id, [extent])))

    def finish(self) -> Mapping[str, Sequence[tuple[int, int]]]:
        """Usable extents by context; CommandError where a context got none (S-132, S-200).

        A success without extents fails this request alone, as a server's own EIO would.
        """
        if self.failure is not None:
            raise self.failure
        for name in self.contexts.values():
            if name not in self.extents:
                request = asked(self.command, self.offset, self.length)
                message = f"the server answered {request} with success and no extent of"
                raise CommandError(f"{message} {quoted(name)}", error=int(Error.EIO), number=0)
        return {name: self._repaired(extents) for name, extents in self.extents.items()}

    def _repaired(self, extents: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
        repaired = repair(
            extents,
            offset=self.offset,
            length=self.length,
            minimum=self.minimum,
            req_one=self.req_one,
            size=self.size,
        )
        self.notes += repaired.notes
        return repaired.extents
