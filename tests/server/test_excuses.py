"""Ends without DISC or ABORT that are excused, because the server broke a MUST."""

from __future__ import annotations

import pytest
import trio

from fakenbd import Server, open_server
from fakenbd.journal import Violated
from fakenbd.profile import find
from fakenbd.protocol.constants import Command
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake
from tests.server.speaker import Speaker


async def arrive(server: Server) -> trio.abc.Stream:
    """A client that waits for every answer until the export is open."""
    stream = server.connect()
    await stream.send_all(handshake())
    await server.settle()
    return stream


async def leave(server: Server, *streams: trio.abc.Stream) -> list[str]:
    """All of them leave without a word; what they are broken for."""
    for stream in streams:
        await trio.aclose_forcefully(stream)
    await server.settle()
    return [entry.rule for entry in server.journal if isinstance(entry, Violated)]


@pytest.mark.trio
@pytest.mark.parametrize(
    ("profile", "broken"),
    # Data reported as a hole leaves no trace on the wire, and excuses nothing.
    [("extents/data-reported-as-a-hole", ["C-128"]), ("baseline/plain", ["C-128"])],
)
async def test_a_fault_that_stands_there_all_the_time(profile: str, broken: list[str]) -> None:
    async with open_server(find(profile), endpoints=[]) as server:
        assert await leave(server, await arrive(server)) == broken


@pytest.mark.trio
@pytest.mark.parametrize(
    ("do", "broken"), [("close", []), ("delay", ["C-128", "C-128"])], ids=["fault", "delay"]
)
async def test_a_client_that_gives_up_leaves_all_its_connections(
    do: str, broken: list[str]
) -> None:
    async with open_server(endpoints=[]) as server:
        idle = await arrive(server)
        if do == "close":
            server.on(option="go").close()
        else:
            server.on(option="go").dribble(7)
        other = await arrive(server)
        assert server.fired() == 1
        assert await leave(server, idle, other) == broken


@pytest.mark.trio
async def test_but_not_those_that_it_makes_afterwards() -> None:
    async with open_server(endpoints=[]) as server:
        server.on(option="go", times=1).close()
        first = await arrive(server)
        second = await arrive(server)
        assert await leave(server, first, second) == ["C-128"]


@pytest.mark.trio
@pytest.mark.parametrize(("waits", "broken"), [(True, []), (False, ["C-131"])])
async def test_a_reply_with_a_bit_of_something_else_is_a_reply(
    waits: bool, broken: list[str], autojump_clock: object
) -> None:
    async with open_server(find("quirks/stale-bytes-in-unaligned-reads"), endpoints=[]) as server:
        server.on("cache", name="slow").delay(1)
        speaker = Speaker(server.connect())
        await speaker.greet()
        await speaker.go()
        reply = await speaker.reply(Request(Command.READ, 1, 0, 511))
        assert bytes(reply.data)[-1:] == b"Z"
        if not waits:
            await speaker.say(Request(Command.CACHE, 2, 0, 511))
        await speaker.say(Request(Command.DISC, 3))
        assert await leave(server, speaker.stream) == broken
