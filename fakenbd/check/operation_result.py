"""What one operation of a client came to.

There is one type. The process or the reference client fills in how the client ended, the checks of
its work what is wrong with it, the journal what went over the wire; verdict and report read it.
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
    """What the journal knows of one operation.

    `fired` counts how often faults fired, `unfired` has a sentence for each that never did;
    `standing` says that there are no faults, because the export or the handshake is what is wrong.
    `asked` says whether the client asked for what the operation is about, if the server offered it.
    `quit` are connections that the client dropped to make another, although the server had broken
    no MUST on them. `failures` are the server's own.
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

    `status` is the exit status, or `signal` what killed it; `stopped` why we did, in the words of
    `stop_reason`. `output` and `errors` are what it wrote. `wrong` says how the result differs from
    what it must be, `crash` how it broke down where no signal tells. `incapable` says why the
    client cannot do this at all, `harness_error` what went wrong on our side. `exception` is what
    the reference client failed with. `transcript` shows the conversation around the first fault
    that fired, or the first breach.
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
