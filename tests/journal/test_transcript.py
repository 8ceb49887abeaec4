from __future__ import annotations

import attrs
import pytest

from fakenbd.journal import Entry, FaultFired, InternalFailure, Journal, Received, Sent, Violated
from fakenbd.journal.transcript import phrase, transcript
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientMessage,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportName,
    ExportNameReply,
    Greeting,
    Hole,
    InfoQuery,
    InfoText,
    MetaContextQuery,
    NoneChunk,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Raw,
    RawBody,
    Request,
    Server,
    ServerMessage,
    SimpleReply,
    Status,
)
from fakenbd.protocol.text import escaped, quoted
from tests.journal.conversation import received, recorded, sent

WHOLE = r"""
  0.001  #1  -- connected over tcp from 127.0.0.1:41873 to 127.0.0.1:10809
  0.002  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.003  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES
  0.004  #1  C> NBD_OPT_STRUCTURED_REPLY
  0.005  #1  <S NBD_REP_ACK to NBD_OPT_STRUCTURED_REPLY
  0.006  #1  C> NBD_OPT_SET_META_CONTEXT export "disk", queries "base:allocation"
  0.007  #1  <S NBD_REP_META_CONTEXT to NBD_OPT_SET_META_CONTEXT: context 1 is "base:allocation"
  0.008  #1  <S NBD_REP_ACK to NBD_OPT_SET_META_CONTEXT
  0.009  #1  C> NBD_OPT_LIST with 4 bytes: 1b 5b 32 4a
             ✗ C-14 MUST: NBD_OPT_LIST came with data
  0.011  #1  <S NBD_REP_SERVER to NBD_OPT_LIST: export "di\x1b[2Jsk\xff", "a \u202edisk"
  0.012  #1  <S NBD_REP_ERR_INVALID to NBD_OPT_LIST: "no"
  0.013  #1  C> NBD_OPT_GO export "disk", asking for NBD_INFO_BLOCK_SIZE, NBD_INFO_(77)
  0.014  #1  <S NBD_REP_INFO to NBD_OPT_GO: NBD_INFO_EXPORT size 1024, flags HAS_FLAGS|SEND_FLUSH
  0.015  #1  <S NBD_REP_INFO to NBD_OPT_GO: NBD_INFO_BLOCK_SIZE minimum 1, preferred 4096,↩
 maximum 33554432
  0.016  #1  <S NBD_REP_ACK to NBD_OPT_GO, announcing 9 bytes
  0.017  #1  C> NBD_CMD_READ cookie 7 offset 4096 length 512
  0.018  #1  <S simple reply cookie 7 NBD_EIO
             ⚡ 'second read fails' (1st): error 0 -> NBD_EIO
  0.020  #2  -- connected over unix
  0.021  #1  C> NBD_CMD_READ DF cookie 8 offset 0 length 1024
  0.022  #1  <S chunk NBD_REPLY_TYPE_OFFSET_DATA cookie 8 offset 0, 512 bytes
  0.023  #1  <S chunk NBD_REPLY_TYPE_OFFSET_HOLE DONE cookie 8 offset 512, hole of 512 bytes
  0.024  #1  C> NBD_CMD_WRITE FUA cookie 9 offset 512 length 6
  0.025  #1  <S chunk NBD_REPLY_TYPE_ERROR_OFFSET DONE cookie 9 NBD_ENOSPC at offset 512 "full\n"
  0.026  #1  C> NBD_CMD_BLOCK_STATUS cookie 10 offset 0 length 1024
  0.027  #1  <S chunk NBD_REPLY_TYPE_BLOCK_STATUS DONE cookie 10 context 1 (base:allocation):↩
 1000 data, 24 hole|zero
             ⚡ 'odd tail' (12th): extents
  0.029  #2  C> raw 16 bytes: 47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a
  0.030  #1  ✗ C-89 SHOULD: the range was asked for twice↩
 (about NBD_CMD_READ DF cookie 8 offset 0 length 1024)
  0.031      !! journal.jsonl is given up: No space left on device
  0.032  #1  C> NBD_CMD_DISC cookie 11
  0.033  #1  -- the client ended the connection: DISC
  0.034  #2  -- the server ended the connection: RST, after 16 bytes
""".lstrip("\n").replace("↩\n", "")


