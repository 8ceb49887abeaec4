"""What leaves when: waits between messages let others pass, waits within a message let nobody."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from fakenbd.faults.answer import (
    Answer,
    NeverSend,
    PaceBytes,
    Pause,
    RepeatMessages,
    SendPieces,
    WaitForReplies,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Chunk, Hole, NoneChunk, Raw, ServerMessage, SimpleReply
from fakenbd.server.agenda import Agenda, Departure

A1, A2 = Chunk(1, NoneChunk()), Chunk(1, NoneChunk(), flags=1)
B1, B2 = Chunk(2, NoneChunk()), Chunk(2, NoneChunk(), flags=1)
PAUSE = Pause(1.0)
ENDLESS, TWICE = RepeatMessages((A1,), None), RepeatMessages((A1,), 2)
PIECES = Chunk(1, Hole(0, 2), flags=1)
PIECE_BY_PIECE = Chunk(1, Hole(0, 1)), Chunk(1, Hole(1, 1), flags=1)


@attrs.define(eq=False)
class Scene:
    """An agenda, its clock, and what it said."""

    now: float = 0.0
    said: list[ServerMessage] = attrs.field(factory=list)
    agenda: Agenda = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.agenda = Agenda(lambda: self.now, lambda message, _: self.said.append(message))

    def play(self, answers: Sequence[Answer]) -> list[Departure]:
        """Put in all answers at once, then let time pass as long as anything waits."""
        for answer in answers:
            self.agenda.put(answer)
        while self.agenda.waiting:
            self.now = self.agenda.due()
            self.agenda.advance()
        return self.agenda.ready


def wire(*messages: ServerMessage) -> list[Departure]:
    return [encode(message) for message in messages]


def joined(departures: list[Departure]) -> list[Departure]:
    """The departures with neighbouring buffers as they were: one for each message."""
    return [bytes(each) if not attrs.has(type(each)) else each for each in departures]


@pytest.mark.parametrize(
    ("answers", "leaves"),
    [
        ([[A1, A2], [B1, B2]], wire(A1, A2, B1, B2)),
        ([[PAUSE, A1, A2], [B1, B2]], wire(B1, B2, A1, A2)),
        ([[PAUSE, A1, PAUSE, A2], [PAUSE, B1, PAUSE, B2]], wire(A1, B1, A2, B2)),
        ([[A1, WaitForReplies(1), A2], [B1, B2]], wire(A1, B1, B2, A2)),
        ([[A1, WaitForReplies(), A2], [PAUSE, B1, B2]], wire(A1, B1, B2, A2)),
        ([[A1, NeverSend(), A2], [B1, B2]], wire(A1, B1, B2)),
        (
            [[Raw(b"half"), PAUSE, Raw(b"rest")], [B1, B2]],
            [b"half", PAUSE, b"rest", *wire(B1, B2)],
        ),
        ([[Raw(b"half"), NeverSend()], [B1]], [b"half", NeverSend()]),
        ([[A1, ENDLESS, A2], [B1]], [*wire(A1), ENDLESS]),
        ([[A1, TWICE, A2], [B1]], [*wire(A1), TWICE, *wire(A2, B1)]),
        ([[SendPieces(PIECES, 1)], [B1]], wire(*PIECE_BY_PIECE, B1)),
    ],
)
def test_waiting_answers_let_others_pass_but_not_into_a_message(
    answers: list[Answer], leaves: list[Departure]
) -> None:
    assert joined(Scene().play(answers)) == leaves


def test_what_leaves_piece_by_piece_is_said_as_what_it_is() -> None:
    scene = Scene()
    simple = SimpleReply(3)
    paced = PaceBytes(encode(A1) + encode(A2), 1, 0.0, (A1, A2))
    cut = PaceBytes(b"half", 1)
    scene.play([[paced], [cut], [simple, RepeatMessages((B1, B2), None), A1], [A2]])
    assert scene.said == [A1, A2, Raw(b"half"), simple, B1, B2]


@pytest.mark.parametrize("begun", [0.0, 1000.1, 1e6 / 3])
def test_what_is_due_is_released(begun: float) -> None:
    """Whatever the clock showed: a sum and a difference need not agree to the last bit."""
    for idle in (0.05, 0.1, 0.3, 0.7, 1.1):
        scene = Scene(now=begun)
        scene.agenda.put([WaitForReplies(None, idle), A1])
        scene.agenda.advance()
        assert scene.agenda.waiting == 1
        scene.now = scene.agenda.due()
        scene.agenda.advance()
        assert joined(scene.agenda.ready) == wire(A1)
