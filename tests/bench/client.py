"""The reference client, next to libnbd and nbdcopy."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from tests.bench.loads import LIBNBD_PYTHON, Setting, output
from tests.bench.measure import Sides, row
from tests.bench.servers import folder, nbdkit

_OURS = """
import random, sys, time, trio
from fakenbd import Client
uri, seconds = sys.argv[1], float(sys.argv[2])
async def main():
    count = 0
    async with Client.connect(uri) as client:
        blocks = client.size // 4096
        draw = random.Random(1).randrange
        end = time.perf_counter() + seconds
        async def work():
            nonlocal count
            while time.perf_counter() < end:
                await client.read(draw(blocks) * 4096, 4096)
                count += 1
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(64):
                nursery.start_soon(work)
        print(count / (time.perf_counter() - start))
trio.run(main)
"""

_THEIRS = """
import random, sys, time, nbd
uri, seconds = sys.argv[1], float(sys.argv[2])
client = nbd.NBD()
client.connect_uri(uri)
blocks = client.get_size() // 4096
draw = random.Random(1).randrange
buffers = [nbd.Buffer(4096) for _ in range(64)]
free = list(range(64))
count = 0
def done(slot, error):
    global count
    if error.value:
        raise SystemExit("a read failed")
    count += 1
    free.append(slot)
    return 1
start = time.perf_counter()
end = start + seconds
while time.perf_counter() < end:
    while free:
        slot = free.pop()
        client.aio_pread(buffers[slot], draw(blocks) * 4096, lambda e, s=slot: done(s, e))
    client.poll(-1)
print(count / (time.perf_counter() - start))
while client.aio_in_flight():
    client.poll(-1)
client.shutdown()
"""


@row("client", "fakenbd's client: 4 KiB reads, 64 in flight", "libnbd's binding", "requests/s", 0.4)
def client(setting: Setting) -> Iterator[Sides]:
    with nbdkit("memory", "64M") as uri:
        seconds = str(setting.seconds)
        yield (
            lambda: float(output(sys.executable, "-c", _OURS, uri, seconds)),
            lambda: float(output(LIBNBD_PYTHON, "-c", _THEIRS, uri, seconds)),
        )


@row("copy", "fakenbd copy of 1 GiB from nbdkit pattern", "nbdcopy", "MB/s", 0.5)
def copy(setting: Setting) -> Iterator[Sides]:
    size = 1 << 30
    program = "import sys; from fakenbd.cli import main; sys.exit(main())"

    with folder() as place, nbdkit("pattern", str(size)) as uri:
        target = place / "copy"

        def copied(*command: str) -> float:
            target.unlink(missing_ok=True)
            start = time.perf_counter()
            output(*command, uri, str(target))
            elapsed = time.perf_counter() - start
            if target.stat().st_size != size:
                raise RuntimeError(f"the copy has {target.stat().st_size} bytes, not {size}")
            return size / elapsed / 1e6

        yield lambda: copied(sys.executable, "-c", program, "copy"), lambda: copied("nbdcopy")
