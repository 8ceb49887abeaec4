"""One thread records while others read: nothing raises, nothing is decoded from half a record.

What the recording thread does in the midst of a look is done here by the sequences looked into, so
that each interleaving happens every time.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

import attrs
import pytest

from fakenbd.journal import Entry, Journal, Received, Sent
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Buffer, Chunk, ErrorChunk, Request, SimpleReply
from tests.journal.conversation import received
from tests.journal.test_journal import FORMS, journal, plain_requests


class Interrupted(list[Buffer]):
    """A list during whose reading something else happens, before each item."""

    def __init__(self, items: list[Buffer], happen: Callable[[], None]) -> None:
        super().__init__(items)
        self.happen = happen

    def __iter__(self) -> Iterator[Buffer]:
        for item in super().__iter__():
            self.happen()
            yield item


@attrs.define(eq=False)
class Recorder:
    """Records exchanges of one form; `interrupt` does so while somebody looks."""

    journal: Journal
    form: str
    looking: bool = False
    interruptions: int = 0

    def record(self) -> None:
        extended, structured, reply = FORMS[self.form]
        requests = plain_requests(extended)
        headers = b"".join(encode(attrs.evolve(one, payload=b"")) for one in requests)
        payloads = [
            Interrupted([one.payload[:2], one.payload[2:]], self.interrupt)
            for one in requests
            if one.command == 1
        ]
        buffers: list[Buffer] = []
        for one in map(reply, requests):
            head = encode(one)
            data = one.data if isinstance(one, SimpleReply) else getattr(one.body, "data", b"")
            buffers += [head[: len(head) - len(data)], data] if data else [head]
        self.journal.plain_batch(
            1,
            headers,
            len(requests),
            payloads,
            Interrupted(buffers, self.interrupt),
            extended=extended,
            structured=structured,
            received=len(headers) + sum(len(one.payload) for one in requests),
            sent=sum(map(len, buffers)),
        )

    def interrupt(self) -> None:
        if self.looking:
            self.looking = False
            self.interruptions += 1
            self.record()
            self.looking = True

    def check(self, entries: list[Entry]) -> None:
        """Entries without gaps, each what was recorded; only bulk data may be missing."""
        extended, _, reply = FORMS[self.form]
        replies = {one.cookie: reply(one) for one in plain_requests(extended)}
        first = entries[0].index
        assert [entry.index for entry in entries] == list(range(first, first + len(entries)))
        for entry in entries:
            assert isinstance(entry, Received | Sent)
            if isinstance(entry, Received):
                (sent,) = (one for one in plain_requests(extended) if one.cookie == entry.cookie)
                assert attrs.evolve(entry.message, payload=b"") == attrs.evolve(sent, payload=b"")
                assert entry.data in (None, sent.payload or None)
                continue
            assert isinstance(entry.message, SimpleReply | Chunk)
            answer = replies[entry.message.cookie]
            failed = isinstance(answer, Chunk) and isinstance(answer.body, ErrorChunk)
            assert entry.error == ("eio" if failed or getattr(answer, "error", 0) else None)
            assert entry.data is None or entry.whole == answer
            assert entry.about == entry.index - len(replies)


@pytest.mark.parametrize("form", FORMS)
def test_payloads_are_let_go_while_somebody_looks(form: str) -> None:
    recorder = Recorder(journal(payload_limit=10_000), form)
    for _ in range(20):
        recorder.record()
    recorder.looking = True
    entries = recorder.journal.entries()
    recorder.looking = False
    assert recorder.interruptions > 20
    recorder.check(entries)
    recorder.check(recorder.journal.entries())


@pytest.mark.parametrize("form", FORMS)
def test_entries_are_dropped_while_somebody_looks(form: str) -> None:
    recorder = Recorder(journal(limit=50), form)
    for _ in range(20):
        recorder.record()
    recorder.looking = True
    backwards = list(reversed(recorder.journal))
    recorder.looking = False
    recorder.check(backwards[::-1])
    assert backwards[0].index == 199
    assert recorder.journal.entries()[0].index > 199


class Moving(deque[object]):
    """A deque that somebody else changes, the first times that it is looked through."""

    changes: Callable[[], object]
    left: int = 3

    def __reversed__(self) -> Iterator[object]:
        for item in super().__reversed__():
            if self.left:
                self.left -= 1
                self.changes()
            yield item


@pytest.mark.parametrize("start", [0, 7])
def test_a_ring_that_moves_is_looked_at_again(start: int) -> None:
    cookies = count()
    one = journal()

    def record() -> None:
        received(one, 1, Request(1, next(cookies), 0, 600, payload=bytes(600)))

    for _ in range(10):
        record()
    moving = Moving(one._ring._recent)
    moving.changes = record
    one._ring._recent = moving  # type: ignore[assignment]
    assert [entry.index for entry in one.since(start)] == list(range(start, 13))


def test_a_record_on_its_way_to_the_light_ones_is_seen_once() -> None:
    one = journal(payload_limit=5000)
    for cookie in range(5):
        received(one, 1, Request(1, cookie, 0, 600, payload=bytes(600)))
    ring = one._ring
    ring._light.append(ring._recent[0].lighter())
    assert [entry.index for entry in one] == list(range(5))


@pytest.mark.parametrize("form", FORMS)
def test_two_threads(form: str) -> None:
    recorder = Recorder(journal(limit=500, payload_limit=20_000), form)
    mistakes: list[BaseException] = []
    over = threading.Event()

    def look() -> None:
        try:
            while not over.is_set():
                if entries := recorder.journal.entries():
                    recorder.check(entries)
                assert len(recorder.journal) <= 500
                recorder.journal.last("write")
                _ = recorder.journal.totals
        except BaseException as error:
            mistakes.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    reader = threading.Thread(target=look)
    reader.start()
    try:
        for _ in range(1000):
            recorder.record()
    finally:
        over.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert mistakes == []
