"""What the messages of a reply are judged against: its request, and what came of it before."""

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
    """What came of one reply so far; bounded.

    One for each request, kept until its cookie is used again, so that a second reply can be told
    from a stray one. `begun`: a message of it came; `done`: the last one did, `incomplete` although
    something was missing; `failed`: it has an error. `blind`: the owner sets it where bytes of the
    reply are unknown; then nothing is said to be missing. `content` counts the chunks with content,
    `total` the bytes in them, `data` and `holes` tell which. `contexts` are the ids of the contexts
    that have extents. `plain_error`: an error without an offset came; `error_offsets` are those of
    the others. `unselected`: that the export has no selected context was said.
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
