"""Replies that a source gives later: out of order, in parts, with faults armed and without."""

from __future__ import annotations

import attrs
import pytest

from fakenbd.conversation.late_source import LateSource
from fakenbd.conversation.phases import Phase
from fakenbd.export import Export
from fakenbd.export.export import ALL_FLAGS
from fakenbd.faults import Faults
from fakenbd.faults.answer import CloseConnection
from fakenbd.journal import Closed, FaultFired, Received, Sent
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ClientFlags,
    Data,
    InfoExport,
    InfoQuery,
    OptionReply,
    OptionRequest,
    Request,
    ServerMessage,
    SimpleReply,
)
from tests.conversation.talk import Talk, handshake

SIZE = 1 << 20
HELLO = encode(ClientFlags(3))
ABORT = encode(OptionRequest(Option.ABORT))
LIST = encode(OptionRequest(Option.LIST))
GO = encode(OptionRequest(Option.GO, InfoQuery("")))
DISC = encode(Request(Command.DISC, 99))


@attrs.define(eq=False)
class LateTalk(Talk):
    """A conversation with a server whose source is late for what `late` picks."""

    late: object = (Request,)
    source: LateSource = attrs.field(init=False)

    def connect(self) -> None:
        kinds = self.late
        inner = self.shared.source
        self.source = LateSource(inner, lambda message: isinstance(message, kinds))  # type: ignore[arg-type]
        self.shared.source = self.source
        Talk.connect(self)

    def reply(self, place: int = 0) -> None:
        """The source answers one of those that wait, wholly."""
        (_, entry), answer = self.source.reply(place)
        self.conversation.answered(entry, answer, last=True)
        self.collect()

    def heard(self, begin: int) -> bytes:
        return bytes(self.answers[begin:])


def armed() -> Faults:
    """Faults that are chosen for each event, and mostly change nothing."""
    faults = Faults()
    for event in ({"command": "read"}, {"command": "write"}, {"option": "list"}, {"option": "go"}):
        # Chosen, but there is nothing of the kind in the reply.
        faults.on(**event, also=True).drop("status")  # type: ignore[arg-type]
    return faults


faulty = pytest.mark.parametrize("faults", [Faults, armed], ids=["correct", "faults armed"])


def wire(*messages: ServerMessage) -> bytes:
    return b"".join(map(encode, messages))


def read(cookie: int) -> bytes:
    return encode(Request(Command.READ, cookie, cookie * 512, 512))


def opened(faults: object, **options: object) -> tuple[LateTalk, int]:
    talk = LateTalk([Export(size=SIZE)], faults(), late=(Request,))  # type: ignore[operator]
    talk.say(handshake(**options))  # type: ignore[arg-type]
    return talk, len(talk.answers)


def content(cookie: int) -> SimpleReply:
    return SimpleReply(cookie, 0, Export(size=SIZE).read(cookie * 512, 512))


@faulty
def test_requests_are_answered_in_any_order(faults: object) -> None:
    talk, begin = opened(faults)
    talk.say(read(1) + read(2) + read(3))
    assert talk.heard(begin) == b""
    assert talk.conversation.owes
    for place in (1, 1, 0):
        talk.reply(place)
    assert talk.heard(begin) == wire(content(2), content(3), content(1))
    assert not talk.conversation.owes
    # Each reply is linked to its own request.
    heard = {entry.cookie: entry.index for entry in talk.journal if isinstance(entry, Received)}
    said = [entry for entry in talk.journal if isinstance(entry, Sent)][-3:]
    assert [entry.about for entry in said] == [heard[2], heard[3], heard[1]]


@faulty
def test_a_request_that_waits_at_disc_is_answered_before_the_end(faults: object) -> None:
    talk, begin = opened(faults)
    talk.say(read(1) + read(2) + DISC)
    if talk.source.asked[-1].message.command == Command.DISC:  # type: ignore[union-attr]
        pytest.fail("DISC has no reply that a source could give")
    assert talk.markers == []
    talk.reply(1)
    assert talk.markers == []
    talk.reply()
    assert talk.heard(begin) == wire(content(2), content(1))
    assert talk.markers == [CloseConnection()]
    talk.leave()
    (end,) = [entry for entry in talk.journal if isinstance(entry, Closed)]
    assert (end.by, end.how) == ("client", "DISC")


