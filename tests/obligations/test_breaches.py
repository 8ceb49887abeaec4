"""What the server broke, what that excuses, and how findings are reported."""

from __future__ import annotations

import gc

import pytest

from fakenbd.obligations import Finding
from fakenbd.protocol.constants import (
    Error,
    Option,
)
from fakenbd.protocol.messages import (
    Chunk,
    ErrorChunk,
    Extent,
    NoneChunk,
    OptionRequest,
    SimpleReply,
    Status,
)
from tests.obligations.stage import (
    DISC,
    LIST,
    STRUCTURED,
    go,
    read,
    write,
)
from tests.obligations.wire import BLOCK_STATUS, EXPORT, SIZE, answer, greeted, opened

# --- what the server broke -----------------------------------------------------------------------


def test_a_reply_that_decodes_to_nothing_may_have_been_an_answer() -> None:
    wire = opened()
    wire.client(read(cookie=7))
    assert wire.server(b"\xff" * 20) == ["S-120"]
    assert wire.observer.broken
    assert not wire.observer.server_at_boundary
    assert wire.observer.in_flight == {}
    assert wire.client(read(cookie=7), DISC) == []


def test_a_client_may_leave_once_the_server_broke_a_must() -> None:
    for wire, rule in ((opened(), "S-120"), (greeted(), "S-20")):
        assert wire.server(b"\xff" * 20) == [rule]
        assert wire.client_left("RST") == []


def test_a_breach_excuses_no_malformed_request() -> None:
    wire = opened()
    wire.server(b"\xff" * 20)
    assert wire.client(read(1 << 20)) == ["C-88"]


def test_after_unreadable_option_replies_nothing_shown_is_certain() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    assert wire.server(b"\xff" * 20) == ["S-20"]
    assert wire.client(BLOCK_STATUS) == []
    assert wire.client(read(0, 0, cookie=2)) == ["C-95"]


def test_a_reply_nobody_asked_for() -> None:
    wire = opened()
    assert wire.server(Chunk(99, NoneChunk(), 1)) == ["S-123"]
    assert wire.found[-1].side == "server"
    assert wire.client_left() == []


@pytest.mark.parametrize("content", [b"", bytes(4096)], ids=["without", "with"])
def test_a_simple_reply_to_read_is_a_breach_before_its_content_comes(content: bytes) -> None:
    wire = opened()
    wire.client(read(cookie=7))
    assert wire.server(SimpleReply(7, 0, content)) == ["S-122"]
    assert wire.observer.broken
    assert wire.observer.server_at_boundary == bool(content)


def test_a_second_reply_is_distinguished_from_a_stray_one() -> None:
    wire = opened()
    wire.client(read(cookie=7))
    reply = answer(read(cookie=7))
    assert wire.server(reply, reply) == ["S-124"]


def test_a_fault_that_leaves_no_trace_excuses_nobody() -> None:
    wire = opened()
    wire.client(BLOCK_STATUS)
    assert wire.server(Chunk(5, Status(1, [Extent(4096, 3)]), 1)) == []
    assert not wire.observer.broken
    assert wire.client_left() == ["C-128"]


def test_what_the_server_ends_is_not_the_clients_fault() -> None:
    wire = opened()
    wire.client(write(), count=40)
    wire.server_left()
    assert wire.client_left() == []


def test_a_server_that_ends_where_nobody_gave_it_cause() -> None:
    wire = greeted()
    wire.client(LIST)
    assert wire.server_left() == ["S-28"]
    assert wire.observer.broken


def test_a_server_may_end_after_a_breach_of_its_clients() -> None:
    wire = greeted()
    wire.client(OptionRequest(Option.LIST, magic=77))
    assert [finding.rule for finding in wire.found] == ["C-07"]
    assert wire.server_left() == []
    assert not wire.observer.broken


def test_a_cookie_twice_in_flight_gets_two_replies() -> None:
    wire = opened()
    assert wire.client(read(0, 512), read(512, 1024)) == ["C-72"]
    assert wire.server(answer(read(0, 512)), answer(read(512, 1024))) == []
    assert not wire.observer.owes


def test_a_write_may_be_answered_before_its_payload_has_come() -> None:
    wire = opened()
    wire.client(write(cookie=3), count=1000)
    assert wire.server(SimpleReply(3, Error.EINVAL)) == []
    wire.client(bytes(4096 + 28 - 1000))
    assert not wire.observer.owes
    assert wire.client(DISC) == []


# --- how findings are reported -------------------------------------------------------------------


def test_a_must_is_reported_each_time_and_a_should_once() -> None:
    wire = opened()
    reported = []
    for cookie in (3, 4):
        wire.client(read(0, 0, flags=0x40, cookie=cookie))
        reported.append([str(finding) for finding in wire.found])
        wire.found.clear()
    assert reported == [
        [
            "NBD_CMD_READ contains undefined command flags 0x40 (C-74, MUST)",
            "NBD_CMD_READ at offset 0 has length 0 (C-95, SHOULD)",
        ],
        ["NBD_CMD_READ contains undefined command flags 0x40 (C-74, MUST)"],
    ]
    assert wire.observer.counts == {"C-74": 2, "C-95": 2}


def test_a_must_broken_a_thousand_times_is_counted_and_not_kept() -> None:
    wire = opened()
    before = findings_alive()
    found = wire.client(*(read(SIZE, 512, cookie=cookie) for cookie in range(1000)))
    assert found == ["C-88"] * 1000
    assert findings_alive() == before + 1000
    wire.found.clear()
    assert findings_alive() == before
    assert wire.observer.counts["C-88"] == 1000


def findings_alive() -> int:
    gc.collect()
    return sum(isinstance(each, Finding) for each in gc.get_objects())


def test_requests_off_the_preferred_block_are_counted_only() -> None:
    wire = opened()
    assert wire.client(read(512, 512, cookie=3), read(4096, 4096, cookie=4)) == []
    assert wire.observer.counts == {"C-90": 1}


def test_offsets_say_where_the_message_begins() -> None:
    wire = opened()
    begin, left = wire.observer.client_offset, wire.observer.server_offset
    wire.client(read(cookie=2), read(SIZE, cookie=3), write(0, 512, cookie=4))
    wire.client(write(SIZE, 512, cookie=5))
    wire.server(Chunk(3, ErrorChunk(Error.EINVAL), 1), SimpleReply(99))
    assert [(finding.rule, finding.offset) for finding in wire.found] == [
        ("C-88", begin + 28),
        ("C-88", begin + 28 + 28 + 28 + 512),
        ("S-123", left + 26),
    ]
    assert wire.observer.client_offset == begin + 2 * 28 + 2 * (28 + 512)


def test_what_a_final_reply_brings_to_light_lies_at_its_option() -> None:
    wire = greeted()
    wire.client(LIST)
    wire.replies(Option.LIST)
    wire.client(go(infos=()))
    assert wire.replies(Option.GO, EXPORT) == ["S-62", "C-33"]
    assert wire.found[-1].offset == 4 + 16


def test_state_is_bounded_and_what_lies_beyond_it_uncertain() -> None:
    wire = greeted()
    assert wire.client(*[LIST] * 40).count("C-10") == 16
    assert wire.client(STRUCTURED, OptionRequest(77)) == ["C-17"]
    wire = opened()
    for cookie in range(70_000):
        wire.observer.client_message(read(0, 4096, cookie=cookie), 28, 0)
    assert len(wire.observer.in_flight) <= 1 << 16
    assert wire.client_left() == []
