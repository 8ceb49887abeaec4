"""How far a connection is: every transition and every combination, allowed or refused."""

from __future__ import annotations

from itertools import product

import pytest

from fakenbd.conversation.phases import ALLOWED, PHASES, Phase, Receiving, Sending, Standing

# What each phase leads to, besides the end, which may come at any time.
LEADS_TO = {
    Phase.GREETING: {Phase.CLIENT_FLAGS, Phase.TRANSMISSION},
    Phase.CLIENT_FLAGS: {Phase.OPTIONS},
    Phase.OPTIONS: {Phase.TLS_HANDSHAKE, Phase.TRANSMISSION},
    Phase.TLS_HANDSHAKE: {Phase.OPTIONS},
    Phase.TRANSMISSION: set(),
    Phase.DISCONNECTING: set(),
}
ENDS = {Phase.DISCONNECTING, Phase.CLOSED}
TLS_OWN = {(Receiving.OPEN, Sending.OPEN), (Receiving.ENDED, Sending.OPEN)}


def is_step(before: Phase, after: Phase) -> bool:
    if before is after:
        return True
    if before in ENDS:
        return (before, after) == (Phase.DISCONNECTING, Phase.CLOSED)
    return after in LEADS_TO[before] | ENDS


def goes_together(phase: Phase, receiving: Receiving, sending: Sending) -> bool:
    if phase in ENDS:
        return True
    if phase is Phase.TLS_HANDSHAKE:
        return (receiving, sending) in TLS_OWN
    # Before the end nothing is thrown away, and the sending half is open.
    return receiving is not Receiving.DISCARDING and sending is not Sending.SHUT


def test_the_tables_know_every_phase() -> None:
    assert set(PHASES) == set(ALLOWED) == set(Phase)


@pytest.mark.parametrize(("before", "after"), list(product(Phase, Phase)))
def test_transition(before: Phase, after: Phase) -> None:
    standing = Standing(before)
    if is_step(before, after):
        standing.enter(after)
        assert standing.phase is after
        return
    with pytest.raises(ValueError, match=f"no way leads from {before.value} to {after.value}"):
        standing.enter(after)
    assert standing.phase is before


@pytest.mark.parametrize(
    ("phase", "receiving", "sending"), list(product(Phase, Receiving, Sending))
)
def test_combination(phase: Phase, receiving: Receiving, sending: Sending) -> None:
    def change() -> None:
        standing = Standing(phase)
        standing.receive(receiving)
        standing.send(sending)

    if goes_together(phase, receiving, sending):
        change()
        return
    with pytest.raises(ValueError, match="does not go with"):
        change()


@pytest.mark.parametrize(("receiving", "sending"), list(product(Receiving, Sending)))
def test_a_phase_cannot_be_entered_with_what_it_does_not_allow(
    receiving: Receiving, sending: Sending
) -> None:
    standing = Standing(Phase.OPTIONS, receiving, sending)
    if goes_together(Phase.TLS_HANDSHAKE, receiving, sending):
        standing.enter(Phase.TLS_HANDSHAKE)
        return
    with pytest.raises(ValueError, match="TLS handshake does not go with"):
        standing.enter(Phase.TLS_HANDSHAKE)


def test_what_has_ended_does_not_begin_again() -> None:
    standing = Standing(Phase.TRANSMISSION)
    standing.receive(Receiving.ENDED)
    standing.receive(Receiving.OPEN)
    standing.send(Sending.STALLED)
    standing.send(Sending.OPEN)
    assert (standing.receiving, standing.sending) == (Receiving.ENDED, Sending.STALLED)
