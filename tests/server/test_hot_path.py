"""The hot path answers as the leisurely path would: the same bytes, the same memory.

The same client talks to two servers. One of them has a fault on every READ and WRITE that never
fires, so that it takes each request at leisure.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fakenbd.server.transmission as transmission
from fakenbd.export import BlockSize, Export
from fakenbd.export.content import BytesContent, Content, Pattern, Zeros
from fakenbd.faults import Faults
from fakenbd.journal import Closed, Received, Sent, Violated
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.server.talk import Talk, handshake

SIZE = 1 << 20
CONTENTS: dict[str, Content] = {
    "pattern": Pattern(),
    "zeros": Zeros(),
    "half": BytesContent(bytes(range(256)) * 2048),
}

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


def talk(
    content: str, block_size: BlockSize | None, told: bytes, cuts: list[int], leisurely: bool
) -> Talk:
    faults = Faults()
    if leisurely:
        faults.on("read", nth=1 << 40).error("EIO")
        faults.on("write", nth=1 << 40).error("EIO")
    export = Export(size=SIZE, content=CONTENTS[content], block_size=block_size)
    talk = Talk([export], faults, {"payloads": "whole"})
    talk.say(told, [cut for cut in cuts if cut < len(told)])
    talk.leave()
    return talk


def memory(talk: Talk) -> dict[str, object]:
    """What the journal holds; a batch is heard as a whole before it is answered as a whole."""
    entries = talk.journal.entries()
    return {
        "heard": [
            (entry.message, entry.payload) for entry in entries if isinstance(entry, Received)
        ],
        "said": [(entry.message, entry.payload) for entry in entries if isinstance(entry, Sent)],
        "violated": [e.sentence for e in entries if isinstance(e, Violated)],
        "ended": [(e.by, e.how) for e in entries if isinstance(e, Closed)],
        "totals": talk.journal.totals,
    }


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
@settings(max_examples=150)
@given(
    content=st.sampled_from(sorted(CONTENTS)),
    block_size=st.sampled_from([None, None, BlockSize(512, 4096, 1 << 17)]),
    requests=conversations,
    cuts=st.lists(st.integers(0, 1 << 17), max_size=12),
)
def test_it_answers_as_the_leisurely_path_would(
    structured: bool,
    content: str,
    block_size: BlockSize | None,
    requests: list[Request],
    cuts: list[int],
) -> None:
    told = handshake(structured=structured, context="base:allocation" if structured else "")
    told += spoken(requests)
    quick = talk(content, block_size, told, cuts, leisurely=False)
    slow = talk(content, block_size, told, cuts, leisurely=True)
    assert quick.answers == slow.answers
    assert [type(marker) for marker in quick.markers] == [type(marker) for marker in slow.markers]
    assert memory(quick) == memory(slow)
    quick_export, slow_export = quick.service.catalogue.find(""), slow.service.catalogue.find("")
    assert quick_export is not None
    assert slow_export is not None
    assert quick_export.read(0, SIZE) == slow_export.read(0, SIZE)
    assert quick_export.segments(0, SIZE) == slow_export.segments(0, SIZE)


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_plain_requests_take_it(structured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    leisurely = []

    def counting(terms, request, **options):  # type: ignore[no-untyped-def]
        leisurely.append(request.cookie)
        return answer(terms, request, **options)

    answer = transmission.answer_command
    monkeypatch.setattr(transmission, "answer_command", counting)
    requests = [Request(cookie % 2, cookie, 4096 * cookie, 4096) for cookie in range(100)]
    told = handshake(structured=structured) + spoken(requests)
    quick = talk("pattern", None, told, [], leisurely=False)
    assert quick.journal.totals.commands == {"read": 50, "write": 50}
    # Until the first request came, nobody knows that the client accepts what was agreed.
    assert leisurely == [0]
    slow = talk("pattern", None, told, [], leisurely=True)
    assert leisurely == [0, *range(100)]
    assert quick.answers == slow.answers
