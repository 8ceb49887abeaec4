"""Several connections as one: who gets which call, when a flush leaves, what a loss means."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakenbd.client import Pool, Timeouts
from fakenbd.errors import ConnectionLostError
from fakenbd.protocol.constants import Command
from fakenbd.server import open_server
from tests.client.scripted import EVERYTHING, Script, answer, content

pytestmark = pytest.mark.trio

SEVERAL = EVERYTHING
ALONE = EVERYTHING & ~0x100


class Servers:
    """Scripted servers, one for each connection; `asked` are their requests in order."""

    def __init__(self, nursery, *handshakes):
        self.nursery = nursery
        self.handshakes = list(handshakes)
        self.asked = []
        self.held = trio.Event()
        self.hold = None

    def everything(self):
        return [command for asked in self.asked for command in asked]

    async def connect(self):
        if not self.handshakes:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        number = len(self.asked)
        self.asked.append([])
        self.nursery.start_soon(self.serve, number, Script(theirs), self.handshakes.pop(0))
        return ours

    async def serve(self, number, server, handshake):
        await server.handshake(**handshake)
        while (request := await server.request()) is not None:
            self.asked[number].append(Command(request.command).name)
            if request.command == self.hold:
                await self.held.wait()
            if request.command == 5:
                await server.stream.aclose()
                return
            if request.command != 2:
                await server.say(answer(request))


async def pooled(use, *handshakes, connections=3, **options):
    async with trio.open_nursery() as nursery:
        servers = Servers(nursery, *handshakes)
        async with Pool.connect(servers.connect, connections=connections, **options) as pool:
            await use(pool, servers)
        return servers.asked


async def test_calls_take_turns():
    async def use(pool, servers):
        assert pool.connections == 3
        for place in range(6):
            assert await pool.read(place * 512, 512) == content(place * 512, 512)

    assert await pooled(use, *[{"flags": SEVERAL}] * 3) == [["READ", "READ", "DISC"]] * 3


async def test_one_connection_where_several_are_not_allowed():
    async def use(pool, servers):
        assert pool.connections == 1
        assert pool.size == 1 << 20

    assert await pooled(use, {"flags": ALONE}) == [["DISC"]]


async def test_connections_that_cannot_be_had_are_done_without():
    async def use(pool, servers):
        assert pool.connections == 2

    assert await pooled(use, {}, {}) == [["DISC"]] * 2


async def test_a_connection_that_offers_less_is_not_used():
    async def use(pool, servers):
        assert pool.connections == 1
        for _ in range(3):
            await pool.read(0, 512)

    asked = await pooled(use, {}, {"size": 512})
    assert asked == [["READ"] * 3 + ["DISC"], ["DISC"]]


async def test_flush_waits_for_the_writes_that_it_covers():
    async def use(pool, servers):
        servers.hold = Command.WRITE
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.write, 0, b"x" * 512)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(pool.flush)
            await trio.testing.wait_all_tasks_blocked()
            await pool.zero(0, 512)
            assert "FLUSH" not in servers.everything()
            servers.held.set()
        assert "FLUSH" in servers.everything()

    await pooled(use, *[{}] * 3)


async def test_what_a_lost_connection_took_is_sent_again():
    async def use(pool, servers):
        async def read(place):
            assert await pool.read(place * 512, 512) == content(place * 512, 512)

        with pytest.raises(ConnectionLostError):
            # The scripted servers close on NBD_CMD_CACHE, one after the other.
            await pool.cache(0, 512)
        assert pool.connections == 0
        with pytest.raises(ConnectionLostError):
            await read(0)

    asked = await pooled(use, *[{}] * 3)
    assert asked == [["CACHE"]] * 3


async def test_losing_one_of_three():
    async def use(pool, servers):
        for place in range(6):
            assert await pool.read(place * 512, 512) == content(place * 512, 512)
        assert pool.connections == 2

    async with trio.open_nursery() as nursery:
        servers = Servers(nursery, {}, {}, {})
        streams = []

        async def connect():
            stream = await servers.connect()
            streams.append(stream)
            return stream

        async with Pool.connect(connect, connections=3) as pool:
            await trio.testing.wait_all_tasks_blocked()
            streams[1].receive_stream.close()
            await use(pool, servers)


async def test_a_server_that_never_greets_twice(autojump_clock):
    """The second connection is accepted and left alone (S-223)."""

    async def use(pool, servers):
        assert pool.connections == 1
        assert await pool.read(0, 512) == content(0, 512)

    async with trio.open_nursery() as nursery:
        servers = Servers(nursery, {})
        waiting = []

        async def connect():
            if servers.handshakes:
                return await servers.connect()
            ours, theirs = trio.testing.memory_stream_pair()
            waiting.append(theirs)
            return ours

        patience = Timeouts(greeting=3)
        async with Pool.connect(connect, connections=4, timeout=patience) as pool:
            await use(pool, servers)
        assert len(waiting) == 1


async def test_parts_of_one_block_are_changed_one_at_a_time(autojump_clock):
    async with open_server(
        size=4096, content="zeros", block_size={"minimum": 4096}, endpoints=(), seed=1
    ) as server:

        async def connect():
            return server.connect()

        # All blocks are read before the first is written back, unless somebody waits for his turn.
        server.on("write").delay(1)
        async with Pool.connect(connect) as pool:
            assert pool.connections == 4
            async with trio.open_nursery() as nursery:
                for part in range(16):
                    nursery.start_soon(pool.write, part * 256, bytes([part + 1]) * 256)
        assert bytes(server.export.read(0, 4096)) == b"".join(
            bytes([part + 1]) * 256 for part in range(16)
        )
