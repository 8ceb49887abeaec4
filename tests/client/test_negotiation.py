"""The handshake against a scripted server: what is asked, what is agreed, what is refused."""

from __future__ import annotations

import pytest

from fakenbd.client.export_info import ExportInfo, Listed
from fakenbd.client.negotiation import HandshakeRequest, Negotiation
from fakenbd.client.noncompliance import Noncompliance, Notes
from fakenbd.client.option import Receive, Send, Upgrade
from fakenbd.errors import (
    ClientError,
    ConnectionLostError,
    NoncomplianceError,
    OptionRefusedError,
    ProtocolError,
    ShutdownError,
    TLSError,
)
from fakenbd.protocol.constants import Option, Reply, slug
from fakenbd.protocol.decode import decode_client_flags, decode_option_request
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    ErrorReply,
    ExportNameReply,
    Greeting,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OldstyleGreeting,
    OptionReply,
    RawBody,
    Server,
)
from fakenbd.protocol.negotiated import BlockSize

SIZE, FLAGS = 1 << 20, 0xED  # everything that needs no structured replies but DF, which does


class Peer:
    """Plays the server's side: one list of messages for each thing that the client sends."""

    def __init__(self, greeting, *answers):
        self.answers = [[greeting], *answers]
        self.sent = []

    def drive(self, handshake):
        """Perform the handshake to its end. Answers None stand for a closed connection."""
        incoming = bytearray()
        incoming += self.next_answer()
        step = next(handshake)
        try:
            while True:
                if isinstance(step, Send):
                    self.sent.append(self.decoded(step.data))
                    incoming += self.next_answer()
                    step = next(handshake)
                elif isinstance(step, Upgrade):
                    assert not incoming
                    self.sent.append("TLS")
                    step = next(handshake)
                else:
                    assert isinstance(step, Receive)
                    try:
                        decoded = step.decode(memoryview(bytes(incoming)))
                    except ProtocolError as error:
                        step = handshake.throw(error)
                        continue
                    if decoded is None:
                        step = handshake.throw(ConnectionLostError("closed"))
                    else:
                        message, length = decoded
                        del incoming[:length]
                        step = handshake.send(message)
        except StopIteration as end:
            return end.value

    def next_answer(self):
        messages = self.answers.pop(0) if self.answers else []
        return b"".join(encode(message) for message in messages)

    @staticmethod
    def decoded(data):
        if len(data) == 4:
            return decode_client_flags(data)[0].flags
        request, length = decode_option_request(data, limit=1 << 16)
        assert length == len(data)
        body = request.body
        return slug(Option, request.option) if body == RawBody() else (request.option, body)


def ack(option):
    return OptionReply(option, Ack())


def error(option, kind=Reply.ERR_UNSUP, text=""):
    return OptionReply(option, ErrorReply(text), kind)


EXPORT = OptionReply(7, InfoExport(SIZE, FLAGS))
WITHOUT_DF = OptionReply(7, InfoExport(SIZE, 0x6D))
BLOCKS = OptionReply(7, InfoBlockSize(512, 4096, 1 << 25))
GO_ACK = ack(7)
QUERY = (7, InfoQuery("disk", (1, 2, 3)))
NO_EXTENDED = [error(11)]
STRUCTURED = [ack(8)]
SELECT = (10, MetaContextQuery("disk", ("base:allocation",)))
ALLOCATION = OptionReply(10, MetaContext(7, "base:allocation"))
WISHES = HandshakeRequest("disk", ("base:allocation",))
OFFER = ExportInfo("disk", SIZE, FLAGS)


OPENED = ("size", "flags", "block_size", "canonical_name", "description")


def agreed(style, export_info, **fields):
    """What the state must hold after a handshake of this style."""
    return {
        "fixed": style == "fixed",
        "oldstyle": style == "oldstyle",
        "export": export_info.name,
        **{key: getattr(export_info, key) for key in OPENED},
        "structured": False,
        "extended": False,
        "tls": False,
        "contexts": {},
        **fields,
    }


