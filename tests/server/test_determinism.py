"""The same seed and the same client: the same bytes, whatever the scheduler does."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakenbd import open_server
from fakenbd.faults import parse_fault
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake

MISCHIEF = [
    {
        "when": {"command": "read", "chance": 0.5},
        "do": [{"split": 300}, {"shuffle": "each"}, {"delay": 0.01, "jitter": 5.0, "at": "each"}],
    },
    {"when": {"command": "read", "chance": 0.3}, "do": {"corrupt": 3, "count": 2}, "also": True},
    {"when": {"command": "read", "every": 5}, "do": {"hold": 3}},
    {"when": {"command": "write", "chance": 0.4}, "do": {"error": "EIO"}},
    {"when": {"command": "flush", "nth": 3, "per": "connection"}, "do": {"repeat": 2}},
]
"""Whatever depends on a server's count of events is left out: clients race for that."""


def monologue() -> bytes:
    """What a client says that does not listen."""
    sent = [handshake(structured=True)]
    for place in range(1, 61):
        sent.append(encode(Request(Command.READ, place, 512 * place, 1024)))
        if place % 3 == 0:
            sent.append(encode(Request(Command.WRITE, 1000 + place, 0, 5, 0, b"hello")))
        if place % 10 == 0:
            sent.append(encode(Request(Command.FLUSH, 2000 + place)))
    sent.append(encode(Request(Command.DISC, 9)))
    return b"".join(sent)


async def listen(stream: trio.abc.Stream, received: bytearray) -> None:
    """Say it all, and keep what is answered until the server ends the connection."""
    await stream.send_all(monologue())
    while data := await stream.receive_some():
        received += data


def output(clients: int, seed: int) -> list[bytes]:
    """All that a server says to so many clients, in a run of its own."""

    async def main() -> list[bytes]:
        per_connection = [
            parse_fault(each | {"when": {"per": "connection"} | each["when"]}) for each in MISCHIEF
        ]
        received = [bytearray() for _ in range(clients)]
        async with open_server(
            size="1MiB", endpoints=(), faults=per_connection, seed=seed
        ) as server:
            async with trio.open_nursery() as nursery:
                for each in received:
                    nursery.start_soon(listen, server.connect(), each)
            assert server.errors == []
            assert server.unfired() == []
        return [bytes(each) for each in received]

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_the_same_seed_says_the_same_bytes() -> None:
    first = output(1, seed=7)
    assert len(first[0]) > 60 * 1024
    for _ in range(19):
        assert output(1, seed=7) == first
    assert output(1, seed=8) != first


def test_the_same_seed_says_the_same_bytes_to_each_of_many() -> None:
    first = output(5, seed=7)
    assert len(set(first)) == 5
    for _ in range(4):
        assert output(5, seed=7) == first


@pytest.mark.parametrize("name", ["reads/in-random-order", "timing/replies-come-when-they-like"])
def test_a_profile_says_the_same_bytes_twenty_times(name: str) -> None:
    async def main(seed: int) -> bytes:
        received = bytearray()
        async with open_server(name, endpoints=(), seed=seed) as server:
            await listen(server.connect(), received)
            assert server.fired() > 1
        return bytes(received)

    def run(seed: int) -> bytes:
        return trio.run(main, seed, clock=trio.testing.MockClock(autojump_threshold=0))

    first = run(7)
    assert all(run(7) == first for _ in range(19))
    assert run(8) != first
