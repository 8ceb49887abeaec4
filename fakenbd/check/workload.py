"""The operations of the reference client: each on one server, with its result.

Each operation is done in several ways, so that faults have many messages to fire at: reads at the
start, in the middle and at the end, one after another and several in flight; maps with and without
REQ_ONE; writes that begin and end off block borders. An error reply is recorded and the operation
goes on; the end of the connection ends it. All results are compared with the export. Any exception
that is no FakenbdError is a bug, and propagates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import attrs
import trio

from fakenbd.check.operation_result import OperationResult
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.sample_ranges import (
    LARGE,
    MAPPED,
    WHOLE,
    SampleRange,
    clipped,
    ends,
    parts,
    places,
    writable_spans,
)
from fakenbd.client import (
    TLS,
    BlockDevice,
    Client,
    Pool,
    ResilientClient,
    RetryPolicy,
    Target,
    Timeouts,
    describe_export,
    list_export_infos,
    list_exports,
)
from fakenbd.errors import (
    ClientError,
    CommandError,
    FakenbdError,
    OptionRefusedError,
    ProtocolError,
)
from fakenbd.export import RandomBytes
from fakenbd.profile.profile import Operation
from fakenbd.protocol.constants import Error, Reply, State, TransmissionFlag
from fakenbd.protocol.messages import Extent

__all__ = ["Connect", "run_workload"]

Connect: TypeAlias = Callable[[], Awaitable[Target]]
"""Returns a URI, or a new connected stream."""

PATIENCE: Final = 900.0
"""Seconds after which an operation is a hang; the client's own timeouts are far shorter."""

SEVERAL: Final = 8
PIECE: Final = 1 << 22
FAR: Final = 1 << 31
"""Bytes that one request zeroes or trims: more than a signed number of 32 bits holds."""

EXTENTS: Final = 1 << 17
"""The most extents of a map that are asked for."""


@attrs.define(eq=False)
class _Work:
    """The state of one operation: its server, the first error, and the first wrong result."""

    connect: Connect
    ground_truth: GroundTruth
    options: dict[str, Any]
    policy: RetryPolicy | None = None
    error: FakenbdError | None = None
    wrong: str = ""

    def failed(self, error: FakenbdError) -> None:
        """Record that a request failed."""
        self.error = self.error or error

    def accepted(self, wrong: str) -> None:
        """Record that the client returned a wrong result ("" for a correct one)."""
        self.wrong = self.wrong or wrong

    @asynccontextmanager
    async def client(
        self, *contexts: str, connections: int = 1, **more: Any
    ) -> AsyncIterator[BlockDevice]:
        """A client of one connection, or of several where the server permits that."""
        options = {
            "export": self.ground_truth.export.name,
            "contexts": contexts,
            **self.options,
            **more,
        }
        client: AbstractAsyncContextManager[BlockDevice]
        if self.policy is not None:
            client = ResilientClient.connect(self.connect, policy=self.policy, **options)
        elif connections > 1:
            client = Pool.connect(self.connect, connections=connections, **options)
        else:
            client = Client.connect(await self.connect(), **options)
        async with client as commands:
            yield commands

    async def attempt(self, call: Awaitable[object]) -> bool:
        """Whether a request succeeds; an error reply is recorded."""
        try:
            await call
        except CommandError as error:
            self.failed(error)
            return False
        return True

    async def check_read(self, client: BlockDevice, span: SampleRange, *, df: bool = False) -> None:
        offset, length = span
        try:
            data = await client.read(offset, length, df=df)
        except CommandError as error:
            self.failed(error)
        else:
            self.accepted(self.ground_truth.wrong_data(offset, data))

    def check_kept(self, offset: int, data: bytes) -> None:
        """Compare what was written with the server's own export."""
        wrong = self.ground_truth.wrong_data(offset, data)
        self.accepted(wrong and f"what was written is not there: {wrong}")


async def run_workload(
    operation: Operation,
    connect: Connect,
    ground_truth: GroundTruth,
    *,
    tls: TLS | None = None,
    timeout: float | Timeouts | None = None,
    policy: RetryPolicy | None = None,
) -> OperationResult:
    """Do one operation with the reference client, over connections from `connect`.

    With a `policy` the client reconnects where a connection is lost.
    """
    work = _Work(connect, ground_truth, {"tls": tls, "timeout": timeout}, policy)
    with trio.move_on_after(PATIENCE) as scope:
        try:
            await _OPERATIONS[operation](work)
        except (ClientError, ProtocolError) as error:
            work.failed(error)
    return _result(work, operation, hung=scope.cancelled_caught)


