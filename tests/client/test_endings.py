"""How the client leaves: DISC or ABORT where the framing is intact, and never a wait for ever."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakenbd.client import Client, Timeouts
from fakenbd.errors import ClientError, DeadlineExceededError, NoncomplianceError
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.decode import decode_client_flags
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Data, ErrorReply, Greeting, OptionReply, Status
from tests.client.scripted import Script, answer, chunk, played

pytestmark = pytest.mark.trio

TIB = 1 << 40
ONE_SECOND = Timeouts.of(1)


# --- deadlines count payload -------------------------------------------------------------------

LONG = {
    "block status": (lambda client: client.block_status_once(0, TIB), Command.BLOCK_STATUS),
    "trim": (lambda client: client.trim(0, TIB), Command.TRIM),
    "zero": (lambda client: client.zero(0, TIB), Command.WRITE_ZEROES),
    "cache": (lambda client: client.cache(0, TIB), Command.CACHE),
}


@pytest.mark.parametrize(("call", "command"), LONG.values(), ids=LONG)
async def test_a_tebibyte_without_payload_waits_no_longer(autojump_clock, call, command):
    async def script(server):
        request = await server.request()
        assert (request.command, request.length) == (command, TIB)
        await server.disconnect()

    async def use(client):
        start = trio.current_time()
        with pytest.raises(DeadlineExceededError, match="came within 1 s"):
            await call(client)
        assert trio.current_time() - start == pytest.approx(1)

    options = {"timeout": 1, "effect": TIB}
    await played(script, use, options=options, extended=True, size=TIB)


async def test_payload_may_take_a_second_for_each_mebibyte(autojump_clock):
    async def script(server):
        await server.say(answer(await server.request()))
        await server.request()
        await server.disconnect()

    async def use(client):
        await client.trim(0, 1 << 30)
        start = trio.current_time()
        with pytest.raises(DeadlineExceededError):
            await client.read(0, 3 << 20)
        assert trio.current_time() - start == pytest.approx(5)

    await played(script, use, options={"timeout": Timeouts(reply=2)}, size=1 << 30)


# --- in transmission ---------------------------------------------------------------------------


async def read_until_given_up(client):
    with pytest.raises(DeadlineExceededError):
        await client.read(0, 100_000)


async def close_in_the_middle(client):
    async def read():
        with pytest.raises(ClientError, match="the connection was closed"):
            await client.read(0, 100_000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await client.close()


async def abandon(client):
    with trio.move_on_after(0.5):
        await client.read(0, 100_000)


WAYS = {
    "a deadline": read_until_given_up,
    "close": close_in_the_middle,
    "an abandoned call": abandon,
}


def part(count):
    """So many bytes of a correct reply; None for all bytes of the first of two chunks."""

    def reply(request):
        if count is None:
            half = request.length // 2
            return encode(chunk(request, Data(0, bytes(half)), done=False))
        return encode(answer(request))[:count]

    return reply


WHOLE = {"nothing": part(0), "one chunk of two": part(None)}
HALF = {"half a header": part(10), "a header": part(20), "half the content": part(50_000)}


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("reply", WHOLE.values(), ids=WHOLE)
async def test_disc_where_no_reply_has_begun(autojump_clock, leave, reply):
    async def script(server):
        await server.stream.send_all(reply(await server.request()))
        await server.disconnect()

    await played(script, leave, options={"timeout": ONE_SECOND})


@pytest.mark.parametrize("leave", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("reply", HALF.values(), ids=HALF)
async def test_no_disc_into_half_a_reply(autojump_clock, leave, reply):
    async def script(server):
        await server.stream.send_all(reply(await server.request()))
        await server.nothing_more()

    await played(script, leave, options={"timeout": ONE_SECOND})


async def test_disc_when_all_is_cancelled(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve():
        server = Script(theirs)
        await server.handshake()
        await server.request()
        await server.disconnect()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with trio.move_on_after(1) as scope:
            async with Client.connect(ours) as client:
                await client.read(0, 512)
        assert scope.cancelled_caught


async def test_disc_after_a_breach_that_leaves_the_framing_intact(autojump_clock):
    async def script(server):
        request = await server.request()
        await server.say(chunk(request, Status(7, [(1000, 0)])))
        await server.disconnect()

    async def use(client):
        with pytest.raises(NoncomplianceError, match="S-209"):
            await client.block_status_once(0, 1024)

    options = {"tolerance": "strict", "timeout": ONE_SECOND}
    await played(script, use, options=options, blocks=(512, 4096, 8192))


async def test_no_disc_behind_half_a_request(autojump_clock):
    """A request that stopped in the middle would swallow DISC as its payload."""
    ours, theirs = trio.testing.lockstep_stream_pair()
    payload = bytearray()

    async def serve():
        server = Script(theirs)
        await server.handshake()
        await theirs.receive_some(28)
        await trio.sleep(10)
        while data := await theirs.receive_some(1 << 20):
            payload.extend(data)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with Client.connect(ours, timeout=ONE_SECOND) as client:
            with pytest.raises(DeadlineExceededError, match="took no bytes"):
                await client.write(0, bytes(100_000))
    assert set(payload) == {0}


# --- in the handshake --------------------------------------------------------------------------


async def at_an_option(server):
    await server.say(Greeting(3))
    await server.hear(decode_client_flags)
    assert (await server.option()).option == Option.EXTENDED_HEADERS


async def option_unanswered(server):
    await at_an_option(server)
    assert (await server.option()).option == Option.ABORT
    assert await server.option() is None


async def half_an_option_reply(server):
    await at_an_option(server)
    await server.stream.send_all(encode(OptionReply(11, ErrorReply(), 0x80000001))[:-1])
    assert await server.option() is None


async def no_greeting(server):
    assert await server.option() is None


async def export_name_unanswered(server):
    await server.say(Greeting(2))
    await server.hear(decode_client_flags)
    assert (await server.option()).option == Option.EXPORT_NAME
    assert await server.option() is None


HANDSHAKES = {
    "an option is not answered": option_unanswered,
    "an option is half answered": half_an_option_reply,
    "no greeting comes": no_greeting,
    "EXPORT_NAME is not answered": export_name_unanswered,
}


@pytest.mark.parametrize("cancelled", [False, True], ids=["a deadline", "cancelled"])
@pytest.mark.parametrize("script", HANDSHAKES.values(), ids=HANDSHAKES)
async def test_abort_where_options_may_be_asked(autojump_clock, script, cancelled):
    ours, theirs = trio.testing.memory_stream_pair()

    async def connect():
        async with Client.connect(ours, timeout=ONE_SECOND):
            raise AssertionError("there is no session")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Script(theirs))
        if cancelled:
            with trio.move_on_after(0.5) as scope:
                await connect()
            assert scope.cancelled_caught
        else:
            with pytest.raises(DeadlineExceededError):
                await connect()
