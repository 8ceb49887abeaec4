"""Requests a second, read and written, next to nbdkit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from tests.bench.loads import Setting, load, output
from tests.bench.measure import Sides, row
from tests.bench.servers import PYTHON_PLUGIN, folder, host, nbdkit, serve

SIMPLE = '[export]\nsize = "64MiB"\n[handshake]\nstructured-replies = false\n'
ARMED = """
[export]
size = "64MiB"
[[fault]]
when = { command = "read", nth = 1000000000000 }
do = { error = "EIO" }
"""
RATE = "requests/s"
MEMORY = "nbdkit memory"
PLUGIN = "nbdkit python"


def _compared(
    setting: Setting,
    verb: Literal["read", "write"],
    size: int,
    in_flight: int,
    *arguments: str,
    profile: str = "",
) -> Iterator[Sides]:
    with serve(profile) as ours, nbdkit(*arguments) as theirs:
        yield (
            lambda: load(ours, verb, size, in_flight, setting.seconds),
            lambda: load(theirs, verb, size, in_flight, setting.seconds),
        )


def _beside_plugin(
    setting: Setting, verb: Literal["read", "write"], size: int, in_flight: int
) -> Iterator[Sides]:
    with folder() as place:
        plugin = place / "disk.py"
        plugin.write_text(PYTHON_PLUGIN)
        yield from _compared(setting, verb, size, in_flight, "python", str(plugin))


@row("reads-4k", "4 KiB reads, 64 in flight", MEMORY, RATE, 1.0, short=True)
def reads_4k(setting: Setting) -> Iterator[Sides]:
    yield from _compared(setting, "read", 4096, 64, "memory", "64M")


@row("reads-4k-python", "4 KiB reads, 64 in flight", PLUGIN, RATE, 3.0, short=True)
def reads_4k_python(setting: Setting) -> Iterator[Sides]:
    yield from _beside_plugin(setting, "read", 4096, 64)


@row("reads-4k-simple", "4 KiB reads, 64 in flight, simple", MEMORY + " --no-sr", RATE, 1.0)
def reads_4k_simple(setting: Setting) -> Iterator[Sides]:
    yield from _compared(setting, "read", 4096, 64, "--no-sr", "memory", "64M", profile=SIMPLE)


@row("reads-256k", "256 KiB reads, 16 in flight", MEMORY, RATE, 1.0, short=True)
def reads_256k(setting: Setting) -> Iterator[Sides]:
    yield from _compared(setting, "read", 262144, 16, "memory", "64M")


@row("reads-4k-alone", "4 KiB reads, 1 in flight", PLUGIN, RATE, 1.0, short=True)
def reads_4k_alone(setting: Setting) -> Iterator[Sides]:
    yield from _beside_plugin(setting, "read", 4096, 1)


@row("reads-4k-armed", "4 KiB reads, 64 in flight, a fault armed", PLUGIN, RATE, 0.2)
def reads_4k_armed(setting: Setting) -> Iterator[Sides]:
    with folder() as place:
        plugin = place / "disk.py"
        plugin.write_text(PYTHON_PLUGIN)
        yield from _compared(setting, "read", 4096, 64, "python", str(plugin), profile=ARMED)


@row("writes-4k", "4 KiB writes, 64 in flight", MEMORY, RATE, 0.6, short=True)
def writes_4k(setting: Setting) -> Iterator[Sides]:
    yield from _compared(setting, "write", 4096, 64, "memory", "64M")


@row("writes-4k-python", "4 KiB writes, 64 in flight", PLUGIN, RATE, 2.0)
def writes_4k_python(setting: Setting) -> Iterator[Sides]:
    yield from _beside_plugin(setting, "write", 4096, 64)


@row("writes-256k", "256 KiB writes, 16 in flight", MEMORY, RATE, 0.6, short=True)
def writes_256k(setting: Setting) -> Iterator[Sides]:
    yield from _compared(setting, "write", 262144, 16, "memory", "64M")


@row("writes-256k-python", "256 KiB writes, 16 in flight", PLUGIN, RATE, 2.0)
def writes_256k_python(setting: Setting) -> Iterator[Sides]:
    yield from _beside_plugin(setting, "write", 262144, 16)


@row("journal", "4 KiB reads, 64 in flight", "no journal", RATE, 0.85)
def journal(setting: Setting) -> Iterator[Sides]:
    with host("correct") as (ours, _), host("quiet") as (theirs, _):
        yield (
            lambda: load(ours, "read", 4096, 64, setting.seconds),
            lambda: load(theirs, "read", 4096, 64, setting.seconds),
        )


@row("map", "map of 1,000,000 scripted extents", "nbdkit extentlist", "maps/s", 1.0)
def whole_map(setting: Setting) -> Iterator[Sides]:
    import time

    from tests.bench.host import EXTENTS, MAP_BLOCK

    def maps(uri: str) -> float:
        start = time.perf_counter()
        printed = output("nbdinfo", "--map", "--json", uri)
        elapsed = time.perf_counter() - start
        if printed.count("offset") != EXTENTS:
            raise RuntimeError(f"the map has {printed.count('offset')} extents, not {EXTENTS}")
        return 1 / elapsed

    with folder() as place:
        listed = place / "extents"
        kinds = "", "hole,zero"
        listed.write_text(
            "".join(
                f"{number * MAP_BLOCK} {MAP_BLOCK} {kinds[number % 2]}\n"
                for number in range(EXTENTS)
            )
        )
        size = EXTENTS * MAP_BLOCK
        arguments = ("--filter=extentlist", "null", str(size), f"extentlist={listed}")
        with host("map") as (ours, _), nbdkit(*arguments) as theirs:
            yield lambda: maps(ours), lambda: maps(theirs)
