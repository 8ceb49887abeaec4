"""Every option, told truly: what is answered, what follows, and what the terms are then."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.export import BlockSize, Export
from fakenbd.export.export import ALL_FLAGS
from fakenbd.faults.answer import StartTLS
from fakenbd.profile import Handshake
from fakenbd.protocol.constants import Info, Option, Reply, TransmissionFlag
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
from fakenbd.server.options import Catalogue, Decision, decide
from fakenbd.server.terms import Terms

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
    """An option under the terms `agreed`, and all that is to come of it.

    `said` are the bodies of the replies, an error with its type; `then` are the terms that change.
    """

    option: int
    body: Any = EMPTY
    said: tuple[Any, ...] = (Ack(),)
    agreed: dict[str, Any] = attrs.Factory(dict)
    speaks: dict[str, Any] = attrs.Factory(dict)
    then: dict[str, Any] = attrs.Factory(dict)
    outcome: str = "haggle"


def refusal(kind: Reply, text: str = "") -> tuple[Any, ...]:
    return ((kind, ErrorReply(text)),)


def asks(name: str, *queries: str) -> MetaContextQuery:
    return MetaContextQuery(name, queries)


def chosen(*names: str) -> tuple[Any, ...]:
    return (*(MetaContext(NAMES.index(name) + 1, name) for name in names), Ack())


def listed(*names: str) -> tuple[Any, ...]:
    return (*(MetaContext(0, name) for name in names), Ack())


STRUCTURED, EXTENDED, SECURE = {"structured": True}, {"extended": True}, {"tls": True}
FIXED = {"fixed": True}
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
    "abort": Case(Option.ABORT, outcome="leave"),
    "abort with data": Case(Option.ABORT, JUNK, outcome="leave"),
    "peek-export": Case(Option.PEEK_EXPORT, said=refusal(Reply.ERR_UNSUP)),
    "an unknown option": Case(77, JUNK, refusal(Reply.ERR_UNSUP)),
    # --- INFO and GO
    **{
        f"{'info' if option == Option.INFO else 'go'}: {what}": attrs.evolve(
            case,
            option=option,
            outcome="transmit" if option == Option.GO and case.said[-1] == Ack() else "haggle",
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
        outcome="transmit",
    ),
    "export-name without zeroes": Case(
        Option.EXPORT_NAME,
        ExportName(""),
        (ExportNameReply(4096, SIMPLE_FLAGS, b""),),
        agreed={"no_zeroes": True},
        outcome="transmit",
    ),
    "export-name, unknown": Case(Option.EXPORT_NAME, ExportName("x"), (), outcome="drop"),
    "export-name, sealed": Case(Option.EXPORT_NAME, ExportName("sealed"), (), outcome="drop"),
    "export-name after extended headers": Case(
        Option.EXPORT_NAME, ExportName("disk"), (), agreed=EXTENDED, outcome="drop"
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
        said=(Ack(), StartTLS()),
        agreed=FIXED,
        speaks=OPTIONAL,
        outcome="tls",
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
        said=refusal(Reply.ERR_INVALID, "TLS is already up"),
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
        Option.EXPORT_NAME, ExportName("disk"), (), speaks=REQUIRED, outcome="drop"
    ),
    "abort in clear where TLS is required": Case(Option.ABORT, speaks=REQUIRED, outcome="leave"),
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


def decided(case: Case) -> tuple[Decision, Terms]:
    """What the server makes of a case, and the terms it leaves."""
    terms = Terms(**case.agreed)
    exports = {export.name: export for export in EXPORTS}
    catalogue = Catalogue(exports, Handshake(**case.speaks))
    decision = decide(catalogue, terms, OptionRequest(case.option, case.body))
    if decision.commit is not None:
        decision.commit(terms)
    return decision, terms


def message(option: int, said: Any) -> Any:
    if isinstance(said, StartTLS | ExportNameReply):
        return said
    kind, body = said if isinstance(said, tuple) else (None, said)
    return OptionReply(option, body, kind)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_option(case: Case) -> None:
    decision, terms = decided(case)
    assert decision.answer == [message(case.option, said) for said in case.said]
    assert decision.outcome == case.outcome
    agreed = attrs.asdict(Terms(**case.agreed)) | case.then
    for name in ("fixed", "no_zeroes", "tls", "structured", "extended"):
        assert getattr(terms, name) == agreed[name]
    assert (terms.export is not None) == (case.outcome == "transmit")


# --- what a selection is worth ------------------------------------------------------------------


def selected(terms: Terms, *queries: str, name: str = "disk") -> None:
    exports = {export.name: export for export in EXPORTS}
    request = OptionRequest(SET, asks(name, *queries))
    decision = decide(Catalogue(exports, Handshake()), terms, request)
    if decision.commit is not None:
        decision.commit(terms)


def test_a_selection_is_what_was_set_last() -> None:
    terms = Terms(structured=True)
    selected(terms, NAMES[2], NAMES[0])
    assert terms.contexts == ((1, NAMES[0]), (3, NAMES[2]))
    selected(terms, NAMES[1])
    assert terms.contexts == ((2, NAMES[1]),)


@pytest.mark.parametrize("name", ["disk", "missing"])
def test_a_selection_that_fails_or_finds_nothing_leaves_nothing(name: str) -> None:
    terms = Terms(structured=True)
    selected(terms, NAMES[0])
    selected(terms, "x-y:z", name=name)
    assert terms.contexts == ()


@pytest.mark.parametrize(("opened", "kept"), [("disk", True), ("bare", False), ("", False)])
def test_a_selection_is_for_the_export_it_was_made_for(opened: str, kept: bool) -> None:
    terms = Terms(structured=True)
    selected(terms, NAMES[0])
    terms.open(EXPORTS[0], opened)
    assert bool(terms.contexts) == kept


def test_tls_makes_everything_void_but_the_client_s_flags() -> None:
    terms = Terms(fixed=True, no_zeroes=True, structured=True, extended=True)
    selected(terms, NAMES[0])
    terms.forget()
    assert attrs.asdict(terms) == attrs.asdict(Terms(fixed=True, no_zeroes=True, tls=True))