# wishes, greeting and answers, what the client sent, what was agreed
OPENS = {
    "fixed newstyle with everything": (
        WISHES,
        [
            Greeting(3),
            [],
            NO_EXTENDED,
            STRUCTURED,
            [ALLOCATION, ack(10)],
            [
                OptionReply(7, InfoText(1, "vda")),
                OptionReply(7, InfoText(2, "a disk")),
                BLOCKS,
                EXPORT,
                GO_ACK,
            ],
        ],
        [3, "extended-headers", "structured-reply", SELECT, QUERY],
        agreed(
            "fixed",
            ExportInfo("disk", SIZE, FLAGS, BlockSize(512, 4096, 1 << 25), "vda", "a disk"),
            structured=True,
            contexts={7: "base:allocation"},
        ),
    ),
    "extended headers": (
        WISHES,
        [Greeting(3), [], [ack(11)], [ALLOCATION, ack(10)], [EXPORT, GO_ACK]],
        [3, "extended-headers", SELECT, QUERY],
        agreed("fixed", OFFER, extended=True, contexts={7: "base:allocation"}),
    ),
    "nothing asked for but the export": (
        HandshakeRequest("disk", structured=False, extended=False),
        [Greeting(3), [], [EXPORT, GO_ACK]],
        [3, QUERY],
        agreed("fixed", ExportInfo("disk", SIZE, 0x6D)),
    ),
    "unknown handshake flags are not echoed": (
        HandshakeRequest("disk", extended=False),
        [Greeting(0xFFFD), [], STRUCTURED, [EXPORT, GO_ACK]],
        [1, "structured-reply", QUERY],
        agreed("fixed", OFFER, structured=True),
    ),
    "no structured replies, so no contexts": (
        WISHES,
        [Greeting(3), [], NO_EXTENDED, [error(8, 0x8000000B, "what?")], [EXPORT, GO_ACK]],
        [3, "extended-headers", "structured-reply", QUERY],
        agreed("fixed", ExportInfo("disk", SIZE, 0x6D)),
    ),
    "contexts refused": (
        WISHES,
        [
            Greeting(3),
            [],
            NO_EXTENDED,
            STRUCTURED,
            [ALLOCATION, error(10, Reply.ERR_TOO_BIG)],
            [EXPORT, GO_ACK],
        ],
        [3, "extended-headers", "structured-reply", SELECT, QUERY],
        agreed("fixed", OFFER, structured=True),
    ),
    "no context selected": (
        WISHES,
        [Greeting(3), [], NO_EXTENDED, STRUCTURED, [ack(10)], [EXPORT, GO_ACK]],
        [3, "extended-headers", "structured-reply", SELECT, QUERY],
        agreed("fixed", OFFER, structured=True),
    ),
    "infos in odd order, unknown, twice": (
        HandshakeRequest("disk", extended=False),
        [
            Greeting(3),
            [],
            STRUCTURED,
            [
                OptionReply(7, InfoText(0xFFFF, "x")),
                OptionReply(7, InfoText(0xFFFF, "y")),
                EXPORT,
                BLOCKS,
                OptionReply(7, InfoText(4, "")),
                EXPORT,
                GO_ACK,
            ],
        ],
        [3, "structured-reply", QUERY],
        agreed(
            "fixed", ExportInfo("disk", SIZE, FLAGS, BlockSize(512, 4096, 1 << 25)), structured=True
        ),
    ),
    "no GO, without padding": (
        HandshakeRequest("disk", extended=False),
        [Greeting(3), [], STRUCTURED, [error(7)], [ExportNameReply(SIZE, FLAGS, b"")]],
        [3, "structured-reply", QUERY, "disk"],
        agreed("fixed", OFFER, structured=True),
    ),
    "no GO, with padding": (
        HandshakeRequest("disk", extended=False),
        [Greeting(1), [], STRUCTURED, [error(7)], [ExportNameReply(SIZE, FLAGS)]],
        [1, "structured-reply", QUERY, "disk"],
        agreed("fixed", OFFER, structured=True),
    ),
    "newstyle without options": (
        WISHES,
        [Greeting(2), [], [ExportNameReply(SIZE, FLAGS, b"")]],
        [2, "disk"],
        agreed("newstyle", ExportInfo("disk", SIZE, 0x6D)),
    ),
    "newstyle without any flag": (
        WISHES,
        [Greeting(0), [], [ExportNameReply(SIZE, FLAGS)]],
        [0, "disk"],
        agreed("newstyle", ExportInfo("disk", SIZE, 0x6D)),
    ),
    "oldstyle": (
        WISHES,
        [OldstyleGreeting(SIZE, 0x6D)],
        [],
        agreed("oldstyle", ExportInfo("disk", SIZE, 0x6D)),
    ),
    "block sizes required although asked for, once": (
        HandshakeRequest("disk", extended=False),
        [
            Greeting(3),
            [],
            STRUCTURED,
            [BLOCKS, error(7, Reply.ERR_BLOCK_SIZE_REQD)],
            [EXPORT, GO_ACK],
        ],
        [3, "structured-reply", QUERY, QUERY],
        agreed("fixed", OFFER, structured=True),
    ),
    "TLS": (
        HandshakeRequest("disk", tls="require", extended=False),
        [Greeting(3), [], [ack(5)], STRUCTURED, [EXPORT, GO_ACK]],
        [3, "starttls", "TLS", "structured-reply", QUERY],
        agreed("fixed", OFFER, structured=True, tls=True),
    ),
    "TLS refused, but not required": (
        HandshakeRequest("disk", tls="allow", extended=False),
        [Greeting(3), [], [error(5, Reply.ERR_POLICY)], STRUCTURED, [EXPORT, GO_ACK]],
        [3, "starttls", "structured-reply", QUERY],
        agreed("fixed", OFFER, structured=True),
    ),
    "no TLS, but not required": (
        HandshakeRequest("disk", tls="allow"),
        [OldstyleGreeting(SIZE, 0x6D)],
        [],
        agreed("oldstyle", ExportInfo("disk", SIZE, 0x6D)),
    ),
}


