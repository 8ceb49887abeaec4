"""The client against a scripted server: what it sends, what it returns, how it ends."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from fakenbd.client import Client, Timeouts
from fakenbd.errors import (
    ClientError,
    CommandError,
    ConnectionLostError,
    DeadlineExceededError,
    NoncomplianceError,
    OptionRefusedError,
    ProtocolError,
    ShutdownError,
)
from fakenbd.protocol.constants import Command
from fakenbd.protocol.decode import decode_client_flags
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    Data,
    ErrorChunk,
    ErrorReply,
    Extent,
    Greeting,
    InfoText,
    NoneChunk,
    OptionReply,
    Raw,
    SimpleReply,
    Status,
)
from tests.client.scripted import (
    Script,
    answer,
    chunk,
    content,
    correct,
    played,
    simple_answer,
)
from tests.client.test_extents import MEASURED

pytestmark = pytest.mark.trio

READ = (4096, 512)


def replies(*bodies):
    """Chunks of one reply, DONE on the last."""
    last = len(bodies) - 1
    return lambda request: [
        chunk(request, body, index == last) for index, body in enumerate(bodies)
    ]


DATA = content(*READ)

GOOD_READS = {
    "one chunk": replies(Data(4096, DATA)),
    "data, then none": replies(Data(4096, DATA), NoneChunk()),
    "two chunks, the second first": replies(Data(4352, DATA[256:]), Data(4096, DATA[:256])),
    "bytes one by one": replies(*(Data(4096 + n, DATA[n : n + 1]) for n in range(512))),
}


@pytest.mark.parametrize("reply", GOOD_READS.values(), ids=GOOD_READS)
@pytest.mark.parametrize("extended", [False, True])
async def test_read(reply, extended):
    async def script(server):
        request = await server.request()
        assert (request.command, request.offset, request.length) == (0, *READ)
        await server.say(*reply(request))
        await server.disconnect()

    async def use(client):
        assert client.extended == extended
        assert await client.read(*READ) == DATA

    await played(script, use, extended=extended)


async def test_simple_replies():
    async def script(server):
        for _ in range(2):
            await server.say(simple_answer(await server.request()))
        await server.say(simple_answer(await server.request(), error=5))
        await server.disconnect()

    async def use(client):
        assert not client.structured
        assert client.contexts == ()
        assert await client.read(*READ) == DATA
        await client.write(0, b"x" * 512)
        with pytest.raises(CommandError) as caught:
            await client.read(*READ)
        assert str(caught.value) == "the server answered NBD_CMD_READ of 4096+512 with NBD_EIO"

    await played(script, use, structured=False)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize("structured", [False, True])
@pytest.mark.parametrize("piece", [50, 100_000, 1 << 20])
async def test_long_content_in_pieces(structured, extended, piece):
    """Content that is longer than what comes at once goes to its place without a detour."""
    reply = answer if structured or extended else simple_answer

    async def script(server):
        first, second = await server.requests(2)
        data = b"".join(encode(reply(request)) for request in (first, second))
        await server.stream.send_all(data[:piece])
        for start in range(piece, len(data), 100_000):
            await server.stream.send_all(data[start : start + 100_000])
        await server.disconnect()

    async def use(client):
        async with trio.open_nursery() as nursery:
            for offset, length in ((0, 300_000), (700_000, 200_000)):

                async def read(offset=offset, length=length):
                    assert await client.read(offset, length) == content(offset, length)

                nursery.start_soon(read)
                await trio.testing.wait_all_tasks_blocked()

    await played(script, use, structured=structured, extended=extended)


# what the server answers to the READ of 4096+512, and the error
HARD_READS = {
    "a gap": (
        replies(Data(4096, DATA[:100])),
        "the reply to NBD_CMD_READ of 4096+512 ended without content for byte 4196 (S-157)",
    ),
    "nothing": (
        replies(NoneChunk()),
        "the reply to NBD_CMD_READ of 4096+512 ended without content for byte 4096 (S-158)",
    ),
    "too much": (
        replies(Data(4096, bytes(513))),
        "a chunk in the reply to NBD_CMD_READ of 4096+512 announces 521 bytes of payload,"
        " at most 520 are taken (S-144)",
    ),
    "too much of something else": (
        lambda request: [Chunk(request.cookie, NoneChunk(), 1, length=0xFFFFFFFF)],
        "a chunk in the reply to NBD_CMD_READ of 4096+512 announces 4294967295 bytes of payload,"
        " at most 131072 are taken (S-144)",
    ),
    "the wrong kind": (
        replies(Status(7, [(512, 0)])),
        "the reply to NBD_CMD_READ of 4096+512 has a chunk of the wrong kind (status) (S-143)",
    ),
    "a simple reply": (
        lambda request: [SimpleReply(request.cookie, 0, DATA)],
        "a simple reply came to NBD_CMD_READ of 4096+512, in spite of structured replies (S-122)",
    ),
    "a simple error": (
        lambda request: [SimpleReply(request.cookie, 5)],
        "a simple reply came to NBD_CMD_READ of 4096+512, in spite of structured replies (S-122)",
    ),
    "another cookie": (
        lambda request: [Chunk(request.cookie + 2, Data(4096, DATA), 1)],
        "a reply came for cookie 3, which no request in flight has (S-123)",
    ),
    "another magic": (
        lambda request: [Raw(b"\0\0\0\0")],
        "the server's reply begins with 0x00000000, not with 0x67446698 or 0x668e33ef (S-120)",
    ),
    "the other header": (
        lambda request: [Chunk(request.cookie, NoneChunk(), 1, request_offset=4096)],
        "the server's reply begins with 0x6e8a278c, not with 0x67446698 or 0x668e33ef (S-90)",
    ),
}


@pytest.mark.parametrize(("reply", "message"), HARD_READS.values(), ids=HARD_READS)
async def test_hard_breach_fails_everything_and_closes_without_a_word(reply, message):
    async def script(server):
        request, other = await server.requests(2)
        assert other.command == Command.WRITE
        await server.say(*reply(request))
        await server.nothing_more()

    async def use(client):
        met = []

        async def ask(method, *arguments):
            with pytest.raises(ProtocolError) as caught:
                await method(*arguments)
            met.append(str(caught.value))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, client.read, *READ)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ask, client.write, 0, bytes(512))
        await ask(client.flush)
        assert met == [message] * 3
        assert str(client.failure) == message

    await played(script, use)


async def test_an_answer_too_many_ends_the_session():
    async def script(server):
        request = await server.request()
        await server.say(answer(request), answer(request))
        await server.nothing_more()

    async def use(client):
        assert await client.read(*READ) == DATA
        await client.wait_closed()
        assert str(client.failure) == (
            "a reply came for cookie 1, which no request in flight has (S-123)"
        )

    await played(script, use)


async def test_offset_of_extended_chunks_is_checked_before_their_content():
    async def script(server):
        request = await server.request()
        data = encode(Chunk(request.cookie, Data(0, bytes(102_400)), 1, request_offset=512))
        await server.stream.send_all(data[:1000])
        await server.nothing_more()

    async def use(client):
        with pytest.raises(ProtocolError) as caught:
            await client.read(0, 102_400)
        assert str(caught.value) == "the reply to NBD_CMD_READ of 0+102400 names offset 512 (S-145)"

    await played(script, use, extended=True)


# the reply to a command after which the session goes on, the error
SOFT_ERRORS = {
    "an error": (replies(ErrorChunk(5, "bad sector")), "NBD_EIO: bad sector"),
    "an error behind good content": (replies(Data(4096, DATA), ErrorChunk(5)), "NBD_EIO"),
    "content behind an error": (replies(ErrorChunk(5), Data(4096, DATA)), "NBD_EIO"),
    "an unknown error number": (replies(ErrorChunk(9999)), "error 9999, taken as NBD_EINVAL"),
    "an unknown type of error": (
        lambda request: [Chunk(request.cookie, ErrorChunk(5, "new"), 1, type=0xFFFF)],
        "NBD_EIO: new",
    ),
}


@pytest.mark.parametrize(("reply", "error"), SOFT_ERRORS.values(), ids=SOFT_ERRORS)
async def test_error_fails_one_request_alone(reply, error):
    async def script(server):
        await server.say(*reply(await server.request()))
        await server.say(answer(await server.request()))
        await server.disconnect()

    async def use(client):
        with pytest.raises(CommandError) as caught:
            await client.read(*READ)
        assert str(caught.value) == (f"the server answered NBD_CMD_READ of 4096+512 with {error}")
        assert await client.read(*READ) == DATA

    await played(script, use)


async def test_many_in_flight_answered_in_any_order_with_chunks_interleaved():
    places = [(place * 8192, 4096) for place in range(64)]

    async def script(server):
        requests = await server.requests(64)
        assert sorted((request.offset, request.length) for request in requests) == places
        assert len({request.cookie for request in requests}) == 64
        halves = [(request, 2048) for request in requests] + [
            (request, 0) for request in reversed(requests)
        ]
        for request, start in halves:
            offset = request.offset + start
            await server.say(chunk(request, Data(offset, content(offset, 2048)), not start))
        await server.disconnect()

    async def use(client):
        async def read(offset, length):
            assert await client.read(offset, length) == content(offset, length)

        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(read, *place)

    await played(script, use)


async def test_both_kinds_of_reply_to_commands_without_content():
    async def script(server):
        asked = []
        for number in range(8):
            request = await server.request()
            asked.append((request.command, request.offset, request.length, request.flags))
            await server.say(simple_answer(request) if number % 2 else answer(request))
        assert asked == [
            (Command.WRITE, 512, 3, 0),
            (Command.WRITE, 512, 3, 1),
            (Command.FLUSH, 0, 0, 0),
            (Command.TRIM, 0, 4096, 1),
            (Command.CACHE, 0, 4096, 0),
            (Command.WRITE_ZEROES, 0, 4096, 0),
            (Command.WRITE_ZEROES, 0, 4096, 2),
            (Command.WRITE_ZEROES, 0, 4096, 17),
        ]
        await server.disconnect()

    async def use(client):
        await client.write(512, b"abc")
        await client.write(512, b"abc", fua=True)
        await client.flush()
        await client.trim(0, 4096, fua=True)
        await client.cache(0, 4096)
        await client.zero(0, 4096)
        await client.zero(0, 4096, hole=False)
        await client.zero(0, 4096, fast=True, fua=True)

    await played(script, use)


async def test_extended_writes_say_that_they_have_a_payload():
    async def script(server):
        request = await server.request()
        assert (request.length, request.flags, bytes(request.payload)) == (3, 32, b"abc")
        await server.say(answer(request))
        await server.disconnect()

    await played(script, lambda client: client.write(512, b"abc"), extended=True)


# --- the end -----------------------------------------------------------------------------------


async def test_shutdown_is_answered_with_a_soft_disconnect():
    async def script(server):
        first, second = await server.requests(2)
        await server.say(chunk(first, ErrorChunk(108, "bye")))
        await trio.testing.wait_all_tasks_blocked()
        await server.say(answer(second))
        await server.disconnect()

    async def use(client):
        message = "the server answered NBD_CMD_READ of 4096+512 with NBD_ESHUTDOWN: bye"

        async def doomed():
            with pytest.raises(ShutdownError) as caught:
                await client.read(*READ)
            assert str(caught.value) == message
            with pytest.raises(ShutdownError) as caught:
                await client.read(*READ)
            assert str(caught.value) == message

        async with trio.open_nursery() as nursery:
            nursery.start_soon(doomed)
            await trio.testing.wait_all_tasks_blocked()
            assert await client.read(0, 512) == content(0, 512)
        await client.wait_closed()

    await played(script, use)


@pytest.mark.parametrize(
    ("begun", "where"),
    [(b"", ""), (b"\x66\x8e", " in the middle of a reply")],
    ids=["between replies", "in a reply"],
)
async def test_closed_by_the_server(begun, where):
    async def script(server):
        await server.requests(2)
        await server.say(Raw(begun))
        await server.stream.aclose()

    async def use(client):
        async def read():
            with pytest.raises(ConnectionLostError) as caught:
                await client.read(*READ)
            assert str(caught.value) == (
                f"the server closed the connection{where}, with 2 requests unanswered"
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)

    await played(script, use)


async def test_closed_in_the_middle_of_long_content():
    async def script(server):
        request = await server.request()
        await server.stream.send_all(encode(answer(request))[:-1])
        await server.stream.aclose()

    async def use(client):
        with pytest.raises(ConnectionLostError, match="in the middle of a reply, with 1 requests"):
            await client.read(0, 500_000)

    await played(script, use)


async def test_close_waits_for_what_is_in_flight(autojump_clock):
    async def script(server):
        request = await server.request()
        await trio.sleep(1)
        await server.say(answer(request))
        await server.disconnect()

    async def use(client):
        async def read():
            assert await client.read(*READ) == DATA

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            await client.close()
            with pytest.raises(ConnectionLostError, match="the connection was closed"):
                await client.read(*READ)

    await played(script, use)


async def test_cancelled_call_leaves_the_session_in_order(autojump_clock):
    async def script(server):
        request = await server.request()
        await trio.sleep(2)
        await server.say(answer(request))
        await server.say(answer(await server.request()))
        await server.disconnect()

    async def use(client):
        with trio.move_on_after(1) as scope:
            await client.read(*READ)
        assert scope.cancelled_caught
        assert await client.read(0, 512) == content(0, 512)

    await played(script, use)


async def test_exceptions_of_the_block_come_out_as_they_are():
    async def use(client):
        raise KeyError("mine")

    ours, theirs = trio.testing.memory_stream_pair()

    async def serve():
        server = Script(theirs)
        await server.handshake()
        await server.disconnect()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(KeyError, match="mine"):
            async with Client.connect(ours) as client:
                await use(client)


# --- deadlines ---------------------------------------------------------------------------------

PATIENCE = Timeouts(connect=1, greeting=2, option=3, reply=4, stall=5, close=6)


async def refused(script, **options):
    """The error that `Client.connect` raises against a script of the whole conversation."""
    ours, theirs = trio.testing.memory_stream_pair()
    options = {"timeout": PATIENCE, **options}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Script(theirs))
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the callers look at it
            async with Client.connect(ours, **options):
                raise AssertionError("there is no session")
    return caught.value


async def silent(server):
    await server.nothing_more()


async def trickling_greeting(server):
    for byte in encode(Greeting(3)):
        await trio.sleep(0.5)
        try:
            await server.stream.send_all(bytes([byte]))
        except trio.BrokenResourceError:
            return


async def endless_infos(server):
    await server.say(Greeting(1))
    await server.hear(decode_client_flags)
    await server.option()
    info = OptionReply(11, ErrorReply(), 0x80000001)
    await server.say(info)
    await server.option()
    await server.say(OptionReply(8, Ack()))
    await server.option()
    try:
        while True:
            await trio.sleep(0.1)
            await server.say(OptionReply(7, InfoText(4, "more")))
    except trio.BrokenResourceError:
        return


IMPATIENT = {
    "silent": (silent, 2, "no greeting came within 2 s"),
    "a trickling greeting": (trickling_greeting, 2, "no greeting came within 2 s"),
    "endless replies": (endless_infos, 3, "no final reply to NBD_OPT_GO came within 3 s"),
}


@pytest.mark.parametrize(("script", "seconds", "message"), IMPATIENT.values(), ids=IMPATIENT)
async def test_deadlines_of_the_handshake(autojump_clock, script, seconds, message):
    start = trio.current_time()
    error = await refused(script, contexts=())
    assert type(error) is DeadlineExceededError
    assert str(error) == message
    assert trio.current_time() - start == pytest.approx(seconds)


async def test_one_missing_reply_ends_the_connection(autojump_clock):
    async def script(server):
        _, *others = await server.requests(3)
        await server.say(*map(answer, others))
        for _ in range(20):
            await server.say(answer(await server.request()))
        await server.disconnect()

    async def use(client):
        met = []

        async def read():
            try:
                await client.read(*READ)
            except DeadlineExceededError as error:
                met.append((str(error), trio.current_time() - start))

        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(20):
                await trio.sleep(0.1)
                await client.read(*READ)
        assert met == [
            ("no whole reply to NBD_CMD_READ of 4096+512 came within 4 s", pytest.approx(4, 0.01))
        ]

    await played(script, use, options={"timeout": PATIENCE})


async def test_chunks_for_ever_do_not_extend_the_deadline(autojump_clock):
    async def script(server):
        request = await server.request()
        try:
            while True:
                await trio.sleep(0.1)
                await server.say(chunk(request, ErrorChunk(5), done=False))
        except trio.BrokenResourceError:
            return

    async def use(client):
        with pytest.raises(DeadlineExceededError, match="no whole reply"):
            await client.read(*READ)

    await played(script, use, options={"timeout": PATIENCE})


async def test_a_server_that_reads_nothing(autojump_clock):
    """Sending has a deadline of its own, and replies are read meanwhile (S-191)."""
    ours, theirs = trio.testing.lockstep_stream_pair()

    async def serve():
        server = Script(theirs)
        await server.handshake()
        await server.say(answer(await server.request()))
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with Client.connect(ours, timeout=Timeouts(reply=60, stall=5)) as client:
            assert await client.read(*READ) == DATA
            with pytest.raises(DeadlineExceededError) as caught:
                await client.write(0, bytes(100_000))
            assert str(caught.value) == "the server took no bytes for 5 s"
        nursery.cancel_scope.cancel()


async def test_an_idle_connection_is_not_given_up(autojump_clock):
    async def use(client):
        assert await client.read(*READ) == DATA
        await trio.sleep(1000)
        assert await client.read(*READ) == DATA

    await played(correct, use, options={"timeout": PATIENCE})


# --- sizes -------------------------------------------------------------------------------------

BLOCKS = (512, 4096, 8192)


async def asked_for(use, *, reply=answer, **handshake):
    """What a client asks a server for: command, offset, length (of every request)."""
    asked = []

    async def script(server):
        while (request := await server.request()) is not None and request.command != 2:
            asked.append((Command(request.command).name, request.offset, request.length))
            await server.say(reply(request))

    await played(script, use, **handshake)
    return asked


async def test_reads_are_widened_to_blocks_and_trimmed():
    async def use(client):
        for offset, length in ((0, 512), (1, 1), (511, 2), (513, 5000), (5000, 0)):
            assert await client.read(offset, length) == content(offset, length)
        buffer = bytearray(100)
        await client.read_into(1000, buffer)
        assert buffer == content(1000, 100)

    assert await asked_for(use, blocks=BLOCKS) == [
        ("READ", 0, 512),
        ("READ", 0, 512),
        ("READ", 0, 1024),
        ("READ", 512, 5120),
        ("READ", 512, 1024),
    ]


async def test_reads_without_agreed_blocks_are_portable_as_far_as_the_export_goes():
    async def use(client):
        assert await client.read(1, 1) == content(1, 1)
        assert await client.read(1000, 23) == content(1000, 23)

    assert await asked_for(use, size=1023) == [("READ", 0, 512), ("READ", 512, 511)]


async def test_long_requests_are_split():
    async def use(client):
        assert await client.read(512, 20_000) == content(512, 20_000)
        await client.write(0, bytes(8192 * 2))

    assert await asked_for(use, blocks=(512, 4096, 8500)) == [
        ("READ", 512, 8192),
        ("READ", 8704, 8192),
        ("READ", 16896, 4096),
        ("WRITE", 0, 8192),
        ("WRITE", 8192, 8192),
    ]


async def test_edges_of_writes_are_read_changed_and_written_back():
    store = bytearray(content(0, 1 << 14))

    async def script(server):
        asked = []
        while (request := await server.request()).command != 2:
            asked.append((Command(request.command).name, request.offset, request.length))
            place = slice(request.offset, request.offset + request.length)
            if request.command == 1:
                store[place] = request.payload
            elif request.command == 6:
                store[place] = bytes(request.length)
            body = Data(request.offset, bytes(store[place])) if not request.command else NoneChunk()
            await server.say(chunk(request, body))
        assert asked == [
            ("READ", 0, 512),
            ("WRITE", 0, 512),
            ("READ", 1024, 512),
            ("WRITE", 1024, 512),
            ("WRITE", 512, 512),
            ("READ", 2048, 512),
            ("WRITE", 2048, 512),
            ("READ", 4096, 512),
            ("WRITE", 4096, 512),
            ("WRITE_ZEROES", 4608, 512),
        ]

    async def use(client):
        expected = bytearray(content(0, 1 << 14))
        await client.write(500, b"x" * 600)
        expected[500:1100] = b"x" * 600
        await client.write(2050, b"yz")
        expected[2050:2052] = b"yz"
        await client.zero(4100, 1020)
        expected[4100:5120] = bytes(1020)
        assert store == expected

    await played(script, use, blocks=BLOCKS)


async def test_trim_spares_the_edges_and_cache_takes_them():
    async def use(client):
        await client.trim(100, 1000)
        await client.trim(100, 100)
        await client.cache(100, 1000)

    assert await asked_for(use, blocks=BLOCKS) == [("TRIM", 512, 512), ("CACHE", 0, 1536)]


async def test_a_tail_that_no_block_reaches_is_not_asked_for():
    async def use(client):
        assert client.size == 512
        assert [note.rule for note in client.notes] == ["S-57"]
        assert await client.read(0, 512) == content(0, 512)
        with pytest.raises(ClientError) as caught:
            await client.read(512, 488)
        assert str(caught.value) == "512+488 is not inside of the export of 512 bytes"

    assert await asked_for(use, size=1000, blocks=BLOCKS) == [("READ", 0, 512)]


async def test_reads_that_are_too_long_for_the_server_are_halved():
    def reply(request):
        too_long = request.length > 2048
        return chunk(request, ErrorChunk(75)) if too_long else answer(request)

    async def use(client):
        assert await client.read(0, 8192) == content(0, 8192)

    asked = await asked_for(use, reply=reply)
    assert max(length for _, _, length in asked if length <= 2048) == 2048
    assert len(asked) == 1 + 1 + 2 + 4


async def test_halving_ends():
    async def use(client):
        with pytest.raises(CommandError, match="NBD_EOVERFLOW"):
            await client.read(0, 8192)

    asked = await asked_for(use, reply=lambda request: chunk(request, ErrorChunk(75)))
    assert [length for _, _, length in asked] == [8192, 8192, 4096, 2048, 1024, 512]


async def test_zeroes_are_written_where_they_cannot_be_asked_for():
    async def use(client):
        await client.zero(0, 10_000)
        with pytest.raises(ClientError) as caught:
            await client.zero(0, 512, fast=True)
        assert str(caught.value) == "the server does not offer NBD_CMD_FLAG_FAST_ZERO"

    asked = await asked_for(use, flags=1, blocks=(1, 512, 4096))
    assert asked == [("WRITE", 0, 4096), ("WRITE", 4096, 4096), ("WRITE", 8192, 1808)]


async def test_zeroes_refused_without_reason_are_written():
    def reply(request):
        return chunk(request, ErrorChunk(95)) if request.command == 6 else answer(request)

    async def use(client):
        await client.zero(0, 4096)
        with pytest.raises(CommandError, match="NBD_ENOTSUP"):
            await client.zero(0, 4096, fast=True)

    assert await asked_for(use, reply=reply) == [
        ("WRITE_ZEROES", 0, 4096),
        ("WRITE", 0, 4096),
        ("WRITE_ZEROES", 0, 4096),
    ]


async def test_writes_without_fua_are_flushed():
    async def use(client):
        await client.write(0, b"x", fua=True)

    assert await asked_for(use, flags=5) == [("WRITE", 0, 1), ("FLUSH", 0, 0)]


UNAVAILABLE = {
    "flush": (1, lambda client: client.flush(), "the server does not offer NBD_CMD_FLUSH"),
    "trim": (1, lambda client: client.trim(0, 1), "the server does not offer NBD_CMD_TRIM"),
    "cache": (1, lambda client: client.cache(0, 1), "the server does not offer NBD_CMD_CACHE"),
    "fua": (
        1,
        lambda client: client.write(0, b"x", fua=True),
        "the server offers neither NBD_CMD_FLAG_FUA nor NBD_CMD_FLUSH",
    ),
    "write": (3, lambda client: client.write(0, b"x"), 'the export "" is read-only'),
    "zero": (3, lambda client: client.zero(0, 1), 'the export "" is read-only'),
    "read past the end": (
        1,
        lambda client: client.read(1 << 20, 1),
        "1048576+1 is not inside of the export of 1048576 bytes",
    ),
    "read before the start": (
        1,
        lambda client: client.read(-1, 1),
        "-1+1 is not inside of the export of 1048576 bytes",
    ),
    "another context": (
        1,
        lambda client: anext(client.block_status(0, 1, context="x-y:z")),
        'the metadata context "x-y:z" is not selected',
    ),
}


@pytest.mark.parametrize(("flags", "ask", "message"), UNAVAILABLE.values(), ids=UNAVAILABLE)
async def test_what_is_not_offered_is_not_asked_for(flags, ask, message):
    async def use(client):
        with pytest.raises(ClientError) as caught:
            await ask(client)
        assert str(caught.value) == message

    assert await asked_for(use, flags=flags) == []


async def test_no_context_no_block_status():
    async def use(client):
        with pytest.raises(ClientError) as caught:
            await client.block_status_once(0, 512)
        assert str(caught.value) == (
            "the server selected no metadata context, so it has no block status"
        )

    assert await asked_for(use, structured=False, reply=simple_answer) == []


# --- block status ------------------------------------------------------------------------------


def extents_by_offset(answers, asked):
    def reply(request):
        asked.append((request.offset, request.length, request.flags))
        return chunk(request, Status(7, answers[request.offset]))

    return reply


@pytest.mark.parametrize("row", MEASURED)
async def test_measured_row(row):
    """The table of the recovery on the wire: the same requests, map and notes."""
    (size, minimum), answers, requests, mapped, rules = MEASURED[row]
    asked = []

    async def use(client):
        found = []
        offset = 0
        async for length, flags in client.block_status(0, size, req_one=True):
            if found and found[-1][2] == flags:
                found[-1] = (found[-1][0], found[-1][1] + length, flags)
            else:
                found.append((offset, length, flags))
            offset += length
        assert found == mapped
        assert [note.rule for note in client.notes] == rules

    blocks = (minimum, 4096, 1 << 25) if minimum else None
    reply = extents_by_offset(answers, asked)
    await asked_for(use, reply=reply, size=size, blocks=blocks)
    assert asked == [(*request, 8) for request in requests]


async def test_strict_client_names_the_extent_and_the_rule():
    async def use(client):
        with pytest.raises(NoncomplianceError) as caught:
            await anext(client.block_status(0, 1024))
        assert str(caught.value) == (
            "the extent at 0 is 1000 bytes long, not a multiple of 512 (S-209)"
        )

    reply = extents_by_offset({0: [(1000, 0), (24, 3)]}, [])
    await asked_for(
        use,
        reply=reply,
        size=1024,
        blocks=(512, 4096, 1 << 25),
        options={"tolerance": "strict"},
    )


async def test_status_of_an_unaligned_range():
    async def use(client):
        extents = [extent async for extent in client.block_status(700, 1000)]
        assert extents == [Extent(324, 0), Extent(512, 3), Extent(164, 0)]

    asked = []
    answers = {512: [(512, 0), (512, 3)], 1536: [(1024, 0)]}
    await asked_for(use, reply=extents_by_offset(answers, asked), blocks=BLOCKS)
    assert asked == [(512, 1536, 0), (1536, 512, 0)]


async def test_an_empty_extent_ends_the_session():
    async def script(server):
        request = await server.request()
        await server.say(chunk(request, Status(7, [(0, 0)])))
        await server.nothing_more()

    async def use(client):
        with pytest.raises(ProtocolError, match="S-204"):
            await anext(client.block_status(0, 1024))
        with pytest.raises(ProtocolError, match="S-204"):
            await client.read(0, 512)

    await played(script, use)


async def test_success_without_extents_fails_alone():
    async def script(server):
        await server.say(simple_answer(await server.request()))
        await server.say(answer(await server.request()))
        await server.disconnect()

    async def use(client):
        with pytest.raises(CommandError, match="with success and no extent"):
            await client.block_status_once(0, 1024)
        assert await client.read(*READ) == DATA

    await played(script, use)


async def test_extended_extents_may_be_longer_than_32_bits():
    async def script(server):
        request = await server.request()
        assert request.length == 1 << 40
        body = Status(7, [(1 << 40, 3)], count=1)
        await server.say(chunk(request, body))
        await server.disconnect()

    async def use(client):
        assert await client.block_status_once(0, 1 << 40) == {
            "base:allocation": (Extent(1 << 40, 3),)
        }

    await played(script, use, extended=True, size=1 << 40)


async def test_a_reply_longer_than_the_buffer():
    extents = [(512, number % 2) for number in range(100_000)]

    async def script(server):
        request = await server.request()
        data = encode(chunk(request, Status(7, extents)))
        for start in range(0, len(data), 50_000):
            await server.stream.send_all(data[start : start + 50_000])
        await server.say(answer(await server.request()))
        await server.disconnect()

    async def use(client):
        found = await client.block_status_once(0, client.size)
        assert found["base:allocation"] == tuple(Extent(*extent) for extent in extents)
        assert await client.read(*READ) == DATA

    await played(script, use, size=512 * 100_000)


# --- refused sessions --------------------------------------------------------------------------


async def test_refused_export_is_left_with_abort():
    async def script(server):
        await server.say(Greeting(3))
        await server.hear(decode_client_flags)
        await server.option()
        await server.say(OptionReply(7, ErrorReply("no such"), 0x80000006))
        assert (await server.option()).option == 2
        await server.say(OptionReply(2, Ack()))
        assert await server.option() is None

    error = await refused(script, export="x", contexts=(), structured=False, extended=False)
    assert type(error) is OptionRefusedError
    assert str(error) == ('the server does not open the export "x": NBD_REP_ERR_UNKNOWN: no such')


async def test_abort_is_not_waited_for_without_bound(autojump_clock):
    async def script(server):
        await server.say(Greeting(3))
        await server.hear(decode_client_flags)
        await server.option()
        await server.say(OptionReply(7, ErrorReply(), 0x80000007))
        assert (await server.option()).option == 2
        assert await server.option() is None

    start = trio.current_time()
    error = await refused(script, contexts=(), structured=False, extended=False)
    assert type(error) is ShutdownError
    assert trio.current_time() - start == pytest.approx(6)


async def test_breach_in_the_handshake_closes_without_a_word():
    async def script(server):
        await server.say(Greeting(3))
        await server.hear(decode_client_flags)
        await server.option()
        await server.say(OptionReply(6, Ack()))
        assert await server.option() is None

    error = await refused(script, contexts=(), structured=False, extended=False)
    assert type(error) is ProtocolError


async def test_strict_client_leaves_a_session_that_it_does_not_want_with_disc():
    async def script(server):
        await server.handshake(size=1000, blocks=BLOCKS)
        await server.disconnect()

    error = await refused(script, tolerance="strict")
    assert type(error) is NoncomplianceError
    assert str(error) == "the size 1000 is not a multiple of the minimum block 512 (S-57)"


async def test_bytes_behind_the_handshake_are_not_lost():
    async def script(server):
        await server.handshake()
        await server.say(Raw(bytes(124)))
        assert await server.request() is None

    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Script(theirs))
        async with Client.connect(ours) as client:
            await client.wait_closed()
            with pytest.raises(ProtocolError, match=r"begins with 0x00000000.*S-120"):
                await client.read(*READ)
