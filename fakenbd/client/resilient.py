"""A client with retries: reconnects after a lost connection, and repeats the calls on it.

A call is repeated whole, at most as often as the policy allows: every command is idempotent. There
are bounds on the attempts, on the pauses between them (longer each time, with jitter from seed and
attempt alone, so that two runs have the same pauses), and on the time for one call in all.

A new connection is negotiated again: TLS, form of replies, contexts. Before it is used it is
compared with the first one; if the server offers less than before, SessionChangedError is raised.
Breaches of the protocol, refusals, error replies and ESHUTDOWN are not retried.

Writes that a server acknowledged but had not flushed when the connection was lost may be lost.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import attrs
import trio

from fakenbd.client.channel import Timeouts
from fakenbd.client.client import Client
from fakenbd.client.export_info import changes
from fakenbd.client.forwarding import ForwardingDevice
from fakenbd.client.noncompliance import LIMIT, Noncompliance
from fakenbd.client.target import Source, background, fresh
from fakenbd.errors import ConnectionLostError, DeadlineExceededError, SessionChangedError
from fakenbd.protocol.constants import Command
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["ResilientClient", "RetryPolicy"]

_T = TypeVar("_T")


@attrs.frozen
class RetryPolicy:
    """How often to repeat a call. `attempts` includes the first one; times are in seconds.

    `deadline` is for one call in all. The pause before attempt n is `pause` times `factor` to the
    power of n - 2, at most `longest`, times a random number from 1/2 to 1.
    """

    attempts: int = attrs.field(default=8, validator=attrs.validators.ge(1))
    deadline: float = attrs.field(default=300.0, validator=attrs.validators.gt(0))
    pause: float = attrs.field(default=0.1, validator=attrs.validators.ge(0))
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    longest: float = attrs.field(default=10.0, validator=attrs.validators.ge(0))
    seed: int = 0

    def before(self, attempt: int) -> float:
        """Seconds to wait before an attempt, counted from 1."""
        if attempt < 2:
            return 0.0
        # The exponent is bounded: a float does not hold 2 to the power of a million attempts.
        whole = min(self.pause * self.factor ** min(attempt - 2, 64), self.longest)
        return whole * Random(f"{self.seed}/{attempt}").uniform(0.5, 1.0)

    async def persist(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """The result of `call`, which is repeated after a ConnectionLostError."""
        last: ConnectionLostError | None = None
        with trio.move_on_after(self.deadline):
            for attempt in range(1, self.attempts + 1):
                await trio.sleep(self.before(attempt))
                try:
                    return await call()
                except ConnectionLostError as error:
                    last = error
            assert last is not None, "only a lost connection ends an attempt"
            raise last
        message = f"the call was given up after {self.deadline:g} s"
        raise DeadlineExceededError(f"{message}: {last}" if last is not None else message)


@attrs.define(eq=False)
class ResilientClient(ForwardingDevice):
    """An export over one connection at a time. `ResilientClient.connect` makes one."""

    policy: RetryPolicy
    _connect: Callable[[], Any]
    _nursery: trio.Nursery
    _first: NegotiatedState | None = None
    _contexts: tuple[str, ...] = ()
    _current: Client | None = None
    _lock: trio.Lock = attrs.field(factory=trio.Lock)
    _notes: list[Noncompliance] = attrs.field(factory=list)
    _rounds: int = 0
    _unreachable: ConnectionLostError | None = None
    reconnections: int = attrs.field(default=0, init=False)
    """The number of connections after the first."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, source: Source, *, policy: RetryPolicy | None = None, **options: Any
    ) -> AsyncIterator[ResilientClient]:
        """Connect as `Client.connect` does (`options` are for that), and again after a loss."""
        options["timeout"] = Timeouts.given(options.get("timeout"))

        @asynccontextmanager
        async def client() -> AsyncIterator[Client]:
            async with Client.connect(await fresh(source), **options) as connected:
                yield connected

        async with background() as nursery:
            resilient = cls(policy or RetryPolicy(), client, nursery)
            try:
                await resilient.policy.persist(resilient._connected)
                yield resilient
            finally:
                if resilient._current is not None:
                    await resilient._current.close()
                nursery.cancel_scope.cancel()

    # --- connections ---------------------------------------------------------------------------

    async def _perform(self, command: Command, call: Callable[[Client], Awaitable[_T]]) -> _T:
        """Make a call, and repeat it on new connections as the policy allows."""

        async def attempt() -> _T:
            return await call(await self._connected())

        return await self.policy.persist(attempt)

    async def _connected(self) -> Client:
        """The connection, or a new one if it was lost, made by one task for all."""
        round_seen = self._rounds
        async with self._lock:
            current = self._current
            if current is not None:
                failure = current.failure
                if failure is None:
                    return current
                if not isinstance(failure, ConnectionLostError):
                    raise copy.copy(failure)
                self._current = None
            if self._rounds != round_seen and self._unreachable is not None:
                # Another task tried while this one waited: one attempt counts for both.
                raise copy.copy(self._unreachable)
            self._rounds += 1
            self._unreachable = None
            try:
                client: Client = await self._nursery.start(self._serve)
            except ConnectionLostError as error:
                self._unreachable = error
                raise
            await self._compare(client)
            self._current = client
            return client

    async def _serve(self, *, task_status: trio.TaskStatus[Client]) -> None:
        async with self._connect() as client:
            task_status.started(client)
            await client.wait_closed()
            self._notes += client.notes[: LIMIT - len(self._notes)]

    async def _compare(self, client: Client) -> None:
        if self._first is None:
            self._first, self._contexts = client.negotiated, client.contexts
            return
        self.reconnections += 1
        found = changes(self._first, client.negotiated)
        if found:
            await client.close()
            raise SessionChangedError(found)

    # --- properties ----------------------------------------------------------------------------

    @property
    def negotiated(self) -> NegotiatedState:
        assert self._first is not None, "connect() returns when there was a session"
        return self._first

    @property
    def contexts(self) -> tuple[str, ...]:
        return self._contexts

    @property
    def notes(self) -> Sequence[Noncompliance]:
        current = self._current
        lasting = current is not None and current.failure is None
        return [*self._notes, *(current.notes if current is not None and lasting else ())]