def simplified(sent):
    """EXPORT_NAME as its name alone."""
    return [item[1].name if isinstance(item, tuple) and item[0] == 1 else item for item in sent]


@pytest.mark.parametrize(("requested", "answers", "sent", "state"), OPENS.values(), ids=OPENS)
def test_open(requested, answers, sent, state):
    peer = Peer(*answers)
    negotiation = Negotiation(requested)
    negotiated = peer.drive(negotiation.open())
    assert {key: getattr(negotiated, key) for key in state} == state
    assert simplified(peer.sent) == sent
    assert not negotiation.negotiating


PLAIN = HandshakeRequest("disk", extended=False, structured=False)
UNSELECTED = HandshakeRequest("disk", ("base:allocation",), extended=False)


def go(*replies):
    return [Greeting(3), [], list(replies)]


def select(*replies):
    return [Greeting(3), [], STRUCTURED, list(replies), [EXPORT, GO_ACK]]


# wishes, answers, the error, whether the session must be left with ABORT
REFUSALS = {
    "unknown export": (
        PLAIN,
        go(error(7, Reply.ERR_UNKNOWN, "no disk\x1b[m")),
        OptionRefusedError(
            'the server does not open the export "disk": NBD_REP_ERR_UNKNOWN: no disk\\x1b[m'
        ),
        True,
    ),
    "infos before the error count for nothing": (
        PLAIN,
        go(EXPORT, error(7, Reply.ERR_UNKNOWN)),
        OptionRefusedError('the server does not open the export "disk": NBD_REP_ERR_UNKNOWN'),
        True,
    ),
    "an unknown error": (
        PLAIN,
        go(error(7, 0xFFFFFFFF)),
        OptionRefusedError('the server does not open the export "disk": NBD_REP_(0xffffffff)'),
        True,
    ),
    "block sizes required for ever": (
        PLAIN,
        [Greeting(3), [], *[[error(7, Reply.ERR_BLOCK_SIZE_REQD)]] * 2],
        OptionRefusedError(
            'the server does not open the export "disk": NBD_REP_ERR_BLOCK_SIZE_REQD'
        ),
        True,
    ),
    "shutting down": (
        WISHES,
        [Greeting(3), [], [error(11, Reply.ERR_SHUTDOWN, "bye")]],
        ShutdownError(
            "the server answered NBD_OPT_EXTENDED_HEADERS with NBD_REP_ERR_SHUTDOWN: bye"
        ),
        True,
    ),
    "TLS required by the server": (
        PLAIN,
        go(error(7, Reply.ERR_TLS_REQD)),
        TLSError("the server requires TLS: it answered NBD_OPT_GO with NBD_REP_ERR_TLS_REQD"),
        True,
    ),
    "TLS required by the client": (
        HandshakeRequest("secret", tls="require"),
        [Greeting(3), [], [error(5, Reply.ERR_UNSUP)]],
        TLSError("TLS is required, but the server refused it with NBD_REP_ERR_UNSUP"),
        True,
    ),
    "TLS required by both, and refused": (
        HandshakeRequest("secret", tls="require"),
        [Greeting(3), [], [error(5, Reply.ERR_TLS_REQD)]],
        TLSError("TLS is required, but the server refused it with NBD_REP_ERR_TLS_REQD"),
        True,
    ),
    "TLS required, fixed newstyle stripped": (
        HandshakeRequest("secret", tls="require"),
        [Greeting(2), []],
        TLSError("TLS is required, but the server speaks newstyle without options, which has none"),
        False,
    ),
    "TLS required, oldstyle": (
        HandshakeRequest("secret", tls="require"),
        [OldstyleGreeting(SIZE)],
        TLSError("TLS is required, but the server speaks oldstyle, which has none"),
        False,
    ),
    "TLS_REQD under TLS": (
        HandshakeRequest("disk", tls="require", extended=False),
        [Greeting(3), [], [ack(5)], [error(8, Reply.ERR_TLS_REQD)]],
        ProtocolError(
            "the server answered NBD_OPT_STRUCTURED_REPLY with NBD_REP_ERR_TLS_REQD under TLS",
            rule="S-101",
        ),
        True,
    ),
    "EXPORT_NAME refused": (
        PLAIN,
        [Greeting(2), [], []],
        OptionRefusedError('the server closed the connection when asked for the export "disk"'),
        False,
    ),
    "EXPORT_NAME cut short": (
        PLAIN,
        [Greeting(0), [], [ExportNameReply(SIZE, FLAGS, bytes(123))]],
        OptionRefusedError('the server closed the connection when asked for the export "disk"'),
        False,
    ),
    "EXPORT_NAME wrapped in an option reply": (
        PLAIN,
        [Greeting(2), [], [OptionReply(1, RawBody(bytes(8)), type=1)]],
        ProtocolError(
            "the answer to NBD_OPT_EXPORT_NAME is wrapped in an option reply", rule="S-65"
        ),
        False,
    ),
    "another option echoed": (
        PLAIN,
        go(ack(6)),
        ProtocolError("a reply to NBD_OPT_INFO came in answer to NBD_OPT_GO", rule="S-21"),
        True,
    ),
    "a reply of another option": (
        PLAIN,
        go(OptionReply(7, Server("disk"))),
        ProtocolError("NBD_OPT_GO was answered with Server, which is for another", rule="S-24"),
        True,
    ),
    "an unknown type": (
        PLAIN,
        go(OptionReply(7, RawBody(b""), type=5)),
        ProtocolError("NBD_OPT_GO was answered with the unknown type 5", rule="S-22"),
        True,
    ),
    "a length that nobody sends": (
        PLAIN,
        go(OptionReply(7, RawBody(b""), type=3, length=0xFFFFFFFF)),
        ProtocolError(
            "the server's NBD_REP_INFO to NBD_OPT_GO announces 4294967295 bytes of data;"
            " at most 65536 are taken",
            rule="S-26",
        ),
        True,
    ),
    "no NBD_INFO_EXPORT": (
        PLAIN,
        go(BLOCKS, GO_ACK),
        ProtocolError("the server accepted NBD_OPT_GO without NBD_INFO_EXPORT", rule="S-50"),
        True,
    ),
    "NBD_INFO_EXPORT too short": (
        PLAIN,
        go(OptionReply(7, RawBody(bytes(11)), type=3), GO_ACK),
        ProtocolError("the NBD_REP_INFO to NBD_OPT_GO has 11 bytes that do not fit", rule="S-51"),
        True,
    ),
    "NBD_INFO_BLOCK_SIZE too long": (
        PLAIN,
        go(OptionReply(7, RawBody(b"\0\3" + bytes(13)), type=3), GO_ACK),
        ProtocolError("the NBD_REP_INFO to NBD_OPT_GO has 15 bytes that do not fit", rule="S-53"),
        True,
    ),
    "NBD_REP_INFO without a type": (
        PLAIN,
        go(OptionReply(7, RawBody(b"\0"), type=3), GO_ACK),
        ProtocolError("the NBD_REP_INFO to NBD_OPT_GO has 1 bytes that do not fit", rule="S-71"),
        True,
    ),
    "extended headers without GO": (
        HandshakeRequest("disk"),
        [Greeting(3), [], [ack(11)], [error(7)]],
        ProtocolError("the server agreed to extended headers, but not to NBD_OPT_GO", rule="S-91"),
        True,
    ),
    "one id for two contexts": (
        UNSELECTED,
        select(ALLOCATION, OptionReply(10, MetaContext(7, "x-y:z")), ack(10)),
        ProtocolError("the server gave id 7 to two contexts", rule="S-82"),
        True,
    ),
    "one context twice": (
        UNSELECTED,
        select(ALLOCATION, OptionReply(10, MetaContext(8, "base:allocation")), ack(10)),
        ProtocolError('the server selected "base:allocation" twice', rule="S-83"),
        True,
    ),
    "a context without an id": (
        UNSELECTED,
        select(OptionReply(10, RawBody(b"abc"), type=4), ack(10)),
        ProtocolError(
            "the NBD_REP_META_CONTEXT to NBD_OPT_SET_META_CONTEXT has 3 bytes that do not fit",
            rule="S-84",
        ),
        True,
    ),
    "closed in mid-answer": (PLAIN, go(EXPORT), ConnectionLostError("closed"), True),
    "not an option reply": (
        PLAIN,
        [Greeting(3), [], [Greeting(3), Greeting(3)]],
        ProtocolError(
            "the server's option reply begins with 0x4e42444d41474943, not with 0x0003e889045565a9",
            rule="S-20",
        ),
        True,
    ),
}