@faulty
def test_a_reply_in_parts(faults: object) -> None:
    talk, begin = opened(faults, structured=True)
    talk.say(encode(Request(Command.READ, 1, 0, 1024)))
    ((_, entry),) = [asked.token for asked in talk.source.asked]
    parts = [Chunk(1, Data(place * 512, bytes(512)), flags=place) for place in (0, 1)]
    left = []
    for part in parts:
        talk.conversation.answered(entry, [part], last=bool(part.flags))
        talk.collect()
        left.append(talk.heard(begin))
    # Faults change a whole reply, so they wait for the whole of it.
    assert left[0] == (wire(parts[0]) if faults is Faults else b"")
    assert left[1] == wire(*parts)
    said = [entry_ for entry_ in talk.journal if isinstance(entry_, Sent)][-2:]
    assert [each.about for each in said] == [entry, entry]


def test_a_fault_changes_a_reply_that_comes_late() -> None:
    faults = Faults()
    faults.on("read", nth=1).error("EIO")
    faults.on("write").error("EIO")
    talk, begin = opened(lambda: faults)
    before = talk.exports[0].sha256()
    talk.say(read(1) + encode(Request(Command.WRITE, 2, 0, 512, 0, bytes(512))))
    assert [asked.effect for asked in talk.source.asked] == [False, False]
    talk.reply(1)
    talk.reply()
    assert talk.heard(begin) == wire(SimpleReply(2, 5), SimpleReply(1, 5))
    assert talk.exports[0].sha256() == before
    heard = {entry.cookie: entry.index for entry in talk.journal if isinstance(entry, Received)}
    fired = [entry for entry in talk.journal if isinstance(entry, FaultFired)]
    assert [entry.about for entry in fired] == [heard[2], heard[1]]


@faulty
def test_an_option_that_is_answered_late_holds_the_next_one(faults: object) -> None:
    talk = LateTalk([Export(size=SIZE)], faults(), late=(OptionRequest,))  # type: ignore[operator]
    begin = len(talk.answers)
    talk.say(HELLO + LIST + GO)
    assert [asked.message.option for asked in talk.source.asked] == [Option.LIST]  # type: ignore[union-attr]
    talk.reply()
    assert [asked.message.option for asked in talk.source.asked] == [Option.GO]  # type: ignore[union-attr]
    assert talk.conversation.standing.phase is Phase.OPTIONS
    assert talk.conversation.responder.state.export is None
    talk.reply()
    assert talk.conversation.standing.phase is Phase.TRANSMISSION
    assert talk.conversation.responder.state.export == ""
    received = talk.heard(begin)
    assert received.endswith(
        wire(
            OptionReply(Option.GO, InfoExport(SIZE, int(ALL_FLAGS) & ~0x80)),
            OptionReply(Option.GO, Ack()),
        )
    )


@faulty
def test_abort_does_not_wait_for_an_option_that_is_answered_late(faults: object) -> None:
    late = (OptionRequest,)
    talk = LateTalk([Export(size=SIZE)], faults(), late=late)  # type: ignore[operator]
    talk.source.late = lambda message: getattr(message, "option", 0) != Option.ABORT
    begin = len(talk.answers)
    talk.say(HELLO + GO + LIST)
    talk.say(ABORT)
    assert talk.heard(begin) == wire(OptionReply(Option.ABORT, Ack()))
    assert talk.markers == [CloseConnection()]
    # Its own reply comes too late for anybody.
    (_, entry), answer = talk.source.reply()
    talk.conversation.answered(entry, answer, last=True)
    talk.collect()
    assert talk.heard(begin) == wire(OptionReply(Option.ABORT, Ack()))
    assert talk.conversation.responder.state.export is None


@faulty
def test_a_reply_that_comes_after_the_end_never_leaves(faults: object) -> None:
    talk, begin = opened(faults)
    talk.say(read(1))
    talk.leave()
    talk.reply()
    assert talk.heard(begin) == b""
    assert talk.conversation.standing.phase is Phase.CLOSED
