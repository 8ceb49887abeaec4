"""One operation of the reference client, over streams in memory, with a clock that jumps.

Stalls and deadlines of minutes take no time: whenever all tasks wait, the clock jumps to the next
deadline. Only a client that never waits has to be stopped, as a storm.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import attrs
import trio

from fakenbd.check.operation_result import OperationResult
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.storm_guard import StormGuard
from fakenbd.check.wire_summary import wire_summary
from fakenbd.check.workload import run_workload
from fakenbd.client import TLS, Target
from fakenbd.errors import ConnectionLostError
from fakenbd.profile import Profile
from fakenbd.profile.profile import Operation
from fakenbd.server import Server, open_server

__all__ = ["perform"]


def perform(profile: Profile, operation: Operation, options: Mapping[str, Any]) -> OperationResult:
    """Have the reference client perform one operation against a server of the profile.

    `options` are the server's. Raises ServeError where the server cannot start.
    """
    from trio.testing import MockClock  # slow to import, and for this client only

    clock = MockClock(autojump_threshold=0)
    began = perf_counter()
    result = trio.run(partial(_perform, profile, operation, options), clock=clock)
    return attrs.evolve(result, command=("fakenbd", operation), seconds=perf_counter() - began)


async def _perform(
    profile: Profile, operation: Operation, options: Mapping[str, Any]
) -> OperationResult:
    async with open_server(profile, endpoints=[], **options) as server:
        result = await _run_workload(server, profile, operation)
        # The client's last messages may still be on their way.
        await trio.testing.wait_all_tasks_blocked()
    return wire_summary(result, server, profile)


async def _run_workload(server: Server, profile: Profile, operation: Operation) -> OperationResult:
    async def connect() -> Target:
        try:
            return server.connect()
        except ConnectionRefusedError as error:
            raise ConnectionLostError(f"cannot connect: {error}") from error

    with trio.CancelScope() as scope:
        storm_guard = StormGuard(server.export.size, scope.cancel)
        server.journal.attach(storm_guard)
        try:
            ground_truth = GroundTruth.of(profile, server.export)
            return await run_workload(operation, connect, ground_truth, tls=_tls(server, profile))
        except Exception as error:
            return OperationResult(operation, status=None, crash=_crash(error))
    return OperationResult(operation, status=None, stopped="storm", stop_reason=storm_guard.storm)


def _tls(server: Server, profile: Profile) -> TLS | None:
    if server.security is None or profile.tls_policy == "off":
        return None
    return TLS(profile.tls_policy, server.security.ca_file, hostname="localhost")


def _crash(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"it raised {type(error).__name__}: {error} "
        f"({Path(place.filename).name}, line {place.lineno}, in {place.name})"
    )
