from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.journal import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Payload,
    Received,
    Sent,
    Violated,
)
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    Data,
    ErrorChunk,
    ErrorReply,
    ExportName,
    Greeting,
    Hole,
    InfoBlockSize,
    InfoExport,
    InfoQuery,
    InfoText,
    MetaContext,
    MetaContextQuery,
    OldstyleGreeting,
    OptionReply,
    OptionRequest,
    Raw,
    Request,
    Server,
    SimpleReply,
    Status,
)

PAYLOAD = Payload(512, b"a" * 512)

RECEIVED = [
    (
        Received(0, 0.0, 1, Request(1, 7, 4096, 512, 1), PAYLOAD),
        {
            "command": "write",
            "cookie": 7,
            "offset": 4096,
            "length": 512,
            "flags": 1,
            "type": "request",
            "data": b"a" * 512,
            "digest": "471be6558b665e4f",
        },
    ),
    (
        Received(0, 0.0, 1, Request(99)),
        {
            "command": "99",
            "cookie": 0,
            "offset": 0,
            "length": 0,
            "flags": 0,
            "type": "request",
        },
    ),
    (
        Received(0, 0.0, 1, OptionRequest(7, InfoQuery("disk"))),
        {"option": "go", "name": "disk", "type": "option"},
    ),
    (
        Received(0, 0.0, 1, OptionRequest(1, ExportName("disk"))),
        {"option": "export-name", "name": "disk", "type": "option"},
    ),
    (
        Received(0, 0.0, 1, OptionRequest(10, MetaContextQuery("disk", ["a:b"]))),
        {"option": "set-meta-context", "name": "disk", "type": "option"},
    ),
    (Received(0, 0.0, 1, OptionRequest(99)), {"option": "99", "type": "option"}),
    (Received(0, 0.0, 1, ClientFlags(3)), {"flags": 3, "type": "client-flags"}),
    (Received(0, 0.0, 1, Raw(b"")), {"type": "raw"}),
]
SENT = [
    (Sent(0, 0.0, 1, Greeting(3)), {"flags": 3, "type": "greeting"}),
    (Sent(0, 0.0, 1, OldstyleGreeting(512, 5)), {"flags": 5, "type": "greeting"}),
    (
        Sent(0, 0.0, 1, SimpleReply(7), PAYLOAD),
        {
            "cookie": 7,
            "length": 512,
            "type": "simple",
            "data": b"a" * 512,
            "digest": "471be6558b665e4f",
        },
    ),
    (Sent(0, 0.0, 1, SimpleReply(7, 5)), {"cookie": 7, "error": "eio", "type": "simple"}),
    (
        Sent(0, 0.0, 1, Chunk(7, Data(9, b""), 1, request_offset=3), Payload(512)),
        {"cookie": 7, "offset": 9, "length": 512, "flags": 1, "type": "offset-data"},
    ),
    (
        Sent(0, 0.0, 1, Chunk(7, Hole(9, 4), 1)),
        {"cookie": 7, "offset": 9, "length": 4, "flags": 1, "type": "offset-hole"},
    ),
    (
        Sent(0, 0.0, 1, Chunk(7, ErrorChunk(5, "bad", 9), 1)),
        {
            "cookie": 7,
            "offset": 9,
            "error": "eio",
            "text": "bad",
            "flags": 1,
            "type": "error-offset",
        },
    ),
    (
        Sent(0, 0.0, 1, Chunk(7, ErrorChunk(999), 1, request_offset=3)),
        {"cookie": 7, "offset": 3, "error": "999", "text": "", "flags": 1, "type": "error"},
    ),
    (
        Sent(0, 0.0, 1, Chunk(7, Status(1, [(4, 0), (5, 1)]), request_offset=3)),
        {"cookie": 7, "offset": 3, "length": 9, "flags": 0, "type": "block-status-ext"},
    ),
    (Sent(0, 0.0, 1, OptionReply(7, Ack())), {"option": "go", "type": "ack"}),
    (
        Sent(0, 0.0, 1, OptionReply(7, ErrorReply("no"), type=0x80000003)),
        {"option": "go", "type": "err-invalid", "error": "err-invalid", "text": "no"},
    ),
    (
        Sent(0, 0.0, 1, OptionReply(7, InfoExport(1, 5))),
        {"option": "go", "type": "info", "info": "export", "flags": 5},
    ),
    (
        Sent(0, 0.0, 1, OptionReply(7, InfoText(2, "big"))),
        {"option": "go", "type": "info", "info": "description", "text": "big"},
    ),
    (
        Sent(0, 0.0, 1, OptionReply(7, InfoBlockSize())),
        {"option": "go", "type": "info", "info": "block-size"},
    ),
    (
        Sent(0, 0.0, 1, OptionReply(10, MetaContext(1, "a:b"))),
        {"option": "set-meta-context", "type": "meta-context", "name": "a:b"},
    ),
    (
        Sent(0, 0.0, 1, OptionReply(3, Server("disk"))),
        {"option": "list", "type": "server", "name": "disk"},
    ),
]


@pytest.mark.parametrize(("entry", "expected"), RECEIVED + SENT)
def test_what_can_be_asked_of_a_message(entry: Received | Sent, expected: dict[str, Any]) -> None:
    names = {*Received.conditions, *Sent.conditions, "type"} - {"connection", "at"}
    answers = {name: getattr(entry, name, None) for name in names}
    assert {name: value for name, value in answers.items() if value is not None} == expected


OTHERS: list[Entry] = [
    Connected(0, 0.0, 1, "127.0.0.1:5", "tcp"),
    FaultFired(0, 0.0, 1, "x", ["cut"], 1, ""),
    Violated(0, 0.0, 1, "C-89", "MUST", "it did"),
    Closed(0, 0.0, 1, "client", "EOF"),
    InternalFailure(0, 0.0, None, "oh"),
]


@pytest.mark.parametrize("entry", [*OTHERS, RECEIVED[0][0], SENT[0][0]], ids=lambda e: e.kind)
def test_every_condition_of_an_entry_can_be_asked_for(entry: Entry) -> None:
    for name in entry.conditions:
        getattr(entry, name)


@pytest.mark.parametrize("entry", OTHERS, ids=lambda entry: entry.kind)
def test_entries_are_values(entry: Entry) -> None:
    assert attrs.evolve(entry) == entry
    assert hash(attrs.evolve(entry)) == hash(entry)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        entry.index = 5  # type: ignore[misc]
