"""A server in trio: what it tells of itself, many clients, and faults that come and go."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fakenbd import Client, open_server
from fakenbd.errors import (
    CommandError,
    ConnectionLostError,
    ExpectationError,
    ProfileError,
    ServeError,
)
from fakenbd.faults import parse_fault
from fakenbd.journal import Closed, Connected, InternalFailure
from fakenbd.profile import Profile, find
from fakenbd.protocol.constants import Command
from fakenbd.protocol.messages import Request, SimpleReply
from fakenbd.server import prepare
from tests.server.speaker import Speaker

pytestmark = pytest.mark.trio

READ = Request(Command.READ, 1, 512, 512)


def served(**options: Any) -> Any:
    return open_server(**{"size": "1MiB", "endpoints": ()} | options)


async def opened(stream: trio.abc.Stream, export: str = "") -> Speaker:
    client = Speaker(stream)
    await client.greet()
    await client.go(export)
    return client


# --- what it tells of itself --------------------------------------------------------------------


async def test_over_tcp() -> None:
    async with open_server(size=512, name="disk", seed=7) as server:
        assert server.uri == f"nbd://127.0.0.1:{server.port}/disk"
        assert (server.socket, server.export.size, server.seed) == ("", 512, 7)
        assert repr(server) == f"<Server of python, {server.uri}, seed 7>"
        async with Client.connect(server.uri) as client:
            assert client.size == 512


async def test_over_a_unix_socket() -> None:
    async with open_server(size=512, unix="-") as server:
        assert server.uri == f"nbd+unix:///?socket={server.socket}"
        assert server.port == 0
        async with Client.connect(server.uri) as client:
            assert client.size == 512
    assert not Path(server.socket).parent.exists()


async def test_in_memory() -> None:
    async with served(seed=7) as server:
        assert repr(server) == "<Server of python, in memory, seed 7>"
        with pytest.raises(ServeError) as caught:
            _ = server.uri
        assert str(caught.value) == "this server listens nowhere: it is reached by connect()"
        async with Client.connect(server.connect()) as client:
            assert await client.read(0, 512) == server.export.read(0, 512)


async def test_peers_are_distinguished() -> None:
    async with open_server(size=512) as server:
        async with Client.connect(server.uri), Client.connect(server.connect()):
            pass
        first, second = [entry for entry in server.journal if isinstance(entry, Connected)]
        assert (first.transport, first.local) == ("tcp", f"127.0.0.1:{server.port}")
        assert first.peer.startswith("127.0.0.1:")
        assert (second.transport, second.peer) == ("memory", "memory")


async def test_exports_by_name() -> None:
    exports = [{"name": "one", "size": 512}, {"name": "two words", "size": 1024}]
    async with open_server(exports=exports) as server:
        assert list(server.exports) == ["one", "two words"]
        for name, size in (("one", 512), ("two words", 1024)):
            async with Client.connect(server.uri_of(name)) as client:
                assert client.size == size
        assert server.uri_of("two words").endswith("/two%20words")


async def test_profiles_by_name_have_faults_of_their_own() -> None:
    failing = Profile.of(id="failing", faults=[parse_fault(FAULT)], size=512)
    correct = Profile.of(id="correct", size=1024)
    async with served(every=[failing, correct]) as server:
        bad = await opened(server.connect(), "failing")
        good = await opened(server.connect(), "correct")
        read = Request(Command.READ, 1, 0, 512)
        assert await bad.reply(read) == SimpleReply(1, 5)
        assert await good.reply(read) == SimpleReply(1, 0, server.exports["correct"].read(0, 512))


async def test_faults_of_every_export_are_reported_when_they_never_fired() -> None:
    profiles = [
        Profile.of(id=name, faults=[parse_fault({**FAULT, "name": "the fault"})])
        for name in ("opened", "read", "flushed")
    ]
    async with served(every=profiles) as server:
        server.on("trim", name="its own").error("EIO")
        never = "fault 'its own' never fired: there was no event that it could fire at"
        unseen = "fault 'the fault' never fired: there was no event that it could fire at"
        await opened(server.connect(), "opened")
        read = await opened(server.connect(), "read")
        await read.reply(Request(Command.READ, 1, 0, 512))
        flushed = await opened(server.connect(), "flushed")
        await flushed.reply(Request(Command.FLUSH, 2))
        assert server.unfired() == [
            never,
            f"opened: {unseen}",
            "flushed: fault 'the fault' never fired: the closest was NBD_CMD_FLUSH number 1 on "
            'connection 3 (wanted command = "read")',
        ]


FAULT = {"when": {"command": "read"}, "do": {"error": "EIO"}}

# --- what it cannot do --------------------------------------------------------------------------

REFUSALS: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"tcp": "127.0.0.1:http"},
        ServeError,
        "cannot listen on 127.0.0.1:http: a port is a number from 0 to 65535",
    ),
    (
        {"tcp": "127.0.0.1:65536"},
        ServeError,
        "cannot listen on 127.0.0.1:65536: a port is a number from 0 to 65535",
    ),
    (
        {"unix": "/no-such-folder/s"},
        ServeError,
        "cannot listen on /no-such-folder/s: No such file or directory",
    ),
    (
        {"content": {"file": "/no-such-file"}},
        ServeError,
        "cannot open /no-such-file: No such file or directory",
    ),
    ({"sise": 1}, ProfileError, 'profile python: unknown key "sise"; did you mean "size"?'),
]


@pytest.mark.parametrize(("options", "error", "sentence"), REFUSALS)
async def test_what_cannot_be_served_is_an_error_at_once(
    options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as caught:
        async with open_server(**options):
            pytest.fail("the block began")
    assert str(caught.value) == sentence


async def test_a_profile_or_the_options_of_an_export() -> None:
    with pytest.raises(ProfileError) as caught:
        prepare(find("baseline/plain"), size=1)
    assert str(caught.value) == (
        "profile baseline/plain: expected either a profile, or the options of an export, got both"
    )


async def test_a_socket_is_given_back_where_an_export_fails(tmp_path: Path) -> None:
    with pytest.raises(ServeError):
        prepare(unix=str(tmp_path / "s"), content={"file": "/no-such-file"})
    assert os.listdir(tmp_path) == []


async def test_a_file_that_vanishes_is_an_error_of_one_request(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(bytes(1024))
    async with served(size=1024, content={"file": str(path)}) as server:
        client = await opened(server.connect())
        path.unlink()
        assert (await client.reply(Request(Command.READ, 1, 0, 512))).cookie == 1
        assert server.errors == []


async def test_a_bug_of_ours_takes_one_connection_down() -> None:
    def broken(answer: Any, firing: Any) -> Any:
        raise ZeroDivisionError("a bug")

    async with served() as server:
        server.on("read", connection=1).call(broken)
        first, second = await opened(server.connect()), await opened(server.connect())
        await first.say(READ)
        assert await first.stream.receive_some() == b""
        assert await second.reply(READ) == SimpleReply(1, 0, server.export.read(512, 512))
        (failure,) = [entry for entry in server.journal if isinstance(entry, InternalFailure)]
        assert failure.connection == 1
        assert failure.sentence.startswith("ZeroDivisionError: a bug (broken, line ")
        assert [type(error) for error in server.errors] == [ZeroDivisionError]


# --- many clients -------------------------------------------------------------------------------


async def test_many_connections() -> None:
    count = 200
    async with open_server(size="1MiB", unix="-") as server:

        async def use(place: int) -> None:
            async with Client.connect(server.uri) as client:
                await client.write(place * 512, bytes([place % 256]) * 512)
                assert await client.read(place * 512, 512) == bytes([place % 256]) * 512

        async with trio.open_nursery() as nursery:
            for place in range(count):
                nursery.start_soon(use, place)
        await server.settle()
        totals = server.journal.totals
        assert totals.connections == count
        assert totals.violations == {}
        assert {entry.how for entry in server.journal if isinstance(entry, Closed)} == {"DISC"}
    expected = b"".join(bytes([place % 256]) * 512 for place in range(count))
    assert server.export.read(0, count * 512) == expected


# --- faults come and go -------------------------------------------------------------------------


async def test_faults_are_added_removed_and_counted_while_clients_talk() -> None:
    async with served() as server:
        client = await opened(server.connect())
        good = SimpleReply(1, 0, server.export.read(512, 512))
        assert await client.reply(READ) == good
        fault = server.on("read", name="bad sector").error("EIO")
        assert await client.reply(READ) == SimpleReply(1, 5)
        assert await client.reply(READ) == SimpleReply(1, 5)
        assert (server.fired(), server.faults.fired(fault)) == (2, 2)
        server.faults.remove(fault)
        assert await client.reply(READ) == good
        server.on("read", nth=2).error("EIO")
        assert await client.reply(READ) == good
        assert await client.reply(READ) == SimpleReply(1, 5)
        assert await client.reply(READ) == good
        assert server.fired() == 3
        assert server.journal.totals.fired["bad sector"] == 2


async def test_a_fault_that_never_fired_is_reported_with_what_came_closest() -> None:
    async with served() as server:
        client = await opened(server.connect())
        server.on("read", offset=4096).error("EIO")
        await client.reply(READ)
        (sentence,) = server.unfired()
        assert sentence == (
            "fault 'error on read' never fired: the closest was NBD_CMD_READ number 1 on "
            "connection 1 (wanted offset = 4096)"
        )
        server.on("write").error("EIO")
        assert len(server.unfired()) == 2


async def test_waiting_for_a_request(autojump_clock: Any) -> None:
    async with served() as server:
        client = await opened(server.connect())

        async def lazy_getattr() -> None:
            await trio.sleep(100)
            await client.say(READ)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lazy_getattr)
            (entry,) = await server.wait_for("read", timeout=1000)
            assert (entry.offset, trio.current_time() >= 100) == (512, True)
        assert await server.wait_for("read") == [entry]
        with pytest.raises(ExpectationError) as caught:
            await server.wait_for("write", timeout=1000)
        assert "write" in str(caught.value)


# --- away ---------------------------------------------------------------------------------------

AWAY = {"when": {"command": "read", "nth": 1}}


def away(**how: Any) -> Any:
    return parse_fault(AWAY | {"do": {"stop-listening": how.pop("attempts", None)} | how})


async def test_away_for_some_attempts_in_memory() -> None:
    async with served(faults=[away(attempts=2)]) as server:
        client = await opened(server.connect())
        await client.say(READ)
        assert await client.stream.receive_some() == b""
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError, match=r"^the server is away$"):
                server.connect()
        client = await opened(server.connect())
        assert (await client.reply(READ)).error == 0


async def greeting(port: int) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        return bytes(await stream.receive_some())


async def test_away_for_some_attempts_is_a_reset() -> None:
    async with open_server(size="1MiB", faults=[away(attempts=2)]) as server:
        with pytest.raises(ConnectionLostError):
            async with Client.connect(server.uri) as client:
                await client.read(512, 512)
        for _ in range(2):
            with pytest.raises((OSError, trio.BrokenResourceError)):
                await greeting(server.port)
        async with Client.connect(server.uri) as client:
            assert await client.read(512, 512) == server.export.read(512, 512)


@pytest.mark.parametrize("where", [{}, {"unix": "-"}], ids=["tcp", "unix"])
async def test_away_for_some_time(where: dict[str, str], autojump_clock: Any) -> None:
    fault = away(seconds=1000, then="answer")
    async with open_server(size="1MiB", faults=[fault], **where) as server:
        async with Client.connect(server.uri) as client:
            data = await client.read(512, 512)
            await wait_all_tasks_blocked()
            with pytest.raises(ConnectionLostError):
                async with Client.connect(server.uri):
                    pytest.fail("somebody listens")
            await trio.sleep(999)
            with pytest.raises(ConnectionLostError):
                async with Client.connect(server.uri):
                    pytest.fail("somebody listens")
            await trio.sleep(2)
            async with Client.connect(server.uri) as again:
                assert await again.read(512, 512) == data
            # The connection that was there lives on.
            assert await client.read(512, 512) == data


async def test_a_place_that_is_taken_meanwhile_is_waited_for(autojump_clock: Any) -> None:
    fault = away(seconds=10, then="answer")
    async with open_server(size="1MiB", faults=[fault]) as server:
        async with Client.connect(server.uri) as client:
            await client.read(512, 512)
            await wait_all_tasks_blocked()
            with socket.socket() as squatter:
                squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                squatter.bind(("127.0.0.1", server.port))
                squatter.listen()
                await trio.sleep(100)
            (failure,) = [entry for entry in server.journal if isinstance(entry, InternalFailure)]
            assert failure.sentence == (
                f"cannot listen on 127.0.0.1:{server.port}: Address already in use"
            )
            await trio.sleep(10)
            async with Client.connect(server.uri) as again:
                assert await again.read(512, 512) == await client.read(512, 512)


async def test_an_error_is_one_for_the_client_too() -> None:
    async with served(faults=[parse_fault(FAULT)]) as server:
        async with Client.connect(server.connect()) as client:
            with pytest.raises(CommandError):
                await client.read(0, 512)


@pytest.mark.trio
async def test_a_profile_may_be_named(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('summary = "mine"\n[export]\nsize = 4096\n')
    async with open_server("quirks/qemu-odd-tail") as server:
        assert server.profile.id == "quirks/qemu-odd-tail"
    async with open_server(mine) as server:
        assert server.export.size == 4096
    with pytest.raises(ProfileError, match="no such profile"):
        async with open_server("quirks/nothing-like-it"):
            pytest.fail("there is nothing to serve")


# --- accepting ----------------------------------------------------------------------------------


class Listener:
    """A listening socket that fails in a given way, so often; after that it has a good client."""

    def __init__(self, number: int, times: int) -> None:
        self.number, self.times, self.tries = number, times, 0

    def accept(self) -> tuple[socket.socket, str]:
        self.tries += 1
        if self.tries <= self.times:
            raise OSError(self.number, os.strerror(self.number))
        ours, theirs = socket.socketpair()
        self.client = theirs
        self.number, self.times = errno.EINVAL, self.tries + 1
        return ours, ""


@pytest.mark.trio
@pytest.mark.parametrize(
    ("number", "times", "accepted", "told"),
    [
        (errno.EMFILE, 3, True, ["Too many open files"]),
        (errno.ENOBUFS, 2, True, ["No buffer space available"]),
        (errno.ECONNABORTED, 5, True, []),
        (errno.EBADF, 1, False, []),
    ],
    ids=["short of descriptors", "short of memory", "the client is gone", "the listener is broken"],
)
async def test_errors_of_accept(
    number: int, times: int, accepted: bool, told: list[str], autojump_clock: object
) -> None:
    """A shortage is recorded once and passes; what does not pass is told, and is no loop."""
    async with open_server(endpoints=[]) as server:
        listener = Listener(number, times)
        await server._accept(listener)  # type: ignore[arg-type]
        assert listener.tries == times + (2 if accepted else 0)
        failures = [e.sentence for e in server.journal if isinstance(e, InternalFailure)]
        last = os.strerror(errno.EINVAL if accepted else number)
        assert failures == [
            *(f"a connection could not be accepted: {each}" for each in told),
            f"a connection could not be accepted: {last}; nothing more is accepted here",
        ]
        if accepted:
            await server.settle()
            assert listener.client.recv(8) == b"NBDMAGIC"
            listener.client.close()
