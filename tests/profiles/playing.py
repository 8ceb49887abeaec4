"""A profile played to the reference client over connections in memory, where time costs nothing."""

from __future__ import annotations

import attrs
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
from fakenbd.profile import Profile
from fakenbd.server import Server

__all__ = ["Play", "play", "security"]

SHOWN = 60


@attrs.frozen
class Play:
    """What came of each operation, and what the journal holds of it."""

    profile: Profile
    outcomes: tuple[OperationResult, ...]
    journal: tuple[Entry, ...]
    unfired: tuple[str, ...]
    errors: tuple[BaseException, ...]

    def told(self, complaint: str) -> str:
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
