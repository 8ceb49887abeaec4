"""Every profile of the library, played to the reference client: it does what it promises to do."""

from __future__ import annotations

import pytest

from fakenbd.profile import find
from tests.profiles.playing import EVERY_PROFILE, Play, play

UNREACHED = {
    "quirks/contexts-outlive-their-export": "it selects contexts for the export that it opens",
}
"""Profiles whose faults a client that keeps the rules cannot trigger."""


def expected_outcome(played: Play) -> str:
    if played.is_broken:
        return "the client neither failed cleanly nor did what it was asked"
    expected = played.profile.expect.outcome
    if expected == "succeeds" and played.failed:
        return "the client must cope, and did not"
    if expected == "fails" and not played.failed:
        return "the client must fail, and did not"
    return ""


def expected_firings(played: Play) -> str:
    if bool(played.unfired) != (played.profile.id in UNREACHED):
        return "a fault never fired" if played.unfired else "its fault fired after all"
    return ""


def is_polite(played: Play, connection: int) -> bool:
    end = played.ends[connection]
    return end.by == "client" and end.how in ("DISC", "ABORT")


def leaves_politely(played: Play) -> bool:
    """That nothing else was asked after a shutdown is among the client's obligations."""
    return all(is_polite(played, connection) for connection in played.fired)


def disconnects(played: Play) -> bool:
    return any(
        played.ends[connection].by == "client" and not is_polite(played, connection)
        for connection in played.fired
    )


def reconnects(played: Play) -> bool:
    return bool(played.fired) and max(played.ends) > min(played.fired)


SESSIONS = {
    "continues": leaves_politely,
    "disconnects": disconnects,
    "soft-disconnects": leaves_politely,
    "reconnects": reconnects,
}


def expected_session(played: Play) -> str:
    session = played.profile.expect.session
    if session is None or SESSIONS[session](played):
        return ""
    return f"the journal does not agree that the session {session}"


def no_violations(played: Play) -> str:
    return "; ".join(played.violations)


def no_bugs(played: Play) -> str:
    return "; ".join(map(repr, played.errors))


CHECKS = (expected_outcome, no_bugs, expected_firings, no_violations, expected_session)


@pytest.mark.trio
@pytest.mark.parametrize("profile_id", EVERY_PROFILE)
async def test_a_profile_does_what_it_promises(profile_id, autojump_clock):
    profile = find(profile_id)
    assert bool(profile.expect.operations) == (profile_id not in UNREACHED)
    played = await play(profile)
    complaints = [complaint for check in CHECKS if (complaint := check(played))]
    assert not complaints, played.report("; ".join(complaints))
