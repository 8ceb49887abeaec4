from __future__ import annotations

import subprocess
import sys
import tracemalloc
from itertools import count

import attrs
import pytest

from fakenbd.export import Pattern, StableRead
from fakenbd.journal import (
    Closed,
    InternalFailure,
    Journal,
    Part,
    Payload,
    Received,
    Sent,
    Totals,
    Violated,
)
from fakenbd.protocol.constants import Command
from fakenbd.protocol.decode import decode_reply, decode_request
from fakenbd.protocol.encode import encode, encode_buffers
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    ClientMessage,
    Data,
    ErrorChunk,
    NoneChunk,
    OptionRequest,
    Raw,
    RawBody,
    Request,
    ServerMessage,
    SimpleReply,
    Status,
)
from tests.journal.conversation import received, recorded, sent


def journal(**options: object) -> Journal:
    return Journal(lambda: 0.0, **options)  # type: ignore[arg-type]


# --- batches -------------------------------------------------------------------------------------


def plain_requests(extended: bool) -> list[Request]:
    flags = 32 if extended else 0
    return [
        Request(0, 1, 4096, 512, extended=extended),
        Request(1, 2, 512, 6, flags, b"hidden", extended=extended),
        Request(0, 3, 1 << 40, 4, 4, extended=extended),
        Request(1, 4, 0, 3, flags | 1, b"abc", extended=extended),
        Request(0, 5, 9, 1, extended=extended),
    ]


def simple_reply(request: Request) -> SimpleReply:
    if request.cookie == 3:
        return SimpleReply(request.cookie, 5)
    data = b"x" * request.length if request.command == Command.READ else b""
    return SimpleReply(request.cookie, 0, data)


def chunk_reply(request: Request) -> Chunk:
    offset = request.offset if request.extended else None
    if request.cookie == 3:
        return Chunk(3, ErrorChunk(5, "bad", 7), 1, request_offset=offset)
    if request.command == Command.READ:
        body = Data(request.offset, b"y" * request.length)
        return Chunk(request.cookie, body, 1, request_offset=offset)
    return Chunk(request.cookie, NoneChunk(), 1, request_offset=offset)


FORMS = {
    "simple": (False, False, simple_reply),
    "structured": (False, True, chunk_reply),
    "extended": (True, True, chunk_reply),
}


def batch_and_singles(
    form: str, only: int | None = None, **options: object
) -> tuple[Journal, Journal]:
    extended, structured, reply = FORMS[form]
    requests = [one for one in plain_requests(extended) if only in (None, one.command)]
    raw = b"".join(encode(request) for request in requests)
    headers = b"".join(encode(attrs.evolve(one, payload=b"")) for one in requests)
    payloads = [[one.payload[:2], one.payload[2:]] for one in requests if one.command == 1]
    replies = [reply(request) for request in requests]
    buffers: list[Buffer] = []
    for one in replies:
        head = encode(one)
        data = one.data if isinstance(one, SimpleReply) else getattr(one.body, "data", b"")
        buffers += [head[: len(head) - len(data)], data] if data else [head]
    whole, single = journal(**options), journal(**options)
    wires = Disk(2)
    detach = whole.attach(wires)
    whole.plain_batch(
        1,
        headers,
        len(requests),
        payloads,
        buffers,
        extended=extended,
        structured=structured,
        received=len(raw),
        sent=sum(map(len, buffers)),
    )
    detach()
    assert wires.wires == [raw, b"".join(buffers)]
    indexes = {}
    view = memoryview(raw)
    while view:
        decoded = decode_request(view, extended=extended, limit=1 << 20)
        assert decoded is not None
        indexes[decoded[0].cookie] = received(single, 1, decoded[0])
        view = view[decoded[1] :]
    lengths = {request.cookie: request.length * (request.command == 0) for request in requests}
    view = memoryview(b"".join(buffers))
    while view:
        answered = decode_reply(
            view,
            extended=extended,
            structured=structured,
            data_length=lengths.__getitem__,
            limit=1 << 20,
        )
        assert answered is not None
        assert isinstance(answered[0], SimpleReply | Chunk)
        sent(single, 1, answered[0], indexes[answered[0].cookie])
        view = view[answered[1] :]
    return whole, single


