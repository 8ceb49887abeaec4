"""What the client was shown counts: late, early, corrupted or never; and TLS in place of NBD."""

from __future__ import annotations

import pytest

from fakenbd.obligations import Finding
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
    Extent,
    InfoBlockSize,
    InfoExport,
    InfoText,
    MetaContext,
    OptionReply,
    OptionRequest,
    RawBody,
    SimpleReply,
    Status,
)
from tests.obligations.stage import (
    ABORT,
    DISC,
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
from tests.obligations.wire import (
    BLOCK_STATUS,
    BLOCKS,
    EXPORT,
    FLAGS,
    SIMPLE_EXPORT,
    greeted,
    opened,
    refusal,
)

# --- what was shown counts -----------------------------------------------------------------------


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


# --- STARTTLS refused, TLS in place of NBD -------------------------------------------------------


@pytest.mark.parametrize(("more", "found"), [(0, []), (1, ["C-132"]), (2, ["C-132"])])
def test_who_goes_on_without_tls_has_to_disconnect(more: int, found: list[str]) -> None:
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


def test_a_client_hello_in_place_of_the_client_flags_is_reported_as_tls() -> None:
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
