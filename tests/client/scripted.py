"""A server that sends what a test passes to it, over a memory stream, and reads requests."""

from __future__ import annotations

import attrs
import trio
import trio.testing

from fakenbd.client import Client
from fakenbd.protocol.decode import (
    decode_client_flags,
    decode_option_request,
    decode_request,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    Data,
    ErrorReply,
    Greeting,
    InfoBlockSize,
    InfoExport,
    MetaContext,
    NoneChunk,
    OptionReply,
    SimpleReply,
)

EVERYTHING = 0xFED
"""All flags that a server may set without extended headers, but read-only."""


@attrs.define(eq=False)
class Script:
    """The server's end of a connection."""

    stream: trio.abc.Stream
    extended: bool = False
    incoming: bytearray = attrs.field(factory=bytearray, init=False)

    async def say(self, *messages):
        await self.stream.send_all(b"".join(map(encode, messages)))

    async def hear(self, decode, **arguments):
        """One message of the client, None at the end of its words."""
        while True:
            decoded = decode(memoryview(bytes(self.incoming)), **arguments)
            if decoded is not None:
                message, length = decoded
                del self.incoming[:length]
                return message
            data = await self.stream.receive_some(1 << 20)
            if not data:
                assert not self.incoming
                return None
            self.incoming += data

    async def request(self):
        return await self.hear(decode_request, extended=self.extended, limit=1 << 26)

    async def requests(self, count):
        return [await self.request() for _ in range(count)]

    async def option(self):
        return await self.hear(decode_option_request, limit=1 << 16)

    async def handshake(
        self, *, size=1 << 20, flags=EVERYTHING, blocks=None, structured=True, extended=False
    ):
        """Negotiate what is given, and open the export."""
        await self.say(Greeting(3))
        await self.hear(decode_client_flags)
        await self.options(size, flags, blocks, structured, extended)

    async def options(
        self, size=1 << 20, flags=EVERYTHING, blocks=None, structured=True, extended=False
    ):
        """What follows the greeting, up to the export."""
        self.extended = extended
        while True:
            option = (await self.option()).option
            if (option == 11 and not extended) or (option == 8 and not structured):
                await self.say(OptionReply(option, ErrorReply(), 0x80000001))
            elif option == 10:
                context = MetaContext(7, "base:allocation")
                await self.say(OptionReply(10, context), OptionReply(10, Ack()))
            elif option == 7:
                infos = [] if blocks is None else [OptionReply(7, InfoBlockSize(*blocks))]
                export = OptionReply(7, InfoExport(size, flags))
                await self.say(*infos, export, OptionReply(7, Ack()))
                return
            else:
                await self.say(OptionReply(option, Ack()))

    async def disconnect(self):
        """The soft end: DISC, with nothing before or behind it."""
        request = await self.request()
        assert (request.command, request.offset, request.length, request.flags) == (2, 0, 0, 0)
        assert await self.request() is None

    async def nothing_more(self):
        """The hard end: the client closes without a word."""
        assert await self.request() is None


async def played(script, use, *, options=None, **handshake):
    """Let a client `use(client)` a server that, after the handshake, follows `script(server)`."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve():
        server = Script(theirs)
        await server.handshake(**handshake)
        await script(server)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        async with Client.connect(ours, **(options or {})) as client:
            return await use(client)


def content(offset, length):
    """What the scripted export holds."""
    return bytes((place * 31 + place // 251) & 0xFF for place in range(offset, offset + length))


def chunk(request, body, done=True, **fields):
    """One chunk of the reply to `request`, with the header that was agreed on."""
    fields = {"request_offset": request.offset if request.extended else None, **fields}
    return Chunk(request.cookie, body, flags=int(done), **fields)


def answer(request):
    """The correct structured reply to a READ; success for everything else."""
    if request.command == 0:
        return chunk(request, Data(request.offset, content(request.offset, request.length)))
    return chunk(request, NoneChunk())


def simple_answer(request, error=0):
    """The correct simple reply."""
    data = content(request.offset, request.length) if request.command == 0 and not error else b""
    return SimpleReply(request.cookie, error, data)


async def correct(server):
    """Answer everything correctly until the client disconnects; returns its requests, in order."""
    asked = []
    while True:
        request = await server.request()
        if request is None or request.command == 2:
            return asked
        asked.append(request)
        await server.say(answer(request))