@pytest.mark.parametrize(
    ("requested", "answers", "error", "abort"), REFUSALS.values(), ids=REFUSALS
)
def test_refused(requested, answers, error, abort):
    peer = Peer(*answers)
    negotiation = Negotiation(requested)
    with pytest.raises(type(error)) as caught:
        peer.drive(negotiation.open())
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    assert negotiation.negotiating == abort
    assert not any("secret" in str(item) for item in peer.sent)


def test_refusal_tells_the_reply_and_the_text():
    with pytest.raises(OptionRefusedError) as caught:
        Peer(*go(error(7, Reply.ERR_POLICY, "not you"))).drive(Negotiation(PLAIN).open())
    assert (caught.value.reply, caught.value.text) == (Reply.ERR_POLICY, "not you")


def test_replies_that_never_end_are_bounded():
    handshake = Negotiation(PLAIN).open()
    next(handshake)
    step = handshake.send(Greeting(3))
    while isinstance(step, Send):
        step = next(handshake)
    flood = memoryview(encode(OptionReply(7, InfoText(9, "x" * 4000))))
    count = 0

    def answer_for_ever(step):
        nonlocal count
        while count < 5000:
            message, _ = step.decode(flood)
            step = handshake.send(message)
            count += 1

    with pytest.raises(ProtocolError) as caught:
        answer_for_ever(step)
    assert str(caught.value) == "the replies to NBD_OPT_GO do not end (S-29)"
    assert count == (1 << 24) // len(flood)


