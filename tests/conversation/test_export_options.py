"""The correct reply to every option, where it leads, and what is negotiated then."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.conversation import Handshake
from fakenbd.conversation.export_options import Catalogue, answer_option
from fakenbd.conversation.outcome import Outcome, negotiate, outcome_of
from fakenbd.export import BlockSize, Export
from fakenbd.export.export import ALL_FLAGS
from fakenbd.faults.answer import Answer
from fakenbd.protocol.constants import (
    ClientFlag,
    HandshakeFlag,
    Info,
    Option,
    Reply,
    TransmissionFlag,
)
from fakenbd.protocol.messages import (
    Ack,
    ErrorReply,
    ExportName,
    ExportNameReply,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    RawBody,
    Server,
)
from fakenbd.protocol.negotiated import NegotiatedState

SEND_DF = int(TransmissionFlag.SEND_DF)
PAYLOAD = int(TransmissionFlag.BLOCK_STATUS_PAYLOAD)
FLAGS = 0x8000 | PAYLOAD | ALL_FLAGS
SIMPLE_FLAGS = FLAGS & ~SEND_DF & ~PAYLOAD
NAMES = ("base:allocation", "qemu:allocation-depth", "qemu:dirty-bitmap:b0")

EXPORTS = [
    Export(
        "disk",
        size=4096,
        flags=FLAGS,
        description="the first",
        canonical_name="disk/canonical",
        block_size=BlockSize(512, 4096, 65536),
        contexts=dict.fromkeys(NAMES),
    ),
    Export("bare", size=1, block_size=None, contexts={}),
    Export("sealed", size=2, tls_only=True),
]

EVERYTHING = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE, Info.EXPORT, 77)
NO_SUCH = "there is no export of that name"
OVER_TLS = "this export is served over TLS only"
EMPTY, JUNK = RawBody(), RawBody(b"junk")
NO_SUM = "malformed option data"


@attrs.frozen
class Case:
    """An option in the state `agreed`, and all that is to come of it.

    `said` are the bodies of the replies, an error with its type; `then` is the state that changes.
    """

    option: int
    body: Any = EMPTY
    said: tuple[Any, ...] = (Ack(),)
    agreed: dict[str, Any] = attrs.Factory(dict)
    speaks: dict[str, Any] = attrs.Factory(dict)
    then: dict[str, Any] = attrs.Factory(dict)
    outcome: Outcome = Outcome.OPTIONS


def refusal(kind: Reply, text: str = "") -> tuple[Any, ...]:
    return ((kind, ErrorReply(text)),)


def asks(name: str, *queries: str) -> MetaContextQuery:
    return MetaContextQuery(name, queries)


def chosen(*names: str) -> tuple[Any, ...]:
    return (*(MetaContext(NAMES.index(name) + 1, name) for name in names), Ack())


def listed(*names: str) -> tuple[Any, ...]:
    return (*(MetaContext(0, name) for name in names), Ack())


STRUCTURED, EXTENDED, SECURE = {"structured": True}, {"extended": True}, {"tls": True}
FIXED = {
    "handshake_flags": int(HandshakeFlag.FIXED_NEWSTYLE),
    "client_flags": int(ClientFlag.FIXED_NEWSTYLE),
}
NO_ZEROES = {
    "handshake_flags": int(HandshakeFlag.NO_ZEROES),
    "client_flags": int(ClientFlag.NO_ZEROES),
}
OPTIONAL, REQUIRED = {"tls": "optional"}, {"tls": "required"}
DISK = Server("disk", "the first")
SET, LISTING = Option.SET_META_CONTEXT, Option.LIST_META_CONTEXT

CASES = {
    # --- LIST, ABORT and what nobody knows
    "list": Case(Option.LIST, said=(DISK, Server("bare"), Ack())),
    "list, over TLS": Case(
        Option.LIST, said=(DISK, Server("bare"), Server("sealed"), Ack()), agreed=SECURE
    ),
    "list with data": Case(
        Option.LIST, JUNK, refusal(Reply.ERR_INVALID, "NBD_OPT_LIST carries no data")
    ),
    "abort": Case(Option.ABORT, outcome=Outcome.ABORTED),
    "abort with data": Case(Option.ABORT, JUNK, outcome=Outcome.ABORTED),
    "peek-export": Case(Option.PEEK_EXPORT, said=refusal(Reply.ERR_UNSUP)),
    "an unknown option": Case(77, JUNK, refusal(Reply.ERR_UNSUP)),
    # --- INFO and GO
    **{
        f"{'info' if option == Option.INFO else 'go'}: {what}": attrs.evolve(
            case,
            option=option,
            outcome=Outcome.TRANSMISSION
            if option == Option.GO and case.said[-1] == Ack()
            else Outcome.OPTIONS,
        )
        for option in (Option.INFO, Option.GO)
        for what, case in {
            "nothing asked": Case(
                0, InfoQuery("disk", ()), (InfoExport(4096, SIMPLE_FLAGS), Ack())
            ),
            "everything asked": Case(
                0,
                InfoQuery("disk", EVERYTHING),
                (
                    InfoText(Info.NAME, "disk/canonical"),
                    InfoText(Info.DESCRIPTION, "the first"),
                    InfoBlockSize(512, 4096, 65536),
                    InfoExport(4096, SIMPLE_FLAGS),
                    Ack(),
                ),
            ),
            "nothing to tell": Case(
                0,
                InfoQuery("bare", EVERYTHING),
                (InfoText(Info.NAME, "bare"), InfoExport(1, ALL_FLAGS & ~SEND_DF), Ack()),
            ),
            "the default export": Case(
                0, InfoQuery("", ()), (InfoExport(4096, SIMPLE_FLAGS), Ack())
            ),
            "DF with structured replies": Case(
                0,
                InfoQuery("disk", ()),
                (InfoExport(4096, FLAGS & ~PAYLOAD), Ack()),
                agreed=STRUCTURED,
            ),
            "all flags with extended headers": Case(
                0, InfoQuery("disk", ()), (InfoExport(4096, FLAGS), Ack()), agreed=EXTENDED
            ),
            "unknown": Case(0, InfoQuery("Disk", ()), refusal(Reply.ERR_UNKNOWN, NO_SUCH)),
            "sealed": Case(0, InfoQuery("sealed", ()), refusal(Reply.ERR_TLS_REQD, OVER_TLS)),
            "junk": Case(0, JUNK, refusal(Reply.ERR_INVALID, NO_SUM)),
        }.items()
    },
    # --- EXPORT_NAME has no way to refuse
    "export-name": Case(
        Option.EXPORT_NAME,
        ExportName("disk"),
        (ExportNameReply(4096, SIMPLE_FLAGS, bytes(124)),),
        outcome=Outcome.TRANSMISSION,
    ),
    "export-name without zeroes": Case(
        Option.EXPORT_NAME,
        ExportName(""),
        (ExportNameReply(4096, SIMPLE_FLAGS, b""),),
        agreed=NO_ZEROES,
        outcome=Outcome.TRANSMISSION,
    ),
    "export-name, unknown": Case(Option.EXPORT_NAME, ExportName("x"), (), outcome=Outcome.DROPPED),
    "export-name, sealed": Case(
        Option.EXPORT_NAME, ExportName("sealed"), (), outcome=Outcome.DROPPED
    ),
    "export-name after extended headers": Case(
        Option.EXPORT_NAME, ExportName("disk"), (), agreed=EXTENDED, outcome=Outcome.DROPPED
    ),
    # --- what replies look like
    "structured-reply": Case(Option.STRUCTURED_REPLY, then=STRUCTURED),
    "structured-reply, again": Case(Option.STRUCTURED_REPLY, agreed=STRUCTURED, then=STRUCTURED),
    "structured-reply with data": Case(
        Option.STRUCTURED_REPLY,
        JUNK,
        refusal(Reply.ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY carries no data"),
    ),
    "structured-reply after extended headers": Case(
        Option.STRUCTURED_REPLY,
        said=refusal(Reply.ERR_EXT_HEADER_REQD, "extended headers are in force"),
        agreed=EXTENDED,
    ),
    "structured-reply, not spoken": Case(
        Option.STRUCTURED_REPLY,
        said=refusal(Reply.ERR_UNSUP),
        speaks={"structured_replies": False},
    ),
    "extended-headers": Case(Option.EXTENDED_HEADERS, then=EXTENDED),
    "extended-headers with data": Case(
        Option.EXTENDED_HEADERS,
        JUNK,
        refusal(Reply.ERR_INVALID, "NBD_OPT_EXTENDED_HEADERS carries no data"),
    ),
    "extended-headers, not spoken": Case(
        Option.EXTENDED_HEADERS, said=refusal(Reply.ERR_UNSUP), speaks={"extended_headers": False}
    ),
    # --- TLS
    "starttls": Case(
        Option.STARTTLS,
        agreed=FIXED,
        speaks=OPTIONAL,
        outcome=Outcome.TLS,
    ),
    "starttls, not spoken": Case(
        Option.STARTTLS, said=refusal(Reply.ERR_POLICY, "this server speaks no TLS"), agreed=FIXED
    ),
    "starttls with data": Case(
        Option.STARTTLS,
        JUNK,
        refusal(Reply.ERR_INVALID, "NBD_OPT_STARTTLS carries no data"),
        agreed=FIXED,
        speaks=OPTIONAL,
    ),
    "starttls, again": Case(
        Option.STARTTLS,
        said=refusal(Reply.ERR_INVALID, "TLS is already in use"),
        agreed=FIXED | SECURE,
        speaks=OPTIONAL,
    ),
    **{
        f"option {option} in clear where TLS is required": Case(
            option,
            said=refusal(Reply.ERR_TLS_REQD, "TLS is required: send NBD_OPT_STARTTLS first"),
            speaks=REQUIRED,
        )
        for option in (
            Option.LIST,
            Option.INFO,
            Option.GO,
            Option.STRUCTURED_REPLY,
            SET,
            LISTING,
            77,
        )
    },
    "export-name in clear where TLS is required": Case(
        Option.EXPORT_NAME, ExportName("disk"), (), speaks=REQUIRED, outcome=Outcome.DROPPED
    ),
    "abort in clear where TLS is required": Case(
        Option.ABORT, speaks=REQUIRED, outcome=Outcome.ABORTED
    ),
    # --- metadata contexts
    "set one": Case(SET, asks("disk", NAMES[0]), chosen(NAMES[0]), STRUCTURED),
    "set all": Case(SET, asks("disk", *NAMES), chosen(*NAMES), STRUCTURED),
    "set, in any order": Case(SET, asks("disk", *NAMES[::-1]), chosen(*NAMES), STRUCTURED),
    "set one twice": Case(SET, asks("disk", NAMES[2], NAMES[2]), chosen(NAMES[2]), STRUCTURED),
    "set with extended headers": Case(SET, asks("", NAMES[0]), chosen(NAMES[0]), EXTENDED),
    "set none": Case(SET, asks("disk"), chosen(), STRUCTURED),
    "set a wildcard": Case(SET, asks("disk", "base:", "qemu:"), chosen(), STRUCTURED),
    "set an unknown one": Case(SET, asks("disk", "base:x", "x-y:z"), chosen(), STRUCTURED),
    "set where there are none": Case(SET, asks("bare", NAMES[0]), chosen(), STRUCTURED),
    "list all": Case(LISTING, asks("disk"), listed(*NAMES), STRUCTURED),
    "list a namespace": Case(LISTING, asks("disk", "qemu:"), listed(*NAMES[1:]), STRUCTURED),
    "list a narrower one": Case(
        LISTING, asks("disk", "qemu:dirty-bitmap:"), listed(NAMES[2]), STRUCTURED
    ),
    "list one by name": Case(LISTING, asks("disk", NAMES[1]), listed(NAMES[1]), STRUCTURED),
    "list an unknown one": Case(LISTING, asks("disk", "qemu:dirty"), listed(), STRUCTURED),
    **{
        f"{'set' if option == SET else 'list'}: {what}": attrs.evolve(case, option=option)
        for option in (SET, LISTING)
        for what, case in {
            "too early": Case(
                0,
                asks("disk", NAMES[0]),
                refusal(Reply.ERR_INVALID, "negotiate NBD_OPT_STRUCTURED_REPLY first"),
            ),
            "unknown": Case(
                0, asks("x", NAMES[0]), refusal(Reply.ERR_UNKNOWN, NO_SUCH), STRUCTURED
            ),
            # Only INFO and GO may say TLS_REQD for the sake of one export (S-102).
            "sealed": Case(
                0, asks("sealed", NAMES[0]), refusal(Reply.ERR_UNKNOWN, NO_SUCH), STRUCTURED
            ),
            "junk": Case(0, JUNK, refusal(Reply.ERR_INVALID, NO_SUM), STRUCTURED),
            "no namespace": Case(
                0,
                asks("disk", "allocation"),
                refusal(Reply.ERR_INVALID, "invalid query: expected NAMESPACE:LEAF"),
                STRUCTURED,
            ),
        }.items()
    },
}


def answered(state: NegotiatedState, request: OptionRequest, **speaks: Any) -> Answer:
    """The correct reply, which must change nothing by itself; then what it negotiates."""
    catalogue = Catalogue({export.name: export for export in EXPORTS}, Handshake(**speaks))
    before = attrs.asdict(state)
    answer = answer_option(catalogue, state, request)
    assert attrs.asdict(state) == before
    negotiate(state, request, answer)
    return answer


def message(option: int, said: Any) -> Any:
    if isinstance(said, ExportNameReply):
        return said
    kind, body = said if isinstance(said, tuple) else (None, said)
    return OptionReply(option, body, kind)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_option(case: Case) -> None:
    state = NegotiatedState(**case.agreed)
    request = OptionRequest(case.option, case.body)
    answer = answered(state, request, **case.speaks)
    assert answer == [message(case.option, said) for said in case.said]
    assert outcome_of(request, answer) is case.outcome
    agreed = attrs.asdict(NegotiatedState(**case.agreed)) | case.then
    for name in ("handshake_flags", "client_flags", "tls", "structured", "extended"):
        assert getattr(state, name) == agreed[name]
    assert (state.export is not None) == (case.outcome is Outcome.TRANSMISSION)


# --- what a selection is worth ------------------------------------------------------------------


def selected(state: NegotiatedState, *queries: str, name: str = "disk") -> None:
    answered(state, OptionRequest(SET, asks(name, *queries)))


def test_a_selection_is_what_was_set_last() -> None:
    state = NegotiatedState(structured=True)
    selected(state, NAMES[2], NAMES[0])
    assert state.contexts == {1: NAMES[0], 3: NAMES[2]}
    selected(state, NAMES[1])
    assert state.contexts == {2: NAMES[1]}


@pytest.mark.parametrize("name", ["disk", "missing"])
def test_a_selection_that_fails_or_finds_nothing_leaves_nothing(name: str) -> None:
    state = NegotiatedState(structured=True)
    selected(state, NAMES[0])
    selected(state, "x-y:z", name=name)
    assert state.contexts == {}


@pytest.mark.parametrize(("opened", "kept"), [("disk", True), ("bare", False), ("", False)])
@pytest.mark.parametrize("option", [Option.GO, Option.EXPORT_NAME])
def test_a_selection_is_for_the_export_it_was_made_for(
    option: Option, opened: str, kept: bool
) -> None:
    state = NegotiatedState(structured=True)
    selected(state, NAMES[0])
    body = ExportName(opened) if option == Option.EXPORT_NAME else InfoQuery(opened, ())
    answered(state, OptionRequest(option, body))
    assert state.export == opened
    assert bool(state.contexts) == kept


def test_tls_makes_everything_void_but_the_client_s_flags() -> None:
    flags = {"handshake_flags": 3, "client_flags": 3}
    state = NegotiatedState(**flags, structured=True)
    selected(state, NAMES[0])
    state.extended = True
    assert state.contexts
    state.forget()
    assert attrs.asdict(state) == attrs.asdict(NegotiatedState(**flags, tls=True))
