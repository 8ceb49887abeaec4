"""Connections in trio: what waits holds up nobody, and every end is what it says.

Time is trio's and jumps over every wait. Sockets are used only for what no stream in memory has.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from fakenbd import Client, open_server
from fakenbd.faults import Fault, parse_fault
from fakenbd.journal import Closed, Received
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.decode import decode_reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Ack, OptionRequest, Request, SimpleReply
from fakenbd.server import Server
from tests.conversation.talk import handshake
from tests.server.speaker import Speaker

pytestmark = pytest.mark.trio

SIZE = 1 << 20
SLOW, QUICK = Request(Command.READ, 1, 0, 512), Request(Command.READ, 2, 4096, 512)
DISC = Request(Command.DISC, 9)


def served(**options: Any) -> Any:
    return open_server(**{"size": SIZE, "endpoints": ()} | options)


async def opened(stream: trio.abc.Stream) -> Speaker:
    client = Speaker(stream)
    await client.greet()
    await client.go()
    return client


async def next_reply(client: Speaker) -> SimpleReply | None:
    reply = await client.hear(
        decode_reply,
        extended=False,
        structured=False,
        data_length=lambda cookie: 512,
        limit=1 << 20,
    )
    assert reply is None or isinstance(reply, SimpleReply)
    return reply


async def ends(server: Server, count: int = 1) -> list[tuple[str, str, str]]:
    """How the connections ended, once so many have."""
    entries = await server.wait_for(by=("client", "server"), count=count, timeout=60)
    assert server.errors == []
    return [(entry.by, entry.how, entry.detail) for entry in entries if isinstance(entry, Closed)]


# --- nobody waits for anybody -------------------------------------------------------------------

WAITS: dict[str, dict[str, Any]] = {
    "delay": {"delay": 1000},
    "hold": {"hold": "idle", "idle": 1000},
    "stall": {"stall": True},
    "drop": {"drop": "each"},
}


def waiting(how: dict[str, Any]) -> Fault:
    return parse_fault({"when": {"command": "read", "offset": 0}, "do": how})


@pytest.mark.parametrize("how", WAITS.values(), ids=WAITS.keys())
async def test_what_waits_delays_nobody(how: dict[str, Any], autojump_clock: Any) -> None:
    async with served(faults=[waiting(how)]) as server:
        client, other = await opened(server.connect()), await opened(server.connect())
        begun = trio.current_time()
        await client.say(SLOW, QUICK)
        assert (await next_reply(client)).cookie == QUICK.cookie
        assert await other.reply(QUICK) == SimpleReply(2, 0, server.export.read(4096, 512))
        await client.say(QUICK)
        assert (await next_reply(client)).cookie == QUICK.cookie
        assert trio.current_time() == begun
    # Nor does it hold up the server's end.
    assert trio.current_time() == begun


@pytest.mark.parametrize("how", [{"delay": 1000}, {"hold": "idle", "idle": 1000}])
async def test_what_waited_comes_in_the_end(how: dict[str, Any], autojump_clock: Any) -> None:
    async with served(faults=[waiting(how)]) as server:
        client = await opened(server.connect())
        await client.say(SLOW, QUICK)
        assert [(await next_reply(client)).cookie for _ in range(2)] == [2, 1]
        assert trio.current_time() >= 1000


async def test_idleness_is_counted_from_the_request(autojump_clock: Any) -> None:
    """However long the connection was there before, and once more for every request."""
    async with served(faults=[waiting({"hold": "idle", "idle": 10})]) as server:
        client = await opened(server.connect())
        await trio.sleep(1000)
        begun = trio.current_time()
        await client.say(SLOW)
        await trio.sleep(6)
        await client.say(QUICK)
        assert (await next_reply(client)).cookie == QUICK.cookie
        assert (await next_reply(client)).cookie == SLOW.cookie
        assert trio.current_time() == begun + 16


async def test_a_stall_in_mid_message_silences_one_connection(autojump_clock: Any) -> None:
    async with served(faults=[waiting({"stall": 20})]) as server:
        client, other = await opened(server.connect()), await opened(server.connect())
        await client.say(SLOW, QUICK)
        await wait_all_tasks_blocked()
        with trio.move_on_after(1000):
            await next_reply(client)
        assert len(client.incoming) == 20
        assert (await other.reply(QUICK)).cookie == QUICK.cookie


async def test_a_trickle_is_as_slow_as_it_was_asked(autojump_clock: Any) -> None:
    fault = waiting({"dribble": 1, "seconds": 1})
    async with served(faults=[fault]) as server:
        client, other = await opened(server.connect()), await opened(server.connect())
        begun = trio.current_time()
        await client.say(SLOW)
        assert await next_reply(client) == SimpleReply(1, 0, server.export.read(0, 512))
        assert trio.current_time() - begun == 16 + 512 - 1
        assert (await other.reply(QUICK)).cookie == QUICK.cookie


async def test_a_client_that_does_not_read_delays_nobody() -> None:
    with trio.fail_after(60):
        async with open_server(size=1 << 30, unix="-") as server:
            deaf = await trio.open_unix_socket(server.socket)
            await deaf.send_all(handshake())
            reads = [Request(Command.READ, place, 0, 1 << 25) for place in range(1, 17)]
            await deaf.send_all(b"".join(map(encode, reads)))
            await wait_all_tasks_blocked()
            async with await trio.open_unix_socket(server.socket) as stream:
                other = await opened(stream)
                assert (await other.reply(QUICK)).cookie == QUICK.cookie
                await deaf.aclose()
                await ends(server)
            assert await ends(server) == [("client", "EOF", "Broken pipe")]


# --- ends ---------------------------------------------------------------------------------------


async def test_a_client_that_has_sent_all_still_gets_all(autojump_clock: Any) -> None:
    async with served(faults=[waiting({"delay": 1000})]) as server:
        client = await opened(server.connect())
        await client.say(SLOW, QUICK)
        await client.stream.send_eof()
        assert [(await next_reply(client)).cookie for _ in range(2)] == [2, 1]
        assert await next_reply(client) is None
        assert await ends(server) == [("client", "EOF", "")]


async def test_a_soft_disconnect_waits_for_what_is_owed(autojump_clock: Any) -> None:
    async with served(faults=[waiting({"delay": 1000})]) as server:
        client = await opened(server.connect())
        await client.say(SLOW, DISC)
        assert (await next_reply(client)).cookie == SLOW.cookie
        assert await next_reply(client) is None
        assert await ends(server) == [("client", "DISC", "")]


async def test_an_abort_is_acknowledged_and_ends() -> None:
    async with served() as server:
        client = Speaker(server.connect())
        await client.greet()
        assert await client.option(Option.ABORT) == Ack()
        assert await client.stream.receive_some() == b""
        assert await ends(server) == [("client", "ABORT", "")]


# what happens at a READ, the replies that still leave, and the end that the journal tells
ENDINGS: list[tuple[dict[str, Any], list[int], tuple[str, str, str]]] = [
    ({"close": True}, [], ("server", "fault", "")),
    ({"close": True, "after": True}, [1], ("server", "fault", "")),
    ({"cut": -1}, [], ("server", "fault", "")),
    ({"reset": True}, [], ("server", "fault", "")),
]


@pytest.mark.parametrize(("how", "cookies", "expected"), ENDINGS)
async def test_ending(
    how: dict[str, Any], cookies: list[int], expected: tuple[str, str, str]
) -> None:
    async with served(faults=[waiting(how)]) as server:
        client = await opened(server.connect())
        await client.say(SLOW, QUICK)
        received = b""
        while data := await client.stream.receive_some():
            received += data
        client.incoming += received
        for cookie in cookies:
            reply = await next_reply(client)
            assert reply is not None
            assert reply.cookie == cookie
        assert len(client.incoming) == (16 + 512 - 1 if how == {"cut": -1} else 0)
        assert await ends(server) == [expected]


async def test_a_half_closed_server_waits_for_the_client_to_leave() -> None:
    fault = waiting({"close": True, "how": "half-close"})
    async with served(faults=[fault]) as server:
        client = await opened(server.connect())
        await client.say(SLOW)
        assert await client.stream.receive_some() == b""
        await client.say(Request(Command.WRITE, 3, 0, 5, 0, b"hello"))
        await wait_all_tasks_blocked()
        assert not any(isinstance(entry, Closed) for entry in server.journal)
        await client.stream.aclose()
        assert await ends(server) == [("server", "fault", "")]


async def test_a_close_may_take_some_more_bytes_first() -> None:
    async with served(faults=[waiting({"close": True, "reading": 100})]) as server:
        client = await opened(server.connect())
        await client.say(SLOW)
        await client.stream.send_all(bytes(99))
        await wait_all_tasks_blocked()
        assert not any(isinstance(entry, Closed) for entry in server.journal)
        await client.stream.send_all(bytes(1))
        assert await client.stream.receive_some() == b""
        assert await ends(server) == [("server", "fault", "")]


async def test_a_deaf_server_answers_and_reads_no_more() -> None:
    async with served(faults=[waiting({"stop-reading": True})]) as server:
        client = await opened(server.connect())
        await client.say(SLOW)
        assert (await next_reply(client)).cookie == SLOW.cookie
        for _ in range(3):
            await client.say(QUICK)
            await wait_all_tasks_blocked()
        assert server.journal.totals.commands == {"read": 1}


async def test_a_mute_server_says_nothing(autojump_clock: Any) -> None:
    mute = parse_fault({"when": {"connect": True, "connection": 1}, "do": {"no-greeting": True}})
    async with served(faults=[mute]) as server:
        silent, other = server.connect(), await opened(server.connect())
        with trio.move_on_after(1000) as scope:
            await silent.receive_some()
        assert scope.cancelled_caught
        assert (await other.reply(QUICK)).cookie == QUICK.cookie


RESETS = [
    {"when": {"command": "read"}, "do": {"reset": True}},
    {"when": {"command": "read"}, "do": {"cut": 20, "then": "reset"}},
    {"when": {"connect": True}, "do": {"refuse-connection": True}},
]


async def used(stream: trio.abc.Stream) -> None:
    client = await opened(stream)
    await client.say(SLOW)
    while await client.stream.receive_some():
        pass


@pytest.mark.parametrize("fault", RESETS)
async def test_a_reset_is_a_real_one(fault: dict[str, Any]) -> None:
    async with open_server(size=SIZE, faults=[parse_fault(fault)]) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await used(stream)
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert await ends(server) == [("server", "fault", "")]


async def test_a_close_is_none() -> None:
    async with open_server(size=SIZE, faults=[waiting({"close": True})]) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await used(stream)
        assert await ends(server) == [("server", "fault", "")]


async def test_a_client_s_reset_is_distinguished_from_its_end() -> None:
    async with open_server(size=SIZE) as server:
        for linger in (True, False):
            client = await opened(await trio.open_tcp_stream("127.0.0.1", server.port))
            if linger:
                client.stream.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            await client.stream.aclose()
            await ends(server, count=2 - linger)
        recorded = [
            (entry.how, entry.detail) for entry in server.journal if isinstance(entry, Closed)
        ]
        assert recorded == [("RST", "Connection reset by peer"), ("EOF", "")]


async def test_the_server_s_own_end_is_recorded_too() -> None:
    async with served() as server:
        await opened(server.connect())
    (end,) = [entry for entry in server.journal if isinstance(entry, Closed)]
    assert (end.by, end.how, end.detail) == ("server", "closed", "")


# --- in order ----------------------------------------------------------------------------------


async def test_what_was_received_is_in_the_journal_in_order() -> None:
    async with served() as server:
        client = await opened(server.connect())
        for place in range(1, 5):
            await client.reply(Request(Command.READ, place, place * 512, 512))
        await client.say(DISC)
        await ends(server)
        received = [
            entry for entry in server.journal if isinstance(entry, Received) and entry.command
        ]
        assert [entry.cookie for entry in received] == [1, 2, 3, 4, 9]


async def test_options_are_answered_however_slowly_they_come() -> None:
    async with served() as server:
        client = Speaker(server.connect())
        await client.greet()
        for byte in encode(OptionRequest(Option.LIST)):
            await client.stream.send_all(bytes([byte]))
            await wait_all_tasks_blocked()
        assert await client.option(Option.STRUCTURED_REPLY) is not None


@pytest.mark.trio
@pytest.mark.parametrize("transport", ["tcp", "unix"])
async def test_bytes_in_small_writes_leave_once_and_in_order(transport: str) -> None:
    """Reader and writer both send: what one has taken the other must not send again."""
    async with open_server(size="16KiB", unix="-" if transport == "unix" else None) as server:
        server.on("read").dribble(3)
        async with Client.connect(server.uri) as client:
            for _ in range(5):
                assert await client.read(0, 16384) == bytes(server.export.read(0, 16384))
