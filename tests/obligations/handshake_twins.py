"""Rude clients and their polite twins: greeting, options, TLS, and leaving before transmission."""

from __future__ import annotations

from fakenbd.protocol.constants import Info, Option
from fakenbd.protocol.messages import ClientFlags, OptionRequest
from tests.obligations.stage import (
    ABORT,
    DISC,
    EXTENDED,
    HELLO,
    LEAVE,
    LIST,
    STARTTLS,
    STRUCTURED,
    FailTLS,
    Leave,
    Part,
    Setting,
    Shutdown,
    StartTLS,
    Together,
    Twins,
    command,
    export_name,
    go,
    info,
    list_contexts,
    negotiating,
    option,
    read,
    session,
    set_contexts,
)

__all__ = ["HANDSHAKE_TWINS"]

_GOODBYE = Leave("TLS close")
_TLS = (STARTTLS, StartTLS())
_WITH_TLS = Setting(tls=True)
_NOT_FIXED = Setting(greeting=2)
_CORRECT = negotiating(LIST)

HANDSHAKE_TWINS = (
    Twins(
        "C-01",
        negotiating(hello=ClientFlags(7)),
        _CORRECT,
        "client flags contain undefined bits 0x4",
    ),
    Twins(
        "C-02",
        negotiating(hello=HELLO),
        negotiating(hello=ClientFlags(1)),
        "the client flags have NBD_FLAG_C_NO_ZEROES, which the server did not offer",
        Setting(greeting=1),
    ),
    Twins(
        "C-03",
        (ClientFlags(1), export_name(), DISC, LEAVE),
        (ClientFlags(0), export_name(), DISC, LEAVE),
        "the client flags have NBD_FLAG_C_FIXED_NEWSTYLE, which the server did not offer",
        _NOT_FIXED,
    ),
    Twins(
        "C-04",
        negotiating(LIST, hello=ClientFlags(2)),
        _CORRECT,
        "NBD_OPT_LIST came although the client flags lack NBD_FLAG_C_FIXED_NEWSTYLE",
    ),
    Twins("C-06", (LIST, ABORT, LEAVE), _CORRECT, "an option came where the client flags were due"),
    Twins(
        "C-06",
        (Part(HELLO, 3), LEAVE),
        (LEAVE,),
        "the client left after 3 of 4 bytes of client flags",
    ),
    Twins(
        "C-07",
        negotiating(OptionRequest(Option.LIST, magic=0x4E42444D41474943)),
        _CORRECT,
        "an option begins with 4e42444d41474943; it must be 49484156454f5054",
    ),
    Twins(
        "C-08",
        negotiating(option(Option.GO, bytes.fromhex("00000000 0002 0003"))),
        negotiating(option(Option.INFO, bytes.fromhex("00000000 0001 0003"))),
        "NBD_OPT_GO has 8 bytes of malformed data",
    ),
    Twins(
        "C-08",
        negotiating(
            STRUCTURED, option(Option.LIST_META_CONTEXT, bytes.fromhex("00000000 00000000 00"))
        ),
        negotiating(
            STRUCTURED, option(Option.LIST_META_CONTEXT, bytes.fromhex("00000000 00000000"))
        ),
        "NBD_OPT_LIST_META_CONTEXT has 9 bytes of malformed data",
    ),
    Twins(
        "C-09",
        (ClientFlags(2), LIST, LEAVE),
        (ClientFlags(2), export_name(), DISC, LEAVE),
        "NBD_OPT_LIST came although the server did not offer fixed newstyle negotiation",
        _NOT_FIXED,
    ),
    Twins(
        "C-10",
        negotiating(Together((STRUCTURED, LIST))),
        negotiating(STRUCTURED, LIST),
        "NBD_OPT_LIST came before the final reply to NBD_OPT_STRUCTURED_REPLY",
    ),
    Twins(
        "C-11",
        negotiating(STRUCTURED, STRUCTURED),
        negotiating(STRUCTURED),
        "NBD_OPT_STRUCTURED_REPLY came again although it was agreed",
    ),
    Twins(
        "C-11",
        negotiating(EXTENDED, EXTENDED),
        negotiating(EXTENDED),
        "NBD_OPT_EXTENDED_HEADERS came again although it was agreed",
        Setting(extended=True),
    ),
    Twins(
        "C-12",
        negotiating(info("x" * 4097)),
        negotiating(info("x" * 256)),
        "the export name in NBD_OPT_INFO has 4097 bytes; it may have 4096",
    ),
    Twins(
        "C-13",
        negotiating(info("a\0b")),
        negotiating(info("a b")),
        "the export name in NBD_OPT_INFO holds a NUL byte: 'a\\x00b'",
    ),
    Twins(
        "C-14",
        negotiating(info("caf\udce9")),
        negotiating(info("café")),
        "the export name in NBD_OPT_INFO is not UTF-8: 'caf\\udce9'",
    ),
    Twins(
        "C-15",
        negotiating(info("x" * 257)),
        negotiating(info("x" * 256)),
        "the export name in NBD_OPT_INFO has 257 bytes; it should have 256 at most",
    ),
    Twins("C-17", negotiating(option(77)), _CORRECT, "NBD_OPT_(77) is not an option that NBD uses"),
    Twins(
        "C-17",
        negotiating(option(Option.PEEK_EXPORT)),
        _CORRECT,
        "NBD_OPT_PEEK_EXPORT is not an option that NBD uses",
    ),
    Twins(
        "C-20",
        negotiating(option(Option.LIST, b"all")),
        _CORRECT,
        "NBD_OPT_LIST has data of length 3; it may have none",
    ),
    Twins(
        "C-21",
        negotiating(option(Option.STRUCTURED_REPLY, b"1")),
        negotiating(STRUCTURED),
        "NBD_OPT_STRUCTURED_REPLY has data of length 1; it may have none",
    ),
    Twins(
        "C-22",
        negotiating(option(Option.STARTTLS, b"1.3")),
        negotiating(STARTTLS),
        "NBD_OPT_STARTTLS has data of length 3; it may have none",
    ),
    Twins(
        "C-23",
        (HELLO, option(Option.ABORT, b"bye"), LEAVE),
        negotiating(),
        "NBD_OPT_ABORT has data of length 3; it may have none",
    ),
    Twins(
        "C-24",
        negotiating(option(Option.EXTENDED_HEADERS, b"1")),
        negotiating(EXTENDED),
        "NBD_OPT_EXTENDED_HEADERS has data of length 1; it may have none",
        Setting(extended=True),
    ),
    Twins(
        "C-25",
        negotiating(option(Option.INFO, bytes.fromhex("00000003 6162 0000"))),
        negotiating(option(Option.INFO, bytes.fromhex("00000002 6162 0000"))),
        "NBD_OPT_INFO has 8 bytes of data and claims an export name of 3 bytes",
    ),
    Twins(
        "C-26",
        negotiating(info(infos=(Info.NAME, Info.BLOCK_SIZE, Info.NAME))),
        negotiating(info(infos=(Info.NAME, Info.BLOCK_SIZE))),
        "NBD_OPT_INFO asks more than once for NBD_INFO_NAME",
    ),
    Twins(
        "C-29", session(LIST), session(read()), "NBD_OPT_LIST came after NBD_OPT_GO had succeeded"
    ),
    Twins(
        "C-30",
        session(opening=(export_name(),)),
        session(opening=(go(),)),
        "NBD_OPT_EXPORT_NAME came without a try of NBD_OPT_GO",
    ),
    Twins(
        "C-33",
        session(opening=(go(infos=()),)),
        session(opening=(go(),)),
        "NBD_OPT_GO did not ask for NBD_INFO_BLOCK_SIZE",
    ),
    Twins(
        "C-34",
        session(opening=(info(), export_name())),
        session(opening=(info(), go())),
        "NBD_OPT_EXPORT_NAME came from a client that asked for NBD_INFO_BLOCK_SIZE, "
        "although NBD_OPT_GO is supported",
    ),
    Twins(
        "C-35",
        negotiating(Shutdown(), LIST, LIST),
        negotiating(Shutdown(), LIST),
        "NBD_OPT_LIST came after NBD_REP_ERR_SHUTDOWN, not NBD_OPT_ABORT",
    ),
    Twins(
        "C-35",
        (HELLO, Shutdown(), LIST, LEAVE),
        negotiating(Shutdown(), LIST),
        "the client left after NBD_REP_ERR_SHUTDOWN without NBD_OPT_ABORT",
    ),
    Twins(
        "C-36",
        negotiating(set_contexts()),
        negotiating(STRUCTURED, set_contexts()),
        "NBD_OPT_SET_META_CONTEXT came before structured replies were agreed",
    ),
    Twins(
        "C-37",
        negotiating(list_contexts()),
        negotiating(STRUCTURED, list_contexts()),
        "NBD_OPT_LIST_META_CONTEXT came before structured replies were agreed",
    ),
    Twins(
        "C-38",
        negotiating(STRUCTURED, list_contexts(":allocation")),
        negotiating(STRUCTURED, list_contexts("base:allocation")),
        "NBD_OPT_LIST_META_CONTEXT has the query ':allocation', which names no namespace",
    ),
    Twins(
        "C-39",
        negotiating(STRUCTURED, list_contexts("b ase:allocation")),
        negotiating(STRUCTURED, list_contexts("x-mine:allocation", "qemu:")),
        "NBD_OPT_LIST_META_CONTEXT has the query 'b ase:allocation', whose namespace is "
        "not printable",
    ),
    Twins(
        "C-39",
        negotiating(STRUCTURED, list_contexts("zfs:allocation")),
        negotiating(STRUCTURED, list_contexts("base:")),
        "NBD_OPT_LIST_META_CONTEXT has the query 'zfs:allocation', whose namespace is not known",
        level="advisory",
    ),
    Twins(
        "C-40",
        negotiating(
            STRUCTURED,
            option(Option.SET_META_CONTEXT, bytes.fromhex("00000000 00000001 00000009 62617365")),
        ),
        negotiating(
            STRUCTURED,
            option(Option.SET_META_CONTEXT, bytes.fromhex("00000000 00000001 00000005 782d793a7a")),
        ),
        "NBD_OPT_SET_META_CONTEXT has a query that runs past the option's data",
    ),
    Twins(
        "C-41",
        negotiating(STRUCTURED, set_contexts("base:")),
        negotiating(STRUCTURED, set_contexts("base:allocation")),
        "NBD_OPT_SET_META_CONTEXT has the query 'base:', a wildcard that selects nothing there",
    ),
    Twins(
        "C-46",
        (HELLO, EXTENDED, export_name(), LEAVE),
        (HELLO, EXTENDED, ABORT, LEAVE),
        "NBD_OPT_EXPORT_NAME came after NBD_OPT_EXTENDED_HEADERS was agreed",
        Setting(extended=True),
    ),
    Twins(
        "C-50",
        negotiating(STARTTLS, hello=ClientFlags(2)),
        (HELLO, *_TLS, ABORT, _GOODBYE),
        "NBD_OPT_STARTTLS came without fixed newstyle on both sides",
        _WITH_TLS,
    ),
    Twins(
        "C-51",
        (HELLO, *_TLS, STARTTLS, ABORT, _GOODBYE),
        (HELLO, *_TLS, LIST, ABORT, _GOODBYE),
        "NBD_OPT_STARTTLS came again although TLS is in use",
        _WITH_TLS,
    ),
    Twins(
        "C-52",
        (HELLO, STARTTLS, LIST, ABORT, LEAVE),
        (HELLO, *_TLS, LIST, ABORT, _GOODBYE),
        "after NBD_OPT_STARTTLS was agreed came 49484156454f5054, which is not TLS",
        _WITH_TLS,
    ),
    Twins(
        "C-54",
        (HELLO, LIST, *_TLS, ABORT, _GOODBYE),
        (HELLO, *_TLS, LIST, ABORT, _GOODBYE),
        "NBD_OPT_STARTTLS came after NBD_OPT_LIST, not first",
        _WITH_TLS,
    ),
    Twins(
        "C-55",
        (HELLO, STRUCTURED, *_TLS, ABORT, _GOODBYE),
        (HELLO, *_TLS, STRUCTURED, ABORT, _GOODBYE),
        "NBD_OPT_STARTTLS came after NBD_OPT_STRUCTURED_REPLY, now void",
        _WITH_TLS,
    ),
    Twins(
        "C-56",
        (HELLO, STRUCTURED, *_TLS, set_contexts(), ABORT, _GOODBYE),
        (HELLO, *_TLS, STRUCTURED, set_contexts(), ABORT, _GOODBYE),
        "NBD_OPT_SET_META_CONTEXT came, but structured replies were negotiated only "
        "before TLS began",
        _WITH_TLS,
        also=("C-55",),
    ),
    Twins(
        "C-57",
        (HELLO, STARTTLS, FailTLS(), LIST, LEAVE),
        (HELLO, STARTTLS, FailTLS(), LEAVE),
        "what begins with 49484156454f5054 came after the TLS handshake had failed",
        _WITH_TLS,
    ),
    Twins(
        "C-60",
        (HELLO, STARTTLS, StartTLS("TLSv1.1"), LIST, ABORT, _GOODBYE),
        (HELLO, *_TLS, LIST, ABORT, _GOODBYE),
        "the client agreed to TLSv1.1",
        _WITH_TLS,
    ),
    Twins(
        "C-61",
        session(opening=(*_TLS, export_name()), end=_GOODBYE),
        session(opening=(*_TLS, go()), end=_GOODBYE),
        "NBD_OPT_EXPORT_NAME came over TLS, not NBD_OPT_GO",
        _WITH_TLS,
    ),
    Twins(
        "C-62",
        (HELLO, *_TLS, ABORT, LEAVE),
        (HELLO, *_TLS, ABORT, _GOODBYE),
        "the client left after NBD_OPT_ABORT without shutting TLS down",
        _WITH_TLS,
        level="MUST",
    ),
    Twins(
        "C-62",
        session(opening=(*_TLS, go())),
        session(opening=(*_TLS, go()), end=Leave("RST")),
        "the client left after NBD_CMD_DISC without shutting TLS down",
        _WITH_TLS,
    ),
    Twins(
        "C-110",
        negotiating(command(0, 0, 512)),
        session(read()),
        "NBD_CMD_READ came before the handshake was complete",
    ),
    Twins(
        "C-132",
        (HELLO, LIST, LEAVE),
        _CORRECT,
        "the client left option negotiation without NBD_OPT_ABORT",
    ),
    Twins(
        "C-133",
        (HELLO, Together((ABORT, LIST)), LEAVE),
        _CORRECT,
        "NBD_OPT_LIST came after NBD_OPT_ABORT",
    ),
)
