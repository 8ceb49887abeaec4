"""Every profile of the library, played to the client that comes back, and some over real sockets.

What a client must cope with, this one copes with too, and it keeps its obligations on every
connection that it makes. It may get through where a client of one connection must fail, but by
coming back and in no other way; and only a lost connection is a reason to come back: what fails
for another reason fails alike, and asks for no connection more.
"""

from __future__ import annotations

import pytest
import trio

from fakenbd import open_server
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.workload import run_workload
from fakenbd.client import RetryPolicy, Timeouts
from fakenbd.errors import ConnectionLostError
from fakenbd.journal import Connected
from fakenbd.profile import find, library
from tests.profiles.playing import ONE_OF_EACH_FAMILY, Play, play, security
from tests.profiles.test_library import expected_outcome, no_bugs, no_violations
from tests.profiles.test_peers import spread

POLICY = RetryPolicy()
SAMPLE = 6
TIMED = {"delay", "dribble", "hold", "rate", "stop-listening", "split"}
"""Kinds of faults that a client must sit out, which takes real time over a real socket."""


def connections(played: Play) -> int:
    return sum(isinstance(entry, Connected) for entry in played.journal)


def is_lost(played: Play) -> bool:
    """Whether a connection was lost: a call failed for it, or the server ended it unasked."""
    failed = any(isinstance(outcome.exception, ConnectionLostError) for outcome in played.outcomes)
    return failed or any(end.by == "server" for end in played.ends.values())


def outcome_is_good(played: Play, single: Play | None) -> str:
    if played.is_broken:
        return "the client neither failed cleanly nor did what it was asked"
    if single is None:
        return "the client must cope, and did not" if played.failed else ""
    if not played.failed and played.profile.expect.outcome == "fails":
        return "" if is_lost(single) else "the client must fail, and did not"
    return ""


def only_losses_are_repeated(played: Play, single: Play | None) -> str:
    if single is None or is_lost(single):
        return ""
    ours = [(outcome.status, type(outcome.exception)) for outcome in played.outcomes]
    theirs = [(outcome.status, type(outcome.exception)) for outcome in single.outcomes]
    if ours != theirs:
        outputs = ", ".join(outcome.output for outcome in single.outcomes)
        return f"over one connection it came to {outputs}"
    # Without a policy, what copies and writes opens a second connection at once.
    if connections(played) > connections(single):
        return f"{connections(played)} connections were made, {connections(single)} are enough"
    return ""


@pytest.mark.trio
@pytest.mark.parametrize("profile_id", ONE_OF_EACH_FAMILY)
async def test_the_client_that_comes_back(profile_id, autojump_clock):
    profile = find(profile_id)
    played = await play(profile, policy=POLICY)
    single = None if profile.expect.outcome == "succeeds" else await play(profile)
    complaints = (
        outcome_is_good(played, single),
        only_losses_are_repeated(played, single),
        no_bugs(played),
        no_violations(played),
    )
    assert not any(complaints), played.report("; ".join(filter(None, complaints)))


# --- over sockets ------------------------------------------------------------------------------


def sample() -> list[str]:
    """A few profiles of each folder that are over in no time."""
    folders: dict[str, list[str]] = {}
    for profile_id in library():
        kinds = {
            getattr(kind, "slug", "") for fault in find(profile_id).faults for kind in fault.do
        }
        if not kinds & TIMED:
            folders.setdefault(profile_id.partition("/")[0], []).append(profile_id)
    return [profile_id for ids in folders.values() for profile_id in spread(ids, SAMPLE)]


@pytest.mark.trio
@pytest.mark.parametrize("where", [{"tcp": "127.0.0.1:0"}, {"unix": "-"}], ids=["tcp", "unix"])
@pytest.mark.parametrize("profile_id", sample())
async def test_over_a_socket(profile_id, where):
    profile = find(profile_id)
    # Who must cope has all the time that it needs; who must not is not waited for.
    timeout = Timeouts() if profile.expect.outcome == "succeeds" else Timeouts.of(0.5)
    outcomes = []
    async with open_server(profile, seed=1, **where) as server:

        async def connect() -> str:
            return server.uri

        ground_truth = GroundTruth.of(profile, server.export)
        for operation in profile.expect.operations:
            with trio.fail_after(60):
                outcomes.append(
                    await run_workload(
                        operation,
                        connect,
                        ground_truth,
                        tls=security(server, profile),
                        timeout=timeout,
                    )
                )
    unfired = tuple(server.unfired())
    played = Play(profile, tuple(outcomes), tuple(server.journal), unfired, tuple(server.errors))
    complaints = [check(played) for check in (expected_outcome, no_bugs, no_violations)]
    assert not any(complaints), played.report("; ".join(filter(None, complaints)))
