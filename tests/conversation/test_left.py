"""The journal holds what left and nothing else, however little of it leaves at once."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.journal import FaultFired, Received, Sent
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import ClientFlags, InfoQuery, OptionRequest, Raw, Request
from tests.conversation.talk import Talk, handshake

SIZE = 1 << 16


@attrs.define(eq=False)
class Slow(Talk):
    """A client that takes `budget` bytes and no more; then the owner may break up what is left."""

    budget: int = 1 << 30
    breaks_up: bool = True

    def collect(self) -> None:
        conversation = self.conversation
        while True:
            data = b"".join(conversation.outgoing())[: self.budget]
            if data:
                self.budget -= len(data)
                self.answers += data
                conversation.left(len(data))
            elif conversation.outgoing():
                if self.breaks_up:
                    conversation.break_up()
                return
            elif conversation.more:
                conversation.resume()
            else:
                return


def entries(talk: Talk) -> tuple[list[Received], list[Sent]]:
    heard = [entry for entry in talk.journal if isinstance(entry, Received)]
    return heard, [entry for entry in talk.journal if isinstance(entry, Sent)]


def check(talk: Talk, whole: list[bytes]) -> None:
    """What was recorded as sent is what left: whole messages, then the rest of one."""
    _, said = entries(talk)
    left = bytes(talk.answers)
    expected, place = [], 0
    for message in whole:
        part = left[place : place + len(message)]
        if part:
            expected.append((part, place, len(part) == len(message)))
        place += len(message)
    recorded = [
        (encode(entry.whole), entry.at, not isinstance(entry.message, Raw)) for entry in said
    ]
    assert recorded == expected
    assert talk.journal.totals.bytes_sent == len(left)


READS = [Request(Command.READ, cookie, cookie * 512, 512) for cookie in range(1, 4)]
WRITE = Request(Command.WRITE, 4, 0, 512, 0, b"contents" * 64)
PLAIN = [READS[0], WRITE, READS[1], READS[2]]
MIXED = [READS[0], Request(Command.FLUSH, 5), Request(Command.READ, 6, SIZE, 1), WRITE, READS[1]]
FIRST = encode(Request(Command.FLUSH, 9))


def opened(structured: bool, faults: Faults | None = None, **options: Any) -> Slow:
    talk = Slow([Export(size=SIZE)], faults or Faults(), {"payloads": "whole"}, **options)
    talk.say(handshake(structured=structured))
    talk.say(FIRST)
    return talk


def sent(talk: Talk, since: int = 0) -> list[bytes]:
    return [encode(entry.whole) for entry in entries(talk)[1][since:]]


def places(total: int, messages: list[bytes]) -> list[int]:
    """Where to cut: at every byte of headers and at some of content, counted from the end."""
    starts, place = [], 0
    for message in reversed(messages):
        place += len(message)
        starts.append(total - place)
    near = {start + byte for start in starts for byte in (*range(-2, 34), 300)}
    return sorted(place for place in near if 0 < place < total)


both_forms = pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])


@both_forms
@pytest.mark.parametrize("breaks_up", [True, False])
@pytest.mark.parametrize("requests", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_requests_cut_at_every_byte(
    structured: bool, breaks_up: bool, requests: list[Request]
) -> None:
    said = b"".join(map(encode, requests))
    correct = opened(structured)
    correct.say(said)
    before = len(opened(structured).answers)
    whole = sent(correct)
    for count in places(len(correct.answers) - before, whole):
        talk = opened(structured, breaks_up=breaks_up)
        talk.budget = count
        talk.say(said)
        if not breaks_up:
            talk.conversation.break_up()
        # Requests are recorded when they were received, whatever has left.
        asked = [request.cookie for request in requests]
        heard = [entry.cookie for entry in entries(talk)[0] if entry.command][1:]
        assert heard == asked
        talk.leave()
        assert len(talk.answers) == before + count
        check(talk, whole)


@both_forms
def test_a_batch_that_leaves_in_parts_is_recorded_as_one_that_left_whole(structured: bool) -> None:
    """Links, offsets and bytes are the same, wherever it was cut."""
    said = b"".join(map(encode, PLAIN))
    correct = opened(structured)
    before = len(correct.answers)
    correct.say(said)
    correct.leave()

    def told(talk: Talk) -> tuple[object, ...]:
        heard, answers = entries(talk)
        at = {entry.index: entry.at for entry in heard}
        return (
            [(entry.whole, entry.at) for entry in heard],
            [(entry.whole, entry.at, at.get(entry.about)) for entry in answers],
            talk.journal.totals,
            bytes(talk.answers),
        )

    for count in places(len(correct.answers) - before, sent(correct)):
        talk = opened(structured)
        talk.budget = count
        talk.say(said)
        talk.budget = 1 << 30
        talk.collect()
        talk.leave()
        assert told(talk) == told(correct), count


def test_a_handshake_cut_at_every_byte() -> None:
    flags = encode(ClientFlags(3))
    list_, go = (OptionRequest(Option.LIST), OptionRequest(Option.GO, InfoQuery("", [3])))
    said = flags + encode(list_) + encode(go)
    correct = Slow([Export(size=SIZE)])
    correct.say(said)
    whole = sent(correct)
    for count in range(1, len(correct.answers)):
        talk = Slow([Export(size=SIZE)], budget=count)
        talk.say(said)
        talk.leave()
        assert len(talk.answers) == count
        check(talk, whole)


# --- links and offsets ----------------------------------------------------------------------------


def test_entries_are_linked_and_have_their_offsets() -> None:
    faults = Faults()
    faults.on(option="list").delay(0)
    faults.on("read", offset=1024).error("EIO")
    talk = Talk([Export(size=SIZE)], faults, {"payloads": "whole"})
    talk.say(encode(ClientFlags(3)))
    talk.say(encode(OptionRequest(Option.LIST)))
    talk.say(encode(OptionRequest(Option.GO, InfoQuery("", [3]))))
    talk.say(b"".join(map(encode, MIXED)))
    talk.leave()
    heard, said = entries(talk)
    for side in (heard, said):
        place = 0
        for entry in side:
            assert entry.at == place
            place += len(encode(entry.whole))
    assert place == len(talk.answers)
    by_index = {entry.index: entry for entry in heard}
    for entry in said[1:]:
        assert entry.about is not None
        asked = by_index[entry.about].message
        if isinstance(asked, Request):
            assert entry.cookie == asked.cookie
        else:
            assert isinstance(asked, OptionRequest)
            assert entry.message.option == asked.option  # type: ignore[union-attr]
    fired = [entry for entry in talk.journal if isinstance(entry, FaultFired)]
    hit = [by_index[entry.about] for entry in fired if entry.about is not None]
    assert [(entry.option, entry.command, entry.offset) for entry in hit][-1][1:] == ("read", 1024)