@pytest.mark.parametrize("only", [None, Command.READ, Command.WRITE])
@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_the_same_as_its_messages_one_by_one(form: str, only: int | None) -> None:
    whole, single = batch_and_singles(form, only)
    assert whole.entries() == single.entries()
    assert whole.totals == single.totals
    assert [entry.data for entry in whole] == [entry.data for entry in single]
    assert [entry.index for entry in whole] == list(range(len(whole)))


@pytest.mark.parametrize("looked", [False, True])
@pytest.mark.parametrize("only", [None, Command.READ, Command.WRITE])
@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_its_bytes_still_tells_lengths(
    form: str, only: int | None, looked: bool
) -> None:
    _, expected = batch_and_singles(form, only)
    whole, _ = batch_and_singles(form, only, payload_limit=2000)
    if looked:
        assert whole.entries() == expected.entries()
    received(whole, 1, Request(1, 9, 0, 2000, payload=bytes(2000)))
    for ours, reference in zip(whole[:-1], expected, strict=True):
        assert isinstance(ours, Received | Sent)
        assert isinstance(reference, Received | Sent)
        assert ours.message == reference.message
        assert ours.length == reference.length
        assert ours.data is None


def test_bytes_that_are_let_go_leave_the_digest_that_was_asked_for() -> None:
    small = journal(payload_limit=1000)
    early = received(small, 1, Request(1, 1, 0, 600, payload=b"a" * 600))
    digest = small[early].digest
    received(small, 1, Request(1, 2, 0, 600, payload=b"b" * 600))
    received(small, 1, Request(1, 3, 0, 600, payload=b"c" * 600))
    assert digest is not None
    assert [(entry.digest, entry.data) for entry in small] == [
        (digest, None),
        (None, None),
        (small[2].digest, b"c" * 600),
    ]
    assert [entry.length for entry in small] == [600, 600, 600]


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_keeps_the_digests_that_were_asked_for(form: str) -> None:
    small, _ = batch_and_singles(form, payload_limit=2000)
    digests = [entry.digest for entry in small if isinstance(entry, Received | Sent)]
    received(small, 1, Request(1, 9, 0, 2000, payload=bytes(2000)))
    kept = [entry for entry in small[:-1] if isinstance(entry, Received | Sent)]
    assert [entry.digest for entry in kept] == digests
    assert [entry.data for entry in kept] == [None] * 10
    assert sum(digest is not None for digest in digests) == 4


def test_what_was_handed_out_stays_whole() -> None:
    small = journal(payload_limit=1000)
    index = received(small, 1, Request(1, 1, 0, 600, payload=b"a" * 600))
    entry = small[index]
    received(small, 1, Request(1, 2, 0, 600, payload=b"b" * 600))
    assert isinstance(entry, Received)
    assert entry.data == b"a" * 600
    assert small.requests()[0].data is None


def test_content_is_read_again_only_for_who_asks_for_it() -> None:
    reads: list[tuple[int, int]] = []

    def source(offset: int, length: int) -> bytes:
        reads.append((offset, length))
        return b"x" * length

    one = journal()
    raw = b"".join(encode(Request(0, cookie, cookie * 512, 512)) for cookie in range(3))
    buffers = [part for n in range(3) for part in (encode(SimpleReply(n)), b"x" * 512)]
    one.plain_batch(
        1,
        raw,
        3,
        (),
        buffers,
        extended=False,
        structured=False,
        stable_read=source,
        received=84,
        sent=3 * 528,
    )
    assert [entry.length for entry in one.select(Sent)] == [512] * 3  # type: ignore[union-attr]
    assert reads == []
    assert one.expect(type="simple", cookie=1)[0].data == b"x" * 512
    assert reads == [(512, 512)]


def test_whole_payloads_cost_entries_not_bytes() -> None:
    whole = journal(payload_limit=1000, payloads="whole")
    for cookie in range(4):
        received(whole, 1, Request(1, cookie, 0, 400, payload=b"a" * 400))
    assert [(entry.cookie, entry.data) for entry in whole] == [(2, b"a" * 400), (3, b"a" * 400)]


