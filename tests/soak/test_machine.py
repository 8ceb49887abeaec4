"""The protocol machine takes anything: it answers or ends, and never costs more than it was told.

No sockets here: each conversation is fed to a machine of its own, in pieces.
"""

from __future__ import annotations

import tracemalloc
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenbd.export import Export
from fakenbd.journal import Closed
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    ClientFlags,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
    RawBody,
    Request,
)
from tests.conversation.talk import Talk, handshake
from tests.soak.mutations import RECORDINGS, mutants
from tests.soak.traces import MIB, no_traces

SIZE = 1 << 16


def server() -> Talk:
    return Talk([Export(size=SIZE)], options={"limit": 1000, "payload_limit": MIB})


def once_more(talk: Talk, said: bytes, random: Random) -> None:
    """A new connection that says this, in up to three pieces, and leaves."""
    talk.markers.clear()
    talk.answers.clear()
    talk.connect()
    cuts = [random.randrange(len(said) + 1) for _ in range(random.randrange(3))]
    talk.say(said, cuts)
    talk.leave()


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recorded_conversation_is_understood(name: str) -> None:
    talk = server()
    talk.say(RECORDINGS[name])
    talk.leave()
    # Said all at once it is less polite than it was, but it is still a whole conversation.
    assert len(talk.answers) > 100
    (end,) = [entry for entry in talk.journal if isinstance(entry, Closed)]
    assert (end.by, end.how) in {("client", "DISC"), ("client", "ABORT"), ("client", "EOF")}


@pytest.mark.parametrize(
    "count",
    [
        3000,
        pytest.param(200_000, marks=pytest.mark.soak),
        pytest.param(1_000_000, marks=pytest.mark.endurance),
    ],
    ids=["short", "soak", "endurance"],
)
def test_mutated_conversations(count: int) -> None:
    talk, random = server(), Random(2)
    for said in mutants(200, seed=0):
        once_more(talk, said, random)
    with no_traces():
        for said in mutants(count, seed=1):
            once_more(talk, said, random)
            # A recording asks for less than 200 KiB; a mutation may repeat a request 20 times.
            assert len(talk.answers) < 8 * MIB


numbers = st.one_of(
    st.sampled_from([0, 1, 3, 511, 512, 4096, SIZE, 1 << 25, 1 << 26, (1 << 32) - 1, 1 << 32]),
    st.sampled_from([(1 << 63) - 1, 1 << 63, (1 << 64) - 512, (1 << 64) - 1]),
    st.integers(0, (1 << 64) - 1),
)
small = st.one_of(st.integers(0, 12), st.integers(0, (1 << 32) - 1))
texts = st.text(max_size=40)
bodies = st.one_of(
    st.builds(RawBody, st.binary(max_size=60)),
    st.builds(ExportName, texts),
    st.builds(InfoQuery, texts, st.lists(st.integers(0, 65535), max_size=6), small, small),
    st.builds(MetaContextQuery, texts, st.lists(texts, max_size=4)),
)
lengths = st.one_of(st.none(), small)
requests = st.builds(
    lambda command, cookie, offset, length, flags, payload, extended: Request(
        command,
        cookie,
        offset,
        length if extended else length & 0xFFFFFFFF,
        flags,
        payload,
        extended=extended,
    ),
    st.one_of(st.integers(0, 9), st.integers(0, 65535)),
    st.integers(0, 5),
    numbers,
    numbers,
    st.one_of(st.just(0), st.integers(0, 65535)),
    st.binary(max_size=600),
    st.booleans(),
)
greetings = st.one_of(
    st.builds(ClientFlags, small).map(encode),
    st.booleans().map(lambda structured: handshake(structured=structured)),
)
options = st.builds(OptionRequest, small, bodies, lengths).map(encode)


