"""What faults leave undone, what waits, and what it may cost: lines of behaviour, one by one."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from fakenbd.conversation.conversation import QUEUE_BOUND
from fakenbd.conversation.phases import Phase
from fakenbd.conversation.send_queue import TURN_BYTES, TURN_MESSAGES
from fakenbd.export import BlockSize, Export
from fakenbd.faults import Faults, make_kind
from fakenbd.faults.builder import On
from fakenbd.journal import Noted, Sent, Violated
from fakenbd.protocol.constants import Command, Option, Reply
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    ClientFlags,
    ErrorReply,
    Greeting,
    InfoExport,
    InfoQuery,
    OptionReply,
    OptionRequest,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
)
from tests.conversation.talk import Talk, handshake

SIZE = 1 << 20
HELLO = encode(ClientFlags(3))
LIST = encode(OptionRequest(Option.LIST))
GO = encode(OptionRequest(Option.GO, InfoQuery("")))
ABORT = encode(OptionRequest(Option.ABORT))
STRUCTURED = encode(OptionRequest(Option.STRUCTURED_REPLY))


def wire(*messages: ServerMessage) -> bytes:
    return b"".join(map(encode, messages))


# --- what is failed has no effect ---------------------------------------------------------------

CHANGING = {
    "write": Request(Command.WRITE, 1, 512, 512, 0, bytes(512)),
    "trim": Request(Command.TRIM, 1, 512, 512),
    "write-zeroes": Request(Command.WRITE_ZEROES, 1, 512, 512),
}
FAILING: dict[str, tuple[Callable[..., Any], int]] = {
    "error": (lambda on, **more: on.error("EIO", **more), 5),
    "shutdown": (lambda on, **more: on.shutdown(**more), 108),
}


@pytest.mark.parametrize("effect", [False, True])
@pytest.mark.parametrize("kind", FAILING)
@pytest.mark.parametrize("command", CHANGING)
def test_what_a_fault_fails_changes_nothing_unless_it_says_so(
    command: str, kind: str, effect: bool
) -> None:
    fail, error = FAILING[kind]
    faults = Faults()
    fail(faults.on(command), **({"effect": True} if effect else {}))
    export = Export(size=SIZE)
    before = export.sha256()
    talk = Talk([export], faults)
    talk.say(handshake())
    begin = len(talk.answers)
    talk.say(encode(CHANGING[command]))
    assert talk.answers[begin:] == wire(SimpleReply(1, error))
    assert (export.sha256() != before) == effect
    assert (export.read(512, 512) == bytes(512)) == effect


@pytest.mark.parametrize("command", CHANGING)
def test_what_comes_after_a_shutdown_changes_nothing(command: str) -> None:
    faults = Faults()
    faults.on("flush").shutdown()
    export = Export(size=SIZE)
    before = export.sha256()
    talk = Talk([export], faults)
    talk.say(handshake())
    begin = len(talk.answers)
    talk.say(encode(Request(Command.FLUSH, 9)) + encode(CHANGING[command]))
    assert talk.answers[begin:] == wire(SimpleReply(9, 108), SimpleReply(1, 108))
    assert export.sha256() == before


# --- options wait for the one before --------------------------------------------------------------

LISTED = [OptionReply(Option.LIST, body) for body in (Server(""), Ack())]


def delayed(option: str) -> Faults:
    faults = Faults()
    faults.on(option=option).delay(30)
    return faults


def test_abort_is_honoured_while_the_reply_to_go_is_delayed() -> None:
    talk = Talk([Export(size=SIZE)], delayed("go"))
    talk.say(HELLO + GO)
    talk.say(ABORT)
    assert talk.answers == wire(Greeting(3), OptionReply(Option.ABORT, Ack()))
    assert talk.conversation.ending.cause == ("client", "ABORT", "")
    assert talk.conversation.responder.state.export is None
    talk.wait()
    assert talk.answers == wire(Greeting(3), OptionReply(Option.ABORT, Ack()))


def test_an_option_sent_before_a_delayed_reply_is_answered_after_it() -> None:
    talk = Talk([Export(size=SIZE)], delayed("structured-reply"))
    talk.say(HELLO + STRUCTURED)
    talk.say(LIST + GO)
    assert talk.answers == wire(Greeting(3))
    assert not talk.conversation.responder.state.structured
    talk.wait()
    assert talk.now == 30
    flags = talk.exports[0].flags
    assert talk.answers == wire(
        Greeting(3),
        OptionReply(Option.STRUCTURED_REPLY, Ack()),
        *LISTED,
        OptionReply(Option.GO, InfoExport(SIZE, flags)),
        OptionReply(Option.GO, Ack()),
    )
    assert talk.conversation.standing.phase is Phase.TRANSMISSION
    broken = [entry.rule for entry in talk.journal if isinstance(entry, Violated)]
    assert set(broken) - {"C-33"} == {"C-10"}


def test_nothing_is_negotiated_by_a_reply_that_never_leaves() -> None:
    faults = Faults()
    faults.on(option="structured-reply").stall()
    talk = Talk([Export(size=SIZE)], faults)
    talk.say(HELLO + STRUCTURED + LIST)
    talk.wait()
    assert talk.answers == wire(Greeting(3))
    assert not talk.conversation.responder.state.structured
    assert talk.conversation.standing.phase is Phase.OPTIONS


def test_a_reply_that_a_fault_turned_into_a_refusal_opens_nothing() -> None:
    faults = Faults()
    faults.on(option="go", times=1).do(
        make_kind("drop", "ack"), make_kind("insert", {"message": "refusal", "type": "unknown"})
    )
    talk = Talk([Export(size=SIZE)], faults)
    talk.say(HELLO)
    talk.say(GO)
    begin = len(talk.answers)
    assert talk.conversation.responder.state.export is None
    talk.say(LIST)
    talk.say(ABORT)
    assert talk.answers[begin:] == wire(*LISTED, OptionReply(Option.ABORT, Ack()))
    assert talk.conversation.ending.cause == ("client", "ABORT", "")


@pytest.mark.parametrize("effect", [False, True])
def test_a_refused_option_is_followed_only_where_that_is_said(effect: bool) -> None:
    faults = Faults()
    faults.on(option="structured-reply").refuse("policy", effect=effect)
    talk = Talk([Export(size=SIZE)], faults)
    talk.say(HELLO + STRUCTURED)
    refusal = OptionReply(Option.STRUCTURED_REPLY, ErrorReply(""), Reply.ERR_POLICY)
    assert talk.answers == wire(Greeting(3), refusal)
    assert talk.conversation.responder.state.structured == effect


# --- what a turn and a queue may cost -------------------------------------------------------------


def feed(talk: Talk, data: bytes) -> None:
    """Let bytes come in as long as they are read, to a client that takes nothing."""
    conversation = talk.conversation
    while data and conversation.reads:
        room = conversation.get_buffer()
        count = min(len(room), len(data))
        room[:count], data = data[:count], data[count:]
        conversation.buffer_updated(count)


STEPS: dict[str, Callable[[On], object]] = {
    "repeated": lambda on: on.repeat(1_000_000_000),
    "split": lambda on: on.split(1),
    "repeated for ever": lambda on: on.repeat("forever"),
}


@pytest.mark.parametrize("what", [*STEPS, "maximum payload 1"])
def test_nothing_is_built_in_advance(what: str) -> None:
    faults = Faults()
    if what in STEPS:
        STEPS[what](faults.on("read"))
    block_size = BlockSize(1, 1, 1) if what == "maximum payload 1" else None
    length = 1 << 20 if what == "maximum payload 1" else 1 << 14
    talk = Talk([Export(size=SIZE, block_size=block_size)], faults)
    talk.say(handshake(structured=True))
    tracemalloc.start()
    try:
        feed(talk, encode(Request(Command.READ, 1, 0, length)))
        queue = talk.conversation.responder.queue
        sent = 0
        for _ in range(3):
            assert len(queue.out) <= 2 * TURN_MESSAGES
            assert queue.size <= TURN_BYTES + QUEUE_BOUND
            while buffers := talk.conversation.outgoing():
                count = sum(map(len, buffers))
                sent += count
                talk.conversation.left(count)
            if talk.conversation.more:
                talk.conversation.resume()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent
    assert peak < 1 << 25


def test_a_turn_answers_so_many_requests() -> None:
    """Each would be answered by the responder; the rest waits for the next turn."""
    talk = Talk([Export(size=SIZE)])
    talk.say(handshake())
    flushes = b"".join(encode(Request(Command.FLUSH, cookie)) for cookie in range(400))
    conversation = talk.conversation
    while flushes:
        room = conversation.get_buffer()
        count = min(len(room), len(flushes))
        before = conversation.responder.queue.size
        room[:count], flushes = flushes[:count], flushes[count:]
        conversation.buffer_updated(count)
        assert conversation.responder.queue.size - before <= 16 * TURN_MESSAGES
        while conversation.more:
            before = conversation.responder.queue.size
            conversation.resume()
            assert conversation.responder.queue.size - before <= 16 * TURN_MESSAGES
    talk.collect()
    assert talk.journal.totals.commands == {"flush": 400}


def test_waiting_replies_are_bounded_in_bytes() -> None:
    """139 READs of 4 MiB, the first reply delayed, to a client that reads nothing."""
    length = 1 << 22
    faults = Faults()
    faults.on("read", nth=1).delay(1000)
    talk = Talk([Export(size=1 << 30)], faults)
    talk.say(handshake())
    conversation = talk.conversation
    requests = [Request(Command.READ, cookie, cookie * length, length) for cookie in range(139)]
    for request in requests:
        feed(talk, encode(request))
    assert not conversation.reads
    assert QUEUE_BOUND <= conversation.responder.queue.size <= QUEUE_BOUND + TURN_BYTES + length
    received = talk.journal.totals.commands["read"]
    assert received < 10
    replies = [entry for entry in talk.journal if isinstance(entry, Sent)]
    assert not [entry for entry in replies if isinstance(entry.message, SimpleReply)]


def test_what_is_held_for_others_is_released_at_the_bound() -> None:
    length = 1 << 22
    faults = Faults()
    faults.on("read", nth=1, name="held").hold(100, idle=1000)
    talk = Talk([Export(size=1 << 30)], faults)
    talk.say(handshake())
    conversation = talk.conversation
    for cookie in range(139):
        feed(talk, encode(Request(Command.READ, cookie, cookie * length, length)))
    assert not conversation.reads
    conversation.relieve()
    notes = [entry for entry in talk.journal if isinstance(entry, Noted)]
    assert len(notes) == 1
    assert notes[0].sentence.startswith("released a reply held by fault 'held': ")
    before = len(talk.answers)
    talk.collect()
    received = talk.journal.totals.commands["read"]
    assert len(talk.answers) - before == received * (16 + length)
    assert conversation.reads


def test_nothing_is_released_below_the_bound() -> None:
    faults = Faults()
    faults.on("read", nth=1).hold(100, idle=1000)
    talk = Talk([Export(size=SIZE)], faults)
    talk.say(handshake() + encode(Request(Command.READ, 1, 0, 512)))
    begin = len(talk.answers)
    talk.conversation.relieve()
    talk.collect()
    assert talk.answers[begin:] == b""
    assert not [entry for entry in talk.journal if isinstance(entry, Noted)]
