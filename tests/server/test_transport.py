from __future__ import annotations

import itertools
import select
import socket

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fakenbd.server.transport import SPIN_POLLS, SocketTransport


class BusySocket:
    """A socket whose client is always there already: it never blocks, in either direction."""

    family = socket.AF_INET

    def recv_into(self, view: memoryview) -> int:
        return len(view)

    def sendmsg(self, buffers: list[bytes]) -> int:
        return sum(map(len, buffers))


async def receive(transport: SocketTransport) -> None:
    await transport.receive_into(memoryview(bytearray(8)))


@pytest.mark.trio
async def test_a_client_that_is_always_busy_lets_the_others_have_their_turn() -> None:
    transport = SocketTransport(BusySocket())
    others = 0

    async def other() -> None:
        nonlocal others
        while True:
            await trio.lowlevel.checkpoint()
            others += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(1000):
            await receive(transport)
        nursery.cancel_scope.cancel()
    assert 10 <= others <= 100


@pytest.mark.trio
async def test_a_server_that_stops_does_not_wait_for_a_busy_client() -> None:
    transport = SocketTransport(BusySocket())
    with trio.CancelScope() as scope:
        scope.cancel()
        for count in itertools.count():
            await receive(transport)
            assert count < 1000
    assert scope.cancelled_caught


@attrs.define(eq=False)
class Poll:
    """Looks at a socket once and never waits; counts how often it was asked."""

    sock: socket.socket
    asked: int = 0

    def __call__(self, _: int) -> list[socket.socket]:
        self.asked += 1
        readable, _, _ = select.select([self.sock], [], [], 0)
        return readable


@attrs.define(eq=False)
class Loops(trio.abc.Instrument):
    """How often trio looked for something to do."""

    count: int = 0

    def before_io_wait(self, timeout: float) -> None:
        self.count += 1


async def talk(client: str, *, alone: bool, turns: int) -> tuple[Poll, Loops]:
    """A client says one byte at a time: before it is waited for ("quick"), or later ("slow")."""
    ours, theirs = socket.socketpair()
    loops = Loops()
    with ours, theirs:
        ours.setblocking(False)
        transport = SocketTransport(ours, lambda: alone, SPIN_POLLS)
        poll = Poll(ours)

        def look(moment: int) -> object:
            if client == "quick":
                theirs.send(b"x")
            return poll(moment)

        transport._poll = look
        view = memoryview(bytearray(8))
        async with trio.open_nursery() as nursery:
            trio.lowlevel.add_instrument(loops)
            for _ in range(turns):
                if client == "slow":
                    nursery.start_soon(say, theirs)
                assert await transport.receive_into(view) == 1
            trio.lowlevel.remove_instrument(loops)
    return poll, loops


async def say(sock: socket.socket) -> None:
    await wait_all_tasks_blocked()
    sock.send(b"x")


@pytest.mark.trio
async def test_a_client_that_is_back_at_once_finds_the_server_awake() -> None:
    poll, loops = await talk("quick", alone=True, turns=1000)
    assert poll.asked == 1000
    # The others have their turns all the same.
    assert 1000 // 32 <= loops.count <= 1000 // 8


@pytest.mark.trio
async def test_a_client_that_takes_its_time_is_not_waited_for_on_the_spot() -> None:
    poll, _ = await talk("slow", alone=True, turns=100)
    # After the first miss, and then 2, 4, 8, 16 and 32 waits later.
    assert poll.asked == 6 * len(SPIN_POLLS)


@pytest.mark.trio
async def test_nobody_is_waited_for_on_the_spot_while_there_are_others() -> None:
    poll, _ = await talk("slow", alone=False, turns=100)
    assert poll.asked == 0


@pytest.mark.trio
async def test_what_is_received_is_never_lost_to_a_cancellation() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        transport = SocketTransport(ours)
        received = bytearray()
        view = bytearray(1)
        sent = bytes(range(200))
        theirs.sendall(sent)
        cancelled = 0
        while len(received) < len(sent):
            with trio.CancelScope() as scope:
                scope.cancel()
                await transport.receive_into(memoryview(view))
                received += view
            cancelled += scope.cancelled_caught
        assert received == sent
        assert cancelled


async def send_all(transport: SocketTransport, buffers: list[bytes]) -> None:
    data = memoryview(b"".join(buffers))
    while data:
        count = transport.try_send([data])
        data = data[count:]
        if not count:
            await transport.wait_writable()


@pytest.mark.trio
async def test_a_flood_that_does_not_fit_is_sent_as_the_client_reads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        transport = SocketTransport(ours)
        buffers = [bytes([index % 251]) * (index % 5000) for index in range(3000)]
        received = bytearray()

        async def read() -> None:
            sock = trio.socket.from_stdlib_socket(theirs.dup())
            with sock:
                while data := await sock.recv(1 << 16):
                    received.extend(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await send_all(transport, buffers)
            await transport.send_eof()
        assert received == b"".join(buffers)
