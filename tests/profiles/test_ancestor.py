"""The fault injector of QEMU's own tests, as profiles: qemu-io gives the outcomes that they list.

Iotest 083 hangs up at 27 points of a session, over TCP and over a Unix socket; iotest 277 takes
all data of a write and hangs up, once.
"""

from __future__ import annotations

import subprocess

import pytest

from fakenbd import background_server
from fakenbd.profile import find, select
from tests.peers import require

NOT_OPEN = "qemu-io: can't open device"
NOT_READ = "read failed: Input/output error"
READ = "read 512/512 bytes at offset 0"

# Every other point of the handshake fails to open.
OUTCOMES = {
    "handshake/ancestor-newstyle@neg2-after": NOT_READ,
    "handshake/ancestor-newstyle@request-before": NOT_READ,
    "handshake/ancestor-newstyle@request-after": NOT_READ,
    "handshake/ancestor-newstyle@reply-before": NOT_READ,
    "handshake/ancestor-newstyle@reply-4": NOT_READ,
    "handshake/ancestor-newstyle@reply-8": NOT_READ,
    "handshake/ancestor-newstyle@reply-after": NOT_READ,
    "handshake/ancestor-newstyle@data-before": NOT_READ,
    "handshake/ancestor-newstyle@data-after": READ,
    "handshake/ancestor-oldstyle@after": NOT_READ,
}
POINTS = select(["handshake/ancestor-*"])
LISTENING = {"tcp": {}, "unix": {"unix": "-"}}
PATIENCE = 60


def qemu_io(*arguments: str) -> str:
    """What qemu-io says, on either channel."""
    done = subprocess.run(
        [require("qemu-io"), *arguments], capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout + done.stderr


def test_all_points_are_there():
    assert len(POINTS) == 27
    assert set(OUTCOMES) <= set(POINTS)


@pytest.mark.parametrize("listening", LISTENING)
@pytest.mark.parametrize("point", POINTS)
def test_hanging_up(point, listening):
    with background_server(find(point), **LISTENING[listening]) as server:
        printed = qemu_io("-f", "raw", "-c", "read 0 512", server.uri)
        assert OUTCOMES.get(point, NOT_OPEN) in printed
        assert server.unfired() == []


@pytest.mark.parametrize("listening", LISTENING)
def test_a_write_is_sent_again(listening):
    profile = find("recovery/write-taken-and-never-answered")
    with background_server(profile, **LISTENING[listening]) as server:
        address = {
            "tcp": f"server.type=inet,server.host=127.0.0.1,server.port={server.port}",
            "unix": f"server.type=unix,server.path={server.socket}",
        }
        target = f"driver=nbd,{address[listening]},reconnect-delay=7"
        printed = qemu_io("-c", "write -P 7 0 3M", "--image-opts", target)
        assert "wrote 3145728/3145728 bytes at offset 0" in printed
        assert bytes(server.export.read(0, 3 << 20)) == b"\7" * (3 << 20)
        server.journal.expect("write", connection=1, offset=0, length=3 << 20)
        server.journal.expect("write", connection=2, offset=0, length=3 << 20)
        assert server.unfired() == []
