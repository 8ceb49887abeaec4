"""A request that waits for its reply, and the wakeup of a sleeping task.

Both wake one task directly: an event with a set of waiters costs more than parsing the reply.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import outcome
import trio

from fakenbd.client.reassembly import PlainReply, ReadReply, Reply
from fakenbd.protocol.constants import Command, CommandFlag

__all__ = ["Pending", "Wakeup"]


@attrs.define(eq=False)
class Wakeup:
    """Lets one task sleep until another one wakes it."""

    sleeper: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        self.sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._cancelled)

    def wake(self) -> None:
        if self.sleeper is not None:
            trio.lowlevel.reschedule(self.sleeper)
            self.sleeper = None

    def _cancelled(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        self.sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


class Pending:
    """A request in flight. `wait` returns its result; `target` takes the content of a READ."""

    __slots__ = (
        "command", "deadline", "flags", "length", "offset", "reply", "result", "target", "waiter",
    )  # fmt: skip

    def __init__(
        self,
        command: int,
        offset: int,
        length: int,
        flags: int,
        deadline: float,
        reply: Reply | None,
        target: memoryview | None,
    ) -> None:
        self.command = command
        self.offset = offset
        self.length = length
        self.flags = flags
        self.deadline = deadline
        self.reply = reply
        self.target = target
        self.result: outcome.Outcome[Any] | None = None
        self.waiter: trio.lowlevel.Task | None = None

    async def wait(self) -> Any:
        """Wait for the result: bytes (None with a target), extents, or None; raises its error."""
        if self.result is not None:
            await trio.lowlevel.checkpoint()
            return self.result.unwrap()
        self.waiter = trio.lowlevel.current_task()
        return await trio.lowlevel.wait_task_rescheduled(self._cancelled)

    def fill(self, result: outcome.Outcome[Any]) -> None:
        """Set the result, and wake the task that waits for it."""
        self.result = result
        if self.waiter is not None:
            trio.lowlevel.reschedule(self.waiter, result)
            self.waiter = None

    def gathered(self) -> Reply:
        """The reply so far; made when a chunk needs more than a copy."""
        if self.reply is None:
            self.reply = self._empty_reply()
        return self.reply

    def _empty_reply(self) -> Reply:
        if self.command != Command.READ:
            return PlainReply(command=self.command, offset=self.offset, length=self.length)
        single = bool(self.flags & CommandFlag.DF)
        if self.target is None:
            return ReadReply(offset=self.offset, length=self.length, single=single)
        return ReadReply(offset=self.offset, length=self.length, single=single, target=self.target)

    def _cancelled(self, _: Callable[[], None]) -> trio.lowlevel.Abort:
        self.waiter = None
        return trio.lowlevel.Abort.SUCCEEDED
