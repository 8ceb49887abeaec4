"""Bytes of either side that are not what they should be: never an exception, nor another finding.

What is found does not depend on how the bytes are split, whatever they are, and the state of an
Observer stays bounded.
"""

from __future__ import annotations

from random import Random

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenbd.obligations import Gap, Observer, Start
from tests.obligations.recorder import Closed, Recording, Sent, TLSStarted
from tests.obligations.test_twins import RECORDINGS

_MOST = 20_000
SMALL = [
    recording
    for recording in RECORDINGS
    if sum(len(step.data) for _, step in recording.steps if isinstance(step, Sent)) < _MOST
]


@attrs.frozen
class Bytes:
    side: str
    data: bytes


def corrupted(recording: Recording, random: Random) -> list[Bytes | TLSStarted | Closed]:
    """The steps of the first connection, from one of them on with some bytes changed."""
    steps: list[Bytes | TLSStarted | Closed] = []
    first = random.randrange(len(recording.steps))
    for number, (connection, step) in enumerate(recording.steps):
        if connection != 1:
            continue
        if not isinstance(step, Sent):
            steps.append(step)
            continue
        data = bytearray(step.data)
        if number < first:
            steps.append(Bytes(step.side, step.data))
            continue
        for _ in range(random.choice((0, 0, 1, 3))):
            at = random.randrange(len(data) + 1)
            change = random.randrange(4)
            if change == 0:
                data[at:at] = random.randbytes(random.choice((1, 4, 40)))
            elif change == 1:
                del data[at : at + random.choice((1, 4, 40))]
            elif at < len(data):
                data[at] = random.choice((0, 1, 0xFF, random.randrange(256)))
        steps.append(Bytes(step.side, bytes(data)))
    return steps


def found(steps, pieces, start: Start = Start.GREETING):
    observer = Observer(start)
    findings = []
    for step in steps:
        if isinstance(step, Bytes):
            show = observer.client_sent if step.side == "client" else observer.server_sent
            for piece in pieces(step.data):
                findings += show(piece, 0)
        elif isinstance(step, TLSStarted):
            findings += observer.tls_started(step.version, 0)
        elif isinstance(step, Closed):
            closed = observer.client_closed if step.side == "client" else observer.server_closed
            findings += closed(step.how, 0)
    assert len(observer._client.head) <= (1 << 18) + 16
    assert len(observer._server.head) <= (1 << 20) + 32
    return findings, observer.client_offset, observer.server_offset


def whole(data: bytes) -> list[bytes]:
    return [data]


def single(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("start", Start)
@pytest.mark.parametrize("seed", range(150))
def test_garbled_conversations(seed: int, start: Start) -> None:
    random = Random(seed)
    steps = corrupted(random.choice(SMALL), random)
    expected = found(steps, whole, start)
    assert found(steps, single, start) == expected

    def halves(data: bytes) -> list[bytes]:
        at = random.randrange(len(data) + 1)
        return [data[:at], data[at:]]

    assert found(steps, halves, start) == expected


@pytest.mark.parametrize("seed", range(100))
def test_conversations_with_gaps(seed: int) -> None:
    random = Random(seed)
    steps = corrupted(random.choice(SMALL), random)

    def holed(data: bytes) -> list[bytes | Gap]:
        at = random.randrange(len(data) + 1)
        size = min(random.choice((0, 0, 1, 30, 1000)), len(data) - at)
        return [data[:at], Gap(size), data[at + size :]]

    findings, client, server = found(steps, holed)
    sent = {
        side: sum(len(step.data) for step in steps if isinstance(step, Bytes) and step.side == side)
        for side in ("client", "server")
    }
    assert (client, server) == (sent["client"], sent["server"])
    assert all(finding.sentence for finding in findings)


@given(st.lists(st.tuples(st.sampled_from(("client", "server")), st.binary(max_size=80))))
def test_any_bytes_at_all(sent: list[tuple[str, bytes]]) -> None:
    steps = [Bytes(side, data) for side, data in sent]
    assert found(steps, whole) == found(steps, single)