def test_a_whole_session() -> None:
    assert transcript(recorded().entries()) == WHOLE


LINKED = r"""
▸ 0.017  #1  [16]  @117  C> NBD_CMD_READ cookie 7 offset 4096 length 512
  0.018  #1  [17]  @247  <S simple reply cookie 7 NBD_EIO -> [16]
             [18]        ⚡ 'second read fails' (1st): error 0 -> NBD_EIO -> [16]
  0.020  #2  [19]        -- connected over unix
"""


def test_links() -> None:
    around = transcript(recorded().entries(), around=16, limit=6, links=True)
    assert around.splitlines()[4:-1] == LINKED.splitlines()[1:]
    whole = transcript(recorded().entries(), links=True)
    assert (
        "  0.030  #1  [29]        ✗ C-89 SHOULD: the range was asked for twice -> [20]\n" in whole
    )


def cut(about: int) -> FaultFired:
    return FaultFired(9, 0.0, 1, "x", ["cut"], 2, "gone", about)


def broken(about: int | None, at: int | None = None) -> Violated:
    return Violated(9, 0.0, 1, "C-130", "MUST", "more came", about, at)


MARGINS: list[tuple[Entry, str]] = [
    (cut(0), "⚡ 'x' (2nd): gone (about NBD_CMD_DISC cookie 1)"),
    (cut(1), "⚡ 'x' (2nd): gone"),
    (broken(None, 28), "✗ C-130 MUST: more came (at byte 28)"),
    (broken(1, 28), "✗ C-130 MUST: more came"),
    (broken(7), "✗ C-130 MUST: more came (about entry 7)"),
    (
        attrs.evolve(broken(1), last=True),
        "✗ C-130 MUST: more came; from here on C-130 is only counted",
    ),
]


@pytest.mark.parametrize(("entry", "words"), MARGINS)
def test_what_an_entry_is_about(entry: Entry, words: str) -> None:
    before = [Received(0, 0.0, 1, Request(2, 1)), Received(1, 0.0, 1, Request(2, 2), None, 28)]
    assert transcript([*before, entry]).splitlines()[-1].strip() == words


def test_around_an_entry_and_the_end() -> None:
    entries = recorded().entries()
    around = transcript(entries, around=5, limit=4)
    lines = transcript(entries, around=5, limit=4, ending=3).splitlines()
    assert lines[:-4] == around.splitlines()[:-1]
    assert lines[-4] == "… 23 entries left out"
    assert lines[-3:] == transcript(entries).splitlines()[-3:]
    assert transcript(entries, around=32, ending=3) == transcript(entries, around=32)


def test_around_an_entry() -> None:
    assert (
        transcript(recorded().entries(), around=26, limit=3)
        == """\
… 24 entries left out
  0.025  #1  <S chunk NBD_REPLY_TYPE_ERROR_OFFSET DONE cookie 9 NBD_ENOSPC at offset 512 "full\\n"
  0.026  #1  C> NBD_CMD_BLOCK_STATUS cookie 10 offset 0 length 1024
▸ 0.027  #1  <S chunk NBD_REPLY_TYPE_BLOCK_STATUS DONE cookie 10 context 1 (base:allocation):\
 1000 data, 24 hole|zero
             ⚡ 'odd tail' (12th): extents
… 6 entries left out
"""
    )


def test_the_beginning_and_the_end() -> None:
    assert (
        transcript(recorded().entries(), limit=3)
        == """\
  0.001  #1  -- connected over tcp from 127.0.0.1:41873 to 127.0.0.1:10809
… 31 entries left out
  0.033  #1  -- the client ended the connection: DISC
  0.034  #2  -- the server ended the connection: RST, after 16 bytes
"""
    )


def test_windows_leave_nothing_out_that_they_need_not() -> None:
    entries = recorded().entries()
    assert transcript(entries, limit=len(entries)) == WHOLE
    assert transcript(entries, around=0, limit=1000) == "▸" + WHOLE[1:]
    assert transcript(entries, limit=len(entries) - 1).count("… 1 entry left out\n") == 1
    assert transcript([]) == ""


