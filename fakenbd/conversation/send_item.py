"""Items of the send queue: bytes with the messages that they complete, or an action.

Lazy steps are turned into items here, one at a time, so that a message repeated a thousand million
times takes no more memory than one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar, Final, TypeAlias

import attrs

from fakenbd.conversation.span import Span, WaitingStep
from fakenbd.faults.answer import (
    CeaseReading,
    CloseConnection,
    PaceBytes,
    Pause,
    RepeatMessages,
    StartTLS,
    TakeListenerDown,
)
from fakenbd.faults.stream import byte_count
from fakenbd.protocol import layout
from fakenbd.protocol.constants import ChunkFlag, Command
from fakenbd.protocol.encode import encode_buffers
from fakenbd.protocol.messages import (
    Buffer,
    Chunk,
    Data,
    Raw,
    Request,
    ServerMessage,
    SimpleReply,
)

__all__ = [
    "Action",
    "Batch",
    "SendItem",
    "broken_up",
    "held_size",
    "message_item",
    "rest",
    "rounds",
    "writes",
]

Action: TypeAlias = CloseConnection | CeaseReading | StartTLS | TakeListenerDown

_BLOCK: Final = 1 << 16
_RECORDED_ROUNDS: Final = 1024
"""Rounds of a repetition that are recorded message by message; later ones are blocks of bytes."""


@attrs.define(eq=False)
class SendItem:
    """Bytes that leave together, or an action of the owner's where `action` is set.

    `messages` are those that are whole once this item has left; `entry` is the journal index of
    the request or option that it answers. `plain`: the bytes are the encoding of the one message.
    `alone`: the item is a write of its own. `counted`: the bytes are counted, but not decoded.
    """

    buffers: list[Buffer]
    size: int
    messages: Sequence[ServerMessage] = ()
    entry: int | None = None
    plain: bool = False
    alone: bool = False
    counted: bool = False
    action: Action | None = None
    sent: int = 0


@attrs.define(eq=False)
class Batch:
    """The replies to plain requests, to be sent by one call; an item of the queue like a SendItem.

    `headers` are those of all `count` requests, `payloads` those of the WRITEs, `received` all
    bytes of the requests. `stable_read` reads the content again where that is possible.
    """

    buffers: list[Buffer]
    size: int
    headers: bytes
    count: int
    payloads: Sequence[Sequence[bytes]]
    received: int
    structured: bool
    stable_read: Callable[[int, int], Buffer] | None
    sent: int = 0
    action: ClassVar = None
    counted: ClassVar = False
    alone: ClassVar = False


def rest(item: SendItem | Batch) -> list[Buffer]:
    """The buffers of an item without the bytes that have left."""
    skip = item.sent
    left: list[Buffer] = []
    for buffer in item.buffers:
        if skip >= len(buffer):
            skip -= len(buffer)
        elif skip:
            left.append(memoryview(buffer)[skip:])
            skip = 0
        else:
            left.append(buffer)
    return left


def held_size(step: WaitingStep) -> int:
    """About how many bytes of memory a waiting step holds."""
    if isinstance(step, Span):
        return 0
    return step.size() if isinstance(step, RepeatMessages) else byte_count(step)


def message_item(message: ServerMessage, entry: int | None) -> SendItem:
    buffers = encode_buffers(message)
    return SendItem(buffers, sum(map(len, buffers)), (message,), entry)


def writes(step: PaceBytes, entry: int | None) -> Iterator[SendItem | Pause]:
    """The writes of paced bytes; each carries the messages that end in it."""
    ends: list[tuple[int, ServerMessage]] = []
    end = 0
    for message in step.messages or (Raw(step.data),):
        end += byte_count(message)
        ends.append((end, message))
    place = 0
    for index, data in enumerate(step.writes()):
        if index and step.seconds:
            yield Pause(step.seconds)
        place += len(data)
        whole = 0
        while whole < len(ends) and ends[whole][0] <= place:
            whole += 1
        messages = tuple(message for _, message in ends[:whole])
        del ends[:whole]
        yield SendItem([data], len(data), messages, entry, alone=True)


def rounds(step: RepeatMessages, entry: int | None) -> Iterator[SendItem | Pause]:
    """The rounds of a repetition: the first ones message by message, then in large blocks."""
    done = 0
    recorded = _RECORDED_ROUNDS if step.times is None else min(step.times, _RECORDED_ROUNDS)
    while step.times is None or done < step.times:
        if done and step.seconds:
            yield Pause(step.seconds)
        if done < recorded or step.seconds:
            for message in step.one_round:
                yield message_item(message, entry)
            done += 1
            continue
        data = b"".join(b"".join(encode_buffers(message)) for message in step.one_round)
        count = max(1, _BLOCK // max(1, len(data)))
        if step.times is not None:
            count = min(count, step.times - done)
        block = data * count
        yield SendItem([block], len(block), (Raw(block),), entry, counted=True)
        done += count


def broken_up(batch: Batch) -> tuple[Batch | None, list[tuple[Request, int, SendItem]]]:
    """A batch that has left in part: a batch of the replies that left whole, and the others.

    Each of the others is a request, its size on the wire, and its reply. The first of these
    replies may have left in part.
    """
    buffers, payloads = iter(batch.buffers), iter(batch.payloads)
    sent, count, received, size, writes = batch.sent, 0, 0, 0, 0
    replies: list[tuple[Request, int, SendItem]] = []
    kept: list[Buffer] = []
    for _, _, command, cookie, offset, length in layout.COMPACT_REQUEST.iter_unpack(batch.headers):
        header = next(buffers)
        payload: Buffer = b""
        item: SendItem
        if command == Command.WRITE:
            payload = b"".join(next(payloads))
            message: ServerMessage = SimpleReply(cookie)
            item = SendItem([header], len(header), (message,), plain=True)
        else:
            data = next(buffers)
            message = SimpleReply(cookie, 0, data)
            if batch.structured:
                message = Chunk(cookie, Data(offset, data), ChunkFlag.DONE.value)
            item = SendItem([header, data], len(header) + len(data), (message,), plain=True)
        taken = layout.COMPACT_REQUEST.size + len(payload)
        if sent >= item.size:
            sent -= item.size
            count, received, size = count + 1, received + taken, size + item.size
            writes += command == Command.WRITE
            kept += item.buffers
            continue
        item.sent, sent = sent, 0
        replies.append((Request(command, cookie, offset, length, 0, payload), taken, item))
    if not count:
        return None, replies
    whole = Batch(
        kept,
        size,
        batch.headers[: count * layout.COMPACT_REQUEST.size],
        count,
        batch.payloads[:writes],
        received,
        batch.structured,
        batch.stable_read,
    )
    return whole, replies
