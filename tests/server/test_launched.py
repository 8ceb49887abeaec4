"""Servers that a client launches: by a socket handed over, or on standard input and output."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from fakenbd.export.content import Pattern
from fakenbd.protocol.constants import Command
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request, SimpleReply
from tests.conversation.talk import handshake
from tests.peers import require
from tests.program import FAKENBD, ended_at_last, started
from tests.server.wire import Wire

SERVE = (*FAKENBD, "serve", "baseline/plain")
REQUESTS = handshake() + encode(Request(Command.READ, 7, 512, 512))
ANSWER = encode(SimpleReply(7, 0, Pattern().read(512, 512)))
DISC = encode(Request(Command.DISC))


def ran(*command: str, text: str | None = None) -> str:
    """What a client prints that launches a server; it must succeed."""
    path = f"/usr/bin:{os.environ['PATH']}"
    done = subprocess.run(
        [require(command[0]), *command[1:]],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PATH": path},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout


def test_socket_activation() -> None:
    printed = json.loads(ran("nbdinfo", "--json", "--", "[", *SERVE, "]"))
    assert printed["exports"][0]["export-size"] == 1 << 20


def test_socket_activation_is_silent_and_ends_by_signal(tmp_path: Path) -> None:
    """A supervisor knows where the server listens, and its socket file is its own."""
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        launch = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@" 3<&0 </dev/null'
        launched = subprocess.Popen(
            ["sh", "-c", launch, "sh", *SERVE], stdin=listener, stdout=subprocess.PIPE
        )
    with ended_at_last(launched) as server:
        with Wire.to(f"nbd+unix:///?socket={path}") as wire:
            wire.opened()
            server.send_signal(signal.SIGTERM)
            assert wire.sock.recv(1) == b""
        output, _ = server.communicate(timeout=60)
        assert (output, server.returncode) == (b"", 0)
    assert path.exists()


def test_standard_input_and_output() -> None:
    done = subprocess.run(
        [*SERVE, "--stdio"], input=REQUESTS + DISC, capture_output=True, timeout=60, check=False
    )
    assert done.stdout.endswith(ANSWER)
    assert (done.stderr, done.returncode) == (b"", 0)


def test_standard_input_that_ends_without_a_word() -> None:
    done = subprocess.run([*SERVE, "--stdio"], input=b"", capture_output=True, timeout=60)
    assert done.stdout == b"NBDMAGICIHAVEOPT\0\3"
    assert (done.stderr, done.returncode) == (b"", 0)


def test_a_client_that_talks_to_its_child() -> None:
    script = f"h.connect_command({[*SERVE, '--stdio']!r})\nprint(h.pread(4, 512).hex())\n"
    printed = ran("nbdsh", "-c", "-", text=script + "h.shutdown()\n")
    assert printed == bytes(Pattern().read(512, 4)).hex() + "\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_private_socket_goes_with_its_server(number: signal.Signals) -> None:
    arguments = ("serve", "baseline/plain", "--unix", "-")
    with started(*arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        uri = json.loads(server.stdout.readline())["uri"]
        folder = Path(uri.partition("socket=")[2]).parent
        assert folder.is_dir()
        with Wire.to(uri) as wire:
            wire.opened()
            server.send_signal(number)
            assert wire.sock.recv(1) == b""
        server.communicate(timeout=60)
        assert server.returncode == 0
    assert not folder.exists()