WHOLE: list[tuple[ClientMessage | ServerMessage, int | None]] = [
    (Request(1, 1, 0, 3, payload=b"abc"), 3),
    (Request(7, 1, 0, 3, 32, b"abc", extended=True), None),
    (SimpleReply(1, 0, b"abc"), 3),
    (Chunk(1, Data(0, b"abc")), 3),
    (Chunk(1, RawBody(b"abc"), type=99), None),
    (Chunk(1, RawBody(b"a" * 300), type=99), 300),
    (Raw(b"abc"), None),
    (Raw(b"a" * 300), 300),
    (OptionRequest(3, RawBody(b"a" * 300)), 300),
]


@pytest.mark.parametrize(("message", "bulk"), WHOLE)
def test_bulk_is_kept_beside_the_message_and_goes_back_into_it(
    message: ClientMessage | ServerMessage, bulk: int | None
) -> None:
    one = journal()
    if isinstance(message, SimpleReply | Chunk):
        sent(one, 1, message)
    else:
        received(one, 1, message)
    entry = one[0]
    assert isinstance(entry, Received | Sent)
    assert (entry.payload.length if entry.payload else None) == bulk
    assert entry.whole == message
    assert (one.totals.bytes_received or one.totals.bytes_sent) == len(encode(message))


def test_payloads_are_equal_when_length_and_digest_are() -> None:
    assert Payload(3, b"abc") == Payload(3, memoryview(b"abc"))
    assert Payload(3, b"abc") == Payload(3, digest="ba7816bf8f01cfea")
    assert Payload(3, b"abc") != Payload(3)
    assert Payload(3, b"abc") != Payload(3, b"abd")
    assert hash(Payload(3, b"abc")) == hash(Payload(3, digest="ba7816bf8f01cfea"))


# --- the ring ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_what_can_be_read_again_is_not_kept(form: str) -> None:
    extended, structured, _ = FORMS[form]
    source = Pattern().read
    requests = [Request(0, cookie, 512 * cookie, 512, extended=extended) for cookie in range(3)]
    headers = b"".join(map(encode, requests))
    buffers: list[Buffer] = []
    for one in requests:
        data = source(one.offset, one.length)
        asked = one.offset if extended else None
        chunk = Chunk(one.cookie, Data(one.offset, data), 1, request_offset=asked)
        buffers += encode_buffers(chunk if structured else SimpleReply(one.cookie, 0, data))
    kept, light = journal(), journal(payload_limit=0)

    def record_batch(target: Journal, again: StableRead | None) -> None:
        target.plain_batch(
            1,
            headers,
            3,
            (),
            buffers,
            extended=extended,
            structured=structured,
            stable_read=again,
            received=len(headers),
            sent=sum(map(len, buffers)),
        )

    record_batch(kept, None)
    record_batch(light, source)
    assert light.entries() == kept.entries()
    assert light.totals == kept.totals
    payloads = [entry.payload for entry in light if isinstance(entry, Sent)]
    assert [payload and payload.data for payload in payloads] == buffers[1::2]
    seen = Disk(2)
    light.attach(seen)
    record_batch(light, source)
    assert seen.wires == [headers, b"".join(buffers)]


def test_the_ring_keeps_the_newest_and_the_totals_keep_all() -> None:
    small = journal(limit=10)
    for cookie in range(25):
        received(small, 1, Request(0, cookie, 0, 512))
    assert [entry.index for entry in small] == list(range(15, 25))
    assert len(small) == 10
    assert small.totals.commands == {"read": 25}
    assert small.next_index == 25


def test_a_batch_larger_than_the_ring_shows_its_end() -> None:
    small = journal(limit=3)
    raw = b"".join(encode(Request(0, cookie, 0, 1)) for cookie in range(5))
    replies = [encode(SimpleReply(cookie, 5)) for cookie in range(5)]
    sizes = {"received": len(raw), "sent": sum(map(len, replies))}
    small.plain_batch(1, raw, 5, (), replies, extended=False, structured=False, **sizes)
    assert [entry.index for entry in small] == [7, 8, 9]
    assert [entry.index for entry in reversed(small)] == [9, 8, 7]
    assert len(small) == 3


