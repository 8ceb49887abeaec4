"""The decision table on the extents of a block status reply.

A server must describe its export in extents that are not empty, fit the request and, if it
advertised a minimum block, are multiples of that. Servers of files that end within a sector got
this wrong for years, so the client keeps the connection wherever a reply can be made safe:

    row  the extent of length L (m: minimum block)     how it is used                     rule
    3    L = 0                                         fatal: no progress is possible     S-204
    4a   not a multiple of m, longer than m            rounded down to m, flags kept      S-209
    4b   not a multiple of m, shorter than m           m bytes of data (flags 0)          S-209
    5    another extent although one was asked for     the rest is ignored                S-205
    6    longer than asked, one was asked for          cut to what was asked              S-206

Row 4 comes before row 6: 2000 bytes in answer to 1024 are first 1536, then 1024. In row 4b
truncating would leave nothing, and data is always a safe answer. Rows 0 to 2 (a second chunk, a
chunk too short for an extent, a context that was not selected) are breaches of framing and end the
connection in `reassembly`.

Where several extents were allowed the same table applies to each of them, in order, until one had
to be repaired: the offset of those behind it is uncertain, and they are left for the next request.
Extents behind the one that completes the request are ignored (S-207), the last may run past the
request, but not past the export (S-208).
"""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from fakenbd.client.noncompliance import Noncompliance
from fakenbd.errors import ProtocolError
from fakenbd.protocol.messages import Extent

__all__ = ["Repaired", "repair"]


@attrs.frozen
class Repaired:
    """Extents that are safe to use, consecutive from the offset asked for, and their notes.

    `extents` are pairs of length and flags, and the same object as in the reply where nothing was
    repaired: a reply may hold millions.
    """

    extents: tuple[tuple[int, int], ...]
    notes: tuple[Noncompliance, ...]


def repair(
    extents: Sequence[tuple[int, int]],
    *,
    offset: int,
    length: int,
    minimum: int = 1,
    req_one: bool = False,
    size: int | None = None,
) -> Repaired:
    """Make `extents`, the answer to (offset, length), safe to use.

    `minimum` is the minimum block that the server advertised (0 or 1: none), `size` the export's.
    The result holds at least one extent and covers at most `length` bytes; the next request should
    begin behind it. Raises ProtocolError for extents that cannot be repaired.
    """
    if not extents:
        raise ProtocolError(f"the status of {offset}+{length} holds no extent", rule="S-203")
    usable: list[tuple[int, int]] = []
    notes: list[Noncompliance] = []
    position, end = offset, offset + length
    for index, given in enumerate(extents):
        extent, flags = given
        if not extent:
            raise ProtocolError(f"the extent at {position} has length 0", rule="S-204")
        taken = extent
        unaligned = minimum > 1 and extent % minimum != 0
        if unaligned:
            if extent > minimum:
                taken = extent - extent % minimum
            else:
                taken, flags = minimum, 0
            made = f"taken as {taken} bytes" + (" of data" if extent < minimum else "")
            came = f"the extent at {position} is {extent} bytes long, not a multiple of {minimum}"
            notes.append(Noncompliance("S-209", came, made))
        if req_one and index == 0 and len(extents) > 1:
            came = f"{len(extents)} extents came for {offset}+{length} where one was asked for"
            notes.append(Noncompliance("S-205", came, "the first one is used"))
        if position + taken > end:
            beyond = position + extent
            taken = end - position
            if req_one:
                came = f"the extent at {position} is {extent} bytes long, {length} were asked for"
                notes.append(Noncompliance("S-206", came, f"taken as {taken} bytes"))
            elif size is not None and beyond > size:
                came = f"the extent at {position} ends at {beyond}, past the export's end at {size}"
                notes.append(Noncompliance("S-208", came, f"taken as {taken} bytes"))
        usable.append(given if taken == extent and not unaligned else Extent(taken, flags))
        position += taken
        if req_one or unaligned:
            break
        if position == end:
            spare = len(extents) - index - 1
            if spare:
                came = f"{spare} extents came behind those that cover {offset}+{length}"
                notes.append(Noncompliance("S-207", came, "they are ignored"))
            break
    return Repaired(tuple(usable), tuple(notes))
