"""The fast path answers as the responder would: the same bytes, the same record.

The same client talks to two servers. One of them has a fault on every READ and WRITE that never
fires, so that each request is answered by the responder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakenbd.conversation.responder import Responder
from fakenbd.export import BlockSize, Export
from fakenbd.export.content import BytesContent, Content, FunctionContent, Pattern, Zeros
from fakenbd.export.export import ALL_FLAGS
from fakenbd.faults import Faults
from fakenbd.journal import Closed, Received, Sent, Violated
from fakenbd.protocol.constants import Command, TransmissionFlag
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request, SimpleReply
from tests.conversation.talk import Talk, handshake

SIZE = 1 << 20
TURNS = ("C-72", "C-111")
"""What is found of requests in flight at once: how many there are depends on what a turn takes."""
PATTERN = Pattern()


def broken(offset: int, length: int) -> bytes:
    """Whatever touches the second 64 KiB cannot be read."""
    if offset < 131072 and offset + length > 65536:
        raise OSError("the disk is on fire")
    return bytes(PATTERN.read(offset, length))


CONTENTS: dict[str, Content] = {
    "pattern": PATTERN,
    "zeros": Zeros(),
    "half": BytesContent(bytes(range(256)) * 2048),
    "broken": FunctionContent(broken),
}


FIRST = encode(Request(Command.FLUSH, 0))


@attrs.frozen
class House:
    """What the server is like, and how its client begins."""

    content: str = "pattern"
    block_size: BlockSize | None = None
    read_only: bool = False
    structured: bool = False
    sizes: bool = True

    def export(self) -> Export:
        flags = ALL_FLAGS | (TransmissionFlag.READ_ONLY if self.read_only else 0)
        return Export(
            size=SIZE,
            content=CONTENTS[self.content],
            block_size=self.block_size,
            flags=int(flags),
        )

    def handshake(self) -> bytes:
        context = "base:allocation" if self.structured else ""
        return handshake(structured=self.structured, context=context, sizes=self.sizes)


block_sizes = st.one_of(
    st.none(),
    st.none(),
    st.builds(
        BlockSize,
        st.sampled_from([1, 512, 512, 4096, 65536, 0, 3, 520]),
        st.just(4096),
        st.sampled_from([1 << 25, 1 << 17, 4096]),
    ),
)
houses = st.builds(
    House,
    content=st.sampled_from(sorted(CONTENTS)),
    block_size=block_sizes,
    read_only=st.sampled_from([False, False, True]),
    sizes=st.booleans(),
)
offsets = st.one_of(
    st.integers(0, 255).map(lambda block: block * 4096),
    st.sampled_from([1, 511, 512, 65536 - 512, SIZE - 4096, SIZE - 512, SIZE - 1, SIZE, 1 << 63]),
)
lengths = st.sampled_from([512, 4096, 4096, 4096, 65536, 131072, 200_000, 1, 0, SIZE, 1 << 20])
plain = st.builds(
    lambda command, cookie, offset, length: Request(command, cookie, offset, length),
    st.sampled_from([Command.READ, Command.WRITE]),
    st.integers(1, 60),
    offsets,
    lengths,
)
other = st.builds(
    lambda command, cookie, offset, length, flags: Request(command, cookie, offset, length, flags),
    st.sampled_from([*Command, 77]).filter(lambda command: command != Command.DISC),
    st.integers(1, 60),
    offsets,
    lengths,
    st.sampled_from([0, 0, 1, 2, 4, 8, 16, 32]),
)
conversations = st.lists(st.one_of(plain, plain, plain, plain, other), max_size=40)


def spoken(requests: Sequence[Request]) -> bytes:
    parts = []
    for place, request in enumerate(requests):
        payload = b""
        if request.command == Command.WRITE:
            payload = bytes([place + 1]) * request.length
        parts.append(encode(request) + payload)
    return b"".join(parts)


def talk(house: House, requests: bytes, cuts: list[int], slow: bool) -> Talk:
    faults = Faults()
    if slow:
        faults.on("read", nth=1 << 40).error("EIO")
        faults.on("write", nth=1 << 40).error("EIO")
    talk = Talk([house.export()], faults, {"payloads": "whole"})
    # Until the first request came, nobody knows that the client accepts what was negotiated.
    talk.say(house.handshake())
    talk.say(FIRST)
    talk.say(requests, [cut for cut in cuts if cut < len(requests)])
    talk.leave()
    return talk


def record(talk: Talk) -> dict[str, object]:
    """What the journal holds; a batch is received as a whole before it is answered as a whole.

    Links are followed to the offset of the message that they lead to.
    """
    entries, totals = talk.journal.entries(), talk.journal.totals
    at = {entry.index: entry.at for entry in entries if isinstance(entry, Received)}
    at |= {entry.index: ("server", entry.at) for entry in entries if isinstance(entry, Sent)}
    return {
        "received": [
            (entry.message, entry.data, entry.at)
            for entry in entries
            if isinstance(entry, Received)
        ],
        "sent": [
            (entry.message, entry.data, entry.at, at.get(entry.about))
            for entry in entries
            if isinstance(entry, Sent)
        ],
        "violations": [
            (entry.rule, entry.level, entry.sentence, entry.at, at.get(entry.about))
            for entry in entries
            if isinstance(entry, Violated) and entry.rule not in TURNS
        ],
        "ended": [(entry.by, entry.how) for entry in entries if isinstance(entry, Closed)],
        "totals": attrs.evolve(
            totals,
            violation_levels={
                key: count for key, count in totals.violation_levels.items() if key[0] not in TURNS
            },
        ),
    }


both_forms = pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])


def compare(house: House, requests: Sequence[Request], cuts: list[int] = []) -> Talk:  # noqa: B006
    """The same from both paths; returns the conversation of the fast one."""
    said = spoken(requests)
    quick, slow = (talk(house, said, cuts, slow=slow) for slow in (False, True))
    assert quick.answers == slow.answers
    assert [type(marker) for marker in quick.markers] == [type(marker) for marker in slow.markers]
    assert record(quick) == record(slow)
    for place in range(0, SIZE, 65536):
        contents = [each.exports[0] for each in (quick, slow)]
        if house.content != "broken" or place != 65536:
            quick_data, slow_data = (bytes(each.read(place, 65536)) for each in contents)
            assert quick_data == slow_data
    if house.content != "broken":
        quick_map, slow_map = (each.exports[0].segments(0, SIZE) for each in (quick, slow))
        assert quick_map == slow_map
    return quick


@both_forms
@settings(max_examples=150)
@given(house=houses, requests=conversations, cuts=st.lists(st.integers(0, 1 << 17), max_size=12))
def test_both_paths_are_the_same(
    structured: bool, house: House, requests: list[Request], cuts: list[int]
) -> None:
    compare(attrs.evolve(house, structured=structured), requests, cuts)


@pytest.mark.soak
@both_forms
@settings(max_examples=5000)
@given(house=houses, requests=conversations, cuts=st.lists(st.integers(0, 1 << 17), max_size=12))
def test_both_paths_are_the_same_for_long(
    structured: bool, house: House, requests: list[Request], cuts: list[int]
) -> None:
    compare(attrs.evolve(house, structured=structured), requests, cuts)


@both_forms
def test_plain_requests_take_it(structured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[int] = []
    request = Responder.request

    def counting(self, asked, entry, failure=None):  # type: ignore[no-untyped-def]
        slow.append(asked.cookie)
        return request(self, asked, entry, failure)

    monkeypatch.setattr(Responder, "request", counting)
    house = House(structured=structured)
    cookies = range(1, 101)
    requests = spoken([Request(cookie % 2, cookie, 4096 * cookie, 4096) for cookie in cookies])
    quick = talk(house, requests, [], slow=False)
    assert quick.journal.totals.commands == {"read": 50, "write": 50, "flush": 1}
    assert slow == [0]
    other = talk(house, requests, [], slow=True)
    assert slow == [0, 0, *cookies]
    assert quick.answers == other.answers


# --- what only the responder may answer -----------------------------------------------------------

COARSE = BlockSize(4096, 4096, 1 << 25)


@both_forms
def test_a_client_that_never_asked_for_block_sizes_is_held_to_them(structured: bool) -> None:
    """And to the same ones from the first request to the last."""
    house = House(block_size=COARSE, structured=structured, sizes=False)
    requests = [Request(Command.READ, cookie, 0, 512) for cookie in range(4)]
    quick = compare(house, requests)
    replies = [entry for entry in quick.journal if isinstance(entry, Sent)][-4:]
    assert [reply.error for reply in replies] == ["einval"] * 4


@pytest.mark.parametrize("places", [(0, 65536, 4096), (65536, 0, 4096), (0, 4096, 65536)])
@both_forms
def test_content_that_fails_is_an_error_of_that_request_alone(
    structured: bool, places: tuple[int, ...]
) -> None:
    house = House("broken", structured=structured)
    requests = [Request(Command.READ, cookie, at, 4096) for cookie, at in enumerate(places)]
    quick = compare(house, requests)
    replies = [entry for entry in quick.journal if isinstance(entry, Sent)][-3:]
    errors = {reply.cookie: reply.error for reply in replies}
    assert errors == {cookie: "eio" if at == 65536 else None for cookie, at in enumerate(places)}


@pytest.mark.parametrize("nth", range(1, 8))
def test_content_that_fails_once_is_asked_once(nth: int) -> None:
    """The failure is that of the request it happened to, and not of a later one."""
    asked: Iterator[int] = iter(range(1, 100))

    def failing(offset: int, length: int) -> bytes:
        if next(asked) == nth:
            raise OSError("a bad moment")
        return bytes(length)

    talk = Talk([Export(size=SIZE, content=FunctionContent(failing))])
    requests = [Request(Command.READ, cookie, 0, 512) for cookie in range(1, 8)]
    requests.append(Request(Command.FLUSH, 8))
    talk.say(handshake())
    talk.say(FIRST)
    begin = len(talk.answers)
    talk.say(spoken(requests))
    expected = [
        SimpleReply(cookie, 5 if cookie == nth else 0, b"" if cookie == nth else bytes(512))
        for cookie in range(1, 8)
    ]
    assert talk.answers[begin:] == b"".join(map(encode, [*expected, SimpleReply(8)]))
    assert next(asked) == 8


@both_forms
def test_a_read_only_export_refuses_whatever_its_client_was_shown(structured: bool) -> None:
    read_only = int(ALL_FLAGS | TransmissionFlag.READ_ONLY)
    for slow in (False, True):
        faults = Faults()
        faults.on(option="go").set(flags=int(ALL_FLAGS), at="info-export")
        if slow:
            faults.on("write", nth=1 << 40).error("EIO")
        export = Export(size=SIZE, flags=read_only)
        before = export.sha256()
        talk = Talk([export], faults)
        talk.say(handshake(structured=structured))
        talk.say(FIRST)
        assert talk.journal.totals.fired
        requests = [Request(Command.WRITE, cookie, 0, 512) for cookie in range(4)]
        talk.say(spoken(requests))
        replies = [entry for entry in talk.journal if isinstance(entry, Sent)][-4:]
        assert [reply.error for reply in replies] == ["eperm"] * 4
        assert export.sha256() == before


@pytest.mark.parametrize("between", [[], [Request(Command.READ, 8, 0, 512)]], ids=["next", "apart"])
@pytest.mark.parametrize("second", [Command.READ, Command.WRITE, Command.FLUSH, Command.TRIM])
def test_a_cookie_that_comes_again_in_one_receive_is_seen(
    second: int, between: list[Request]
) -> None:
    """C-72: the first reply cannot have left when the second request came."""
    talk = Talk([Export(size=SIZE)])
    talk.say(handshake(sizes=True) + encode(Request(Command.READ, 1, 0, 512)))
    length = 0 if second == Command.FLUSH else 512
    payload = bytes(512) if second == Command.WRITE else b""
    again = Request(second, 7, 0, length, 0, payload)
    talk.say(b"".join(map(encode, [Request(Command.READ, 7, 0, 512), *between, again])))
    rules = [entry.rule for entry in talk.journal if isinstance(entry, Violated)]
    assert "C-72" in rules
    replies = [entry for entry in talk.journal if isinstance(entry, Sent)]
    assert [entry.cookie for entry in replies][-2 - len(between) :] == [
        7,
        *(request.cookie for request in between),
        7,
    ]
