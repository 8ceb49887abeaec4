"""The correct reply to every command: with simple, structured and extended replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

from fakenbd.conversation.export_commands import LARGEST_PAYLOAD, answer_command
from fakenbd.export import BlockSize, Export, Pattern, Policy
from fakenbd.export.content import BytesContent, FunctionContent
from fakenbd.export.export import ALL_FLAGS
from fakenbd.faults.answer import Answer
from fakenbd.protocol.constants import Command, CommandFlag, Error, TransmissionFlag
from fakenbd.protocol.messages import (
    Chunk,
    ChunkBody,
    Data,
    ErrorChunk,
    Hole,
    NoneChunk,
    Request,
    SimpleReply,
    Status,
)
from fakenbd.protocol.negotiated import NegotiatedState

FUA, NO_HOLE, DF = CommandFlag.FUA, CommandFlag.NO_HOLE, CommandFlag.DF
REQ_ONE, FAST_ZERO, PAYLOAD_LEN = (
    CommandFlag.REQ_ONE,
    CommandFlag.FAST_ZERO,
    CommandFlag.PAYLOAD_LEN,
)
READ, WRITE, FLUSH, TRIM = Command.READ, Command.WRITE, Command.FLUSH, Command.TRIM
CACHE, ZEROES, STATUS = Command.CACHE, Command.WRITE_ZEROES, Command.BLOCK_STATUS

SIZE = 1 << 20
GIB = 1 << 30
MAXIMUM = 65536
HELD = bytes(range(256)) * 512  # 128 KiB, and zeroes behind
COOKIE = 0xC00C1E
DIRTY = "qemu:dirty-bitmap:b0"

PAST = "request extends past the end of the export"
FLAG = "invalid or unnegotiated command flag"
UNOFFERED = "command not offered by this export"
STYLES = ("simple", "structured", "extended")


def export(**options: Any) -> Export:
    given = {
        "size": SIZE,
        "content": BytesContent(HELD),
        "block_size": BlockSize(1, 4096, MAXIMUM),
        "contexts": {"base:allocation": None, DIRTY: ["512 dirty", "4096 0", "1043968 dirty"]},
        "flags": ALL_FLAGS | TransmissionFlag.BLOCK_STATUS_PAYLOAD,
    }
    return Export("", **(given | options))


def told(
    style: str,
    request: Request,
    disk: Export,
    contexts: Sequence[str] = ("base:allocation", DIRTY),
    *,
    effect: bool = True,
) -> Answer:
    """The reply to a request where a style was negotiated; ids of contexts are 1, 2, …"""
    extended = style == "extended"
    state = NegotiatedState(
        structured=style == "structured",
        extended=extended,
        contexts=dict(enumerate(contexts, 1)),
        contexts_export="",
        export="",
    )
    asked = attrs.evolve(request, cookie=COOKIE, extended=extended)
    return answer_command(disk, state, asked, effect=effect)


def chunks(style: str, request: Request, *bodies: ChunkBody) -> Answer:
    offset = request.offset if style == "extended" else None
    return [
        Chunk(COOKIE, body, flags=int(body is bodies[-1]), request_offset=offset) for body in bodies
    ]


def failure(style: str, request: Request, error: int, text: str) -> Answer:
    if style == "simple":
        return [SimpleReply(COOKIE, error)]
    return chunks(style, request, ErrorChunk(error, text))


def success(style: str, request: Request) -> Answer:
    if style == "extended":
        return chunks(style, request, NoneChunk())
    return [SimpleReply(COOKIE)]


def ask(
    command: int, offset: int = 0, length: int = 0, flags: int = 0, payload: bytes = b""
) -> Request:
    return Request(command, 0, offset, length, flags, payload)


every_style = pytest.mark.parametrize("style", STYLES)

# --- READ ---------------------------------------------------------------------------------------

# what is read, and the pieces that a structured reply has: data, or the size of a hole
READS: list[tuple[Request, list[tuple[int, int | bytes]]]] = [
    (ask(READ, 512, 1024), [(512, HELD[512:1536])]),
    (ask(READ, 1, 1), [(1, b"\x01")]),
    (ask(READ, 512, 1024, FUA), [(512, HELD[512:1536])]),
    (ask(READ, 131072 - 512, 1024), [(131072 - 512, HELD[-512:]), (131072, 512)]),
    (ask(READ, 131072 - 512, 1024, DF), [(131072 - 512, HELD[-512:] + bytes(512))]),
    (ask(READ, SIZE - 512, 512), [(SIZE - 512, 512)]),
    (ask(READ, SIZE - 512, 512, DF), [(SIZE - 512, bytes(512))]),
    (ask(READ, 0, MAXIMUM), [(0, HELD[:MAXIMUM])]),
]


@every_style
@pytest.mark.parametrize(("request_", "pieces"), READS)
def test_read(style: str, request_: Request, pieces: list[tuple[int, int | bytes]]) -> None:
    if style == "simple":
        request_ = attrs.evolve(request_, flags=request_.flags & ~DF)
        data = b"".join(bytes(piece) for _, piece in pieces)
        expected: Answer = [SimpleReply(COOKIE, 0, data)]
    else:
        bodies = [
            Hole(offset, piece) if isinstance(piece, int) else Data(offset, piece)
            for offset, piece in pieces
        ]
        expected = chunks(style, request_, *bodies)
    assert told(style, request_, export()) == expected


@pytest.mark.parametrize("style", ["structured", "extended"])
def test_a_long_read_comes_in_chunks_of_the_maximum(style: str) -> None:
    request = ask(READ, 100, 2 * MAXIMUM)
    assert told(style, request, export()) == chunks(
        style,
        request,
        Data(100, HELD[100 : MAXIMUM + 100]),
        Data(MAXIMUM + 100, HELD[MAXIMUM + 100 :]),
        Hole(2 * MAXIMUM, 100),
    )


@every_style
def test_a_read_of_nothing(style: str) -> None:
    request = ask(READ, 512, 0)
    expected = [SimpleReply(COOKIE)] if style == "simple" else chunks(style, request, NoneChunk())
    assert told(style, request, export()) == expected


# --- what fails ---------------------------------------------------------------------------------


def without(*flags: TransmissionFlag) -> dict[str, Any]:
    return {"flags": ALL_FLAGS & ~sum(flags)}


def with_(flag: TransmissionFlag) -> dict[str, Any]:
    return {"flags": ALL_FLAGS | flag}


# why, what is asked of which export, and the error
REFUSALS: list[tuple[Request, dict[str, Any], int, str]] = [
    *(
        (ask(command, offset, 512), {}, Error.EINVAL, PAST)
        for command in (READ, TRIM, CACHE, STATUS)
        for offset in (SIZE, SIZE - 511, (1 << 64) - 1)
    ),
    (ask(WRITE, SIZE - 511, 512, payload=bytes(512)), {}, Error.ENOSPC, PAST),
    (ask(ZEROES, SIZE - 511, 512), {}, Error.ENOSPC, PAST),
    (ask(8, SIZE), {}, Error.EINVAL, "unknown command"),
    (ask(77), {}, Error.EINVAL, "unknown command"),
    (ask(READ, 0, 512, 0x40), {}, Error.EINVAL, FLAG),
    (ask(READ, 0, 512, NO_HOLE), {}, Error.EINVAL, FLAG),
    (ask(READ, 0, 512, REQ_ONE), {}, Error.EINVAL, FLAG),
    (ask(WRITE, 0, 1, DF, b"x"), {}, Error.EINVAL, FLAG),
    (ask(WRITE, 0, 1, FAST_ZERO, b"x"), {}, Error.EINVAL, FLAG),
    (ask(TRIM, 0, 512, NO_HOLE), {}, Error.EINVAL, FLAG),
    (ask(ZEROES, 0, 512, REQ_ONE), {}, Error.EINVAL, FLAG),
    (ask(STATUS, 0, 512, DF), {}, Error.EINVAL, FLAG),
    (ask(TRIM, 0, 512, PAYLOAD_LEN), {}, Error.EINVAL, FLAG),
    (ask(READ, 0, 512, DF), without(TransmissionFlag.SEND_DF), Error.EINVAL, FLAG),
    (ask(WRITE, 0, 1, FUA, b"x"), without(TransmissionFlag.SEND_FUA), Error.EINVAL, FLAG),
    (ask(ZEROES, 0, 1, FAST_ZERO), without(TransmissionFlag.SEND_FAST_ZERO), Error.EINVAL, FLAG),
    (ask(FLUSH), without(TransmissionFlag.SEND_FLUSH), Error.EINVAL, UNOFFERED),
    (ask(TRIM, 0, 512), without(TransmissionFlag.SEND_TRIM), Error.EINVAL, UNOFFERED),
    (ask(ZEROES, 0, 512), without(TransmissionFlag.SEND_WRITE_ZEROES), Error.EINVAL, UNOFFERED),
    (ask(CACHE, 0, 512), without(TransmissionFlag.SEND_CACHE), Error.EINVAL, UNOFFERED),
    *(
        (request, with_(TransmissionFlag.READ_ONLY), Error.EPERM, "the export is read-only")
        for request in (ask(WRITE, 0, 1, 0, b"x"), ask(TRIM, 0, 512), ask(ZEROES, 0, 512))
    ),
    (ask(FLUSH, 512), {}, Error.EINVAL, "offset and length must be 0"),
    (ask(FLUSH, 0, 512), {}, Error.EINVAL, "offset and length must be 0"),
    *(
        (
            ask(READ, offset, length),
            {"block_size": BlockSize(512, 4096, MAXIMUM)},
            Error.EINVAL,
            "the range is not aligned to 512 bytes",
        )
        for offset, length in ((1, 512), (512, 511), (513, 511))
    ),
    (
        ask(WRITE, 0, MAXIMUM + 1, 0, bytes(MAXIMUM + 1)),
        {},
        Error.EINVAL,
        "request exceeds the maximum payload",
    ),
    (
        ask(READ, 0, LARGEST_PAYLOAD + 1),
        {"size": 1 << 30},
        Error.EOVERFLOW,
        "request exceeds the maximum payload",
    ),
    (ask(READ, 0, MAXIMUM + 1, DF), {}, Error.EOVERFLOW, "request exceeds the maximum payload"),
    (ask(STATUS, 0, 0), {}, Error.EINVAL, "the range is empty"),
]


@pytest.mark.parametrize("style", ["structured", "extended"])
@pytest.mark.parametrize(("request_", "options", "error", "text"), REFUSALS)
def test_refusal(
    style: str, request_: Request, options: dict[str, Any], error: int, text: str
) -> None:
    disk = export(**options)
    before = disk.sha256()
    assert told(style, request_, disk) == failure(style, request_, error, text)
    assert disk.sha256() == before


SIMPLE_REFUSALS = [
    (ask(READ, SIZE, 512), Error.EINVAL),
    (ask(WRITE, SIZE, 512, 0, bytes(512)), Error.ENOSPC),
    (ask(READ, 0, 512, DF), Error.EINVAL),
    (ask(READ, 0, MAXIMUM + 1), Error.EINVAL),
    (ask(STATUS, 0, 512), Error.EINVAL),
    (ask(77), Error.EINVAL),
]


@pytest.mark.parametrize(("request_", "error"), SIMPLE_REFUSALS)
def test_refusal_with_a_simple_reply(request_: Request, error: int) -> None:
    assert told("simple", request_, export()) == [SimpleReply(COOKIE, error)]


def test_a_content_that_cannot_be_read_is_an_error_of_one_request() -> None:
    def broken(offset: int, length: int) -> bytes:
        raise OSError("the disk is on fire")

    request = ask(READ, 512, 512)
    assert told("structured", request, export(content=FunctionContent(broken))) == failure(
        "structured", request, Error.EIO, "the disk is on fire"
    )


# --- what changes the export --------------------------------------------------------------------

Change = Callable[[bytearray], None]


def put(start: int, data: bytes) -> Change:
    def change(content: bytearray) -> None:
        content[start : start + len(data)] = data

    return change


# what is asked, what becomes of the content, and the extents of its first 128 KiB
CHANGES: list[tuple[Request, Change, list[tuple[int, int]]]] = [
    (ask(WRITE, 100, 5, 0, b"hello"), put(100, b"hello"), [(131072, 0)]),
    (ask(WRITE, 100, 5, FUA, b"hello"), put(100, b"hello"), [(131072, 0)]),
    (ask(WRITE, 100, 0), put(0, b""), [(131072, 0)]),
    (ask(ZEROES, 4096, 8192), put(4096, bytes(8192)), [(4096, 0), (8192, 3), (118784, 0)]),
    (ask(ZEROES, 4096, 8192, NO_HOLE), put(4096, bytes(8192)), [(4096, 0), (8192, 2), (118784, 0)]),
    (
        ask(ZEROES, 0, 131072, FAST_ZERO | FUA),
        put(0, bytes(131072)),
        [(131072, 3)],
    ),
    (ask(ZEROES, 4096, 0), put(0, b""), [(131072, 0)]),
    (ask(TRIM, 0, 4096), put(0, bytes(4096)), [(4096, 3), (126976, 0)]),
    (ask(TRIM, 0, 4096, FUA), put(0, bytes(4096)), [(4096, 3), (126976, 0)]),
    (ask(FLUSH), put(0, b""), [(131072, 0)]),
    (ask(FLUSH, 0, 0, FUA), put(0, b""), [(131072, 0)]),
    (ask(CACHE, 0, SIZE), put(0, b""), [(131072, 0)]),
]


@every_style
@pytest.mark.parametrize(("request_", "change", "extents"), CHANGES)
def test_change(
    style: str, request_: Request, change: Change, extents: list[tuple[int, int]]
) -> None:
    disk = export()
    content = bytearray(HELD.ljust(SIZE, b"\0"))
    change(content)
    if style == "extended" and request_.command == WRITE:
        request_ = attrs.evolve(request_, flags=request_.flags | PAYLOAD_LEN)
    assert told(style, request_, disk) == success(style, request_)
    assert disk.read(0, SIZE) == content
    status = told("structured", ask(STATUS, 0, 131072), disk, ["base:allocation"])
    assert status == chunks("structured", request_, Status(1, extents))


@every_style
@pytest.mark.parametrize("request_", [change[0] for change in CHANGES])
def test_without_effect_the_reply_is_the_same_and_nothing_changes(
    style: str, request_: Request
) -> None:
    disk = export()
    before = disk.sha256()
    if style == "extended" and request_.command == WRITE:
        request_ = attrs.evolve(request_, flags=request_.flags | PAYLOAD_LEN)
    assert told(style, request_, disk, effect=False) == success(style, request_)
    assert disk.sha256() == before
    assert disk.segments(0, 131072) == [(131072, 0)]


# --- BLOCK_STATUS -------------------------------------------------------------------------------

WHOLE = [(131072, 0), (SIZE - 131072, 3)]
DIRT = [(512, 1), (4096, 0), (SIZE - 4608, 1)]


@pytest.mark.parametrize("style", ["structured", "extended"])
@pytest.mark.parametrize(
    ("request_", "bodies"),
    [
        (ask(STATUS, 0, SIZE), [Status(1, WHOLE), Status(2, DIRT)]),
        (ask(STATUS, 0, SIZE, REQ_ONE), [Status(1, WHOLE[:1]), Status(2, DIRT[:1])]),
        (ask(STATUS, 256, 512), [Status(1, [(512, 0)]), Status(2, [(256, 1), (256, 0)])]),
        (ask(STATUS, SIZE - 1, 1), [Status(1, [(1, 3)]), Status(2, [(1, 1)])]),
    ],
)
def test_block_status(style: str, request_: Request, bodies: list[Status]) -> None:
    assert told(style, request_, export()) == chunks(style, request_, *bodies)


@pytest.mark.parametrize("size", [4 * GIB, 8 * GIB, 2**63])
@pytest.mark.parametrize(
    ("style", "capped"), [("structured", lambda size: 4 * GIB - 512), ("extended", int)]
)
def test_extents_of_more_than_32_bits(style: str, capped: Callable[[int], int], size: int) -> None:
    disk = export(
        size=size,
        content=Pattern(),
        contexts={"base:allocation": Policy(overrun=True)},
        block_size=BlockSize(512, 4096, 1 << 25),
    )
    request = ask(STATUS, 0, 512)
    expected = chunks(style, request, Status(1, [(capped(size), 0)]))
    assert told(style, request, disk, ["base:allocation"]) == expected


def test_block_status_without_a_context() -> None:
    request = ask(STATUS, 0, 512)
    assert told("structured", request, export(), []) == failure(
        "structured", request, Error.EINVAL, "no metadata context was selected"
    )


def filtered(effect: int, *ids: int) -> Request:
    """BLOCK_STATUS with a payload that picks contexts."""
    payload = effect.to_bytes(8, "big") + b"".join(each.to_bytes(4, "big") for each in ids)
    return ask(STATUS, 0, len(payload), PAYLOAD_LEN, payload)


@pytest.mark.parametrize(
    ("request_", "bodies"),
    [
        (filtered(SIZE, 2), [Status(2, DIRT)]),
        (filtered(SIZE, 2, 1), [Status(2, DIRT), Status(1, WHOLE)]),
        (filtered(512, 1), [Status(1, [(512, 0)])]),
    ],
)
def test_block_status_with_a_payload(request_: Request, bodies: list[Status]) -> None:
    assert told("extended", request_, export()) == chunks("extended", request_, *bodies)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (filtered(512, 3), "unknown or repeated context ids"),
        (filtered(512, 1, 1), "unknown or repeated context ids"),
        (filtered(512), "the payload is an effect length and context ids"),
        (
            ask(STATUS, 0, 13, PAYLOAD_LEN, bytes(13)),
            "the payload is an effect length and context ids",
        ),
        (filtered(SIZE + 1, 1), PAST),
        (filtered(0, 1), "the range is empty"),
    ],
)
def test_a_payload_that_makes_no_sense(request_: Request, text: str) -> None:
    assert told("extended", request_, export()) == failure("extended", request_, Error.EINVAL, text)


def test_an_export_may_take_any_alignment() -> None:
    disk = export(block_size=BlockSize(512, 4096, MAXIMUM), any_alignment=True)
    assert told("simple", ask(READ, 1, 3), disk) == [SimpleReply(COOKIE, 0, HELD[1:4])]