# answers, notes, the session's offer
TOLERATED = {
    "two sizes": (
        go(OptionReply(7, InfoExport(SIZE + 1, 0x2F)), WITHOUT_DF, GO_ACK),
        [Noncompliance("S-52", "NBD_INFO_EXPORT came twice, differently", "the last one is used")],
        ExportInfo("disk", SIZE, 0x6D),
    ),
    "data behind an ACK": (
        go(WITHOUT_DF, OptionReply(7, Ack(b"abcd"))),
        [
            Noncompliance(
                "S-25", "the NBD_REP_ACK to NBD_OPT_GO has 4 bytes of data", "they are ignored"
            )
        ],
        ExportInfo("disk", SIZE, 0x6D),
    ),
    "a size that is no multiple of the minimum block": (
        go(OptionReply(7, InfoExport(1000, 0x6D)), BLOCKS, GO_ACK),
        [
            Noncompliance(
                "S-57",
                "the size 1000 is not a multiple of the minimum block 512",
                "the first 512 bytes are used",
            )
        ],
        ExportInfo("disk", 512, 0x6D, BlockSize(512, 4096, 1 << 25)),
    ),
    "a name that is no string": (
        go(WITHOUT_DF, OptionReply(7, InfoText(1, "a\0b")), GO_ACK),
        [Noncompliance("S-70", 'an impossible NBD_INFO_NAME came: "a\\x00b"', "it is ignored")],
        ExportInfo("disk", SIZE, 0x6D),
    ),
    "a long text with an error": (
        [Greeting(2 + 1), [], [error(7, text="x" * 5000)], [ExportNameReply(SIZE, 0x6D, b"")]],
        [
            Noncompliance(
                "S-27",
                "the error to NBD_OPT_GO has a text of 5000 characters",
                "it is cut where it is shown",
            )
        ],
        ExportInfo("disk", SIZE, 0x6D),
    ),
    "flags that contradict": (
        go(OptionReply(7, InfoExport(SIZE, 0x1880)), GO_ACK),
        [
            Noncompliance(
                "S-61",
                "NBD_FLAG_HAS_FLAGS is clear",
                "the other flags are used all the same",
            ),
            Noncompliance(
                "S-62",
                "NBD_FLAG_SEND_DF is set without structured replies",
                "it is ignored",
            ),
            Noncompliance(
                "S-62",
                "NBD_FLAG_SEND_FAST_ZERO is set without NBD_FLAG_SEND_WRITE_ZEROES",
                "it is ignored",
            ),
            Noncompliance(
                "S-62",
                "NBD_FLAG_BLOCK_STATUS_PAYLOAD is set without extended headers",
                "it is ignored",
            ),
        ],
        ExportInfo("disk", SIZE, 0),
    ),
    "handshake flags in an oldstyle greeting": (
        [OldstyleGreeting(SIZE, 0x3006D)],
        [
            Noncompliance(
                "S-09", "the oldstyle greeting has handshake flags 0x3", "they are ignored"
            )
        ],
        ExportInfo("disk", SIZE, 0x6D),
    ),
}


