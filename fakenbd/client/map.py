"""The allocation of an export as runs, and as the JSON that `qemu-img map` prints."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from fakenbd.client.block_device import BlockDevice
from fakenbd.protocol.constants import State

__all__ = ["Run", "allocation", "map_export", "qemu_json"]


class Run(NamedTuple):
    """`length` bytes from `start` with the same `flags`; adjacent runs have other flags."""

    start: int
    length: int
    flags: int


async def map_export(
    client: BlockDevice,
    *,
    context: str | None = None,
    req_one: bool = False,
    runs: list[Run] | None = None,
) -> list[Run]:
    """All runs of an export in one metadata context, None for the first one selected.

    They are added to `runs`, an empty list, which holds those known from offset 0 on where this
    raises.
    """
    runs = [] if runs is None else runs
    start = 0
    extents = client.block_status(0, client.size, context=context, req_one=req_one)
    async for length, flags in extents:
        _append(runs, Run(start, length, flags))
        start += length
    return runs


def _append(runs: list[Run], run: Run) -> None:
    """Add the run that follows, merged with the last one where their flags are the same."""
    if runs and runs[-1].flags == run.flags:
        run = Run(runs[-1].start, runs.pop().length + run.length, run.flags)
    runs.append(run)


def allocation(runs: Iterable[Run]) -> list[Run]:
    """Runs of `base:allocation` without the undefined flags (C-136)."""
    known = State.HOLE | State.ZERO
    merged: list[Run] = []
    for start, length, flags in runs:
        _append(merged, Run(start, length, flags & known))
    return merged


def qemu_json(runs: Iterable[Run]) -> str:
    """Runs of `base:allocation` as `qemu-img map --output=json` prints them."""
    lines = ",\n".join(
        json.dumps(
            {
                "start": run.start,
                "length": run.length,
                "depth": 0,
                "present": True,
                "zero": bool(run.flags & State.ZERO),
                "data": not run.flags & State.HOLE,
                "offset": run.start,
            }
        ).replace("{", "{ ", 1)
        for run in allocation(runs)
    )
    return f"[{lines}]\n"
