"""The Observer: what was shown counts, what is owed excuses, and nothing is found by mistake."""

from __future__ import annotations

import attrs
import pytest

from fakenbd.obligations import Finding, Gap, Siblings, Start
from fakenbd.protocol.constants import (
    Command,
    Error,
    Info,
    Option,
    Reply,
    TransmissionFlag,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    Data,
    ErrorChunk,
    ErrorReply,
    Extent,
    Greeting,
    InfoBlockSize,
    InfoExport,
    InfoText,
    MetaContext,
    NoneChunk,
    OptionReply,
    OptionRequest,
    RawBody,
    Request,
    SimpleReply,
    Status,
)
from tests.obligations.stage import (
    ABORT,
    DISC,
    HELLO,
    LIST,
    STARTTLS,
    STRUCTURED,
    command,
    go,
    info,
    read,
    set_contexts,
    write,
)
from tests.obligations.wire import BLOCKS, FLAGS, SIZE, Wire, answer, opened

EXPORT = InfoExport(SIZE, FLAGS)
SIMPLE_EXPORT = InfoExport(SIZE, FLAGS & ~TransmissionFlag.SEND_DF)
BLOCK_STATUS = command(Command.BLOCK_STATUS, 0, 4096, cookie=5)


def greeted(hello: ClientFlags | None = HELLO) -> Wire:
    wire = Wire()
    wire.server(Greeting())
    if hello is not None:
        wire.client(hello)
    return wire


def refusal(option: int, kind: int) -> OptionReply:
    return OptionReply(option, ErrorReply("no"), kind)


# --- what is owed excuses leaving -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["EOF", "RST"])
def test_a_client_may_leave_while_the_reply_to_go_has_not_left(how: str) -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    wire.replies(Option.STRUCTURED_REPLY)
    wire.client(go())
    assert wire.observer.owes
    assert wire.client_left(how) == []


def test_a_client_may_leave_after_half_of_a_final_reply() -> None:
    wire = greeted()
    wire.client(go())
    wire.server(OptionReply(Option.GO, EXPORT))
    wire.server(OptionReply(Option.GO, Ack()), count=19)
    assert wire.observer.owes
    assert wire.client_left() == []


def test_a_client_may_leave_after_half_of_a_reply() -> None:
    wire = opened()
    request = read(0, 4096)
    wire.client(request)
    wire.server(answer(request), count=2000)
    assert wire.client_left() == []


def test_a_client_may_leave_when_nobody_greets_it() -> None:
    wire = Wire()
    assert wire.observer.owes
    assert wire.client_left() == []


def test_a_client_that_is_owed_nothing_may_not() -> None:
    wire = opened()
    assert not wire.observer.owes
    assert wire.client_left() == ["C-128"]


def test_a_client_may_tear_off_a_payload_while_another_reply_is_owed() -> None:
    wire = opened()
    wire.client(read(cookie=2))
    wire.client(write(cookie=3), count=1000)
    assert wire.client_left() == []


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ((ABORT,), "the client left after NBD_OPT_ABORT without shutting TLS down"),
        ((LIST, ABORT), None),
    ],
)
def test_close_notify_is_not_due_while_something_is_owed(last, sentence) -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.replies(Option.STARTTLS)
    wire.observer.tls_started("TLSv1.3", 0)
    wire.client(*last)
    if sentence is not None:
        wire.replies(Option.ABORT)
    assert wire.client_left() == ([] if sentence is None else ["C-62"])
    assert [finding.sentence for finding in wire.found if finding.rule == "C-62"] == (
        [] if sentence is None else [sentence]
    )


def test_eshutdown_obliges_to_disc_but_not_while_something_is_owed() -> None:
    for owed in (True, False):
        wire = opened(structured=False)
        wire.client(read(cookie=1), read(cookie=2))
        wire.server(SimpleReply(1, Error.ESHUTDOWN))
        if not owed:
            wire.server(SimpleReply(2, Error.ESHUTDOWN))
        assert wire.client_left() == ([] if owed else ["C-127"])


def test_err_shutdown_obliges_to_abort_but_not_while_something_is_owed() -> None:
    for owed in (True, False):
        wire = greeted()
        wire.client(LIST)
        wire.server(refusal(Option.LIST, Reply.ERR_SHUTDOWN))
        if owed:
            assert wire.client(LIST) == ["C-35"]
        assert wire.client_left() == ([] if owed else ["C-35"])