def test_columns_grow_with_what_they_hold() -> None:
    entries = [
        Received(0, 9.5, 1, Request(2, 1)),
        FaultFired(1, 9.5, 1, "x", ["cut"], 3, "closed after 2 bytes"),
        Received(2, 1234.5678, 10, Request(2, 2)),
        InternalFailure(3, 1234.6, None, "oh"),
    ]
    assert (
        transcript(entries)
        == """\
     9.500  #1   C> NBD_CMD_DISC cookie 1
                 ⚡ 'x' (3rd): closed after 2 bytes
  1234.568  #10  C> NBD_CMD_DISC cookie 2
  1234.600       !! oh
"""
    )


def test_colour_only_when_asked_for() -> None:
    entries = recorded().entries()
    coloured = transcript(entries, colour=True)
    assert coloured != WHOLE
    codes = ["0", "2", "36", "32", "33;1", "31;1", "31;1;7"]
    for code in codes:
        assert f"\x1b[{code}m" in coloured
        coloured = coloured.replace(f"\x1b[{code}m", "")
    assert coloured == WHOLE
    assert "\x1b" not in WHOLE


@attrs.frozen
class Words:
    message: ClientMessage | ServerMessage
    words: str


MESSAGES = [
    Words(
        Greeting(0x8001, 5, 6),
        "<S greeting NBD_FLAG_FIXED_NEWSTYLE|0x8000, magic 0x5, option magic 0x6".replace(
            "NBD_FLAG_", ""
        ),
    ),
    Words(Greeting(0), "<S greeting 0"),
    Words(
        OldstyleGreeting(512, 1, cliserv_magic=7),
        "<S oldstyle greeting size 512, flags HAS_FLAGS, second magic 0x7",
    ),
    Words(ExportNameReply(512, 3), "<S export size 512, flags HAS_FLAGS|READ_ONLY, then 124 bytes"),
    Words(ExportNameReply(512, 0, b""), "<S export size 512, flags 0"),
    Words(OptionRequest(1, ExportName("a\0b")), 'C> NBD_OPT_EXPORT_NAME export "a\\x00b"'),
    Words(OptionRequest(2), "C> NBD_OPT_ABORT"),
    Words(
        OptionRequest(99, RawBody(bytes(20)), length=21, magic=1),
        "C> NBD_OPT_(99) with 20 bytes: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 …,"
        " magic 0x1, announcing 21 bytes",
    ),
    Words(
        OptionRequest(6, InfoQuery("", [1, 2, 3, 4, 5, 6, 7, 8], 7, 0)),
        'C> NBD_OPT_INFO export "", asking for NBD_INFO_NAME, NBD_INFO_DESCRIPTION,'
        " NBD_INFO_BLOCK_SIZE, NBD_INFO_(4), NBD_INFO_(5), NBD_INFO_(6), … 2 more,"
        " announcing a name of 7 bytes, announcing a count of 0",
    ),
    Words(OptionRequest(7, InfoQuery("x")), 'C> NBD_OPT_GO export "x"'),
    Words(
        OptionRequest(9, MetaContextQuery("x")),
        'C> NBD_OPT_LIST_META_CONTEXT export "x", queries none',
    ),
    Words(
        OptionReply(5, Ack(b"hello")),
        "<S NBD_REP_ACK to NBD_OPT_STARTTLS: with 5 bytes: 68 65 6c 6c 6f",
    ),
    Words(
        OptionReply(3, Server("x", name_length=1)),
        '<S NBD_REP_SERVER to NBD_OPT_LIST: export "x", announcing a name of 1 byte',
    ),
    Words(
        OptionReply(7, InfoText(2, "big\n")),
        '<S NBD_REP_INFO to NBD_OPT_GO: NBD_INFO_DESCRIPTION "big\\n"',
    ),
    Words(OptionReply(7, ErrorReply()), "<S NBD_REP_ERR_UNSUP to NBD_OPT_GO"),
    Words(
        OptionReply(7, RawBody(b"a" * 300), type=77),
        "<S NBD_REP_(77) to NBD_OPT_GO: with 300 bytes:"
        " 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 61 …",
    ),
    Words(Request(3, 1), "C> NBD_CMD_FLUSH cookie 1"),
    Words(Request(3, 1, 5), "C> NBD_CMD_FLUSH cookie 1 offset 5 length 0"),
    Words(
        Request(1, 1, 0, 4, payload=b"abc"),
        "C> NBD_CMD_WRITE cookie 1 offset 0 length 4 payload 3 bytes",
    ),
    Words(
        Request(7, 1, 0, 4, 32, b"abcd", extended=True),
        "C> NBD_CMD_BLOCK_STATUS PAYLOAD_LEN cookie 1 offset 0 length 4"
        " payload 4 bytes: 61 62 63 64",
    ),
    Words(Request(99, 1, magic=9), "C> NBD_CMD_(99) cookie 1 offset 0 length 0, magic 0x9"),
    Words(SimpleReply(1, 0, b"a", 3), "<S simple reply cookie 1, 1 byte, magic 0x3"),
    Words(SimpleReply(1, 99), "<S simple reply cookie 1 NBD_(99)"),
    Words(Chunk(1, NoneChunk(), 1), "<S chunk NBD_REPLY_TYPE_NONE DONE cookie 1"),
    Words(
        Chunk(1, Data(5, b""), 2, length=4),
        "<S chunk NBD_REPLY_TYPE_OFFSET_DATA 0x2 cookie 1 offset 5, 0 bytes, announcing 4 bytes",
    ),
    Words(
        Chunk(1, Hole(5, 1), type=0x8005),
        "<S chunk NBD_REPLY_TYPE_(0x8005) cookie 1 offset 5, hole of 1 byte",
    ),
    Words(
        Chunk(1, ErrorChunk(5, "x", message_length=9, rest=b"abc")),
        '<S chunk NBD_REPLY_TYPE_ERROR cookie 1 NBD_EIO "x", announcing a message of 9 bytes,'
        " then 3 bytes too many",
    ),
    Words(
        Chunk(1, Status(4, [(1, n) for n in range(8)], 9)),
        "<S chunk NBD_REPLY_TYPE_BLOCK_STATUS_EXT cookie 1 context 4: 1 0x0, 1 0x1, 1 0x2, 1 0x3,"
        " 1 0x4, 1 0x5, … 2 more, announcing a count of 9",
    ),
    Words(
        Chunk(1, Status(4, []), request_offset=0),
        "<S chunk NBD_REPLY_TYPE_BLOCK_STATUS_EXT cookie 1 context 4: no extents",
    ),
    Words(Chunk(1, RawBody(b"a"), type=3), "<S chunk NBD_REPLY_TYPE_(3) cookie 1 with 1 byte: 61"),
    Words(Raw(b""), "C> raw 0 bytes"),
]


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.words)
def test_messages_in_words(case: Words) -> None:
    journal = Journal(lambda: 0.0)
    message = case.message
    if case.words.startswith("C>"):
        received(journal, 1, message)  # type: ignore[arg-type]
    else:
        sent(journal, 1, message)  # type: ignore[arg-type]
    assert phrase(journal[0]) == case.words