@pytest.mark.parametrize(("answers", "notes", "export_info"), TOLERATED.values(), ids=TOLERATED)
def test_tolerated(answers, notes, export_info):
    negotiation = Negotiation(PLAIN)
    negotiated = Peer(*answers).drive(negotiation.open())
    opened = [getattr(negotiated, key) for key in ("export", *OPENED)]
    assert opened == [getattr(export_info, key) for key in ("name", *OPENED)]
    assert negotiation.notes.kept == notes
    strict = Negotiation(PLAIN, Notes("strict"))
    with pytest.raises(NoncomplianceError):
        Peer(*answers).drive(strict.open())


def test_a_context_nobody_asked_for_keeps_its_id():
    answers = select(ALLOCATION, OptionReply(10, MetaContext(8, "x-y:z")), ack(10))
    negotiation = Negotiation(UNSELECTED)
    negotiated = Peer(*answers).drive(negotiation.open())
    assert negotiated.contexts == {7: "base:allocation", 8: "x-y:z"}
    assert negotiation.notes.kept == [
        Noncompliance(
            "S-81",
            'the server selected "x-y:z", which was not asked for',
            "its extents are ignored",
        )
    ]


BLOCK_SIZES = {
    (0, 4096, 1 << 25): "the minimum block is 0, not a power of two from 1 to 65536 (S-54)",
    (3, 4096, 1 << 25): "the minimum block is 3, not a power of two from 1 to 65536 (S-54)",
    (131072, 131072, 1 << 25): (
        "the minimum block is 131072, not a power of two from 1 to 65536 (S-54)"
    ),
    (1, 256, 1 << 25): "the preferred block is 256, not a power of two from 512 on (S-55)",
    (4096, 512, 1 << 25): "the preferred block is 512, not a power of two from 4096 on (S-55)",
    (1, 5000, 1 << 25): "the preferred block is 5000, not a power of two from 512 on (S-55)",
    (1, 4096, 0): "the maximum payload is 0, less than the preferred block 4096 (S-56)",
    (1, 4096, 4095): "the maximum payload is 4095, less than the preferred block 4096 (S-56)",
}
LEGAL_BLOCK_SIZES = [
    (1, 512, 1 << 25),
    (65536, 65536, 65536),
    (1, 65536, 0xFFFFFFFF),
    (4096, 4096, 5000),
]