def _result(work: _Work, operation: Operation, *, hung: bool) -> OperationResult:
    """The result; a wrong result outweighs an error."""
    if hung:
        why = "it did not end in time"
        output = f"{operation} hung: {why}"
        return OperationResult(operation, None, stopped="time", stop_reason=why, output=output)
    error, wrong = work.error, work.wrong
    kind = "" if error is None else f" ({type(error).__name__})"
    if wrong:
        output = f"{operation} wrong-data{kind}: {wrong}"
        return OperationResult(operation, output=output, wrong=wrong, exception=error)
    if error is None:
        return OperationResult(operation, output=f"{operation} succeeded")
    output, errors = f"{operation} failed{kind}: {error}", f"{type(error).__name__}: {error}"
    return OperationResult(operation, 1, output=output, errors=errors, exception=error)


# --- reading -------------------------------------------------------------------------------------


async def _together(works: list[Awaitable[None]]) -> None:
    """Run all at once. When all have ended, raises the error of the first that failed."""
    failures: list[Exception] = []

    async def guarded(work: Awaitable[None]) -> None:
        try:
            await work
        except (ClientError, ProtocolError) as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(guarded, work)
    if failures:
        raise failures[0]


async def _read(work: _Work) -> None:
    async with work.client() as client:
        await _read_all_over(work, client)