def test_bytes_that_are_let_go_are_counted_still() -> None:
    journal = Journal(lambda: 0.0, payload_limit=300)
    received(journal, 1, Raw(b"a" * 300))
    received(journal, 1, Raw(b"b" * 300))
    assert [phrase(entry) for entry in journal] == [
        "C> raw 300 bytes",
        "C> raw 300 bytes: 62 62 62 62 62 62 62 62 62 62 62 62 62 62 62 62 …",
    ]


def test_a_name_never_reaches_the_terminal_as_it_came() -> None:
    hostile = "\x1b]0;gone\x07\u202e\r\n\udcfe" + "\U000e0001"
    entry = Sent(0, 0.0, 1, OptionReply(3, Server(hostile, hostile)))
    text = transcript([entry])
    assert text.count("\n") == 1
    assert text.rstrip("\n").isprintable()


TEXTS = {
    "plain ünï": "plain ünï",
    "\x1b[31m": "\\x1b[31m",
    "a\r\n\tb": "a\\r\\n\\tb",
    "\udcff\udc80": "\\xff\\x80",
    "\u200b\U000e0001": "\\u200b\\U000e0001",
    "x" * 300: "x" * 256 + "…",
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.items())
def test_visible(text: str, shown: str) -> None:
    assert escaped(text) == shown
    assert quoted(text) == f'"{shown}"'
