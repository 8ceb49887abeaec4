"""A client that says exactly what a test tells it to, in clear and under TLS."""

from __future__ import annotations

import ssl

import attrs
import trio

from fakenbd.protocol.constants import Info, Option
from fakenbd.protocol.decode import decode_greeting, decode_option_reply, decode_reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Ack, ClientFlags, ErrorReply, InfoQuery, OptionRequest

__all__ = ["Speaker", "trusting"]


def trusting(server, **settings):
    """A context that trusts the certificates of `server`, and nothing else."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if server.security.ca_file:
        context.load_verify_locations(server.security.ca_file)
    for name, value in settings.items():
        setattr(context, name, value)
    return context


@attrs.define(eq=False)
class Speaker:
    """The client's end of a connection."""

    stream: trio.abc.Stream
    incoming: bytearray = attrs.field(factory=bytearray)

    async def say(self, *messages):
        await self.stream.send_all(b"".join(map(encode, messages)))

    async def hear(self, decode, **arguments):
        """One message of the server, None at the end of its words."""
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

    async def greet(self):
        await self.hear(decode_greeting)
        await self.say(ClientFlags(3))

    async def option(self, option, *body):
        """Say an option; the body of its last reply."""
        await self.say(OptionRequest(option, *body))
        while True:
            reply = await self.hear(decode_option_reply, limit=1 << 16)
            if reply is None or isinstance(reply.body, Ack | ErrorReply):
                return reply and reply.body

    async def go(self, export=""):
        assert await self.option(Option.GO, InfoQuery(export, [Info.BLOCK_SIZE])) == Ack()

    async def starttls(self):
        """Greet and agree to TLS, up to the ACK."""
        await self.greet()
        assert await self.option(Option.STARTTLS) == Ack()
        assert not self.incoming

    async def secure(self, server, *, hostname="localhost", **settings):
        """The TLS handshake; from here on all goes through it."""
        context = trusting(server, **settings)
        self.stream = trio.SSLStream(self.stream, context, server_hostname=hostname)
        await self.stream.do_handshake()

    async def reply(self, request, *, structured=False):
        """Say a READ, hear its reply, or its first chunk."""
        await self.say(request)
        return await self.hear(
            decode_reply,
            extended=False,
            structured=structured,
            data_length=lambda cookie: request.length,
            limit=1 << 20,
        )