async def _read_all_over(work: _Work, client: BlockDevice) -> None:
    size = client.size
    for span in places(size):
        await work.check_read(client, span)
    await _together([work.check_read(client, span) for span in parts(size, SEVERAL, 4096)])
    if client.offers(TransmissionFlag.SEND_DF):
        for span in clipped(size, (0, 1 << 16), (size // 2, 1 << 16)):
            await work.check_read(client, span, df=True)
    for span in clipped(size, (size // 4, 1024)):
        await work.check_read(client, span)


async def _cache(work: _Work) -> None:
    async with work.client() as client:
        for offset, length in clipped(client.size, (0, LARGE), (client.size // 2, 4096)):
            await work.attempt(client.cache(offset, length))
            await work.check_read(client, (offset, length))


async def _copy(work: _Work) -> None:
    async with work.client(*work.ground_truth.contexts, connections=2) as client:
        for offset, length in ends(client.size, WHOLE):
            for extent in await _allocated(work, client, offset, length):
                await _copy_extent(work, client, offset, extent)
                offset += extent.length


async def _allocated(work: _Work, client: BlockDevice, offset: int, length: int) -> list[Extent]:
    """The extents to copy; one of the whole length where the server has no metadata contexts."""
    if "base:allocation" not in client.contexts:
        return [Extent(length, 0)]
    extents: list[Extent] = []
    with suppress(CommandError):
        await _map_span(client, "base:allocation", offset, length, False, extents)
    covered = sum(extent.length for extent in extents)
    return [*extents, Extent(length - covered, 0)] if covered < length else extents


async def _copy_extent(work: _Work, client: BlockDevice, offset: int, extent: Extent) -> None:
    if extent.flags & State.ZERO:
        if work.ground_truth.map:
            for span in ends(extent.length, LARGE):
                zeroes = bytes(span[1])
                work.accepted(work.ground_truth.wrong_data(offset + span[0], zeroes))
        return
    pieces = range(offset, offset + extent.length, PIECE)
    spans = [(start, min(PIECE, offset + extent.length - start)) for start in pieces]
    await _together([work.check_read(client, span) for span in spans])


async def _map(work: _Work) -> None:
    async with work.client(*work.ground_truth.contexts) as client:
        for req_one in (False, True):
            await _map_all_over(work, client, req_one=req_one)


async def _map_all_over(work: _Work, client: BlockDevice, *, req_one: bool) -> None:
    for context in client.contexts:
        for offset, length in ends(client.size, MAPPED):
            extents: list[Extent] = []
            await work.attempt(_map_span(client, context, offset, length, req_one, extents))
            work.accepted(work.ground_truth.wrong_map(context, offset, extents))


async def _map_span(
    client: BlockDevice,
    context: str,
    offset: int,
    length: int,
    req_one: bool,
    extents: list[Extent],
) -> None:
    """The extents of a span, up to the most that are asked for."""
    status = client.block_status(offset, length, context=context, req_one=req_one)
    async for extent in status:
        extents.append(extent)
        if len(extents) == EXTENTS:
            return


# --- writing -------------------------------------------------------------------------------------


async def _write(work: _Work) -> None:
    async with work.client(connections=2) as client:
        await _write_all_over(work, client)


async def _write_all_over(work: _Work, client: BlockDevice) -> None:
    size = client.size
    for offset, length in clipped(size, (0, LARGE)):
        await _write_span(work, client, offset, length, "large")
    await _together(
        [
            _write_span(work, client, offset, length, "part")
            for offset, length in parts(size, SEVERAL, 4096)
        ]
    )
    if client.offers(TransmissionFlag.SEND_FUA):
        for offset, length in writable_spans(client, (size // 2 + 1, 700)):
            await _write_span(work, client, offset, length, "stable", fua=True)
    if client.offers(TransmissionFlag.SEND_FLUSH):
        await work.attempt(client.flush())
    for span in places(size):
        await work.check_read(client, span)


async def _write_span(
    work: _Work, client: BlockDevice, offset: int, length: int, seed: str, *, fua: bool = False
) -> None:
    """Write bytes that differ from those of any other write."""
    data = bytes(RandomBytes(seed).read(offset, length))
    if await work.attempt(client.write(offset, data, fua=fua)):
        work.check_kept(offset, data)


async def _zero(work: _Work) -> None:
    async with work.client(effect=FAR) as client:
        size = client.size
        for span in clipped(size, (0, size)):
            await _zero_span(work, client, span, hole=True)
        for offset, length in clipped(size, (0, LARGE)):
            await _write_span(work, client, offset, length, "large")
        for span in clipped(size, (512, 4096)):
            await _zero_fast(work, client, span)
        for span in writable_spans(client, (8192, 4096), (16385, 700)):
            await _zero_span(work, client, span, hole=False)
        for span in places(size):
            await work.check_read(client, span)


async def _zero_fast(work: _Work, client: BlockDevice, span: SampleRange) -> None:
    """Write zeroes with FAST_ZERO if the server offers it, else without."""
    if client.offers(TransmissionFlag.SEND_FAST_ZERO):
        try:
            await client.zero(*span, fast=True)
        except CommandError as error:
            if error.error not in (Error.ENOTSUP, Error.EINVAL):
                work.failed(error)
    await _zero_span(work, client, span, hole=True)


async def _zero_span(work: _Work, client: BlockDevice, span: SampleRange, *, hole: bool) -> None:
    if await work.attempt(client.zero(*span, hole=hole)):
        for start, length in ends(span[1], LARGE):
            work.check_kept(span[0] + start, bytes(length))


async def _trim(work: _Work) -> None:
    async with work.client(effect=FAR) as client:
        size = client.size
        for offset, length in writable_spans(
            client, (0, size), (512, 4096), (size // 2 + 1, 70_000)
        ):
            await work.attempt(client.trim(offset, length))
        # The content of a trimmed range is unknown, but it can be read (C-141).
        for offset, length in clipped(size, (0, 4096)):
            await work.attempt(client.read(offset, length))


async def _flush(work: _Work) -> None:
    async with work.client() as client:
        writable = not client.offers(TransmissionFlag.READ_ONLY)
        for offset, length in clipped(client.size, (0, 512), (512, 4096)):
            if writable:
                await _write_span(work, client, offset, length, "flushed")
            await work.attempt(client.flush())


# --- asking -----------------------------------------------------------------------------------


async def _info(work: _Work) -> None:
    """Ask about the export without opening it; where that is not possible, open it."""
    try:
        name = work.ground_truth.export.name
        await describe_export(await work.connect(), export=name, **work.options)
    except OptionRefusedError as error:
        if error.reply not in (0, Reply.ERR_UNSUP):
            raise
        async with work.client():
            return


async def _list(work: _Work) -> None:
    """Ask for the list and, unless it is long, for information on each export."""
    listed = await list_exports(await work.connect(), **work.options)
    if 0 < len(listed) <= SEVERAL:
        await list_export_infos(await work.connect(), **work.options)


# --- reconnecting -----------------------------------------------------------------------------


async def _reconnect(work: _Work) -> None:
    """Map, read and write on a server that may be gone for a while."""
    work.policy = work.policy or RetryPolicy()
    async with work.client(*work.ground_truth.contexts) as client:
        await _map_all_over(work, client, req_one=False)
        await _read_all_over(work, client)
        if not client.offers(TransmissionFlag.READ_ONLY):
            await _write_all_over(work, client)


_OPERATIONS: Final[dict[Operation, Callable[[_Work], Awaitable[None]]]] = {
    "info": _info,
    "list": _list,
    "read": _read,
    "write": _write,
    "copy": _copy,
    "map": _map,
    "zero": _zero,
    "trim": _trim,
    "flush": _flush,
    "cache": _cache,
    "reconnect": _reconnect,
}