def test_looking() -> None:
    one = recorded()
    entries = one.entries()
    assert len(entries) == len(one) == one.next_index
    assert one[3] is entries[3]
    assert one[-2:] == entries[-2:]
    assert list(reversed(one)) == entries[::-1]
    assert one.since(30) == entries[30:]
    assert one.since(1000) == []
    assert not journal().entries()
    assert len(journal()) == 0
    assert journal()
    assert repr(one) == "<Journal of 34 entries, 34 of them held>"


def test_extents_weigh() -> None:
    small = journal(payload_limit=100_000)
    for cookie in range(100):
        sent(small, 1, Chunk(cookie, Status(1, [(512, 0)] * 200), 1))
    assert len(small) == 4


def test_totals() -> None:
    whole = recorded()
    assert whole.totals == Totals(
        connections=2,
        commands={"read": 2, "write": 1, "disc": 1, "block-status": 1},
        options={"list": 1, "go": 1, "structured-reply": 1, "set-meta-context": 1},
        received=11,
        sent=14,
        bytes_received=279,
        bytes_sent=914,
        fired={"second read fails": 1, "odd tail": 1},
        violation_levels={("C-14", "MUST"): 1, ("C-89", "SHOULD"): 1},
        failures=1,
    )
    assert whole.totals.requests == 5


def fill(target: Journal, requests: int) -> None:
    """4 KiB reads, 64 to a batch, their content a fresh copy each time."""
    for start in range(0, requests, 64):
        raw = b"".join(encode(Request(0, start + i, 4096 * i, 4096)) for i in range(64))
        buffers: list[Buffer] = []
        for i in range(64):
            buffers += [encode(SimpleReply(start + i)), bytearray(4096)]
        sizes = {"received": len(raw), "sent": sum(map(len, buffers))}
        target.plain_batch(1, raw, 64, (), buffers, extended=False, structured=False, **sizes)


def check_bounded(requests: int) -> None:
    tracemalloc.start()
    try:
        ring = journal(limit=20_000, payload_limit=8 << 20)
        fill(ring, requests)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ring.totals == Totals(
        commands={"read": requests},
        received=requests,
        sent=requests,
        bytes_received=requests * 28,
        bytes_sent=requests * (16 + 4096),
    )
    assert 19_000 < len(ring) <= 20_000
    assert sum(entry.data is not None for entry in ring) * 4096 > 7 << 20
    # The payloads, and 200 bytes for each entry.
    assert held < (8 << 20) + 20_000 * 200


def test_memory_stays_within_the_bound() -> None:
    check_bounded(64_000)


@pytest.mark.soak
def test_memory_stays_within_the_bound_for_a_million_requests() -> None:
    check_bounded(1_000_000)


# --- sinks and subscribers -----------------------------------------------------------------------


@attrs.define(eq=False)
class Disk:
    """A sink that takes `room` records."""

    room: int
    taken: list[Part] = attrs.field(factory=list)
    wires: list[bytes] = attrs.field(factory=list)
    closed: bool = False

    def write(self, record: Part) -> None:
        if len(self.taken) == self.room:
            raise OSError(28, "No space left on device")
        self.taken.append(record)
        self.wires.append(b"".join(record.wire()))

    def close(self) -> None:
        self.closed = True
        raise OSError(28, "No space left on device")

    def __str__(self) -> str:
        return "the disk"


def test_a_sink_that_fails_is_given_up_and_the_service_goes_on() -> None:
    one = journal()
    full, roomy = Disk(2), Disk(100)
    one.attach(full)
    one.attach(roomy)
    for cookie in range(4):
        received(one, 1, Request(2, cookie))
    assert full.closed
    assert len(full.taken) == 2
    assert [type(entry) for entry in one] == [
        Received,
        Received,
        Received,
        InternalFailure,
        Received,
    ]
    assert one[3] == InternalFailure(3, 0.0, None, "the disk is given up: No space left on device")
    assert [entry for record in roomy.taken for entry in record.entries()] == one.entries()
    assert one.totals.failures == 1


