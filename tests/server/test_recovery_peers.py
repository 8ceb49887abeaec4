"""The recovery's decision table on the wire, with the program that wrote it and with our client.

Each row is a server that answers BLOCK_STATUS as it says, and what a client that asked for one
extent makes of it: what it asks next, the map it ends up with, and how often it noted a breach.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import pytest
import trio

from fakenbd import Client, background_server
from fakenbd.errors import ProtocolError
from fakenbd.export import BlockSize
from fakenbd.journal import Received
from tests.peers import require
from tests.program import FAKENBD, fakenbd

DATA, HOLE, ZERO, BOTH = 0, 1, 2, 3


@attrs.frozen
class Row:
    """`extents` are those at each offset; `rules` the notes, `result` the map; None is fatal."""

    size: int
    minimum: int | None
    extents: dict[int, Sequence[tuple[int, int]]]
    asked: Sequence[tuple[int, int]]
    result: Sequence[tuple[int, int, int]] | None
    rules: Sequence[str] = ()

    @property
    def export(self) -> dict[str, Any]:
        """The export's options; the extents come from a function."""

        def scripted(
            context: str, offset: int, length: int, flags: int
        ) -> Iterator[tuple[int, int]]:
            yield from self.extents[offset]

        minimum = self.minimum
        return {
            "size": self.size,
            "block_size": False if minimum is None else BlockSize(minimum, 4096, 1 << 25),
            "contexts": {"base:allocation": scripted},
        }


WHOLE = [(0, 1024), (512, 512)]
ALL_DATA = [(0, 1024, DATA)]
ONE, TWO = ["S-209"], ["S-209", "S-209"]

ROWS = {
    "the seed": Row(1024, 512, {0: [(1000, 0)], 512: [(488, 0)]}, WHOLE, ALL_DATA, TWO),
    "a short hole is data": Row(1024, 512, {0: [(1000, 0)], 512: [(488, 3)]}, WHOLE, ALL_DATA, TWO),
    "a long hole keeps its flags": Row(
        1024, 512, {0: [(600, 3)], 512: [(512, 0)]}, WHOLE, [(0, 512, BOTH), (512, 512, DATA)], ONE
    ),
    "a byte too long": Row(
        1024, 512, {0: [(513, 3)], 512: [(512, 3)]}, WHOLE, [(0, 1024, BOTH)], ONE
    ),
    **{
        f"{length} bytes of flags {flags}": Row(
            1024,
            512,
            {0: [(length, flags)], 512: [(512, 3)]},
            WHOLE,
            [(0, 512, DATA), (512, 512, BOTH)],
            ONE,
        )
        for length in (1, 511)
        for flags in (DATA, HOLE, ZERO, BOTH)
    },
    "rounded down, then cut": Row(
        1024, 512, {0: [(2000, 0)]}, [(0, 1024)], ALL_DATA, ["S-209", "S-206"]
    ),
    "too large": Row(1024, 512, {0: [(2048, 3)]}, [(0, 1024)], [(0, 1024, BOTH)], ["S-206"]),
    "unaligned, and more than one": Row(
        1024,
        512,
        {0: [(1000, 0), (24, 3)], 512: [(488, 0), (24, 3)]},
        WHOLE,
        ALL_DATA,
        ["S-209", "S-205", "S-209", "S-205"],
    ),
    "more than one": Row(
        1024,
        512,
        {0: [(512, 0), (512, 3)], 512: [(512, 3)]},
        WHOLE,
        [(0, 512, DATA), (512, 512, BOTH)],
        ["S-205"],
    ),
    "three sectors": Row(
        1536,
        512,
        {0: [(1300, 0)], 1024: [(276, 0)]},
        [(0, 1536), (1024, 512)],
        [(0, 1536, DATA)],
        TWO,
    ),
    "blocks of 4096": Row(
        8192,
        4096,
        {0: [(5000, 3)], 4096: [(904, 3)]},
        [(0, 8192), (4096, 4096)],
        [(0, 4096, BOTH), (4096, 4096, DATA)],
        TWO,
    ),
    "behind a hole": Row(
        66560,
        512,
        {0: [(65536, 3)], 65536: [(1000, 0)], 66048: [(488, 0)]},
        [(0, 66560), (65536, 1024), (66048, 512)],
        [(0, 65536, BOTH), (65536, 1024, DATA)],
        TWO,
    ),
    **{
        f"a minimum of {minimum}": Row(
            1024,
            minimum,
            {0: [(1000, 0)], 1000: [(24, 3)]},
            [(0, 1024), (1000, 24)],
            [(0, 1000, DATA), (1000, 24, BOTH)],
        )
        for minimum in (None, 1)
    },
    "nothing": Row(1024, 512, {0: [(0, 0)]}, [(0, 1024)], None),
    "one byte of one sector": Row(512, 512, {0: [(1, 0)]}, [(0, 512)], [(0, 512, DATA)], ONE),
}
TABLE = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def asked(server: Any) -> list[tuple[int, int]]:
    """The ranges of all BLOCK_STATUS requests, each of which wanted one extent."""
    requests = [
        entry.message
        for entry in server.journal
        if isinstance(entry, Received) and entry.command == "block-status"
    ]
    assert {request.flags for request in requests} == {8}
    return [(request.offset, request.length) for request in requests]


