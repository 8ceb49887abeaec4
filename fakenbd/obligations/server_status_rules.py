"""The server's rules on the extents of a BLOCK_STATUS: their context, lengths and flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.protocol.constants import ChunkType, CommandFlag, State, spec_name
from fakenbd.protocol.messages import Chunk, Status
from fakenbd.protocol.negotiated import NegotiatedState
from fakenbd.protocol.text import quoted

__all__ = ["judge_status", "judge_status_end"]

_SECTOR: Final = 512
"""The unit that extents should be multiples of where no minimum block was shown."""
_MOST_EXTENTS: Final = 1 << 20
_UNSELECTED: Final = Breach("S-213", "NBD_CMD_BLOCK_STATUS succeeded without a selected context")


def judge_status(
    request: RequestFacts, chunk: Chunk, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """The rules broken by one chunk with extents; `progress` then includes it."""
    body = chunk.body
    assert isinstance(body, Status)
    if chunk.type is not None:  # S-216
        name = spec_name(ChunkType, chunk.type)
        yield Breach("S-216", f"an {name} chunk came under the other header")
    yield from _context(request, body.context_id, progress, state)
    count = len(body.extents)
    if not count:  # S-203, S-216
        rule = "S-216" if state.extended else "S-203"
        yield Breach(rule, f"a chunk for context {body.context_id} has no extent")
        return
    if count > _MOST_EXTENTS:  # S-210
        yield Breach("S-210", f"a chunk for context {body.context_id} has {count} extents")
    yield from _payload(count, state)
    if request.flags & CommandFlag.REQ_ONE and count > 1:  # S-205
        yield Breach("S-205", f"a request for one extent got {count}")
    yield from _lengths(request, body, state)
    if state.contexts.get(body.context_id) == "base:allocation":
        yield from _allocation_flags(body)


def _context(
    request: RequestFacts, context_id: int, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    if progress.contexts is None:
        progress.contexts = set()
    due = _due(request, state)
    if due is None:
        return
    if not due:  # S-213
        if not progress.unselected:
            progress.unselected = True
            yield _UNSELECTED
    elif context_id not in due:  # S-202
        yield Breach("S-202", f"extents came for context {context_id}, which was not selected")
    elif context_id in progress.contexts:  # S-201
        yield Breach("S-201", f"a second chunk came for context {quoted(due[context_id])}")
    else:
        progress.contexts.add(context_id)


def _due(request: RequestFacts, state: NegotiatedState) -> Mapping[int, str] | None:
    """The contexts that a reply has to have, or None where that is unspecified.

    It is unspecified whether a selection holds for an export that was opened by another name.
    """
    contexts = state.contexts
    if contexts and state.contexts_export != state.export:
        return None
    if request.contexts is None:
        return contexts
    return {one: name for one, name in contexts.items() if one in request.contexts}


def _payload(count: int, state: NegotiatedState) -> Iterator[Breach]:
    size = count * (16 if state.extended else 8)
    sizes = state.block_size
    if sizes is not None and size > sizes.maximum:  # S-144
        yield Breach(
            "S-144", f"{size} bytes of extents exceed the maximum payload, {sizes.maximum}"
        )


def _lengths(request: RequestFacts, body: Status, state: NegotiatedState) -> Iterator[Breach]:
    """Each kind of flaw once; `position` is where the extent begins."""
    position, due, size = request.offset, request.offset + request.length, state.size
    sizes = state.block_size
    unit = _SECTOR if sizes is None or not sizes.minimum else sizes.minimum
    largest = size if state.extended and size is not None else (1 << 63) - 1
    found: dict[str, str] = {}
    for length, _ in body.extents:
        if not length:  # S-204
            found.setdefault("S-204", f"an extent at {position} has the length 0")
        if request.length and position >= due:  # S-207
            found.setdefault("S-207", f"an extent begins at {position}, past the request's end")
        if length > largest:  # S-217
            found.setdefault("S-217", f"an extent at {position} has the length {length}")
        position += length
        if position % unit and position not in (due, size):  # S-209
            found.setdefault("S-209", f"an extent ends at {position}, no multiple of {unit}")
    if size is not None and position > size:  # S-208
        found["S-208"] = f"extents reach {position}, past the end of the export, {size}"
    if request.flags & CommandFlag.REQ_ONE and body.extents[0][0] > request.length > 0:  # S-206
        found["S-206"] = (
            f"a request for one extent of {request.length} bytes got {body.extents[0][0]}"
        )
    for rule, sentence in found.items():
        yield Breach(rule, sentence)


def _allocation_flags(body: Status) -> Iterator[Breach]:
    every = 0
    for _, flags in body.extents:
        every |= flags
    if every >> 32:  # S-216
        yield Breach("S-216", f"extents of base:allocation have flags above 32 bits, {every:#x}")
    unknown = every & 0xFFFFFFFF & ~int(sum(State))
    if unknown:  # S-211
        yield Breach("S-211", f"extents of base:allocation have the undefined flags {unknown:#x}")


def judge_status_end(
    request: RequestFacts, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """The rules broken by missing extents in a BLOCK_STATUS that ended without an error."""
    due = _due(request, state)
    if due is None:
        return
    if not due and not progress.unselected:  # S-213
        yield _UNSELECTED
    for context_id, name in due.items():
        if progress.contexts is None or context_id not in progress.contexts:  # S-200
            yield Breach("S-200", f"no extents came for the selected context {quoted(name)}")
