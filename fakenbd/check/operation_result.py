"""The result of one operation of a client.

There is one type. The process or the reference client fills in how the client ended, the result
checks what is wrong, the journal what went over the wire; verdict and report read it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

from fakenbd.errors import FakenbdError

__all__ = ["Breach", "OperationResult", "Stop", "WireSummary"]

Stop: TypeAlias = Literal["", "time", "memory", "storm"]
"""Why a client was stopped before it ended by itself."""


@attrs.frozen
class Breach:
    """An obligation that the client broke: `level` is MUST, SHOULD or advisory."""

    rule: str
    level: str
    sentence: str


@attrs.frozen
class WireSummary:
    """The journal of one operation, summarised.

    `fired` counts how often faults fired, `unfired` has a sentence for each that never did;
    `standing`: there are no faults, because the export or the handshake itself is wrong. `asked`:
    the client asked for what the operation is about, if the server offered it. `quit` are
    connections that the client dropped to make another, although the server had broken no MUST on
    them. `failures` are errors of the server itself.
    """

    connections: int = 0
    fired: int = 0
    unfired: tuple[str, ...] = ()
    standing: bool = True
    asked: bool = True
    breaches: tuple[Breach, ...] = ()
    quit: tuple[int, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def reached(self) -> bool:
        """Whether the client met what the case is about."""
        return self.asked if self.standing else self.fired > 0


@attrs.frozen
class OperationResult:
    """One operation as one client performed it, with `command`, in `seconds`.

    `status` is the exit status, or `signal` what killed it; `stopped` is why the harness stopped
    it, in the words of `stop_reason`. `output` and `errors` are what it wrote. `wrong` is how the
    result differs from what it must be, `crash` how it crashed without a signal. `incapable` is why
    the client cannot do this at all, `harness_error` an error of the harness. `exception` is what
    the reference client failed with. `transcript` shows the messages around the first fault that
    fired, or the first breach.
    """

    operation: str = ""
    status: int | None = 0
    signal: int | None = None
    stopped: Stop = ""
    stop_reason: str = ""
    output: str = ""
    errors: str = ""
    wrong: str = ""
    crash: str = ""
    incapable: str = ""
    harness_error: str = ""
    exception: FakenbdError | None = None
    command: tuple[str, ...] = ()
    seconds: float = 0.0
    wire: WireSummary = attrs.field(factory=WireSummary)
    transcript: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether it reported success."""
        return self.status == 0 and not self.stopped

    @property
    def ended(self) -> str:
        """How it ended, in a few words."""
        if self.incapable:
            return f"not tried: {self.incapable}"
        if self.stopped:
            return self.stop_reason
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        return self.crash or f"exit status {self.status}"
