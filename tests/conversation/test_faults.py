"""Lies as a client meets them: at every byte, late, coming and going, and those that stay away."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from fakenbd import Client, Profile, background_server, open_server
from fakenbd.conversation import Handshake
from fakenbd.export import Export
from fakenbd.faults import Faults, make_kind
from fakenbd.faults.answer import CloseConnection, NeverSend
from fakenbd.faults.builder import On
from fakenbd.protocol.constants import ClientFlag, Command, Info, Option
from fakenbd.protocol.decode import decode_reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    ClientFlags,
    ClientMessage,
    ErrorChunk,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
    Request,
)
from fakenbd.server.server import Server
from tests.conversation.talk import Talk
from tests.server.speaker import Speaker
from tests.server.wire import Wire

# --- every byte ----------------------------------------------------------------------------------

FLAGS = ClientFlags(int(ClientFlag.FIXED_NEWSTYLE))
STRUCTURED = OptionRequest(Option.STRUCTURED_REPLY)
EXTENDED = OptionRequest(Option.EXTENDED_HEADERS)
CONTEXTS = OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery("disk", ["base:allocation"]))
GO = OptionRequest(Option.GO, InfoQuery("disk", [Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE]))
READ, STATUS = Request(Command.READ, 7, 500, 64), Request(Command.BLOCK_STATUS, 8, 0, 4096)
LONG_READ = Request(Command.READ, 9, 500, 64, extended=True)
LONG_STATUS = Request(Command.BLOCK_STATUS, 9, 0, 4096, extended=True)

# What is said before, what is answered, and the condition that picks that answer.
ANSWERS: dict[str, tuple[list[ClientMessage], ClientMessage | None, dict[str, Any]]] = {
    "greeting": ([], None, {"greeting": True}),
    "export-name": (
        [FLAGS],
        OptionRequest(Option.EXPORT_NAME, ExportName("disk")),
        {"option": "export-name"},
    ),
    "list": ([FLAGS], OptionRequest(Option.LIST), {"option": "list"}),
    "refusal": ([FLAGS], OptionRequest(77), {"option": 77}),
    "set-meta-context": ([FLAGS, STRUCTURED], CONTEXTS, {"option": "set-meta-context"}),
    "go": ([FLAGS], GO, {"option": "go"}),
    "simple read": ([FLAGS, GO], READ, {"command": "read"}),
    "simple write": (
        [FLAGS, GO],
        Request(Command.WRITE, 7, 0, 3, payload=b"abc"),
        {"command": "write"},
    ),
    "read": ([FLAGS, STRUCTURED, GO], READ, {"command": "read"}),
    "error": (
        [FLAGS, STRUCTURED, GO],
        Request(Command.READ, 7, 1 << 40, 1),
        {"command": "read"},
    ),
    "block-status": (
        [FLAGS, STRUCTURED, CONTEXTS, GO],
        STATUS,
        {"command": "block-status"},
    ),
    "extended read": ([FLAGS, EXTENDED, GO], LONG_READ, {"command": "read"}),
    "extended block-status": (
        [FLAGS, EXTENDED, CONTEXTS, GO],
        LONG_STATUS,
        {"command": "block-status"},
    ),
}


def heard(answer: str, faults: Faults) -> tuple[bytes, int, list[object]]:
    """All bytes of the server, how many came before the answer, and what it did beside."""
    before, asked, _ = ANSWERS[answer]
    talk = Talk([Export("disk", size=4096, description="a disk")], faults)
    if asked is None:
        return bytes(talk.answers), 0, talk.markers
    talk.say(b"".join(map(encode, before)))
    begin = len(talk.answers)
    talk.say(encode(asked))
    return bytes(talk.answers), begin, talk.markers


# Silence between two messages concerns nobody else, so the connection need not know of it.
STOPS: dict[str, list[list[object]]] = {"cut": [[CloseConnection()]], "stall": [[NeverSend()], []]}


@pytest.mark.parametrize("kind", STOPS)
@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_stops_at_every_byte(answer: str, kind: str) -> None:
    correct, begin, markers = heard(answer, Faults())
    count = len(correct) - begin
    assert count >= 16
    assert markers == []
    for position in range(count + 1):
        for place in {position, position - count or count}:
            faults = Faults()
            getattr(faults.on(**ANSWERS[answer][2]), kind)(place)
            said, _, markers = heard(answer, faults)
            assert said == correct[: begin + position]
            assert markers in STOPS[kind]


# --- late ----------------------------------------------------------------------------------------

SILENCE = 1000

LATE: dict[str, tuple[Callable[[On], Any], list[tuple[int, int]]]] = {
    "delayed": (lambda on: on.delay(30), [(2, 0), (3, 0), (4, 0), (1, 30)]),
    "held for two others": (lambda on: on.hold(2, idle=900), [(2, 0), (3, 0), (1, 0), (4, 0)]),
    "held until idle": (lambda on: on.hold(idle=7), [(2, 0), (3, 0), (4, 0), (1, 7)]),
    "slow in the middle": (
        lambda on: on.do(make_kind("split", 8), make_kind("delay", 30, at="last")),
        [(1, 0), (2, 0), (3, 0), (4, 0), (1, 30)],
    ),
    "stalled": (lambda on: on.stall(), [(2, 0), (3, 0), (4, 0)]),
}


async def open_speaker(server: Server) -> Speaker:
    speaker = Speaker(server.connect())
    await speaker.greet()
    await speaker.option(Option.STRUCTURED_REPLY)
    await speaker.go()
    return speaker


@pytest.mark.trio
@pytest.mark.parametrize("how", LATE)
async def test_a_late_answer_holds_up_nothing_else(
    how: str, autojump_clock: trio.testing.MockClock
) -> None:
    lie, expected = LATE[how]
    async with open_server(size=4096, seed=1, endpoints=()) as server:
        lie(server.on("read", offset=0))
        client, neighbour = await open_speaker(server), await open_speaker(server)
        requests = [Request(Command.READ, number, 16 * number - 16, 16) for number in range(1, 5)]
        start = trio.current_time()
        await client.say(*requests)
        other = await neighbour.reply(Request(Command.READ, 9, 32, 16), structured=True)
        assert bytes(other.body.data) == server.export.read(32, 16)
        assert trio.current_time() == start, "the neighbour must not wait"
        arrived = []
        with trio.move_on_after(SILENCE):
            while True:
                chunk = await client.hear(
                    decode_reply, extended=False, structured=True, data_length=len, limit=64
                )
                arrived.append((chunk.cookie, round(trio.current_time() - start)))
        assert arrived == expected
        end = trio.current_time()
    assert trio.current_time() == end, "nor must the end"


# --- coming and going ----------------------------------------------------------------------------

LOADERS = 3
ROUNDS = 20


def is_failed(answer: list[Any]) -> bool:
    return isinstance(answer[-1].body, ErrorChunk)


def test_faults_come_go_and_are_counted_under_load() -> None:
    """Who asks after a fault came is fired, after it went is not; and every error is counted."""
    requests = [Request(Command.READ, 0, 512, 64)] * 8
    over = threading.Event()
    failed, served = [0] * LOADERS, [0] * LOADERS

    def load(loader: int) -> None:
        with Wire.to(server.uri) as wire:
            wire.opened()
            while not (over.is_set() and served[loader]):
                for answer in wire.answers(requests):
                    failed[loader] += is_failed(answer)
                    served[loader] += not is_failed(answer)

    with background_server(size="64KiB", seed=1) as server, Wire.to(server.uri) as own:
        own.opened()
        threads = [threading.Thread(target=load, args=(loader,)) for loader in range(LOADERS)]
        for thread in threads:
            thread.start()
        counted = 0
        try:
            for number in range(ROUNDS):
                fault = server.on("read", name=f"fault {number}").error("EIO")
                server.on("write", name="another").error("EIO")
                assert all(map(is_failed, own.answers(requests)))
                assert server.faults.fired(fault) >= len(requests)
                assert server.faults.fired(fault, connection=1) == len(requests)
                counted += len(requests)
                server.faults.remove("another")
                server.faults.remove(fault)
                assert not any(map(is_failed, own.answers(requests)))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert server.fired() == counted + sum(failed)
        assert min(served) > 0
        assert server.errors == []


# --- staying away --------------------------------------------------------------------------------

NEVER = "fault 'the lie' never fired: the closest was "
UNFIRED: dict[str, tuple[dict[str, Any], Callable[[On], Any], str]] = {
    "connection": (
        {"connect": True, "connection": 2},
        lambda on: on.reset(),
        NEVER + "the connect of connection 1 (wanted connection = 2)",
    ),
    "greeting": (
        {"greeting": True, "nth": 2},
        lambda on: on.cut(4),
        NEVER + "the greeting of connection 1 (wanted nth = 2)",
    ),
    "option": (
        {"option": "list"},
        lambda on: on.refuse("policy"),
        NEVER + 'NBD_OPT_EXTENDED_HEADERS number 1 on connection 1 (wanted option = "list")',
    ),
    "command": (
        {"command": "trim"},
        lambda on: on.error("EIO"),
        NEVER + 'NBD_CMD_READ number 1 on connection 1 (wanted command = "trim")',
    ),
    "offset": (
        {"command": "read", "extended": True, "offset": "2KiB.."},
        lambda on: on.error("EIO"),
        NEVER + 'NBD_CMD_READ number 1 on connection 1 (wanted offset = "2048..")',
    ),
    "tls": (
        {"command": "read", "tls": True},
        lambda on: on.error("EIO"),
        NEVER + "NBD_CMD_READ number 1 on connection 1 (wanted tls = true)",
    ),
    "turn": (
        {"command": "read", "nth": 3},
        lambda on: on.error("EIO"),
        NEVER + "NBD_CMD_READ number 2 on connection 1 (wanted nth = 3)",
    ),
    "nothing to change": (
        {"command": "read", "nth": 2},
        lambda on: on.drop("status"),
        "fault 'the lie' never fired: at NBD_CMD_READ number 2 on connection 1 "
        "it left the answer as it was",
    ),
}


@pytest.mark.trio
@pytest.mark.parametrize("what", UNFIRED)
async def test_a_lie_that_stays_away_says_how_close_it_came(what: str) -> None:
    when, lie, sentence = UNFIRED[what]
    async with open_server(size=4096, seed=1, endpoints=()) as server:
        lie(server.on(name="the lie", **when))

        async with Client.connect(server.connect()) as client:
            await client.read(0, 16)
            await client.read(16, 16)
        assert server.unfired() == [sentence]


@pytest.mark.trio
async def test_what_was_agreed_in_clear_is_forgotten_in_hindsight_too() -> None:
    async with open_server(Profile.of(handshake=Handshake(tls="optional")), endpoints=()) as server:
        server.on("read", structured=True, tls=False, name="the lie").error("EIO")
        speaker = Speaker(server.connect())
        await speaker.greet()
        await speaker.option(Option.STRUCTURED_REPLY)
        await speaker.option(Option.STARTTLS)
        await speaker.secure(server)
        await speaker.go()
        await speaker.reply(Request(Command.READ, 1, 0, 16))
        assert server.unfired() == [
            NEVER + "NBD_CMD_READ number 1 on connection 1 (wanted tls = false)"
        ]
        server.faults.remove("the lie")
        server.on("read", structured=True, nth=9, name="the lie").error("EIO")
        assert server.unfired() == [
            NEVER + "NBD_CMD_READ number 1 on connection 1 (wanted structured = true)"
        ]