def test_disc_with_requests_unanswered_is_advisory() -> None:
    wire = opened()
    wire.client(read(cookie=2))
    wire.client(DISC)
    assert [str(finding) for finding in wire.found] == [
        "NBD_CMD_DISC came with requests unanswered: 1 (C-131, advisory)"
    ]


# --- what was shown counts ------------------------------------------------------------------------


def test_a_context_id_that_a_fault_made_up_is_the_one_that_counts() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    wire.replies(Option.STRUCTURED_REPLY)
    wire.client(set_contexts())
    reply = bytearray(
        encode(OptionReply(Option.SET_META_CONTEXT, MetaContext(1, "base:allocation")))
    )
    reply[20:24] = b"\xde\xad\xbe\xef"
    wire.server(bytes(reply), OptionReply(Option.SET_META_CONTEXT, Ack()))
    wire.client(go())
    wire.replies(Option.GO, EXPORT, BLOCKS)
    assert wire.client(BLOCK_STATUS) == []
    assert wire.server(Chunk(5, Status(0xDEADBEEF, [Extent(4096)]), 1)) == []


@pytest.mark.parametrize("body", [b"", b"\0\0\0"], ids=["empty", "short"])
def test_a_malformed_context_may_have_been_read_as_one(body: bytes) -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    wire.replies(Option.STRUCTURED_REPLY)
    wire.client(set_contexts())
    broken = OptionReply(Option.SET_META_CONTEXT, RawBody(body), Reply.META_CONTEXT)
    assert wire.server(broken) == ["S-84"]
    wire.replies(Option.SET_META_CONTEXT)
    wire.client(go())
    wire.replies(Option.GO, EXPORT, BLOCKS)
    assert wire.client(BLOCK_STATUS) == []


def test_an_ack_that_has_not_left_allows_no_next_option() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    assert wire.client(LIST) == ["C-10"]
    assert wire.found[-1].sentence == (
        "NBD_OPT_LIST came before the final reply to NBD_OPT_STRUCTURED_REPLY"
    )
    # The one was dropped, the other is answered.
    assert wire.replies(Option.LIST) == ["S-29"]
    assert not wire.observer.owes


def test_an_ack_that_comes_late_still_counts() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    assert wire.client(set_contexts()) == ["C-10"]
    assert wire.replies(Option.STRUCTURED_REPLY) == []
    assert wire.replies(Option.SET_META_CONTEXT, MetaContext(1, "base:allocation")) == []
    wire.client(go())
    wire.replies(Option.GO, EXPORT, BLOCKS)
    assert wire.client(BLOCK_STATUS) == []


def test_a_first_byte_before_the_reply_is_early_whenever_the_rest_comes() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    data = encode(LIST)
    wire.client(data[:1])
    wire.replies(Option.STRUCTURED_REPLY)
    assert wire.client(data[1:]) == ["C-10"]


def test_requests_that_do_not_wait_for_the_reply_to_go_are_early() -> None:
    wire = greeted()
    wire.client(go())
    request = read(0, 512)
    assert wire.client(request) == ["C-110"]
    assert wire.replies(Option.GO, SIMPLE_EXPORT, BLOCKS) == []
    assert wire.server(SimpleReply(request.cookie, 0, bytes(512))) == []
    assert wire.client(DISC) == []


def test_options_behind_starttls_are_in_clear() -> None:
    wire = greeted()
    assert wire.client(STARTTLS, LIST) == ["C-10"]
    assert wire.replies(Option.STARTTLS) == ["C-52"]
    assert wire.found[-1] == Finding(
        "C-52",
        "client",
        "MUST",
        "NBD_OPT_LIST came in clear after NBD_OPT_STARTTLS was agreed",
        4 + 16,
    )


def test_an_abort_is_honoured_whatever_reply_comes_late() -> None:
    wire = greeted()
    assert wire.client(go(), ABORT) == []
    wire.replies(Option.GO, EXPORT, BLOCKS)
    wire.replies(Option.ABORT)
    assert wire.client_left() == []


