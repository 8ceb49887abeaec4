"""What each option negotiates, accepted and refused, read from nothing but the reply to it."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.conversation.outcome import Outcome, export_named, is_refused, negotiate, outcome_of
from fakenbd.protocol.constants import Info, Option, Reply
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
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState

NAME = "disk"
EMPTY = RawBody()
BEFORE: dict[str, Any] = {
    "handshake_flags": 3,
    "client_flags": 3,
    "structured": True,
    "contexts": {7: "a:b"},
    "contexts_export": NAME,
}
ALL = (Info.NAME, Info.DESCRIPTION, Info.BLOCK_SIZE)
DISK = InfoExport(4096, 0x8D)
TOLD = (
    InfoText(Info.NAME, "canonical"),
    InfoText(Info.DESCRIPTION, "a disk"),
    InfoBlockSize(512, 4096, 65536),
    DISK,
)
OPENED = {"export": NAME, "size": 4096, "flags": 0x8D}
SIZES = {"block_size": BlockSize(512, 4096, 65536), "canonical_name": "canonical"}
LOST = {"contexts": {}, "contexts_export": None}


@attrs.frozen
class Case:
    """An option, the bodies before its ACK, and what is negotiated then besides BEFORE."""

    option: int
    body: Any = EMPTY
    told: tuple[Any, ...] = ()
    then: dict[str, Any] = attrs.Factory(dict)
    refused: dict[str, Any] = attrs.Factory(dict)
    outcome: Outcome = Outcome.OPTIONS


QUERY = MetaContextQuery(NAME, ["a:b", "c:d"])
CONTEXTS = (MetaContext(1, "a:b"), MetaContext(5, "c:d"))

CASES = {
    "LIST": Case(Option.LIST, told=(Server(NAME), Server("other"))),
    "INFO": Case(Option.INFO, InfoQuery(NAME, ALL), TOLD),
    "GO": Case(
        Option.GO,
        InfoQuery(NAME, ALL),
        TOLD,
        OPENED | SIZES | {"block_size_asked": True},
        outcome=Outcome.TRANSMISSION,
    ),
    "GO without being asked for sizes": Case(
        Option.GO, InfoQuery(NAME, ()), (DISK,), OPENED, outcome=Outcome.TRANSMISSION
    ),
    "GO of another export": Case(
        Option.GO,
        InfoQuery("other", ()),
        (DISK,),
        OPENED | {"export": "other", "contexts": {}},
        outcome=Outcome.TRANSMISSION,
    ),
    "STRUCTURED_REPLY": Case(Option.STRUCTURED_REPLY, then={"structured": True}),
    "EXTENDED_HEADERS": Case(Option.EXTENDED_HEADERS, then={"extended": True}),
    "SET_META_CONTEXT": Case(
        Option.SET_META_CONTEXT,
        QUERY,
        CONTEXTS,
        {"contexts": {1: "a:b", 5: "c:d"}, "contexts_export": NAME},
        refused=LOST,
    ),
    "SET_META_CONTEXT that finds none": Case(
        Option.SET_META_CONTEXT, QUERY, (), {"contexts": {}}, refused=LOST
    ),
    "LIST_META_CONTEXT": Case(Option.LIST_META_CONTEXT, QUERY, CONTEXTS),
    "STARTTLS": Case(Option.STARTTLS, outcome=Outcome.TLS),
    "ABORT": Case(Option.ABORT, outcome=Outcome.ABORTED),
    "an unknown option": Case(77),
}


def state(**more: Any) -> dict[str, Any]:
    return attrs.asdict(NegotiatedState(**(BEFORE | more)))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_accepted(case: Case) -> None:
    request = OptionRequest(case.option, case.body)
    reply = [OptionReply(case.option, body) for body in (*case.told, Ack())]
    negotiated = NegotiatedState(**BEFORE)
    negotiate(negotiated, request, reply)
    assert attrs.asdict(negotiated) == state(**case.then)
    assert outcome_of(request, reply) is case.outcome
    assert not is_refused(reply)


@pytest.mark.parametrize("told", [False, True], ids=["at once", "after all was told"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_refused(case: Case, told: bool) -> None:
    request = OptionRequest(case.option, case.body)
    refusal = OptionReply(case.option, ErrorReply("no"), Reply.ERR_POLICY)
    reply = [*(OptionReply(case.option, body) for body in case.told if told), refusal]
    negotiated = NegotiatedState(**BEFORE)
    negotiate(negotiated, request, reply)
    assert attrs.asdict(negotiated) == state(**case.refused)
    aborted = case.option == Option.ABORT
    assert outcome_of(request, reply) is (Outcome.ABORTED if aborted else Outcome.OPTIONS)
    assert is_refused(reply)


def test_export_name_opens_with_the_one_reply_that_it_has() -> None:
    request = OptionRequest(Option.EXPORT_NAME, ExportName(NAME))
    reply = [ExportNameReply(4096, 0x8D, b"")]
    negotiated = NegotiatedState(**BEFORE)
    negotiate(negotiated, request, reply)
    assert attrs.asdict(negotiated) == state(**OPENED)
    assert outcome_of(request, reply) is Outcome.TRANSMISSION


def test_export_name_without_a_reply_ends_the_connection() -> None:
    request = OptionRequest(Option.EXPORT_NAME, ExportName(NAME))
    negotiated = NegotiatedState(**BEFORE)
    negotiate(negotiated, request, [])
    assert attrs.asdict(negotiated) == state()
    assert outcome_of(request, []) is Outcome.DROPPED


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (ExportName(NAME), NAME),
        (InfoQuery(NAME, ALL), NAME),
        (QUERY, NAME),
        (RawBody(), None),
        (RawBody(b"junk"), None),
    ],
)
def test_the_export_that_an_option_names(body: Any, name: str | None) -> None:
    assert export_named(OptionRequest(77, body)) == name
