"""`fakenbd serve` as a process: stopped while it is busy, and with a disk that is full."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake
from tests.program import fakenbd, started
from tests.soak.traces import no_traces

READS = b"".join(encode(Request(0, cookie, 4096 * cookie, 4096)) for cookie in range(64))
REPLIES = 64 * (16 + 4096)


@contextmanager
def served(*options: str, limit: int | None = None) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process and the path of its socket; `limit` bounds the size of files it may write."""
    bounded = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit)) if limit else None
    with started(
        *("serve", "--unix", "-", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=bounded,
    ) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["uri"].partition("socket=")[2]


def dial(path: str) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(path)
    client.sendall(handshake())
    return client


def receive(client: socket.socket, count: int) -> int:
    received = 0
    while received < count and (data := client.recv(1 << 20)):
        received += len(data)
    return received


def keep_reading(client: socket.socket, busy: threading.Event) -> None:
    with client, suppress(OSError):
        while True:
            client.sendall(READS)
            if receive(client, REPLIES) < REPLIES:
                return
            busy.set()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_under_load_ends_it_cleanly(number: signal.Signals) -> None:
    with no_traces(), served() as (process, path):
        clients = [(dial(path), threading.Event()) for _ in range(8)]
        threads = [threading.Thread(target=keep_reading, args=client) for client in clients]
        for thread in threads:
            thread.start()
        assert all(busy.wait(60) for _, busy in clients)
        process.send_signal(number)
        assert ended(process) == (0, "", "")
        for thread in threads:
            thread.join(60)
        assert not os.path.exists(path)
        assert not os.path.exists(os.path.dirname(path))


def converses(path: str) -> None:
    with dial(path) as client:
        for _ in range(20):
            client.sendall(READS)
            assert receive(client, REPLIES) >= REPLIES


FILES = {"--journal": "the journal file", "--pcap": "the capture file"}


@pytest.mark.parametrize("option", FILES)
def test_a_disk_that_fills_up_stops_the_file_and_not_the_service(
    option: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    with served(option, str(path), limit=20_000) as (process, sock):
        for _ in range(3):
            converses(sock)
        process.terminate()
        status, output, errors = ended(process)
    assert (status, output) == (0, "")
    assert path.stat().st_size <= 20_000
    assert errors == f"fakenbd: {FILES[option]} {path} is given up: File too large\n"


@pytest.mark.parametrize("option", FILES)
def test_a_disk_that_is_full_from_the_start_is_no_place_for_a_file(option: str) -> None:
    done = fakenbd("serve", "--unix", "-", option, "/dev/full")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "fakenbd: cannot write /dev/full: No space left on device\n"
