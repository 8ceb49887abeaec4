"""Checks of a client's output, of its map, and of the export that it wrote to.

Each check returns a clause on the first mistake; "" if there is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.check.adapters import Check
from fakenbd.check.oracle import GroundTruth, first_difference
from fakenbd.protocol.constants import State
from fakenbd.protocol.messages import Extent

__all__ = ["Job", "mismatch"]

_PIECE: Final = 1 << 20


@attrs.frozen
class Job:
    """One operation on `length` bytes from `offset` on; the folder has its input and its output.

    `before` is the content of that range at the start, `advertised` are the sizes that the server
    sent.
    """

    ground_truth: GroundTruth
    offset: int
    length: int
    input: Path
    output: Path
    before: bytes = attrs.field(default=b"", repr=False)
    advertised: frozenset[int] = frozenset()


def mismatch(check: Check, job: Job, output: str) -> str:
    """What is wrong with the result of a client that reported success and wrote `output`."""
    return _CHECKS[check](job, output)


# --- bytes -------------------------------------------------------------------------------------


def _file(job: Job, output: str) -> str:
    try:
        size = job.output.stat().st_size
    except FileNotFoundError:
        return "it left no output"
    if not job.ground_truth.data:
        return ""
    lengths = _correct_lengths(job)
    if size not in lengths:
        return f"its output has {size} bytes, not {job.length}"
    return _first(
        "its output", starmap(job.ground_truth.wrong_data, _pieces(job.output, job.offset))
    )


def _correct_lengths(job: Job) -> set[int]:
    """Permitted lengths of the output: that of the export, or one that the server sent.

    An incomplete last block may be missing: no request can read it.
    """
    whole = job.length == job.ground_truth.export.size
    ends = {job.offset + job.length}
    ends |= {size if whole else min(size, job.offset + job.length) for size in job.advertised}
    blocks = job.ground_truth.export.block_size
    minimum = max(1, blocks.minimum) if blocks is not None else 1
    return {end - job.offset for each in ends for end in (each, each - each % minimum)}


def _input(job: Job, output: str) -> str:
    return _kept(job, _pieces(job.input, job.offset))


def _zeros(job: Job, output: str) -> str:
    end = job.offset + job.length
    places = range(job.offset, end, _PIECE)
    return _kept(job, ((place, bytes(min(_PIECE, end - place))) for place in places))


def _kept(job: Job, pieces: Iterable[tuple[int, bytes]]) -> str:
    """A clause on the first byte of the server's content that is not as expected."""
    if not job.ground_truth.data:
        return ""
    read = job.ground_truth.export.read
    return _first(
        "the export",
        (first_difference(place, read(place, len(data)), data) for place, data in pieces),
    )


def _pieces(path: Path, offset: int) -> Iterator[tuple[int, bytes]]:
    """The content of a file that belongs to an export from `offset` on."""
    with path.open("rb") as file:
        while data := file.read(_PIECE):
            yield offset, data
            offset += len(data)


def _first(where: str, differences: Iterable[str]) -> str:
    difference = next(filter(None, differences), "")
    return difference and f"in {where}, {difference}"


def _trim(job: Job, output: str) -> str:
    now = bytes(job.ground_truth.export.read(job.offset, job.length))
    for place, (byte, before) in enumerate(zip(now, job.before, strict=False)):
        if byte not in (0, before):
            return f"in the export, byte {job.offset + place} is neither trimmed nor as it was"
    return ""


# --- maps --------------------------------------------------------------------------------------

_HOLE: Final = int(State.HOLE)
_ZERO: Final = int(State.ZERO)


def _qemu_flags(row: Mapping[str, Any]) -> int:
    return (0 if row["data"] else _HOLE) | (_ZERO if row["zero"] else 0)


def _nbdinfo_flags(row: Mapping[str, Any]) -> int:
    return int(row["type"]) & (_HOLE | _ZERO)


def _map(output: str, job: Job, start: str, flags: Callable[[Mapping[str, Any]], int]) -> str:
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(output)
        extents = [(int(row[start]), int(row["length"]), flags(row)) for row in rows]
    except (ValueError, TypeError, KeyError) as error:
        return f"it wrote no map that can be read ({type(error).__name__}: {error})"
    place = 0
    if [row[:2] for row in extents] == [(0, 0)]:
        extents = []  # An empty map, as some clients write it.
    for offset, length, _ in extents:
        if offset != place:
            return f"its map goes on at {offset}, where {place} was next"
        if length <= 0:
            return f"its map has {length} bytes at {offset}"
        place += length
    if place not in _correct_lengths(job):
        return f"its map is of {place} bytes, not {job.length}"
    advertised = [Extent(length, reported_flags) for _, length, reported_flags in extents]
    return job.ground_truth.wrong_map("base:allocation", 0, advertised, mask=_HOLE | _ZERO)


_CHECKS: Final[Mapping[Check, Callable[[Job, str], str]]] = {
    "status": lambda job, output: "",
    "file": _file,
    "qemu-map": lambda job, output: _map(output, job, "start", _qemu_flags),
    "nbdinfo-map": lambda job, output: _map(output, job, "offset", _nbdinfo_flags),
    "input": _input,
    "zeros": _zeros,
    "trim": _trim,
}
