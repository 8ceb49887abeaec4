"""Captures of real conversations, over every transport, as Debian's tshark dissects them.

Its dissector knows READ, WRITE and DISC, and simple replies; their numbers are compared. What it
does not know (the handshake, FLUSH, structured replies) it must pass over without complaint.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fakenbd import Client, open_server
from fakenbd.conversation import Handshake
from fakenbd.journal import Journal, PcapSink, Sent
from fakenbd.protocol.messages import SimpleReply
from fakenbd.server import TLS
from tests.journal.test_pcap import fields, healthy, tshark

TRANSPORTS: dict[str, dict[str, Any]] = {
    "tcp": {},
    "unix": {"unix": "-"},
    "memory": {"endpoints": []},
    "tls": {"tls": TLS("required")},
}
SIZE = 1 << 18


def numbers(path: Path, magic: int, *names: str) -> list[tuple[int, ...]]:
    """Fields of NBD messages; tshark lists those of several messages of a packet in one line."""
    return [
        tuple(int(text, 0) for text in texts)
        for line in fields(path, *names, select=f"nbd.magic == {magic:#x}")
        for texts in zip(*(text.split(",") for text in line), strict=True)
    ]


def requests(journal: Journal) -> list[tuple[int, ...]]:
    return [
        (entry.message.command, entry.message.cookie, entry.message.offset, entry.message.length)
        for entry in journal.requests(command=["read", "write", "disc"])
    ]


CASES = [
    pytest.param(
        transport,
        structured,
        id=f"{transport}-{'structured' if structured else 'simple'}",
        marks=[pytest.mark.soak] if structured and transport != "tcp" else [],
    )
    for transport in TRANSPORTS
    for structured in (False, True)
]


@pytest.mark.trio
@pytest.mark.parametrize(("transport", "structured"), CASES)
async def test_wireshark_reads_the_messages(
    transport: str, structured: bool, tmp_path: Path
) -> None:
    path = tmp_path / "capture.pcapng"
    speaks = Handshake(structured_replies=structured, extended_headers=False)
    options = TRANSPORTS[transport]
    async with open_server(size=SIZE, handshake=speaks, **options) as server:
        detach = server.journal.attach(PcapSink(path.open("wb"), 1.7e9))
        where = server.connect() if transport == "memory" else server.uri_of("", credentials=True)
        async with Client.connect(where) as client:
            content = await client.read(4096, 100_000)
            await client.write(512, b"x" * 3000)
            await client.flush()
        await server.settle()
        detach()
    healthy(path)
    asked = numbers(path, 0x25609513, "nbd.type", "nbd.handle", "nbd.from", "nbd.len")
    assert asked == requests(server.journal)
    assert [command for command, *_ in asked] == [0, 1, 2]
    simple = [e.message for e in server.journal if isinstance(e, Sent)]
    replies_read = [(m.cookie, m.error) for m in simple if isinstance(m, SimpleReply)]
    assert bool(replies_read) or structured
    assert numbers(path, 0x67446698, "nbd.handle", "nbd.error") == replies_read
    followed = "".join(tshark(path, "-q", "-z", "follow,tcp,raw,0"))
    clear = followed.replace("\t", "").replace("\n", "")
    assert bytes(content[-1000:]).hex() in clear
    assert (b"x" * 3000).hex() in clear
    assert fields(path, "tcp.flags.str", select="tcp.flags.fin == 1")
