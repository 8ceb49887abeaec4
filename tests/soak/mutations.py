"""Conversations as clients might have them if they were broken: recorded ones, mutated.

The recordings are what nbdinfo, nbdcopy, qemu-img, qemu-io, fio, libnbd and fakenbd's own client
sent to fakenbd, byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final

__all__ = ["RECORDINGS", "mutants"]

RECORDINGS: Final[dict[str, bytes]] = {
    path.stem: path.read_bytes()
    for path in sorted((Path(__file__).parent / "recordings").glob("*.bin"))
}

_TELLING: Final = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"IHAVEOPT",
    b"\x25\x60\x95\x13",
    b"\x21\xe4\x1c\x71",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff" * 8,
    b"\x7f" + b"\xff" * 7,
    b"\0\0\0\x01" + b"\0" * 4,
)

Mutation = Callable[[Random, bytearray], None]


def _flip(random: Random, sent: bytearray) -> None:
    sent[random.randrange(len(sent))] ^= 1 << random.randrange(8)


def _overwrite(random: Random, sent: bytearray) -> None:
    telling = random.choice(_TELLING)
    at = random.randrange(len(sent))
    sent[at : at + len(telling)] = telling


def _insert(random: Random, sent: bytearray) -> None:
    at = random.randrange(len(sent) + 1)
    sent[at:at] = random.choice((*_TELLING, random.randbytes(random.randrange(1, 40))))


def _remove(random: Random, sent: bytearray) -> None:
    at = random.randrange(len(sent))
    del sent[at : at + random.choice((1, 1, 2, 4, 8, 28, 100))]


def _repeat(random: Random, sent: bytearray) -> None:
    at = random.randrange(len(sent))
    piece = sent[at : at + random.choice((1, 4, 16, 28, 200))]
    sent[at:at] = piece * random.choice((1, 2, 20))


def _cut(random: Random, sent: bytearray) -> None:
    del sent[random.randrange(1, len(sent) + 1) :]


def _splice(random: Random, sent: bytearray) -> None:
    other = RECORDINGS[random.choice(tuple(RECORDINGS))]
    sent[random.randrange(len(sent)) :] = other[random.randrange(len(other)) :]


_MUTATIONS: Final[tuple[Mutation, ...]] = (
    *(_flip, _flip, _overwrite, _overwrite),
    *(_insert, _remove, _repeat, _cut, _splice),
)


def mutants(count: int, seed: int) -> Iterator[bytes]:
    """So many mutated conversations, the same for the same seed."""
    random = Random(seed)
    recordings = tuple(RECORDINGS.values())
    for _ in range(count):
        sent = bytearray(random.choice(recordings))
        for _ in range(random.choice((1, 1, 2, 3, 6))):
            if sent:
                random.choice(_MUTATIONS)(random, sent)
        yield bytes(sent)
