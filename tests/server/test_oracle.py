"""The odd tail against the program that shipped it: an installed qemu-nbd is the oracle.

A file whose length is no multiple of 512 is served by `qemu-nbd FILE`, which probes the format and
then has the seed's bug, and by our model of it. Both are asked the same questions on the wire, and
nothing may differ: no size, no block size, no extent, nor where a read is cut into chunks.
"""

from __future__ import annotations

import random
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from fakenbd import background_server
from fakenbd.export import BlockSize
from fakenbd.profile import Profile
from fakenbd.protocol.constants import ChunkType, Command, CommandFlag
from fakenbd.protocol.messages import Chunk, ErrorChunk, Request, SimpleReply, Status
from tests.peers import require
from tests.server.wire import Wire

QEMU_FLAGS = 0xCED
PAGE = 4096
STEP = 100

LENGTHS = [range(start, min(start + STEP, 1101)) for start in range(1, 1101, STEP)]
LONGER = [1536, 4096 + 1, 65536 + 1000]
SAMPLE = [1, 511, 512, 513, 1000, 1024, 1100]


def data(path: Path, length: int) -> None:
    path.write_bytes(random.Random(length).randbytes(length))


def holes(path: Path, length: int, first: int = PAGE) -> None:
    """Every other page holds data, from `first` on."""
    with path.open("wb") as file:
        file.truncate(length)
        for start in range(first, length, 2 * PAGE):
            file.seek(start)
            file.write(random.Random(start).randbytes(min(PAGE, length - start)))


def hole_behind_data(path: Path, length: int) -> None:
    holes(path, length, first=0)


@contextmanager
def qemu_nbd(path: Path) -> Iterator[Wire]:
    """A client of `qemu-nbd FILE`. The socket is handed over, so nobody waits for it to listen."""
    place = path.with_suffix(".sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()
        command = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
        process = subprocess.Popen(
            ["sh", "-c", command, "sh", require("qemu-nbd"), path],
            stdin=listener,
            stderr=subprocess.DEVNULL,
        )
    try:
        with Wire.to(f"nbd+unix:///?socket={place}") as wire:
            yield wire
    finally:
        process.terminate()
        process.wait()


def model(paths: Iterable[Path]) -> Profile:
    """Our `quirks/qemu-odd-tail`, over files."""
    return Profile.of(
        exports=[
            {
                "name": path.name,
                "content": {"file": str(path)},
                "contexts": {"base:allocation": {"seek-hole": True}},
                "round_size_to": 512,
                "block_size": BlockSize(512, 4096, 1 << 25),
                "any_alignment": True,
                "flags": QEMU_FLAGS,
            }
            for path in paths
        ]
    )


def questions(length: int) -> list[Request]:
    size = length + -length % 512
    odd = {1, 2, 511, 513, length // 2, length - 1, length, length + 1, size - 1}
    requests = []
    for offset in sorted({*range(0, size, 512), *odd}):
        if not 0 <= offset < size:
            continue
        rest = size - offset
        for wanted in sorted({1, min(511, rest), min(512, rest), rest}):
            requests += [
                Request(Command.BLOCK_STATUS, 0, offset, wanted),
                Request(Command.BLOCK_STATUS, 0, offset, wanted, CommandFlag.REQ_ONE),
                Request(Command.READ, 0, offset, wanted),
                Request(Command.READ, 0, offset, wanted, CommandFlag.DF),
            ]
    for command in (Command.BLOCK_STATUS, Command.READ):
        requests += [
            Request(command, 0, size, 512),
            Request(command, 0, size - 512, 1024),
            Request(command, 0, 0, 0),
        ]
    return requests


def received(wire: Wire, reply: SimpleReply | Chunk) -> Any:
    """One message of a reply: the id of a context by its name, an error by its number."""
    assert isinstance(reply, Chunk)
    body = reply.body
    if isinstance(body, Status):
        return reply.flags, wire.contexts[body.context_id], [tuple(each) for each in body.extents]
    if isinstance(body, ErrorChunk):
        return reply.flags, ChunkType.ERROR, body.error
    return reply.flags, attrs.astuple(body)


def interview(wire: Wire, export: str, length: int) -> list[Any]:
    """What a server says of itself and in answer to every question."""
    infos = [(reply.type, reply.body) for reply in wire.opened(export)]
    requests = questions(length)
    answers = zip(requests, wire.answers(requests), strict=True)
    return [
        infos,
        *((request, [received(wire, each) for each in answer]) for request, answer in answers),
    ]


def compare(lengths: Iterable[int], make: Any, folder: Path) -> None:
    paths = {length: folder / str(length) for length in lengths}
    for length, path in paths.items():
        make(path, length)
    with background_server(model(paths.values()), unix="-") as server:
        for length, path in paths.items():
            with qemu_nbd(path) as wire:
                theirs = interview(wire, "", length)
            with Wire.to(server.uri) as wire:
                ours = interview(wire, path.name, length)
            assert ours == theirs, f"a file of {length} bytes"


@pytest.mark.parametrize("make", [data, holes], ids=["data", "a hole"])
def test_lengths_around_sectors(make: Any, tmp_path: Path) -> None:
    compare(SAMPLE, make, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("make", [data, holes], ids=["data", "a hole"])
@pytest.mark.parametrize("lengths", LENGTHS, ids=lambda lengths: f"from {lengths[0]}")
def test_every_length_up_to_1100(lengths: range, make: Any, tmp_path: Path) -> None:
    compare(lengths, make, tmp_path)


@pytest.mark.parametrize("make", [data, holes, hole_behind_data])
def test_longer_files(make: Any, tmp_path: Path) -> None:
    compare(LONGER, make, tmp_path)


def test_the_questions_meet_the_bug(tmp_path: Path) -> None:
    """The oracle has what it is asked about: extents that end in mid-sector."""
    data(tmp_path / "file", 1000)
    with qemu_nbd(tmp_path / "file") as wire:
        infos, *answers = interview(wire, "", 1000)
    assert [attrs.astuple(body) for _, body in infos] == [
        (512, 4096, 1 << 25),
        (1024, QEMU_FLAGS),
        (b"",),
    ]
    received_for = {
        (each.command, each.offset, each.length, each.flags): answer for each, answer in answers
    }
    tail = (24, 3)
    status, one = Command.BLOCK_STATUS, CommandFlag.REQ_ONE
    assert received_for[status, 0, 1024, 0] == [(1, "base:allocation", [(1000, 0), tail])]
    assert received_for[status, 512, 512, one] == [(1, "base:allocation", [(488, 0)])]
    assert received_for[status, 1000, 24, 0] == [(1, "base:allocation", [tail])]
    assert [each[1][-1] for each in received_for[Command.READ, 0, 1024, 0]][1:] == [24]
