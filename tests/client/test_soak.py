"""An image that is written over a server which fails all the time: nothing is lost, nothing leaks.

The server drops, resets, cuts, stalls and is away at addressed points, in the handshake and later;
several tasks write, zero and read each its own part. At the end the image is what was written, and
there are as many tasks and descriptors as before.
"""

from __future__ import annotations

import os
import random

import attrs
import pytest
import trio

from fakenbd.client import ResilientClient, RetryPolicy, Timeouts
from fakenbd.server import open_server

PART = 4096
PARTS = 16

ALWAYS = (
    lambda on: on.close(),
    lambda on: on.reset(after=True),
    lambda on: on.cut(-1),
    lambda on: on.stop_listening(attempts=2),
)
SLOW = (lambda on: on.cut(7, then="stall"), lambda on: on.delay(0.5))


@attrs.frozen
class Setting:
    """Where the soak takes place; what is slow is for a clock that jumps."""

    endpoints: dict[str, object]
    faults: tuple
    deadlines: Timeouts


SETTINGS = {
    "memory": Setting({"endpoints": ()}, ALWAYS + SLOW, Timeouts(1, 1, 1, 2, 2, 1)),
    "tcp": Setting({"tcp": "127.0.0.1:0"}, ALWAYS, Timeouts.of(60)),
    "unix": Setting({"unix": "-"}, ALWAYS, Timeouts.of(60)),
}


def held():
    """How many tasks and descriptors there are."""
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


async def soak(setting, rounds):
    """Write, zero and read over a server that fails; the number of times that it failed."""
    policy = RetryPolicy(attempts=100, deadline=10_000, pause=0.001, longest=0.01)
    async with open_server(
        size=PART * PARTS, content="zeros", seed=3, **setting.endpoints
    ) as server:

        async def connect():
            return server.connect() if not server.endpoints else server.uri

        async with ResilientClient.connect(
            connect, policy=policy, timeout=setting.deadlines
        ) as client:
            for lose in setting.faults:
                lose(server.on(chance=0.04))
            for option in ("go", "structured-reply", "extended-headers"):
                server.on(option=option, chance=0.05).cut(5)
            server.on("connect", chance=0.05).refuse_connection()
            server.on("greeting", chance=0.05).cut(9)
            image = bytearray(client.size)

            async def work(part):
                # Each worker has a part of its own: overlapping requests have no order.
                start, end = part * PART, (part + 1) * PART
                chance = random.Random(part)
                for number in range(rounds):
                    place = chance.randrange(start, end)
                    length = min(chance.randrange(1, 2000), end - place)
                    if number % 3 == 0:
                        assert await client.read(place, length) == image[place : place + length]
                    elif number % 3 == 1:
                        data = chance.randbytes(length)
                        await client.write(place, data)
                        image[place : place + length] = data
                    else:
                        await client.zero(place, length)
                        image[place : place + length] = bytes(length)

            async with trio.open_nursery() as nursery:
                for part in range(PARTS):
                    nursery.start_soon(work, part)
            fired = server.fired()
            for fault in tuple(server.faults):
                server.faults.remove(fault)
            assert await client.read(0, client.size) == image
        assert server.export.read(0, len(image)) == image
        assert server.errors == []
        return fired


async def soaked(setting, rounds):
    before = held()
    fired = await soak(setting, rounds)
    assert held() == before
    return fired


@pytest.mark.trio
async def test_nothing_is_lost(autojump_clock):
    assert await soaked(SETTINGS["memory"], 20) > 50


@pytest.mark.trio
@pytest.mark.parametrize("name", ["tcp", "unix"])
async def test_nothing_is_lost_over_sockets(name):
    assert await soaked(SETTINGS[name], 20) > 50


@pytest.mark.soak
@pytest.mark.trio
async def test_nothing_is_lost_in_the_long_run(autojump_clock):
    assert await soaked(SETTINGS["memory"], 1000) > 3000


@pytest.mark.soak
@pytest.mark.trio
@pytest.mark.parametrize("name", ["tcp", "unix"])
async def test_nothing_is_lost_over_sockets_in_the_long_run(name):
    assert await soaked(SETTINGS[name], 1000) > 3000
