"""A client that comes back: what is sent again, what is not, and how long it takes at most."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakenbd.client import ResilientClient, RetryPolicy, Timeouts
from fakenbd.errors import (
    CommandError,
    ConnectionLostError,
    DeadlineExceededError,
    ProtocolError,
    SessionChangedError,
    ShutdownError,
)
from fakenbd.journal import Received
from fakenbd.protocol.messages import Request
from fakenbd.server import open_server
from tests.client.scripted import Script, answer, content

PATIENCE = Timeouts(connect=1, greeting=1, option=1, reply=2, stall=2, close=1)
POLICY = RetryPolicy(attempts=4, deadline=60, pause=0.1)


def source(server):
    async def connect():
        return server.connect()

    return connect


def asked(server, command):
    """How often the server was asked for something."""
    return sum(
        isinstance(entry, Received)
        and isinstance(entry.message, Request)
        and entry.message.command == command
        for entry in server.journal
    )


# --- the policy --------------------------------------------------------------------------------


def test_pauses_grow_to_a_limit_and_are_addressed():
    policy = RetryPolicy(pause=0.1, factor=2, longest=1.0, seed=7)
    pauses = [policy.before(attempt) for attempt in range(1, 9)]
    assert pauses == [RetryPolicy(pause=0.1, longest=1.0, seed=7).before(n) for n in range(1, 9)]
    assert pauses != [RetryPolicy(pause=0.1, longest=1.0, seed=8).before(n) for n in range(1, 9)]
    assert pauses[0] == 0
    for pause, whole in zip(pauses[1:], (0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0), strict=True):
        assert whole / 2 <= pause <= whole
    assert policy.before(1_000_000) <= 1.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("attempts", 0, "'attempts' must be >= 1: 0"),
        ("deadline", 0, "'deadline' must be > 0: 0"),
        ("factor", 0.5, "'factor' must be >= 1: 0.5"),
    ],
)
def test_impossible_policy(field, value, message):
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**{field: value})


# --- what is sent again ------------------------------------------------------------------------

CALLS = {
    "read": (0, lambda client: client.read(0, 4096)),
    "write": (1, lambda client: client.write(0, b"x" * 4096)),
    "flush": (3, lambda client: client.flush()),
    "trim": (4, lambda client: client.trim(0, 4096)),
    "cache": (5, lambda client: client.cache(0, 4096)),
    "write-zeroes": (6, lambda client: client.zero(0, 4096)),
    "block-status": (7, lambda client: client.block_status_once(0, 4096)),
}
LOSSES = {
    "closed": lambda on: on.close(),
    "reset": lambda on: on.reset(),
    "cut in the reply": lambda on: on.cut(3),
    "silent": lambda on: on.stall(),
}


@pytest.mark.trio
@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("command", "call"), CALLS.values(), ids=CALLS)
async def test_sent_again_whole(autojump_clock, lose, command, call):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            lose(server.on(command=command, times=2))
            result = await call(client)
            assert client.reconnections == 2
            if command == 0:
                assert result == server.export.read(0, 4096)
        assert asked(server, command) == 3
        assert server.errors == []


@pytest.mark.trio
async def test_attempts_are_bounded(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read").close()
            with pytest.raises(ConnectionLostError, match="the server closed the connection"):
                await client.read(0, 512)
        assert asked(server, 0) == 4


@pytest.mark.trio
async def test_time_is_bounded(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        policy = RetryPolicy(attempts=1000, deadline=50)
        options = {"policy": policy, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read").stall()
            start = trio.current_time()
            with pytest.raises(DeadlineExceededError) as caught:
                await client.read(0, 512)
            assert trio.current_time() - start == pytest.approx(50)
            assert str(caught.value).startswith("the call was given up after 50 s: no whole reply")


@pytest.mark.trio
async def test_a_server_that_is_away_comes_back(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read", times=1).stop_listening(attempts=2)
            assert await client.read(0, 512) == server.export.read(0, 512)


@pytest.mark.trio
async def test_no_server_at_all(autojump_clock):
    tries = []

    async def nowhere():
        tries.append(trio.current_time())
        raise ConnectionRefusedError(111, "Connection refused")

    with pytest.raises(ConnectionLostError) as caught:
        async with ResilientClient.connect(nowhere, policy=POLICY):
            raise AssertionError("there is no session")
    assert str(caught.value) == "cannot connect: Connection refused"
    assert len(tries) == 4


@pytest.mark.trio
async def test_one_connection_for_all_who_wait(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read", nth=10).close()
            server.on("connect", times=1).refuse_connection()

            async def read(place):
                assert await client.read(place, 512) == server.export.read(place, 512)

            async with trio.open_nursery() as nursery:
                for number in range(32):
                    nursery.start_soon(read, number * 4096)
            assert client.reconnections == 1
        assert len({entry.connection for entry in server.journal if entry.connection}) == 3


@pytest.mark.trio
async def test_errors_that_the_server_answers_are_not_repeated(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read", times=1).error("EIO")
            with pytest.raises(CommandError, match="NBD_EIO"):
                await client.read(0, 512)
            assert asked(server, 0) == 1
            server.on("write", times=1).error("ESHUTDOWN")
            with pytest.raises(ShutdownError):
                await client.write(0, b"x")
            with pytest.raises(ShutdownError):
                await client.write(0, b"x")
            assert asked(server, 1) == 1
            assert client.reconnections == 0


@pytest.mark.trio
async def test_breaches_are_not_repeated(autojump_clock):
    async with open_server(size="1MiB", seed=1) as server:
        options = {"policy": POLICY, "timeout": PATIENCE}
        async with ResilientClient.connect(source(server), **options) as client:
            server.on("read").set(magic=0)
            for _ in range(2):
                with pytest.raises(ProtocolError, match="S-120"):
                    await client.read(0, 512)
            assert asked(server, 0) == 1


@pytest.mark.trio
async def test_a_server_that_came_back_with_less(autojump_clock):
    sessions = [{"size": 1 << 20}, {"size": 1 << 19, "flags": 3}, {"size": 1 << 20}]

    async def connect():
        ours, theirs = trio.testing.memory_stream_pair()
        nursery.start_soon(serve, Script(theirs), sessions.pop(0), len(sessions))
        return ours

    async def serve(server, handshake, left):
        await server.handshake(**handshake)
        if left == 2:
            await server.request()
            await server.stream.aclose()
        elif left == 1:
            await server.disconnect()
        else:
            await server.say(answer(await server.request()))
            await server.disconnect()

    async with trio.open_nursery() as nursery:
        async with ResilientClient.connect(connect, policy=POLICY) as client:
            with pytest.raises(SessionChangedError) as caught:
                await client.read(0, 512)
            assert caught.value.changes[:2] == (
                "the export shrank from 1048576 to 524288 bytes",
                "NBD_FLAG_SEND_FLUSH is gone",
            )
            assert caught.value.changes[-1] == "the export is read-only now"
            assert await client.read(0, 512) == content(0, 512)
            assert client.size == 1 << 20
