"""What the messages of a reply are judged against: its request, and its earlier messages."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import attrs

from fakenbd.obligations.byte_runs import ByteRuns

__all__ = ["ReplyProgress", "RequestFacts"]


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
    """The state of one reply so far; bounded.

    One for each request, kept until its cookie is used again, so that a second reply can be
    distinguished from a stray one. `begun`: a message of it came; `done`: the last one did,
    `incomplete` although something was missing; `failed`: it has an error. `blind`: set by the
    owner where bytes of the reply are unknown; then nothing is reported as missing. `content`
    counts the chunks with content, `total` the bytes in them; `data` and `holes` are the bytes of
    each kind. `contexts` are the ids of the contexts that have extents. `plain_error`: an error
    without an offset came; `error_offsets` are those of the others. `unselected`: the lack of a
    selected context was reported.
    """

    begun: bool = False
    done: bool = False
    incomplete: bool = False
    failed: bool = False
    blind: bool = False
    content: int = 0
    total: int = 0
    overlapped: bool = False
    data: ByteRuns | None = None
    holes: ByteRuns | None = None
    contexts: set[int] | None = None
    plain_error: bool = False
    error_offsets: list[int] | None = None
    unselected: bool = False
