"""The server's rules on the content of a READ: where each chunk lies, and whether all was sent.

Content is kept as runs of bytes, data and holes apart. Where there were more runs than are kept,
only sums are left: too few bytes are a gap.
"""

from __future__ import annotations

from collections.abc import Iterator

from fakenbd.obligations.breach import Breach
from fakenbd.obligations.byte_runs import ByteRuns
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.protocol.constants import CommandFlag
from fakenbd.protocol.messages import Data, Hole
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["judge_content", "judge_read_end"]


def judge_content(
    request: RequestFacts, body: Data | Hole, progress: ReplyProgress, state: NegotiatedState
) -> Iterator[Breach]:
    """The rules broken by one chunk with content; `progress` then includes it."""
    hole = isinstance(body, Hole)
    size = body.size if isinstance(body, Hole) else len(body.data)
    start = body.offset
    end = start + size
    what = "hole" if hole else "data"
    progress.content += 1
    progress.total += size
    if progress.content > 1 and request.flags & CommandFlag.DF:  # S-159
        yield Breach("S-159", "a READ with DF got more than one chunk with content")
    if not size:  # S-150, S-151
        yield Breach("S-151" if hole else "S-150", f"a {what} chunk at {start} has no content")
        return
    if start < request.offset:  # S-152
        yield Breach(
            "S-152", f"a {what} chunk begins at {start}, before the request at {request.offset}"
        )
        return
    due = request.offset + request.length
    if end > due:  # S-153
        yield Breach("S-153", f"a {what} chunk ends at {end}, past the request's end, {due}")
        return
    sizes = state.block_size
    if not hole and sizes is not None and size > sizes.maximum:  # S-144
        yield Breach("S-144", f"{size} bytes of data exceed the maximum payload, {sizes.maximum}")
    for offset in progress.error_offsets or ():
        if start <= offset < end:  # S-162
            yield Breach("S-162", f"content at {start}+{size} came after the error at {offset}")
            break
    yield from _overlap(start, end, progress, hole=hole)


def _overlap(start: int, end: int, progress: ReplyProgress, *, hole: bool) -> Iterator[Breach]:
    if progress.data is None or progress.holes is None:
        progress.data, progress.holes = ByteRuns(), ByteRuns()
    same, other = (progress.holes, progress.data) if hole else (progress.data, progress.holes)
    if other.overlaps(start, end):  # S-156
        progress.overlapped = True
        yield Breach("S-156", f"content at {start}+{end - start} mixes data and a hole")
    elif same.overlaps(start, end):  # S-155
        progress.overlapped = True
        yield Breach("S-155", f"content at {start}+{end - start} overlaps earlier content")
    same.add(start, end)


def judge_read_end(request: RequestFacts, progress: ReplyProgress) -> Iterator[Breach]:
    """The rules broken by missing content in a READ that ended without an error."""
    if not request.length:
        return
    if not progress.content:  # S-158
        yield Breach("S-158", f"a READ of {request.length} succeeded without any content")
        return
    gap = _gap(request, progress)
    if gap is None and progress.total >= request.length:
        return
    where = "" if gap is None else f": byte {gap}"
    if progress.overlapped and progress.total == request.length:  # S-172
        yield Breach("S-172", f"content came twice in place of what is missing{where}")
    else:  # S-157
        yield Breach("S-157", f"a READ succeeded with a part of its content missing{where}")


def _gap(request: RequestFacts, progress: ReplyProgress) -> int | None:
    """The first byte of the request that certainly came in no chunk, or None."""
    data, holes = progress.data, progress.holes
    if data is None or holes is None:
        return request.offset
    if data.lost or holes.lost:
        return None
    end = request.offset + request.length
    position: int | None = request.offset
    while position is not None:
        after_data = data.gap(position, end)
        if after_data is None:
            return None
        after_holes = holes.gap(after_data, end)
        if after_holes == position:
            return position
        position = after_holes
    return None
