"""A server that keeps the rules breaks none in the eyes of the judges, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenbd.export import BlockSize, Export
from fakenbd.obligations import server_coverage
from fakenbd.profile import Handshake
from fakenbd.protocol.constants import Command, CommandFlag, Info, Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    ClientFlags,
    ClientMessage,
    ExportName,
    InfoQuery,
    MetaContextQuery,
    OptionRequest,
    RawBody,
    Request,
)
from tests.conversation.talk import Talk
from tests.obligations.server_judging import ServerJudge

KIB = 1 << 10
MIB = 1 << 20
BASE, DEPTH = "base:allocation", "qemu:allocation-depth"


EXPORTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "empty": {"size": 0},
    "odd size": {"size": 1000, "contexts": {BASE: None}},
    "contexts": {"size": MIB, "contexts": {BASE: None, DEPTH: [(MIB, 1)]}},
    "many extents": {"size": MIB, "contexts": {BASE: [(4 * KIB, 0), (4 * KIB, 3)] * 128}},
    "read-only": {"size": MIB, "flags": 0x83, "contexts": {BASE: None}},
    "few flags": {"size": MIB, "flags": 1},
    "large blocks": {
        "size": MIB,
        "block_size": BlockSize(4096, 8192, 64 * KIB),
        "contexts": {BASE: None},
    },
    "small payload": {
        "size": MIB,
        "block_size": BlockSize(1, 512, 512),
        "contexts": {BASE: [(64 * KIB, 0), (64 * KIB, 3)] * 8},
    },
    "huge": {"size": 1 << 40, "contexts": {BASE: None}},
}

FORMS = {"simple": (), "structured": (Option.STRUCTURED_REPLY,), "extended": (11,), "both": (11, 8)}

NAME = OptionRequest(Option.EXPORT_NAME, ExportName("disk"))
DISC = Request(Command.DISC, 9)

NUMBERS = (*range(9), 99)
FLAGS = (0, *CommandFlag, 1 | 4, 64)
RANGES = (
    *((0, 0), (0, 512), (512, 4096), (4096, 4096), (0, 65536), (0, 128 * KIB), (1, 511), (3, 5)),
    *((0, MIB), (MIB - 512, 512), (MIB - 512, 1024), (MIB, 512), (1 << 63, 4096), (0, 1000)),
)
"""Ranges that are right, off the minimum block, of no length, and past the end."""


def options(name: str, form: tuple[int, ...]) -> Iterator[OptionRequest]:
    """All options that there are, and some that there are not, in right and wrong forms."""
    yield OptionRequest(Option.LIST)
    yield OptionRequest(Option.LIST, RawBody(b"data"))
    yield OptionRequest(Option.PEEK_EXPORT)
    yield OptionRequest(77, RawBody(b"unknown"))
    yield OptionRequest(Option.STARTTLS)
    yield OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery(name, [BASE]))
    yield from (OptionRequest(option) for option in form)
    yield OptionRequest(Option.STRUCTURED_REPLY, RawBody(b"data"))
    for body in (RawBody(b"\0\0\0\x09abc"), InfoQuery("nowhere", [Info.BLOCK_SIZE])):
        yield OptionRequest(Option.INFO, body)
        yield OptionRequest(Option.GO, body)
    for infos in ((), (0, 1, 2, 3), (3, 77)):
        yield OptionRequest(Option.INFO, InfoQuery(name, infos))
    for queries in ((), ("base:",), (BASE,), ("nonsense",), ("qemu:", "x-none:"), (DEPTH, BASE)):
        yield OptionRequest(Option.LIST_META_CONTEXT, MetaContextQuery(name, queries))
        yield OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery(name, queries))
    yield OptionRequest(Option.SET_META_CONTEXT, RawBody(b"\0\0\0\0\0\0\0\1\0\0\0\x09abc"))
    yield OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery("nowhere", [BASE]))
    yield OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery(name, [DEPTH, BASE]))


def requests(*, extended: bool) -> Iterator[Request]:
    """Every command on every range, and with every flag, right or wrong."""
    cases = [
        *product(NUMBERS, (0, CommandFlag.DF | CommandFlag.REQ_ONE), RANGES),
        *product((Command.READ,), (CommandFlag.DF,), RANGES),
        *product((Command.BLOCK_STATUS,), (CommandFlag.REQ_ONE,), RANGES),
        *product(NUMBERS, FLAGS, RANGES[1:4]),
    ]
    for cookie, (command, flags, (offset, length)) in enumerate(cases, 1):
        if command == Command.DISC:
            continue
        if extended and command == Command.WRITE:
            flags |= CommandFlag.PAYLOAD_LEN
        sends = flags & CommandFlag.PAYLOAD_LEN if extended else command == Command.WRITE
        payload = bytes(length if sends else 0)
        yield Request(command, cookie, offset, length, flags, payload, extended)


def exchanges(
    export: Export, messages: Iterable[ClientMessage], **settings: Any
) -> Iterator[tuple[ClientMessage | None, bytes]]:
    """A conversation in which every message is answered before the next one is sent."""
    talk = Talk([export], **settings)
    yield None, bytes(talk.answers)
    for message in messages:
        talk.answers.clear()
        talk.say(encode(message))
        yield message, bytes(talk.answers)
        if talk.markers:
            return


def judged(conversation: Iterable[tuple[ClientMessage | None, bytes]]) -> ServerJudge:
    judge = ServerJudge()
    for message, answer in conversation:
        if message is not None:
            judge.client(message)
        judge.server(answer)
    return judge


def spoken(export: Export, messages: Iterable[ClientMessage], **settings: Any) -> ServerJudge:
    return judged(exchanges(export, messages, **settings))


def conversation(export: Export, form: tuple[int, ...], infos: tuple[int, ...]) -> Any:
    def messages() -> Iterator[ClientMessage]:
        yield ClientFlags(3)
        yield from options(export.name, form)
        yield OptionRequest(Option.INFO, InfoQuery(export.name, infos))
        yield OptionRequest(Option.GO, InfoQuery(export.name, infos))
        yield from requests(extended=11 in form)

    return messages()


CONVERSATIONS = [
    *product(EXPORTS, ("simple", "structured", "extended"), [(Info.BLOCK_SIZE,)]),
    # Without block sizes a maximum payload below 64 KiB is not compatible with DF.
    *product(EXPORTS.keys() - {"small payload"}, ("structured",), [()]),
    ("contexts", "both", ()),
]


@pytest.mark.parametrize(("name", "form", "infos"), sorted(CONVERSATIONS))
def test_a_correct_conversation_has_no_breach(name, form, infos):
    export = Export("disk", **EXPORTS[name])
    judge = spoken(export, conversation(export, FORMS[form], infos))
    assert judge.transmission
    assert not judge.broken
    assert not judge.incoming
    assert judge.judged > 400
    assert not judge.breaches, judge.breaches[:10]


@pytest.mark.parametrize("no_zeroes", [False, True])
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("style", ["fixed", "newstyle"])
def test_an_export_name_reply_has_no_breach(style, flags, no_zeroes):
    messages = [ClientFlags(flags), NAME, *requests(extended=False)]
    speaks = Handshake(style, no_zeroes=no_zeroes)
    judge = spoken(Export("disk"), messages, speaks=speaks)
    offered = (style == "fixed") | no_zeroes << 1
    assert judge.transmission == (not flags & ~offered)
    assert not judge.breaches, judge.breaches[:10]


def test_an_oldstyle_conversation_has_no_breach():
    speaks = Handshake("oldstyle")
    judge = spoken(Export("disk"), requests(extended=False), speaks=speaks)
    assert judge.judged > 400
    assert not judge.breaches, judge.breaches[:10]


def test_leaving_has_no_breach():
    for messages in ([ClientFlags(3), OptionRequest(Option.ABORT)], [ClientFlags(3), NAME, DISC]):
        judge = spoken(Export("disk"), messages)
        judge.ended()
        assert not judge.breaches


# --- damaged bytes -------------------------------------------------------------------------------


def short_conversation(form: tuple[int, ...]) -> Iterator[ClientMessage]:
    yield ClientFlags(3)
    yield from options("disk", form)
    yield OptionRequest(Option.GO, InfoQuery("disk", (3,)))
    for cookie in range(1, 10):
        yield Request(Command.READ, cookie, 512 * cookie, 64, extended=11 in form)
        status = Request(Command.BLOCK_STATUS, 50 + cookie, 512 * cookie, 4096)
        yield attrs.evolve(status, extended=11 in form)


RECORDED = {
    name: list(exchanges(Export("disk", **EXPORTS["contexts"]), short_conversation(form)))
    for name, form in FORMS.items()
}
KNOWN = {"", *server_coverage.JUDGED, *server_coverage.DECODED}


@given(
    form=st.sampled_from(sorted(FORMS)),
    damages=st.lists(st.tuples(st.floats(0, 1), st.integers(1, 255)), min_size=1, max_size=8),
)
def test_damaged_bytes_break_known_rules_or_none(form, damages):
    conversation = RECORDED[form]
    data = bytearray(b"".join(answer for _, answer in conversation))
    for where, mask in damages:
        data[int(where * (len(data) - 1))] ^= mask
    damaged, start = [], 0
    for message, answer in conversation:
        damaged.append((message, bytes(data[start : start + len(answer)])))
        start += len(answer)
    judge = judged(damaged)
    judge.ended()
    assert {breach.rule for breach in judge.breaches} <= KNOWN
