"""A profile played to the reference client over connections in memory, where time costs nothing."""

from __future__ import annotations

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fakenbd import open_server
from fakenbd.check.operation_result import OperationResult
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.workload import run_workload
from fakenbd.client import TLS, RetryPolicy
from fakenbd.errors import ConnectionLostError
from fakenbd.journal import Closed, Connected, Entry, FaultFired, Violated
from fakenbd.journal.transcript import transcript
from fakenbd.profile import Profile, library
from fakenbd.server import Server

__all__ = ["EVERY_PROFILE", "ONE_OF_EACH_FAMILY", "Play", "play", "security"]

SHOWN = 60
SOAK = pytest.mark.soak
_SLOW = {
    "limits/a-million-extents",
    "limits/contexts-without-end",
    "limits/infos-without-end",
    "limits/thirty-mebibytes-of-extents",
    "options/no-final-reply@endless-exports",
    "options/no-final-reply@endless-information",
    "reads/in-pieces@1",
    "reads/unaligned-pieces@7",
    "timing/replies-dribble@1",
    "timing/replies-dribble@3",
}
"""Seconds of processor time each; a shorter one beside each of them is not slow."""

EVERY_PROFILE = [pytest.param(name, marks=[SOAK] if name in _SLOW else []) for name in library()]
"""The ids of all profiles, as the values of a parameter."""

_FAMILIES = {name.partition("@")[0]: name for name in reversed(list(library()))}

ONE_OF_EACH_FAMILY = [
    param if param.values[0] in _FAMILIES.values() else pytest.param(*param.values, marks=SOAK)
    for param in EVERY_PROFILE
]
"""The same; all but the first member of each family are soak."""


@attrs.frozen
class Play:
    """What came of each operation, and what the journal holds of it."""

    profile: Profile
    outcomes: tuple[OperationResult, ...]
    journal: tuple[Entry, ...]
    unfired: tuple[str, ...]
    errors: tuple[BaseException, ...]

    def report(self, complaint: str) -> str:
        """A complaint with all that one needs to look into it."""
        lines = [
            f"{self.profile.id}: {complaint}",
            *(f"  {outcome.output}" for outcome in self.outcomes),
            *(f"  {sentence}" for sentence in self.unfired),
        ]
        return "\n".join([*lines, transcript(self.journal, limit=SHOWN)])

    @property
    def is_broken(self) -> bool:
        """Whether an operation did not end, or gave a wrong result."""
        return any(outcome.stopped or outcome.wrong for outcome in self.outcomes)

    @property
    def failed(self) -> bool:
        """Whether an operation ended with an error."""
        return not all(outcome.succeeded for outcome in self.outcomes)

    @property
    def ends(self) -> dict[int, Closed]:
        """How each connection ended, by its number."""
        return {
            entry.connection: entry
            for entry in self.journal
            if isinstance(entry, Closed) and entry.connection is not None
        }

    @property
    def fired(self) -> set[int]:
        """The connections on which a fault fired; all of them, where there are no faults."""
        kind = FaultFired if self.profile.faults else Connected
        return {
            entry.connection
            for entry in self.journal
            if isinstance(entry, kind) and entry.connection is not None
        }

    @property
    def violations(self) -> list[str]:
        """What the client owed and did not do, as long as it owed anything."""
        if self.profile.breaks_must and not self.profile.faults:
            return []
        return [
            f"{entry.rule}: {entry.sentence}"
            for entry in self.journal
            if isinstance(entry, Violated) and entry.level == "MUST"
        ]


def security(server: Server, profile: Profile) -> TLS | None:
    """How a client that trusts the server protects its connections, where the profile wants it."""
    if server.security is None or profile.tls_policy == "off":
        return None
    return TLS(profile.tls_policy, server.security.ca_file, hostname="localhost")


async def play(profile: Profile, *, policy: RetryPolicy | None = None) -> Play:
    """Let the reference client do what `profile` wants to be exercised by, one by one.

    With a `policy` it is the client that comes back.
    """
    async with open_server(profile, endpoints=(), seed=1) as server:

        async def connect() -> trio.abc.Stream:
            try:
                return server.connect()
            except ConnectionRefusedError as error:
                raise ConnectionLostError(str(error)) from error

        tls = security(server, profile)
        ground_truth = GroundTruth.of(profile, server.export)
        outcomes = []
        for operation in profile.expect.operations:
            outcomes.append(
                await run_workload(operation, connect, ground_truth, tls=tls, policy=policy)
            )
            # The server hears of the client's end before the next one begins.
            await wait_all_tasks_blocked()
        return Play(
            profile,
            tuple(outcomes),
            tuple(server.journal),
            tuple(server.unfired()),
            tuple(server.errors),
        )