@pytest.mark.parametrize("sizes", BLOCK_SIZES)
def test_illegal_block_sizes(sizes):
    answers = go(EXPORT, OptionReply(7, InfoBlockSize(*sizes)), GO_ACK)
    with pytest.raises(ProtocolError) as caught:
        Peer(*answers).drive(Negotiation(PLAIN).open())
    assert str(caught.value) == BLOCK_SIZES[sizes]


@pytest.mark.parametrize("sizes", LEGAL_BLOCK_SIZES)
def test_legal_block_sizes(sizes):
    answers = go(EXPORT, OptionReply(7, InfoBlockSize(*sizes)), GO_ACK)
    negotiated = Peer(*answers).drive(Negotiation(PLAIN).open())
    assert negotiated.block_size == BlockSize(*sizes)


# --- without opening ---------------------------------------------------------------------------


def negotiate(*answers):
    """A negotiation that has begun, and the peer that will answer what follows."""
    peer = Peer(Greeting(3), [], STRUCTURED, *answers)
    negotiation = Negotiation(HandshakeRequest(extended=False))
    peer.drive(negotiation.begin())
    peer.answers.insert(0, [])
    return peer, negotiation


def test_list():
    names = [Server("disk", "the first"), Server(""), Server("größe"), Server("a\0b")]
    peer, negotiation = negotiate([*(OptionReply(3, name) for name in names), ack(3)])
    assert peer.drive(negotiation.list_exports()) == (
        Listed("disk", "the first"),
        Listed(""),
        Listed("größe"),
    )
    assert negotiation.notes.kept == [
        Noncompliance(
            "S-42", 'the list has an export with an impossible name "a\\x00b"', "it is left out"
        )
    ]