def test_the_size_that_counts_is_the_one_that_was_shown_last() -> None:
    wire = greeted()
    for query, size in ((info(), 4096), (go(), 8192)):
        wire.client(query)
        wire.replies(query.option, InfoExport(size, SIMPLE_EXPORT.flags), BLOCKS)
    assert wire.client(read(4096)) == []
    assert wire.client(read(8192, cookie=2)) == ["C-88"]


def test_what_was_never_shown_is_not_held_against_the_client() -> None:
    wire = greeted()
    wire.client(go())
    assert wire.replies(Option.GO) == ["S-50"]
    assert wire.client(read(1 << 40, 512), command(Command.TRIM, 0, 512, cookie=2)) == []
    assert wire.observer.limits(Command.READ) is None


@pytest.mark.parametrize("block", [(0, 4096, 1 << 25), (3, 4096, 1 << 25), (512, 4096, 0)])
def test_block_sizes_that_cannot_be_honoured_bind_nobody(block: tuple[int, int, int]) -> None:
    wire = greeted()
    wire.client(go())
    wire.replies(Option.GO, SIMPLE_EXPORT, InfoBlockSize(*block))
    assert wire.client(write(512, 3 * 512, cookie=3)) == []


def test_the_canonical_name_is_the_same_export() -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    wire.replies(Option.STRUCTURED_REPLY)
    wire.client(set_contexts(name="disk0"))
    wire.replies(Option.SET_META_CONTEXT, MetaContext(7, "base:allocation"))
    wire.client(go())
    wire.replies(Option.GO, InfoText(Info.NAME, "disk0"), EXPORT, BLOCKS)
    assert wire.client(BLOCK_STATUS) == []


def test_requests_under_way_when_the_server_shuts_down_are_forgiven() -> None:
    wire = opened(structured=False, commanded=False)
    wire.client(read(cookie=10))
    wire.server(SimpleReply(10, Error.ESHUTDOWN))
    assert wire.observer.limits(Command.READ) is None
    assert [wire.client(read(cookie=cookie)) for cookie in range(11, 1035)] == [[]] * 1024
    assert wire.client(read(cookie=1035)) == ["C-127"]


def test_a_resize_that_succeeds_moves_the_end() -> None:
    wire = opened(structured=False, flags=FLAGS | TransmissionFlag.SEND_RESIZE, commanded=False)
    assert wire.client(command(Command.RESIZE, 2 << 20, cookie=3)) == []
    assert wire.observer.limits(Command.READ) is None
    wire.server(SimpleReply(3))
    assert wire.observer.limits(Command.READ).end == 2 << 20
    assert wire.client(read(1 << 20, cookie=4)) == []


# --- STARTTLS refused, TLS in place of NBD --------------------------------------------------------


@pytest.mark.parametrize(("more", "found"), [(0, []), (1, ["C-132"]), (2, ["C-132"])])
def test_who_goes_on_without_tls_has_to_say_goodbye(more: int, found: list[str]) -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.server(refusal(Option.STARTTLS, Reply.ERR_POLICY))
    for _ in range(more):
        wire.client(LIST)
        wire.replies(Option.LIST)
    assert wire.client_left() == found


@pytest.mark.parametrize("how", ["EOF", "RST", "TLS close"])
@pytest.mark.parametrize("sent", [(), (LIST,)], ids=["at once", "after an option"])
def test_who_does_not_like_the_server_leaves_before_any_option_over_tls(sent, how) -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.replies(Option.STARTTLS)
    wire.observer.tls_started("TLSv1.2", 0)
    for option in sent:
        wire.client(option)
        wire.replies(option.option)
    assert wire.client_left(how) == (["C-132"] if sent else [])


def test_a_client_hello_in_place_of_the_client_flags_is_said_to_be_tls() -> None:
    wire = greeted(hello=None)
    hello = bytes.fromhex("16030100c8010000c40303") + bytes(190)
    assert wire.client(hello) == ["C-06"]
    assert wire.found[-1].sentence == (
        "what came where the client flags were due looks like a TLS handshake: 16030100c8010000"
    )
    assert wire.client_left() == []


def test_a_client_that_skips_its_flags_is_followed() -> None:
    wire = greeted(hello=None)
    assert wire.client(LIST) == ["C-06"]
    assert wire.client(option := OptionRequest(77)) == ["C-10", "C-17"]
    assert option.option == 77


