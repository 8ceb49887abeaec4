"""A server in a thread: for callers that are synchronous or use asyncio."""

from __future__ import annotations

import asyncio
import socket
import threading
from types import SimpleNamespace

import pytest
import trio

from fakenbd import background_server
from fakenbd.errors import ExpectationError, ServeError
from fakenbd.journal import Closed
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.messages import InfoQuery, OptionRequest, Request, SimpleReply
from tests.server.wire import Wire

READ, FLUSH = Request(Command.READ, 0, 512, 512), Request(Command.FLUSH)
GO = OptionRequest(Option.GO, InfoQuery())


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_it_listens_in_the_block_and_nothing_is_left_behind() -> None:
    with background_server(size="1MiB", seed=7) as server:
        assert "fakenbd" in threads()
        assert repr(server) == f"<BackgroundServer of python, {server.uri}, seed 7>"
        with Wire.to(server.uri) as wire:
            wire.opened()
            (reply,) = wire.answers([READ])
            assert reply[0].body.data == server.export.read(512, 512)
        port = server.port
    assert "fakenbd" not in threads()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_it_follows_the_clock_by_which_its_event_loop_sleeps() -> None:
    with background_server() as server:
        server.settle()
        before = server.shared.clock()
        now = trio.from_thread.run_sync(trio.current_time, trio_token=server._token)
        assert before <= now <= server.shared.clock()
        assert server.journal.clock == server.shared.clock


def test_what_cannot_be_served_is_an_error_in_the_caller_s_thread() -> None:
    with background_server() as server:
        with pytest.raises(ServeError) as caught:
            with background_server(tcp=f"127.0.0.1:{server.port}"):
                pytest.fail("the block began")
    assert str(caught.value) == (
        f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
    )


def test_connections_in_memory_are_not_to_be_had() -> None:
    with background_server() as server:
        with pytest.raises(ServeError) as caught:
            server.connect()
    assert str(caught.value) == ("a server in a thread has no connections in memory: use its uri")


def test_the_block_ends_while_clients_are_there() -> None:
    with background_server(size="1MiB") as server:
        server.on("read").stall()
        wire = Wire.to(server.uri)
        wire.opened()
        wire.say(READ)
        server.wait_for("read", timeout=60)
    with wire:
        assert wire.sock.recv(1) == b""
    (end,) = [entry for entry in server.journal if isinstance(entry, Closed)]
    assert (end.by, end.how) == ("server", "closed")


def test_a_server_that_nobody_uses_ends_at_once() -> None:
    for _ in range(20):
        with background_server():
            pass
    assert "fakenbd" not in threads()


def test_what_clients_sent_is_known_once_all_is_settled() -> None:
    with background_server(size="1MiB") as server:
        with Wire.to(server.uri) as wire:
            wire.opened()
            wire.answers([READ])
            wire.say(Request(Command.DISC))
        server.settle()
        assert server.journal.totals.commands == {"read": 1, "disc": 1}
        (end,) = [entry for entry in server.journal if isinstance(entry, Closed)]
        assert (end.by, end.how) == ("client", "DISC")


def test_waiting_for_a_request() -> None:
    with background_server(size="1MiB") as server:
        with Wire.to(server.uri) as wire:
            wire.opened()
            lazy_getattr = threading.Timer(0.01, wire.say, [READ])
            lazy_getattr.start()
            (entry,) = server.wait_for("read", timeout=60)
            lazy_getattr.join()
            assert entry.offset == 512
            assert server.wait_for("read", offset=512, timeout=60) == [entry]
            with pytest.raises(ExpectationError):
                server.wait_for("write", timeout=0)


def test_the_deadline_is_one_however_much_else_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each second another request comes, and never the one that is waited for."""
    seconds = 0.0
    with background_server() as server:

        class News:
            """An event that a recorded entry sets a second after somebody began to wait."""

            def set(self) -> None:
                pass

            def clear(self) -> None:
                pass

            def wait(self, left: float) -> bool:
                nonlocal seconds
                waits.append(left)
                seconds += 1
                server.journal.received(1, READ, 28, 0)
                return seconds <= 1000

        waits: list[float] = []
        monkeypatch.setattr("fakenbd.server.background.threading", SimpleNamespace(Event=News))
        monkeypatch.setattr("fakenbd.server.background.monotonic", lambda: seconds)
        with pytest.raises(ExpectationError, match=r"^waited 5 s without success\n"):
            server.wait_for("flush", timeout=5)
    assert waits == [5, 4, 3, 2, 1]


def test_faults_from_another_thread_while_clients_talk() -> None:
    """Every reply is correct or the error, and every error is counted."""
    with background_server(size="1MiB") as server:
        data = server.export.read(512, 512)
        stop = threading.Event()
        added = 0

        def meddle() -> None:
            nonlocal added
            while not stop.is_set():
                fault = server.on("read").error("EIO")
                server.faults.remove(fault)
                added += 1

        with Wire.to(server.uri) as wire:
            wire.opened()
            meddler = threading.Thread(target=meddle)
            meddler.start()
            try:
                replies = [wire.answers([READ])[0][0] for _ in range(2000)]
            finally:
                stop.set()
                meddler.join()
        errors = [reply for reply in replies if getattr(reply.body, "error", 0) == 5]
        correct = [reply for reply in replies if getattr(reply.body, "data", b"") == data]
        assert len(errors) + len(correct) == len(replies)
        assert added > 0
        assert len(server.faults) == 0
        server.settle()
        assert server.fired() == len(errors)
        assert server.errors == []


def test_faults_between_requests() -> None:
    with background_server(size="1MiB") as server:
        with Wire.to(server.uri) as wire:
            wire.greet()
            wire.option(GO)
            (reply,) = wire.answers([FLUSH])
            assert reply == [SimpleReply(0)]
            fault = server.on("flush", times=1).error("EIO")
            (reply,) = wire.answers([FLUSH])
            assert reply == [SimpleReply(0, 5)]
            (reply,) = wire.answers([FLUSH])
            assert reply == [SimpleReply(0)]
            assert server.faults.fired(fault) == 1


async def _talk(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    greeting = await reader.readexactly(18)
    writer.close()
    await writer.wait_closed()
    return greeting


def test_asyncio_in_the_caller_s_thread() -> None:
    with background_server() as server:
        assert asyncio.run(_talk(server.port)).startswith(b"NBDMAGICIHAVEOPT")