def test_a_sink_may_be_taken_away() -> None:
    one = journal()
    disk = Disk(10)
    detach = one.attach(disk)
    received(one, 1, Request(2))
    detach()
    detach()
    received(one, 1, Request(2))
    assert len(disk.taken) == 1
    assert disk.closed


def test_sinks_see_the_bytes_of_the_wire() -> None:
    one = journal(payload_limit=0)
    disk = Disk(10)
    one.attach(disk)
    request = Request(1, 1, 0, 3, payload=b"abc")
    received(one, 1, request)
    sent(one, 1, SimpleReply(1))
    one.sent(1, SimpleReply(1, 0, b"abcdef"), 10, 16, wire=[b"only ", b"these"])
    answer = [encode(SimpleReply(1))]
    one.plain_batch(
        1,
        encode(request)[:28],
        1,
        [[b"abc"]],
        answer,
        extended=False,
        structured=False,
        received=31,
        sent=16,
    )
    one.closed(1, "client", "EOF")
    assert disk.wires == [
        encode(request),
        encode(SimpleReply(1)),
        b"only these",
        encode(request),
        encode(SimpleReply(1)),
        b"",
    ]
    assert one.totals.bytes_sent == 16 + 10 + 16


def test_failures_raise_the_alarm() -> None:
    alarms: list[str] = []
    one = journal(alarm=alarms.append)
    received(one, 1, Request(2))
    one.internal_failure(1, "the disk is gone")
    one.internal_failure(None, "and so is the tape")
    assert alarms == ["the disk is gone", "and so is the tape"]


def test_subscribers_are_called_after_each_record() -> None:
    one = journal()
    seen: list[int] = []
    unsubscribe = one.subscribe(lambda: seen.append(len(one)))
    received(one, 1, Request(2))
    one.closed(1, "client", "DISC")
    unsubscribe()
    unsubscribe()
    one.internal_failure(None, "not seen")
    assert seen == [1, 2]


def test_the_ninth_violation_of_a_rule_on_a_connection_is_only_counted() -> None:
    one = journal()
    seen: list[int] = []
    one.subscribe(lambda: seen.append(len(one)))

    def broken(connection: int, rule: str) -> int | None:
        return one.violated(connection, rule, "MUST", "it did", at=7)

    assert [broken(1, "C-95") for _ in range(10)] == [*range(8), None, None]
    assert [broken(1, "C-96"), broken(2, "C-95")] == [8, 9]
    assert one.violated(1, "C-95", "advisory", "it did, as it may") == 10
    assert seen == [*range(1, 9), 8, 8, 9, 10, 11]
    assert [entry.index for entry in one if isinstance(entry, Violated) and entry.last] == [7]
    one.closed(1, "client", "EOF")
    assert broken(1, "C-95") == 12
    assert one.totals.violations == {"C-95": 13, "C-96": 1}


# --- the rest ------------------------------------------------------------------------------------


def test_time_is_counted_from_the_start() -> None:
    clock = count(100, 2).__next__
    one = Journal(clock)
    one.closed(1, "client", "EOF")
    one.closed(1, "client", "EOF")
    assert one[:] == [Closed(0, 2.0, 1, "client", "EOF"), Closed(1, 4.0, 1, "client", "EOF")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limit": 0}, "'limit' must be >= 1: 0"),
        ({"payloads": "some"}, "'payloads' must be in ('digest', 'whole') (got 'some')"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        journal(**options)
    assert caught.value.args[0] == message


def test_the_journal_is_light_to_import() -> None:
    code = (
        "import sys, fakenbd.journal\n"
        "heavy = {'json', 'base64', 'ipaddress', 'tomllib', 'trio', 'fakenbd.journal.jsonl',"
        " 'fakenbd.journal.pcap', 'fakenbd.journal.transcript'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_name_is_there() -> None:
    import fakenbd.journal

    for name in fakenbd.journal.__all__:
        assert getattr(fakenbd.journal, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = fakenbd.journal.nothing
