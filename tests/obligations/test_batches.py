"""What need not be shown one by one: limits, and batches inside of them."""

from __future__ import annotations

import attrs
import pytest

from fakenbd.obligations import Observer
from fakenbd.protocol.constants import (
    Command,
    TransmissionFlag,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    InfoBlockSize,
    Request,
    SimpleReply,
)
from tests.obligations.stage import (
    DISC,
    read,
    write,
)
from tests.obligations.wire import FLAGS, answer, opened


def test_nothing_is_plain_before_the_first_command_nor_after_the_last() -> None:
    wire = opened(commanded=False)
    assert wire.observer.limits(Command.READ) is None
    wire.client(read())
    assert wire.observer.limits(Command.READ) is not None
    assert wire.observer.limits(Command.TRIM) is None
    assert list(wire.observer.in_flight) == [1]
    wire.server(answer(read()))
    assert list(wire.observer.in_flight) == []
    wire.client(DISC)
    assert wire.observer.limits(Command.READ) is None


def test_a_batch_moves_offsets_and_the_last_command() -> None:
    wire = opened()
    begin, left = wire.observer.client_offset, wire.observer.server_offset
    headers = encode(read(0, 512, cookie=1)) + encode(attrs.evolve(write(0, 512), payload=b""))
    wire.observer.plain_batch(headers, 2, 0.0, 56 + 512, 32 + 512)
    assert wire.observer.client_offset == begin + 56 + 512
    assert wire.observer.server_offset == left + 32 + 512
    assert wire.client(bytes(40)) == ["C-100"]


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(("last", "found"), [(read(), "C-70"), (write(0, 0), "C-100")])
def test_the_last_command_of_a_batch_is_read_from_either_form(
    last: Request, found: str, extended: bool
) -> None:
    wire = opened()
    wire.observer._view.shown.extended = extended
    header = encode(attrs.evolve(last, extended=extended))
    wire.observer.plain_batch(header, 1, 0.0, len(header), 16)
    assert wire.client(bytes(40)) == [found]


LIMIT_SETTINGS = {
    "usual": {},
    "simple replies": {"structured": False},
    "large blocks": {"size": 3 << 16, "block_size": InfoBlockSize(4096, 65536, 65536)},
    "nothing negotiated": {"size": 100_000, "block_size": None},
    "read-only": {"flags": FLAGS | TransmissionFlag.READ_ONLY},
}
OFFSETS = (0, 1, 512, 1000, 4096, 65536, 131072, (1 << 20) - 4096)
LENGTHS = (0, 1, 512, 4096, 65536, 69632, 131072, 1 << 20)


@pytest.mark.parametrize("options", LIMIT_SETTINGS.values(), ids=LIMIT_SETTINGS.keys())
def test_what_lies_inside_the_limits_breaks_nothing(options) -> None:
    wire = opened(**options)
    observer = wire.observer
    plain, counts = 0, observer.counts.copy()
    for number in (Command.READ, Command.WRITE):
        limits = observer.limits(number)
        for offset in OFFSETS if limits is not None else ():
            for length in LENGTHS:
                inside = (
                    0 < length <= limits.maximum
                    and offset + length <= limits.end
                    and not (offset | length) & limits.mask
                )
                if inside:
                    plain += 1
                    request = Request(number, 9, offset, length, 0, b"")
                    observer._view.limits = {}
                    observer.client_message(request, 28, 0)
                    observer._view.refresh()
                    observer.in_flight.clear()
    assert plain >= 4
    assert observer.counts == counts


@pytest.mark.parametrize("structured", [True, False])
def test_a_batch_leaves_what_its_messages_would_have_left(structured: bool) -> None:
    requests = [read(0, 4096, cookie=1), write(4096, 4096, cookie=2), read(8192, 8192, cookie=3)]
    replies = [
        answer(requests[0], structured=structured),
        SimpleReply(2),
        answer(requests[2], structured=structured),
    ]
    sizes = [len(encode(each)) for each in (*requests, *replies)]
    batch, single = opened(structured=structured), opened(structured=structured)
    headers = b"".join(encode(attrs.evolve(request, payload=b"")) for request in requests)
    batch.observer.plain_batch(headers, 3, 0.0, sum(sizes[:3]), sum(sizes[3:]))
    single.client(*requests)
    single.server(*replies)
    for wire in (batch, single):
        assert wire.found == []
    assert state(batch.observer) == state(single.observer)
    for wire in (batch, single):
        wire.client(bytes(40))
    assert batch.found == single.found != []


def state(observer: Observer) -> tuple[object, ...]:
    return (
        observer.client_offset,
        observer.server_offset,
        observer.counts,
        observer.in_flight,
        observer.owes,
        observer.limits(Command.READ),
        observer.limits(Command.WRITE),
        observer.server_at_boundary,
    )