def merged(extents: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Neighbours that agree are one, as in the table."""
    runs: list[tuple[int, int, int]] = []
    for start, length, flags in extents:
        if runs and runs[-1][2] == flags:
            runs[-1] = (runs[-1][0], runs[-1][1] + length, flags)
        else:
            runs.append((start, length, flags))
    return runs


def read_map(text: str) -> list[tuple[int, int, int]]:
    """The output of `qemu-img map --output=json`, whatever keys it has besides."""
    return [
        (row["start"], row["length"], HOLE * (not row["data"]) + ZERO * row["zero"])
        for row in json.loads(text)
    ]


@pytest.mark.parametrize("transport", [{}, {"unix": "-"}], ids=["tcp", "unix"])
@TABLE
def test_the_program_that_wrote_the_table(row: Row, transport: dict[str, str]) -> None:
    trace = "nbd_parse_blockstatus_compliance"
    command = [require("qemu-img"), "--trace", trace, "map", "--output=json", "-f", "raw"]
    with background_server(**transport, **row.export) as server:
        done = subprocess.run(
            [*command, server.uri], capture_output=True, text=True, timeout=60, check=False
        )
        assert asked(server) == list(row.asked)
    if row.result is None:
        assert done.returncode == 1
        assert "Invalid argument" in done.stderr
    else:
        assert done.returncode == 0
        assert read_map(done.stdout) == list(row.result)
        notes = done.stderr.splitlines()
        assert all(trace in line for line in notes)
        assert len(notes) == len(row.rules)


async def mapped(client: Client) -> list[tuple[int, int, int]]:
    """A map made as that program makes it: one extent at a time."""
    extents, offset = [], 0
    async for length, flags in client.block_status(0, client.size, req_one=True):
        extents.append((offset, length, flags))
        offset += length
    return merged(extents)


@TABLE
def test_our_client(row: Row) -> None:
    async def main(uri: str) -> None:
        async with Client.connect(uri) as client:
            if row.result is None:
                with pytest.raises(ProtocolError, match=r"^the extent at 0 has length 0 \(S-204\)"):
                    await mapped(client)
            else:
                assert await mapped(client) == list(row.result)
            assert [note.rule for note in client.notes] == list(row.rules)

    with background_server(**row.export) as server:
        trio.run(main, server.uri)
        assert asked(server) == list(row.asked)


# --- the seed's own five lines ------------------------------------------------------------------


def test_the_seed_with_the_program_that_had_the_bug() -> None:
    client = (require("qemu-img"), "map", "--output=json", "-f", "raw", "{uri}")
    done = fakenbd("run", "quirks/qemu-odd-tail", "--", *client)
    assert read_map(done.stdout) == [(0, 1024, DATA)]
    assert (done.stderr, done.returncode) == ("", 0)


def test_the_seed_with_our_client() -> None:
    done = fakenbd("run", "quirks/qemu-odd-tail", "--", *FAKENBD, "map", "--json", "{uri}")
    assert read_map(done.stdout) == [(0, 1024, DATA)]
    assert done.stderr == (
        "fakenbd: noted: the extent at 0 is 1000 bytes long, not a multiple of 512; "
        "taken as 512 bytes (S-209)\n"
        "fakenbd: noted: the extent at 512 is 488 bytes long, not a multiple of 512; "
        "taken as 512 bytes of data (S-209)\n"
    )
    assert done.returncode == 0


def test_the_seed_with_a_client_as_they_were_before() -> None:
    done = fakenbd("run", "quirks/qemu-odd-tail", "--", *FAKENBD, "map", "--strict", "{uri}")
    assert done.stderr == (
        "fakenbd: the extent at 0 is 1000 bytes long, not a multiple of 512 (S-209)\n"
    )
    assert (done.stdout, done.returncode) == ("", 1)
