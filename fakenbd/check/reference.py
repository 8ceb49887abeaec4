"""One operation of the reference client, over streams in memory, with a clock that jumps.

Stalls and deadlines of minutes take no time: whenever everybody waits, the clock moves on to
whatever comes next. Only a client that never waits has to be stopped, as a storm.
"""

from __future__ import annotations

import traceback
from functools import partial
from pathlib import Path
from time import perf_counter

import attrs
import trio

from fakenbd.check.account import Account, excerpt
from fakenbd.check.conduct import conduct
from fakenbd.check.exercise import exercise
from fakenbd.check.findings import Facts, Outcome
from fakenbd.check.verdicts import Performance
from fakenbd.check.witness import Witness
from fakenbd.client import TLS, Target
from fakenbd.errors import LostError, ServeError
from fakenbd.profile import Profile
from fakenbd.profile.profile import Operation
from fakenbd.server import Server, open_server

__all__ = ["perform"]


def perform(profile: Profile, operation: Operation, *, seed: int) -> Account:
    """Have the reference client perform one operation against a server of the profile."""
    from trio.testing import MockClock  # slow to import, and for this client only

    clock = MockClock(autojump_threshold=0)
    began = perf_counter()
    try:
        performance, told = trio.run(partial(_perform, profile, operation, seed), clock=clock)
    except ServeError as error:
        return Account(Performance(operation, trouble=str(error)))
    return Account(performance, ("fakenbd", operation), told, perf_counter() - began)


async def _perform(profile: Profile, operation: Operation, seed: int) -> tuple[Performance, str]:
    async with open_server(profile, endpoints=[], seed=seed) as server:
        performance = await _exercised(server, profile, operation)
        # Goodbyes may be on their way still, and are part of the client's conduct.
        await trio.testing.wait_all_tasks_blocked()
        entries = server.journal.entries()
    told = conduct(server, profile, operation)
    return attrs.evolve(performance, conduct=told), excerpt(entries)


async def _exercised(server: Server, profile: Profile, operation: Operation) -> Performance:
    async def connect() -> Target:
        try:
            return server.connect()
        except ConnectionRefusedError as error:
            raise LostError(f"cannot connect: {error}") from error

    with trio.CancelScope() as scope:
        witness = Witness(server.export.size, scope.cancel)
        server.journal.attach(witness)
        try:
            facts = Facts.of(profile, server.export)
            outcome = await exercise(operation, connect, facts, tls=_tls(server, profile))
            return _performance(outcome)
        except Exception as error:
            return Performance(operation, status=None, crash=_crash(error))
    return Performance(operation, status=None, stopped="storm", stop_reason=witness.storm)


def _tls(server: Server, profile: Profile) -> TLS | None:
    if server.security is None or profile.tls_policy == "off":
        return None
    return TLS(profile.tls_policy, server.security.ca_file, hostname="localhost")


def _performance(outcome: Outcome) -> Performance:
    said = str(outcome)
    if outcome.result == "hung":
        return Performance(
            outcome.operation, None, stopped="time", stop_reason=outcome.detail, output=said
        )
    if outcome.result == "failed":
        error = f"{type(outcome.error).__name__}: {outcome.error}"
        return Performance(outcome.operation, 1, output=said, errors=error)
    wrong = outcome.detail if outcome.result == "wrong-data" else ""
    return Performance(outcome.operation, output=said, wrong=wrong)


def _crash(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    place = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"it raised {type(error).__name__}: {error} "
        f"({Path(place.filename).name}, line {place.lineno}, in {place.name})"
    )
