"""Replies that wait hold no content that can be read again, and what they send is the same."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from fakenbd.conversation.conversation import QUEUE_BOUND
from fakenbd.export import Export
from fakenbd.export.content import FunctionContent, Pattern
from fakenbd.faults import Faults
from fakenbd.faults.builder import On
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import Talk, handshake

LENGTH = 1 << 20
COUNT = 64
WAITS: dict[str, Callable[[On], object]] = {
    "delayed": lambda on: on.delay(20),
    "held": lambda on: on.hold(1000, idle=20),
}


def reads(count: int, length: int = LENGTH) -> bytes:
    """READs of neighbouring ranges, with the cookies 0, 1, 2 …"""
    return b"".join(
        encode(Request(Command.READ, cookie, cookie * length, length)) for cookie in range(count)
    )


def content_by_cookie(answers: bytes, length: int = LENGTH) -> dict[int, bytes]:
    """The content of simple replies without error."""
    found = {}
    for place in range(0, len(answers), 16 + length):
        assert answers[place : place + 8] == bytes.fromhex("6744669800000000")
        cookie = int.from_bytes(answers[place + 8 : place + 16], "big")
        found[cookie] = bytes(answers[place + 16 : place + 16 + length])
    return found


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_many_large_reads_wait_at_once(wait: str, structured: bool) -> None:
    """64 READs of 1 MiB each: four times the bound of the queue, were they held."""
    faults = Faults()
    WAITS[wait](faults.on("read"))
    talk = Talk([Export(size=COUNT * LENGTH)], faults)
    talk.say(handshake(structured=structured))
    begin = len(talk.answers)
    tracemalloc.start()
    try:
        talk.say(reads(COUNT))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert talk.journal.totals.commands == {"read": COUNT}
    assert len(talk.answers) == begin
    assert talk.conversation.responder.queue.size == 0
    assert peak < 8 * LENGTH
    talk.wait()
    head = 28 if structured else 16
    assert len(talk.answers) - begin == COUNT * (head + LENGTH)


def test_what_leaves_late_is_the_content() -> None:
    faults = Faults()
    faults.on("read").delay(20)
    talk = Talk([Export(size=8 * LENGTH)], faults)
    talk.say(handshake())
    begin = len(talk.answers)
    talk.say(reads(8))
    talk.wait()
    expected = {cookie: bytes(Pattern().read(cookie * LENGTH, LENGTH)) for cookie in range(8)}
    assert content_by_cookie(bytes(talk.answers[begin:])) == expected


def test_a_reply_that_waits_is_of_the_time_of_its_request() -> None:
    """The range is written to before the request, in another part, and after it."""
    faults = Faults()
    faults.on("read").delay(20)
    export = Export(size=2 * LENGTH)
    talk = Talk([export], faults)
    talk.say(handshake())
    talk.say(encode(Request(Command.WRITE, 9, 4096, 4096, payload=b"1" * 4096)))
    begin = len(talk.answers)
    expected = {cookie: bytes(export.read(cookie * LENGTH, LENGTH)) for cookie in range(2)}
    talk.say(reads(2))
    assert LENGTH <= talk.conversation.responder.queue.size < 2 * LENGTH, "one is held"
    talk.say(encode(Request(Command.WRITE, 9, 0, 2 * LENGTH, payload=b"2" * (2 * LENGTH))))
    talk.answers[begin:] = b""
    talk.wait()
    assert content_by_cookie(bytes(talk.answers[begin:])) == expected


def test_what_a_fault_changed_is_held() -> None:
    faults = Faults()
    faults.on("read", nth=1).corrupt(100_000)
    faults.on("read", nth=1, also=True).delay(20)
    talk = Talk([Export(size=LENGTH)], faults)
    talk.say(handshake())
    begin = len(talk.answers)
    talk.say(reads(1))
    talk.wait()
    sent = bytes(talk.answers[begin + 16 :])
    correct = bytes(Pattern().read(0, LENGTH))
    different = [place for place in range(LENGTH) if sent[place] != correct[place]]
    assert different == [100_000 - 16]


def test_content_that_may_change_counts_against_the_bound() -> None:
    faults = Faults()
    faults.on("read").delay(20)
    calls: list[int] = []

    def content(offset: int, length: int) -> bytes:
        calls.append(offset)
        return bytes(length)

    talk = Talk([Export(size=COUNT * LENGTH, content=FunctionContent(content))], faults)
    talk.say(handshake())
    talk.say(reads(COUNT))
    queue = talk.conversation.responder.queue
    assert QUEUE_BOUND <= queue.size <= QUEUE_BOUND + LENGTH
    assert not talk.conversation.reads
    assert len(calls) == QUEUE_BOUND // LENGTH
