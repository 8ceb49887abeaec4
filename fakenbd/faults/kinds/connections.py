"""The connection as a whole: refused, not greeted, closed, reset, not read, or gone for a while."""

from __future__ import annotations

from typing import Any, cast

import attrs
from attrs.converters import optional

from fakenbd.faults.answer import (
    Answer,
    BeginShutdown,
    CeaseReading,
    CloseConnection,
    Ending,
    NeverSend,
    TakeListenerDown,
)
from fakenbd.faults.change_summary import counted, ended
from fakenbd.faults.event import Event
from fakenbd.faults.firing import Firing
from fakenbd.faults.readers import boolean, byte_size, duration, one_of, positive
from fakenbd.faults.refusal import error_answer, refusal_answer
from fakenbd.faults.registry import Kind, register
from fakenbd.protocol.constants import Error, Option, Reply

__all__ = [
    "Close",
    "NoGreeting",
    "RefuseConnection",
    "Reset",
    "Shutdown",
    "StopListening",
    "StopReading",
]


def _closing(value: Any) -> str:
    return one_of(value, ("close", "half-close", "truncate"))


def _aftermath(value: Any) -> str:
    return one_of(value, ("close", "reset", "answer"))


def _ended(answer: Answer, end: CloseConnection, after: bool) -> tuple[Answer, str]:
    """The answer and then its end, or the end alone with what else was to happen."""
    if after:
        changed = [*(step for step in answer if not isinstance(step, CloseConnection)), end]
    else:
        changed = [
            *(step for step in answer if isinstance(step, (TakeListenerDown, BeginShutdown))),
            end,
        ]
    return changed, ended(answer, changed)


@register("refuse-connection", family="connection", events=("connect",))
@attrs.frozen
class RefuseConnection(Kind):
    """Reset a connection as soon as it is accepted, before the greeting.

    To take the listener itself away, see `stop-listening`.

    Example: do = { refuse-connection = true }
    """

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return _ended(answer, CloseConnection("reset"), after=False)


@register(
    "no-greeting",
    family="connection",
    events=("connect", "greeting"),
    may_stall=True,
)
@attrs.frozen
class NoGreeting(Kind):
    """Accept the connection and never greet.

    Example: do = { no-greeting = true }
    """

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        changed: Answer = [NeverSend()]
        return changed, ended(answer, changed)


@register("close", family="connection")
@attrs.frozen
class Close(Kind):
    """End the connection in an orderly way, instead of the answer or after it.

    Example: do = { close = true, after = true, reading = "64KiB" }

    after: whether the answer leaves first (default false)
    reading: bytes of the client's that are taken, and thrown away, before the end (default 0)
    how: "close", "half-close" (sending only) or "truncate" (no close_notify) (default "close")
    """

    after: bool = attrs.field(default=False, converter=boolean)
    reading: int = attrs.field(default=0, converter=byte_size)
    how: str = attrs.field(default="close", converter=_closing)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return _ended(answer, CloseConnection(cast(Ending, self.how), self.reading), self.after)


@register("reset", family="connection")
@attrs.frozen
class Reset(Kind):
    """End the connection by a reset (RST), instead of the answer or after it.

    Example: do = { reset = true }

    after: whether the answer leaves first (default false)
    reading: bytes of the client's that are taken, and thrown away, before the end (default 0)
    """

    after: bool = attrs.field(default=False, converter=boolean)
    reading: int = attrs.field(default=0, converter=byte_size)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return _ended(answer, CloseConnection("reset", self.reading), self.after)


@register("stop-reading", family="connection", may_stall=True)
@attrs.frozen
class StopReading(Kind):
    """Read nothing more from the client; the answer still leaves.

    Example: do = { stop-reading = true }
    """

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        return [CeaseReading(), *answer], "stopped reading"


@register("shutdown", family="connection", replaces=True, breaks_must=False)
@attrs.frozen
class Shutdown(Kind):
    """Shut down: this request and all that follow on the connection fail.

    Commands get NBD_ESHUTDOWN and options NBD_REP_ERR_SHUTDOWN; neither has any effect.
    NBD_OPT_EXPORT_NAME, which has no error reply, ends the connection. NBD_OPT_ABORT, a connect
    and a greeting are answered as ever.

    Example: do = { shutdown = true }

    effect: perform this command, or follow this option, before it is failed (default false)
    """

    effect: bool = attrs.field(default=False, converter=boolean)

    def keeps_effect(self, event: Event) -> bool:
        is_exempt = event.request is None and event.option in (None, Option.ABORT)
        return self.effect or is_exempt

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        event = firing.event
        if event.request is not None:
            failure = error_answer(
                event.request,
                Error.ESHUTDOWN,
                structured=event.structured,
                extended=event.extended,
            )
            return [BeginShutdown(), *failure], "shut down: NBD_ESHUTDOWN"
        if event.option == Option.EXPORT_NAME:
            return [BeginShutdown(), CloseConnection()], "shut down: closed"
        if event.option not in (None, Option.ABORT):
            refusal = refusal_answer(event.option, Reply.ERR_SHUTDOWN)
            return [BeginShutdown(), *refusal], "shut down: NBD_REP_ERR_SHUTDOWN"
        return [BeginShutdown(), *answer], "shut down"


@register("stop-listening", family="connection", main="attempts")
@attrs.frozen
class StopListening(Kind):
    """Take the listener away: new connections are refused for a while. This one ends, too.

    Example: do = { stop-listening = 2, then = "reset" }

    attempts: how many connection attempts fail (default nothing)
    seconds: for how long connection attempts fail (default nothing)
    then: "close" or "reset" this connection, or "answer" to let it live (default "close")
    """

    attempts: int | None = attrs.field(default=None, converter=optional(positive))
    seconds: float | None = attrs.field(default=None, converter=optional(duration))
    then: str = attrs.field(default="close", converter=_aftermath)

    def __attrs_post_init__(self) -> None:
        if (self.attempts is None) == (self.seconds is None):
            raise ValueError("expected either attempts or seconds")

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        away = TakeListenerDown(self.attempts, self.seconds)
        how_long = (
            f"{self.seconds:g} s" if self.attempts is None else counted(self.attempts, "attempt")
        )
        note = f"took the listener away for {how_long}"
        if self.then == "answer":
            return [away, *answer], note
        end = CloseConnection(cast(Ending, self.then))
        return [away, end], f"{note}; {ended(answer, [end])}"
