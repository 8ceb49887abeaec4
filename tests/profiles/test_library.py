"""Every profile of the library, played to the reference client: it does what it promises to do."""

from __future__ import annotations

import pytest

from fakenbd.errors import ProfileError
from fakenbd.profile import find, library
from tests.profiles.playing import Play, play


def is_in_clear(profile_id: str) -> bool:
    try:
        return find(profile_id).handshake.tls == "off"
    except ProfileError:
        return True  # the test of that profile tells what is wrong with it


PROFILES = [profile_id for profile_id in library() if is_in_clear(profile_id)]

UNREACHED = {
    "quirks/large-trim-fails": "the reference client never asks for more than 1 GiB at a time",
}
"""Profiles whose faults the reference client has no way to meet."""

POLITE = ("DISC", "ABORT")


def expected_outcome(played: Play) -> str:
    results = {outcome.result for outcome in played.outcomes}
    if results & {"wrong-data", "hung"}:
        return "the client neither failed cleanly nor did what it was asked"
    failed = "failed" in results
    expected = played.profile.expect.outcome
    if expected == "succeeds" and failed:
        return "the client must cope, and did not"
    if expected == "fails" and not failed:
        return "the client must fail, and did not"
    return ""


def expected_strikes(played: Play) -> str:
    if bool(played.unfired) != (played.profile.id in UNREACHED):
        return "a fault never struck" if played.unfired else "its fault struck after all"
    return ""


def continues(played: Play) -> bool:
    return all(
        played.ends[connection].by == "client"
        and played.ends[connection].how in POLITE
        and played.heard_after(connection)
        for connection in played.struck
    )


def disconnects(played: Play) -> bool:
    return any(
        played.ends[connection].by == "client" and played.ends[connection].how not in POLITE
        for connection in played.struck
    )


def soft_disconnects(played: Play) -> bool:
    return all(played.ends[connection].how in POLITE for connection in played.struck)


def reconnects(played: Play) -> bool:
    return max(played.ends) > min(played.struck)


SESSIONS = {
    "continues": continues,
    "disconnects": disconnects,
    "soft-disconnects": soft_disconnects,
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


CHECKS = (expected_outcome, no_bugs, expected_strikes, no_violations, expected_session)


@pytest.mark.trio
@pytest.mark.parametrize("profile_id", PROFILES)
async def test_a_profile_does_what_it_promises(profile_id, autojump_clock):
    played = await play(find(profile_id))
    complaints = [complaint for check in CHECKS if (complaint := check(played))]
    assert not complaints, played.told("; ".join(complaints))