@pytest.mark.parametrize("head", [b"\x16\x03\x01", b""])
def test_what_comes_in_place_of_tls(head: bytes) -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.replies(Option.STARTTLS)
    assert wire.tls_failed("client", head) == []
    assert wire.client_left() == []


def test_an_option_in_place_of_tls_is_in_clear() -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.replies(Option.STARTTLS)
    assert wire.tls_failed("client", encode(LIST)) == ["C-52"]
    assert wire.found[-1].sentence == (
        "after NBD_OPT_STARTTLS was agreed came 49484156454f5054, which is not TLS"
    )


# --- what the server broke ------------------------------------------------------------------------


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


def test_a_second_reply_is_told_from_a_stray_one() -> None:
    wire = opened()
    wire.client(read(cookie=7))
    reply = answer(read(cookie=7))
    assert wire.server(reply, reply) == ["S-124"]


def test_a_lie_that_leaves_no_trace_excuses_nobody() -> None:
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


# --- how findings are reported --------------------------------------------------------------------


def test_a_must_is_reported_each_time_and_a_should_once() -> None:
    wire = opened()
    reported = []
    for cookie in (3, 4):
        wire.client(read(0, 0, flags=0x40, cookie=cookie))
        reported.append([str(finding) for finding in wire.found])
        wire.found.clear()
    assert reported == [
        [
            "NBD_CMD_READ has the command flags 0x40, which NBD lacks (C-74, MUST)",
            "NBD_CMD_READ at offset 0 has length 0 (C-95, SHOULD)",
        ],
        ["NBD_CMD_READ has the command flags 0x40, which NBD lacks (C-74, MUST)"],
    ]
    assert wire.observer.counts == {"C-74": 2, "C-95": 2}


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


# --- a connection half seen -----------------------------------------------------------------------


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


def test_a_magic_inside_of_a_payload_is_not_believed() -> None:
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


# --- more than one connection ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "found"), [("the client", []), ("another", ["C-128"]), (None, ["C-128"])]
)
def test_a_client_that_gives_up_leaves_all_its_connections(label, found) -> None:
    siblings = Siblings()
    broken, other = opened("the client", siblings), opened(label, siblings)
    broken.server(b"\xff" * 20)
    assert other.client_left() == found
    assert broken.client_left() == []


def test_a_sibling_may_tear_off_a_payload() -> None:
    siblings = Siblings()
    broken, other = opened("A", siblings), opened("A", siblings)
    other.client(write(), count=100)
    broken.server(b"\xff" * 20)
    assert other.client_left("RST") == []


def test_without_labels_a_breach_excuses_who_has_sent_nothing_since() -> None:
    siblings = Siblings()
    broken, idle, busy = (opened(None, siblings) for _ in range(3))
    broken.server(b"\xff" * 20)
    busy.client(read(cookie=4))
    busy.server(answer(read(cookie=4)))
    assert idle.client_left() == []
    assert busy.client_left() == ["C-128"]


def test_other_connections_are_excused_for_leaving_and_for_nothing_else() -> None:
    siblings = Siblings()
    broken, other = opened("A", siblings), opened("A", siblings)
    other.client(read(cookie=7))
    broken.server(b"\xff" * 20)
    assert other.client(read(cookie=7)) == ["C-72"]


def test_a_connection_made_after_the_breach_is_not_excused_by_it() -> None:
    siblings = Siblings()
    opened("A", siblings).server(b"\xff" * 20)
    assert opened("A", siblings).client_left() == ["C-128"]


@pytest.mark.parametrize("label", ["A", None])
def test_a_breach_on_a_connection_that_is_over_excuses_nobody(label: str | None) -> None:
    siblings = Siblings()
    gone, other = opened(label, siblings), opened(label, siblings)
    gone.client_left()
    gone.server(b"\xff" * 20)
    assert other.client_left() == ["C-128"]


@pytest.mark.parametrize(("label", "found"), [(None, []), ("A", ["C-102"])])
def test_who_nobody_can_tell_apart_is_not_said_to_be_one_client(label, found) -> None:
    siblings = Siblings()
    flags = FLAGS & ~TransmissionFlag.CAN_MULTI_CONN
    opened(label, siblings, flags=flags)
    second = opened(label, siblings, flags=flags, commanded=False)
    assert second.client(read()) == found


# --- batches --------------------------------------------------------------------------------------


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
