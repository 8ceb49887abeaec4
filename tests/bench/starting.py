"""How fast servers and connections come and go."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.bench.loads import LIBNBD_PYTHON, Setting, output
from tests.bench.measure import Sides, row
from tests.bench.servers import nbdkit, serve

_HANDSHAKES = """
import sys, time, nbd
uri, seconds = sys.argv[1], float(sys.argv[2])
start, count = time.perf_counter(), 0
while time.perf_counter() - start < seconds:
    client = nbd.NBD()
    client.add_meta_context("base:allocation")
    client.connect_uri(uri)
    client.shutdown()
    count += 1
print(count / (time.perf_counter() - start))
"""


@row(
    "connect", "negotiate with one context, DISC", "nbdkit memory", "connections/s", 0.5, short=True
)
def connect(setting: Setting) -> Iterator[Sides]:
    def connections(uri: str) -> float:
        return float(output(LIBNBD_PYTHON, "-c", _HANDSHAKES, uri, str(setting.seconds)))

    with serve() as ours, nbdkit("memory", "64M") as theirs:
        yield lambda: connections(ours), lambda: connections(theirs)


@row("background", "start, first byte, stop", "nbdkit --run true", "starts/s", 1.0, short=True)
def background(setting: Setting) -> Iterator[Sides]:
    from fakenbd import background_server

    rounds = 20

    def ours() -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            with background_server(unix="-") as server, socket.socket(socket.AF_UNIX) as client:
                client.connect(server.socket)
                client.recv(1)
        return rounds / (time.perf_counter() - start)

    def theirs() -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            output("nbdkit", "-U", "-", "memory", "1M", "--run", "true")
        return rounds / (time.perf_counter() - start)

    yield ours, theirs


@row(
    "start",
    "fakenbd serve to its ready line",
    "import trio, attrs, cyclopts",
    "s",
    1.3,
    "at most",
    short=True,
)
def start(setting: Setting) -> Iterator[Sides]:
    command = [sys.executable, "-c", "import sys; from fakenbd.cli import main; sys.exit(main())"]

    def ours() -> float:
        began = time.perf_counter()
        process = subprocess.Popen([*command, "serve"], stdout=subprocess.PIPE)
        assert process.stdout is not None
        try:
            json.loads(process.stdout.readline())
            return time.perf_counter() - began
        finally:
            process.terminate()
            process.wait(timeout=30)
            process.stdout.close()

    def theirs() -> float:
        began = time.perf_counter()
        imports = [sys.executable, "-c", "import trio, attrs, cyclopts"]
        subprocess.run(imports, check=True)
        return time.perf_counter() - began

    ours()
    theirs()
    yield ours, theirs