def test_list_refused():
    peer, negotiation = negotiate([OptionReply(3, Server("disk")), error(3, Reply.ERR_POLICY)])
    with pytest.raises(OptionRefusedError) as caught:
        peer.drive(negotiation.list_exports())
    assert str(caught.value) == "the server lists no exports: NBD_REP_ERR_POLICY"


@pytest.mark.parametrize(
    ("reply", "clause"),
    [
        (OptionReply(3, Server("disk", name_length=99)), "8 bytes that do not fit (S-40)"),
        (OptionReply(3, RawBody(bytes(3)), type=2), "3 bytes that do not fit (S-41)"),
    ],
)
def test_list_entry_that_does_not_fit(reply, clause):
    peer, negotiation = negotiate([reply])
    with pytest.raises(ProtocolError) as caught:
        peer.drive(negotiation.list_exports())
    assert str(caught.value) == f"the NBD_REP_SERVER to NBD_OPT_LIST has {clause}"


def test_info():
    peer, negotiation = negotiate([OptionReply(6, InfoExport(SIZE, FLAGS)), ack(6)])
    assert peer.drive(negotiation.info("disk")) == OFFER
    assert negotiation.negotiating


def listed_contexts(*names):
    return [*(OptionReply(9, MetaContext(0, name)) for name in names), ack(9)]


ALL, OF_QEMU = ((9, MetaContextQuery("disk", queries)) for queries in ((), ("qemu:",)))
BITMAP = "qemu:dirty-bitmap:b"
REFUSED = [OptionReply(9, MetaContext(0, BITMAP)), error(9)]

# answers, what was asked, the contexts found
CONTEXTS = {
    "qemu's among them": (
        [listed_contexts("base:allocation", BITMAP)],
        [ALL],
        ("base:allocation", BITMAP),
    ),
    "qemu's when asked for": (
        [listed_contexts("base:allocation"), listed_contexts(BITMAP)],
        [ALL, OF_QEMU],
        ("base:allocation", BITMAP),
    ),
    "none of qemu's": (
        [listed_contexts("base:allocation", "x-y:", "\0"), listed_contexts()],
        [ALL, OF_QEMU],
        ("base:allocation", "x-y:"),
    ),
    "queries ignored": (
        [listed_contexts("base:allocation"), listed_contexts("base:allocation")],
        [ALL, OF_QEMU],
        ("base:allocation",),
    ),
    "refused at once": ([REFUSED], [ALL], ()),
    "refused with a query": (
        [listed_contexts("base:allocation"), REFUSED],
        [ALL, OF_QEMU],
        ("base:allocation",),
    ),
}


@pytest.mark.parametrize(("answers", "asked", "found"), CONTEXTS.values(), ids=CONTEXTS)
def test_list_contexts(answers, asked, found):
    peer, negotiation = negotiate(*answers)
    before = len(peer.sent)
    assert peer.drive(negotiation.list_contexts("disk")) == found
    assert peer.sent[before:] == asked


@pytest.mark.parametrize(
    "answer",
    [[ack(2)], [error(2)], [], [ack(7)], [Greeting(3)]],
    ids=["acknowledged", "refused", "closed", "another option", "no reply"],
)
def test_abort_ends_however_it_is_taken(answer):
    peer, negotiation = negotiate(answer)
    peer.drive(negotiation.abort())
    assert peer.sent[-1] == "abort"
    assert not negotiation.negotiating


@pytest.mark.parametrize("name", ["foo", ":leaf", "", "base"])
def test_a_context_without_a_namespace_is_never_asked_for(name):
    with pytest.raises(ClientError, match="is no metadata context: one is a namespace, a colon"):
        HandshakeRequest(contexts=(name,))
