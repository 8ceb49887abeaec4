"""Waiting for messages of a client: in trio, in a thread, with a deadline; and `settle`.

The clients are bytes on a socket, sent before the server had a chance to look.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from fakenbd import background_server, open_server
from fakenbd.errors import ExpectationError
from fakenbd.journal import Closed, Entry, Received, Violated
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Request
from tests.conversation.talk import handshake

WORDS = handshake() + b"".join(encode(Request(0, cookie, 512, 512)) for cookie in (7, 8))

IN_VAIN = """\
waited {seconds} s without success
expected at least 2: read with offset 1024
found none

closest:
  [{index}] {time}  #1  C> NBD_CMD_READ cookie 7 offset 512 length 512
      offset is 512, not 1024
"""


@contextmanager
def client(path: str) -> Iterator[socket.socket]:
    """A client that has sent its messages, and waits for nothing."""
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.connect(path)
        dialled.sendall(WORDS)
        yield dialled


def cookies(entries: list[Entry]) -> list[int | None]:
    return [entry.cookie for entry in entries if isinstance(entry, Received)]


def check_report(text: str, seconds: str, journal: list[Entry]) -> None:
    read = next(e for e in journal if isinstance(e, Received) and e.command == "read")
    wanted = IN_VAIN.format(seconds=seconds, index=read.index, time=f"{read.time:.3f}")
    assert text.startswith(wanted)
    assert "\n\ntranscript:\n" in text


# --- in trio ------------------------------------------------------------------------------------


@pytest.mark.trio
async def test_trio_waits_for_what_comes() -> None:
    async with open_server(unix="-") as server:
        with client(server.socket):
            assert list(server.journal) == []
            found = await server.wait_for("read", count=2, offset=512, timeout=60)
            assert cookies(found) == [7, 8]
            # What is there already is not waited for, not even for one turn of the loop.
            assert await server.wait_for("read", timeout=0) == found
            assert await server.wait_for(option="go", timeout=0)


@pytest.mark.trio
async def test_trio_waits_as_long_as_it_was_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with open_server(endpoints=[]) as server:
        stream = server.connect()
        await stream.send_all(WORDS)
        began = trio.current_time()
        with pytest.raises(ExpectationError) as caught:
            await server.wait_for("read", count=2, offset=1024, timeout=3600)
        assert trio.current_time() - began == pytest.approx(3600)
        check_report(str(caught.value), "3600", server.journal.entries())
        await trio.aclose_forcefully(stream)


@pytest.mark.trio
async def test_after_settling_all_is_in_the_journal() -> None:
    async with open_server(unix="-") as server:
        for _ in range(20):
            with client(server.socket):
                pass
        assert list(server.journal) == []
        await server.settle()
        journal = server.journal
        assert journal.totals.connections == 20
        assert journal.totals.commands == {"read": 40}
        assert sum(isinstance(entry, Closed) for entry in journal) == 20
        # Their ends are void: they were gone before the greeting could leave.
        assert {entry.rule for entry in journal if isinstance(entry, Violated)} == {"C-110"}


@pytest.mark.trio
async def test_settling_takes_no_time(autojump_clock: trio.testing.MockClock) -> None:
    """An answer that is delayed is not waited for: what was received is there already."""
    async with open_server(endpoints=[]) as server:
        server.on("read").delay(3600)
        stream = server.connect()
        await stream.send_all(WORDS)
        await server.settle()
        assert trio.current_time() == server.journal.began
        assert server.journal.totals.commands == {"read": 2}
        assert len(server.journal.expect(kinds="delay")) == 2
        await trio.aclose_forcefully(stream)


# --- in a thread --------------------------------------------------------------------------------


def test_a_thread_waits_for_what_comes() -> None:
    with background_server(unix="-") as server, client(server.socket):
        found = server.wait_for("read", count=2, offset=512, timeout=60)
        assert cookies(found) == [7, 8]
        assert server.wait_for("read", timeout=0) == found
        assert server.wait_for(option="go", timeout=0)


def test_a_thread_waits_as_long_as_it_was_asked() -> None:
    with background_server(unix="-") as server, client(server.socket):
        server.wait_for("read", count=2, timeout=60)
        with pytest.raises(ExpectationError) as caught:
            server.wait_for("read", count=2, offset=1024, timeout=0.01)
        check_report(str(caught.value), "0.01", server.journal.entries())


def test_a_thread_that_has_settled_has_received_it_all() -> None:
    with background_server(unix="-") as server:
        for _ in range(20):
            with client(server.socket):
                pass
        server.settle()
        assert server.journal.totals.commands == {"read": 40}
        assert sum(isinstance(entry, Closed) for entry in server.journal) == 20
