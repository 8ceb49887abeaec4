"""What leaves when: waits between messages let others pass, waits within a message let nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

import fakenbd.conversation.send_item as send_item
from fakenbd.conversation.send_queue import TURN_BYTES, TURN_MESSAGES, PendingReply, SendQueue
from fakenbd.faults.answer import (
    Answer,
    CeaseReading,
    CloseConnection,
    NeverSend,
    PaceBytes,
    Pause,
    RepeatMessages,
    SendPieces,
    WaitForReplies,
)
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    Hole,
    NoneChunk,
    Raw,
    ServerMessage,
    SimpleReply,
)

A1, A2 = Chunk(1, NoneChunk()), Chunk(1, NoneChunk(), flags=1)
B1, B2 = Chunk(2, NoneChunk()), Chunk(2, NoneChunk(), flags=1)
PAUSE = Pause(1.0)
ENDLESS, TWICE = RepeatMessages((A1,), None), RepeatMessages((A1,), 2)
PIECES = Chunk(1, Hole(0, 2), flags=1)
PIECE_BY_PIECE = Chunk(1, Hole(0, 1)), Chunk(1, Hole(1, 1), flags=1)
HALF, REST = Raw(b"half"), Raw(b"rest")


@attrs.define(eq=False)
class Scene:
    """A queue, its clock, and what left it: messages and actions in order."""

    now: float = 0.0
    left: list[Any] = attrs.field(factory=list)
    sizes: list[int] = attrs.field(factory=list)
    released: list[PendingReply] = attrs.field(factory=list)
    queue: SendQueue = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.queue = SendQueue(lambda: self.now, self.released.append)

    def put(self, answer: Answer) -> PendingReply:
        reply = PendingReply(deque(answer))
        self.queue.put(reply)
        return reply

    def turn(self) -> None:
        """Let all leave that stands ready, without taking another step."""
        queue = self.queue
        while True:
            if buffers := queue.outgoing():
                size = sum(map(len, buffers))
                self.sizes.append(size)
                for item in queue.left(size):
                    self.left += item.messages
            elif queue.action is not None:
                self.left.append(queue.action)
                queue.acted()
            else:
                return

    def run(self, turns: int = 1000) -> None:
        """Let turns and time pass as long as anything goes on."""
        queue = self.queue
        for _ in range(turns):
            self.turn()
            if queue.more:
                queue.pump()
            elif queue.deadline() < float("inf"):
                self.now = queue.deadline()
                queue.advance()
            else:
                return

    def play(self, *answers: Answer) -> list[Any]:
        """Put in all answers at once, then let time pass as long as anything waits."""
        for answer in answers:
            self.put(answer)
        self.run()
        return self.left


@pytest.mark.parametrize(
    ("answers", "leaves"),
    [
        ([[A1, A2], [B1, B2]], [A1, A2, B1, B2]),
        ([[PAUSE, A1, A2], [B1, B2]], [B1, B2, A1, A2]),
        ([[PAUSE, A1, PAUSE, A2], [PAUSE, B1, PAUSE, B2]], [A1, B1, A2, B2]),
        ([[A1, WaitForReplies(1), A2], [B1, B2]], [A1, B1, B2, A2]),
        ([[A1, WaitForReplies(), A2], [PAUSE, B1, B2]], [A1, B1, B2, A2]),
        ([[A1, NeverSend(), A2], [B1, B2]], [A1, B1, B2]),
        ([[HALF, PAUSE, REST], [B1, B2]], [HALF, REST, B1, B2]),
        ([[HALF, WaitForReplies(1), REST], [B1, B2]], [HALF, REST, B1, B2]),
        ([[HALF, NeverSend()], [B1]], [HALF]),
        ([[A1, TWICE, A2], [B1]], [A1, A1, A1, A2, B1]),
        ([[SendPieces(PIECES, 1)], [B1]], [*PIECE_BY_PIECE, B1]),
        ([[A1, CeaseReading(), A2], [B1]], [A1, CeaseReading(), A2, B1]),
        ([[A1, CloseConnection(), A2], [B1]], [A1, CloseConnection()]),
        ([[PAUSE, A1], [B1, CloseConnection("reset")]], [B1, CloseConnection("reset")]),
    ],
)
def test_waiting_replies_let_others_pass_but_not_into_a_message(
    answers: list[Answer], leaves: list[object]
) -> None:
    assert Scene().play(*answers) == leaves


@pytest.mark.parametrize(
    ("answers", "leaves"),
    [
        ([[Raw(b"half"), PAUSE, Raw(b"rest")], [B1]], [(0.0, 4), (1.0, 24)]),
        ([[PAUSE, A1], [Pause(1.0), B1], [A2]], [(0.0, 20), (1.0, 40)]),
        ([[PaceBytes(b"123456", 2, 0.5)], [A1]], [(0.0, 2), (0.5, 2), (1.0, 2), (1.0, 20)]),
        ([[PaceBytes(b"123456", (1, 2))], [A1]], [(0.0, 1), (0.0, 2), (0.0, 3), (0.0, 20)]),
        ([[RepeatMessages((A1,), 3, 2.0)], [B1]], [(0.0, 20), (2.0, 20), (4.0, 40)]),
    ],
)
def test_writes_and_their_times(answers: list[Answer], leaves: list[tuple[float, int]]) -> None:
    """Each write is what one system call would send."""
    scene = Scene()
    times = []

    def turn() -> None:
        count = len(scene.sizes)
        Scene.turn(scene)
        times.extend((scene.now, size) for size in scene.sizes[count:])

    for answer in answers:
        scene.put(answer)
    turn()
    while scene.queue.deadline() < float("inf"):
        scene.now = scene.queue.deadline()
        scene.queue.advance()
        turn()
    assert times == leaves


def test_what_leaves_piece_by_piece_is_recorded_as_what_it_is() -> None:
    scene = Scene()
    simple = SimpleReply(3)
    paced = PaceBytes(encode(A1) + encode(A2), 1, 0.0, (A1, A2))
    cut = PaceBytes(b"half", 1)
    endless = RepeatMessages((B1, B2), None)
    for answer in ([paced], [cut], [simple, endless, A1], [A2]):
        scene.put(answer)
    scene.turn()
    assert scene.left[:6] == [A1, A2, Raw(b"half"), simple, B1, B2]


@pytest.mark.parametrize("begun", [0.0, 1000.1, 1e6 / 3])
def test_what_is_due_is_released(begun: float) -> None:
    """Whatever the clock showed: a sum and a difference need not agree to the last bit."""
    for idle in (0.05, 0.1, 0.3, 0.7, 1.1):
        scene = Scene(now=begun)
        scene.put([WaitForReplies(None, idle), A1])
        scene.queue.advance()
        assert scene.queue.waits
        scene.now = scene.queue.deadline()
        scene.queue.advance()
        scene.turn()
        assert scene.left == [A1]
        assert scene.queue.idle


# --- turns --------------------------------------------------------------------------------------


def test_a_turn_takes_so_many_messages_and_then_says_that_there_is_more() -> None:
    scene = Scene()
    scene.put([A1] * (TURN_MESSAGES + 1))
    assert scene.queue.more
    scene.turn()
    assert len(scene.left) == TURN_MESSAGES
    scene.queue.pump()
    scene.turn()
    assert len(scene.left) == TURN_MESSAGES + 1
    assert not scene.queue.more
    assert scene.queue.idle


def test_a_turn_ends_with_so_many_bytes_ready() -> None:
    piece = Chunk(1, Data(0, bytes(1 << 20)))
    scene = Scene()
    scene.put([piece] * 20)
    assert scene.queue.more
    ready = sum(item.size for item in scene.queue.out)
    assert TURN_BYTES <= ready < TURN_BYTES + (1 << 21)
    scene.run()
    assert scene.left == [piece] * 20


LAZY: dict[str, Answer] = {
    "repeated": [RepeatMessages((A1,), 1_000_000_000)],
    "repeated for ever": [ENDLESS],
    "in pieces": [SendPieces(Chunk(1, Data(0, bytes(1 << 16)), flags=1), 1)],
}


@pytest.mark.parametrize("answer", LAZY.values(), ids=LAZY.keys())
def test_lazy_steps_build_nothing_in_advance(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = 0
    real = send_item.message_item

    def counting(message: ServerMessage, entry: int | None) -> send_item.SendItem:
        nonlocal built
        built += 1
        return real(message, entry)

    monkeypatch.setattr(send_item, "message_item", counting)
    monkeypatch.setattr("fakenbd.conversation.send_queue.message_item", counting)
    scene = Scene()
    scene.put(answer)
    assert scene.queue.more
    assert 0 < built <= TURN_MESSAGES
    assert scene.queue.size < 1 << 18
    for _ in range(20):
        scene.turn()
        before = built
        scene.queue.pump()
        assert built - before <= TURN_MESSAGES
        # Later rounds of what is repeated are whole blocks, up to what one turn may make ready.
        assert scene.queue.size <= TURN_BYTES + (1 << 18)


def test_what_is_repeated_a_thousand_million_times_is_not_counted_up_in_advance() -> None:
    """Its size in the queue is the memory it takes, not the bytes it will be."""
    scene = Scene()
    scene.put([PAUSE, RepeatMessages((A1,), 1_000_000_000)])
    assert scene.queue.size == len(encode(A1))


# --- the bound ----------------------------------------------------------------------------------


def test_the_size_is_that_of_all_that_waits() -> None:
    scene = Scene()
    sizes = []
    for answer in ([PAUSE, A1, B1], [WaitForReplies(9), A2], [B2]):
        scene.put(answer)
        sizes.append(scene.queue.size)
    assert sizes == [40, 60, 80]
    scene.turn()
    assert scene.queue.size == 60
    scene.run()
    assert scene.queue.size == 0
    assert scene.left == [B2, A1, B1, A2]


def test_what_is_held_is_released_when_nothing_more_can_come() -> None:
    scene = Scene()
    held = scene.put([WaitForReplies(99, 9.0), A1])
    scene.put([PAUSE, B1])
    scene.queue.relieve()
    scene.turn()
    assert scene.left == [A1]
    assert scene.released == [held]
    scene.run()
    assert scene.left == [A1, B1]


@pytest.mark.parametrize("wait", [PAUSE, WaitForReplies(9, 9.0)])
def test_a_reply_that_is_given_up_never_leaves(wait: Pause | WaitForReplies) -> None:
    scene = Scene()
    given_up = scene.put([A1, wait, A2])
    scene.put([wait, B1])
    scene.queue.drop(given_up)
    scene.run()
    assert scene.left == [A1, B1]
    assert scene.queue.size == 0


def test_a_reply_given_up_in_the_middle_of_a_message_lets_the_others_go_on() -> None:
    scene = Scene()
    given_up = scene.put([HALF, PAUSE, REST])
    scene.put([B1])
    scene.queue.drop(given_up)
    scene.queue.pump()
    scene.turn()
    assert scene.left == [HALF, B1]
    assert scene.queue.idle


def test_the_end_of_a_reply_is_told_when_its_last_step_was_taken() -> None:
    scene = Scene()
    done: list[int] = []
    for place, answer in enumerate(([A1], [PAUSE, A1], [NeverSend(), A1], [])):
        scene.queue.put(PendingReply(deque(answer), done=lambda place=place: done.append(place)))
    assert done == [0, 3]
    scene.run()
    assert done == [0, 3, 1]


@pytest.mark.parametrize("size", [1, 3, 19, 20, 21, 1000])
def test_partial_sends(size: int) -> None:
    """However little leaves at once, the bytes are the same and items are through once whole."""
    scene = Scene()
    for answer in ([A1, A2], [SimpleReply(3, 0, b"content")], [Raw(b"half")]):
        scene.put(answer)
    expected: Sequence[ServerMessage] = (A1, A2, SimpleReply(3, 0, b"content"), Raw(b"half"))
    data, through = b"", []
    while buffers := scene.queue.outgoing():
        piece = b"".join(buffers)[:size]
        data += piece
        through += [item.messages for item in scene.queue.left(len(piece))]
        whole = 0
        while whole < len(expected) and len(b"".join(map(encode, expected[: whole + 1]))) <= len(
            data
        ):
            whole += 1
        assert through == [(message,) for message in expected[:whole]]
    assert data == b"".join(map(encode, expected))
    assert scene.queue.size == 0
