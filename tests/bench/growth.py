"""How cost grows: time a request and memory, against the smallest server and against limits.

Time is measured on the conversation itself, without sockets, because what is looked for is a few
percent of a microsecond. The other side of each comparison is the same server, small.
"""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator

from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.bench.loads import Setting, output
from tests.bench.measure import Sides, row
from tests.bench.servers import host, resident
from tests.conversation.talk import Talk, handshake

BATCH = 64
COST = "us/request"
KIB = "KiB"


def _batch(size: int, length: int) -> bytes:
    blocks = size // length
    return b"".join(
        encode(Request(0, cookie, cookie * 7919 % blocks * length, length))
        for cookie in range(BATCH)
    )


def _server(
    size: int = 1 << 20, exports: int = 1, faults: int = 0, length: int = 512
) -> Callable[[int], float]:
    """A function that sends that many requests and returns microseconds for each."""
    armed = Faults()
    for number in range(faults):
        armed.on("trim" if number % 2 else "cache", nth=number + 1).error("EIO")
    served = [Export(f"disk {number}" if number else "", size=size) for number in range(exports)]
    talk = Talk(served, armed)
    talk.say(handshake(structured=True, name=served[-1].name))
    batch = _batch(size, length)

    def send(requests: int) -> float:
        start = time.process_time()
        for _ in range(requests // BATCH):
            talk.say(batch)
            talk.answers.clear()
        return (time.process_time() - start) / requests * 1e6

    send(BATCH * 20)
    return send


def _flat(
    setting: Setting, small: Callable[[int], float], large: Callable[[int], float]
) -> Iterator[Sides]:
    requests = BATCH * (200 if setting.short else 2000)
    yield lambda: large(requests), lambda: small(requests)


@row("faults", "1,000 faults on other commands", "1 fault", COST, 1.1, "at most", short=True)
def faults(setting: Setting) -> Iterator[Sides]:
    yield from _flat(setting, _server(faults=1), _server(faults=1000))


@row("hundred-faults", "100 faults on other commands", "no fault", COST, 1.05, "at most")
def hundred_faults(setting: Setting) -> Iterator[Sides]:
    yield from _flat(setting, _server(), _server(faults=100))


@row("size", "reads of 512 bytes from 8 EiB", "from 1 KiB", COST, 1.1, "at most", short=True)
def size(setting: Setting) -> Iterator[Sides]:
    yield from _flat(setting, _server(size=1024), _server(size=(1 << 63) - 512))


@row("exports", "100 exports", "1 export", COST, 1.1, "at most", short=True)
def exports(setting: Setting) -> Iterator[Sides]:
    yield from _flat(setting, _server(exports=1), _server(exports=100))


@row("requests", "after 10^7 requests", "after 10^3", COST, 1.1, "at most")
def requests(setting: Setting) -> Iterator[Sides]:
    young, old = _server(), _server()
    old(10_000_000)
    yield from _flat(setting, young, old)


@row("memory", "memory after 10^7 requests", "after 10^6", KIB, 1.02, "at most", once=True)
def memory(setting: Setting) -> Iterator[Sides]:
    program = (
        "import os; from tests.bench.servers import resident;"
        "from tests.bench.growth import _server;"
        "send = _server();"
        "send(1_000_000); print(resident(os.getpid()));"
        "send(9_000_000); print(resident(os.getpid()))"
    )
    before, after = map(int, output(sys.executable, "-c", program).split())
    yield lambda: after / 1024, lambda: before / 1024


@row("idle", "memory of an idle connection", "limit", KIB, 1.0, "at most", short=True, once=True)
def idle(setting: Setting) -> Iterator[Sides]:
    connections = 1000

    def ours() -> float:
        with host("correct") as (uri, pid):
            path = uri.partition("socket=")[2]
            clients = []
            try:
                # The first few make room for what all of them share.
                for number in range(connections + 20):
                    if number == 20:
                        before = resident(pid)
                    client = socket.socket(socket.AF_UNIX)
                    clients.append(client)
                    client.connect(path)
                    client.sendall(handshake(structured=True, context="base:allocation"))
                    client.settimeout(10)
                    while len(client.recv(4096)) < 100:
                        pass
                return (resident(pid) - before) / connections / 1024
            finally:
                for client in clients:
                    client.close()

    yield ours, lambda: 40.0


@row(
    "overlay",
    "memory for 256 MiB written in 64 KiB pieces",
    "written",
    KIB,
    1.3,
    "at most",
    once=True,
)
def overlay(setting: Setting) -> Iterator[Sides]:
    written = 256 << 20
    program = (
        "import os; from fakenbd.export import Export;"
        "from tests.bench.servers import resident;"
        "export = Export(size=1 << 40); piece = bytearray(os.urandom(65536));"
        "export.write(1 << 39, piece);"
        "before = resident(os.getpid());"
        f"[export.write(place * 65536, piece) for place in range({written // 65536})];"
        "print(resident(os.getpid()) - before)"
    )
    grown = int(output(sys.executable, "-c", program))
    yield lambda: grown / 1024, lambda: written / 1024