@pytest.mark.parametrize(
    "examples",
    [
        200,
        pytest.param(4_000, marks=pytest.mark.soak),
        pytest.param(20_000, marks=pytest.mark.endurance),
    ],
    ids=["short", "soak", "endurance"],
)
def test_messages_of_any_content(examples: int) -> None:
    @settings(max_examples=examples)
    @given(
        greetings,
        st.lists(st.one_of(options, requests.map(encode)), max_size=8),
        st.randoms(use_true_random=False),
    )
    def check(greeting: bytes, messages: list[bytes], random: Random) -> None:
        talk = server()
        once_more(talk, greeting + b"".join(messages), random)
        assert len(talk.answers) < 8 * MIB

    check()


HUGE = [1 << 32, (1 << 64) - 1]
LONG = [(1 << 32) - 1, 1 << 31]
STRUCTURED = handshake(structured=True, context="base:allocation")
SIMPLE = handshake()
EXTENDED = (
    encode(ClientFlags(3))
    + encode(OptionRequest(11))
    + encode(OptionRequest(10, MetaContextQuery("", ["base:allocation"])))
    + encode(OptionRequest(7, InfoQuery("", [3])))
)

FIELDS = {
    **{
        f"length of option {option}, {length}": encode(ClientFlags(3))
        + encode(OptionRequest(option, RawBody(b"abcd"), length=length))
        for option in [*range(1, 12), 99]
        for length in LONG
    },
    **{
        f"name length of option {option}, {length}": encode(ClientFlags(3))
        + encode(OptionRequest(option, InfoQuery("x", name_length=length)))
        for option in (6, 7)
        for length in LONG
    },
    **{
        f"counts of option 10, {length}": encode(ClientFlags(3))
        + encode(OptionRequest(8))
        + encode(OptionRequest(10, RawBody(b"\0\0\0\0" + length.to_bytes(4, "big") + b"abcd")))
        for length in LONG
    },
    **{
        f"{start} command {command}, offset {offset}, length {length}": greeting
        + encode(Request(command, 1, offset, length, extended=False))
        for start, greeting in (("simple", SIMPLE), ("structured", STRUCTURED))
        for command in range(9)
        for offset in (0, (1 << 64) - 1)
        for length in LONG
    },
    **{
        f"extended command {command}, offset {offset}, length {length}, flags {flags}": EXTENDED
        + encode(Request(command, 1, offset, length, flags, extended=True))
        for command in range(9)
        for offset in (0, *HUGE[1:])
        for length in (*LONG, *HUGE)
        for flags in (0, 32)
    },
    **{
        f"extended BLOCK_STATUS of {effect}": EXTENDED
        + encode(Request(7, 1, 0, 12, 32, effect.to_bytes(8, "big") + b"\0\0\0\1", extended=True))
        for effect in HUGE
    },
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_length_that_nobody_has(case: str) -> None:
    talk = server()
    talk.say(STRUCTURED + encode(Request(0, 1, 0, 4096)))
    talk.leave()
    tracemalloc.start()
    try:
        once_more(talk, FIELDS[case], Random(0))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB
    assert len(talk.answers) < SIZE


@pytest.mark.parametrize("seed", range(20))
def test_a_clock_that_jumps(seed: int) -> None:
    random = Random(seed)
    talk = Talk([Export(size=SIZE)])
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01
        return now + random.choice((0.0, 0.0, 0.0, -1.0, 1e9, -1e9))

    talk.shared.clock = talk.journal.clock = clock
    talk.faults.on("read", every=3).delay(0.25)
    talk.faults.on("read", every=5).hold(replies=2)
    talk.connect()
    talk.say(handshake(structured=True))
    talk.say(b"".join(encode(Request(0, cookie, 0, 512)) for cookie in range(100)))
    queue = talk.conversation.responder.queue
    for _ in range(10_000):
        if not queue.waits:
            break
        talk.conversation.advance()
        talk.collect()
    assert not queue.waits
    assert talk.journal.totals.sent >= 100
    talk.leave()
