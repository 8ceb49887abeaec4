"""A connection of which bytes were never seen: only what is certain is reported."""

from __future__ import annotations

from fakenbd.obligations import Gap, Start
from fakenbd.protocol.constants import (
    Error,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    ErrorChunk,
    OptionRequest,
    SimpleReply,
)
from tests.obligations.stage import (
    read,
    write,
)
from tests.obligations.wire import SIZE, Wire, opened


def test_from_unknown_only_what_is_certain_is_reported() -> None:
    wire = Wire(start=Start.UNKNOWN)
    assert wire.client(b"rest of a payload", read(cookie=1)) == []
    assert wire.client(read(0, 0, flags=0x40, cookie=2), read(1 << 50, 7, cookie=2)) == [
        "C-74",
        "C-95",
    ]
    assert wire.server(Chunk(77, Data(0, bytes(9)), 1), Chunk(2, Data(0, bytes(512)), 1)) == []
    assert wire.client(bytes(40)) == []
    assert wire.client(read(cookie=3), OptionRequest(77)) == ["C-17"]
    assert wire.client_left() == []


def test_a_magic_inside_of_a_payload_is_not_trusted() -> None:
    wire = Wire(start=Start.UNKNOWN)
    false = encode(read(0, 0, flags=0x40))
    assert wire.client(b"payload " + false[:4] + b"\xff" * 24, bytes(64)) == []
    assert wire.client(read(cookie=1), read(0, 0, cookie=2)) == ["C-95"]


def test_a_gap_inside_of_a_payload_hides_nothing() -> None:
    wire = opened()
    wire.client(write(0, 8192, cookie=3), count=28 + 100)
    assert wire.client(Gap(8092), read(SIZE, cookie=4)) == ["C-88"]
    assert wire.server(SimpleReply(3), Chunk(4, ErrorChunk(Error.EINVAL), 1)) == []


def test_behind_a_gap_over_messages_only_what_is_certain_is_reported() -> None:
    wire = opened()
    wire.client(read(cookie=1))
    assert wire.client(Gap(30)) == []
    assert wire.client(read(SIZE, cookie=2), read(SIZE, 0, cookie=3)) == ["C-95"]
    assert wire.server(SimpleReply(1)) == []
    assert wire.client_left() == []


def test_what_nobody_read_may_have_been_a_disc() -> None:
    wire = opened()
    assert wire.client(Gap(28)) == []
    assert wire.client_left() == []
