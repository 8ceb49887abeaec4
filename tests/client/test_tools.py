"""Copies, maps and lists, on our own server and on those of others."""

from __future__ import annotations

import errno
import json
import os

import pytest
import trio

from fakenbd.client import (
    Client,
    ExportInfo,
    Listed,
    RetryPolicy,
    Run,
    copy,
    describe_export,
    list_export_infos,
    list_exports,
    map_export,
    qemu_json,
)
from fakenbd.errors import ClientError, CommandError, ConnectionLostError, OptionRefusedError
from fakenbd.export import BlockSize
from fakenbd.profile import Profile, find
from fakenbd.server import open_server
from tests.client.test_peers import activated, peer, sparse_file
from tests.peers import require

pytestmark = pytest.mark.trio


# --- copy --------------------------------------------------------------------------------------


async def test_export_to_file_and_back(tmp_path):
    async with (
        open_server(size="3MiB", seed=1) as server,
        open_server(size="4MiB", content="zeros", seed=1) as other,
    ):
        path = tmp_path / "image"
        seen = []
        done = await copy(
            server.uri, path, verify=True, progress=lambda part, whole: seen.append((part, whole))
        )
        assert (done.size, done.transferred) == (3 << 20, 3 << 20)
        assert path.read_bytes() == server.export.read(0, 3 << 20)
        assert seen[-1] == (6 << 20, 6 << 20)
        assert [part for part, _ in seen] == sorted(part for part, _ in seen)
        await copy(path, other.uri, verify=True)
        assert bytes(other.export.read(0, 3 << 20)) == path.read_bytes()


async def test_a_copy_leaves_no_more_than_its_last_pieces_in_the_cache(tmp_path, monkeypatch):
    advised = []

    def advise(_descriptor, offset, length, advice):
        assert advice == os.POSIX_FADV_DONTNEED
        advised.append((offset, length))
        raise OSError(errno.EINVAL, "no advice is taken here")

    monkeypatch.setattr(os, "posix_fadvise", advise)
    piece = 1 << 20
    size = 20 * piece + 1
    async with open_server(size=size) as server:
        await copy(server.uri, tmp_path / "disk.img")
        assert (tmp_path / "disk.img").read_bytes() == bytes(server.export.read(0, size))
    # Each piece as it is written, and once more later, except for the last ones.
    assert sorted(set(advised)) == [(at, min(piece, size - at)) for at in range(0, size, piece)]
    assert len(advised) == 21 + 21 - 16


async def test_export_to_export_with_odd_size():
    async with (
        open_server(size=1_000_001, seed=1) as server,
        open_server(size=1_000_001, content="zeros", seed=1) as other,
    ):
        await copy(server.uri, other.uri, verify=True, in_flight=3)


async def test_holes_are_not_transferred(tmp_path):
    image = sparse_file(tmp_path / "image")
    with activated([require("nbdkit"), "-f", "file", image], tmp_path / "socket") as uri:
        target = tmp_path / "copy"
        done = await copy(uri, target, verify=True)
        assert target.read_bytes() == (tmp_path / "image").read_bytes()
        assert done.transferred < done.size // 2
        assert os.stat(target).st_blocks * 512 < done.size
        full = await copy(uri, target, sparse=False)
        assert full.transferred == full.size


async def test_holes_of_a_file_become_zeroes(tmp_path):
    image = sparse_file(tmp_path / "image")
    async with open_server(size="2MiB", seed=1) as server:
        done = await copy(image, server.uri, verify=True)
        assert done.transferred < done.size // 2
        assert bytes(server.export.read(0, 1 << 21)) == (tmp_path / "image").read_bytes()


async def test_a_failing_write_fails_the_copy(tmp_path):
    async with (
        open_server(size="4MiB", seed=1) as server,
        open_server(size="4MiB", seed=1) as other,
    ):
        other.on("write", nth=3).error("ENOSPC")
        with pytest.raises(CommandError, match="NBD_ENOSPC"):
            await copy(server.uri, other.uri)


async def test_wrong_data_is_found(tmp_path):
    async with open_server(size="2MiB", seed=1) as server:
        server.on("read", nth=1).corrupt(byte=-1, xor="ff")
        path = tmp_path / "copy"
        with pytest.raises(ClientError, match=r"the copy differs from the source at byte \d+: it"):
            await copy(server.uri, path, verify=True, in_flight=1)


async def test_a_copy_that_survives(tmp_path):
    async with open_server(size="4MiB", seed=1) as server:
        server.on("read", nth=2).close()
        path = tmp_path / "copy"
        await copy(server.uri, path, policy=RetryPolicy(pause=0))
        assert path.read_bytes() == server.export.read(0, 4 << 20)
    async with open_server(size="4MiB", seed=1) as server:
        server.on("read").close()
        with pytest.raises(ConnectionLostError):
            await copy(server.uri, path)


async def test_places_that_do_not_fit(tmp_path):
    async with (
        open_server(size="2MiB", seed=1) as server,
        open_server(size="1MiB", seed=1) as small,
    ):
        with pytest.raises(ClientError) as caught:
            await copy(server.uri, small.uri)
        assert str(caught.value) == (
            f"{small.uri} holds 1048576 bytes, fewer than the 2097152 of {server.uri}"
        )
        missing = tmp_path / "missing" / "image"
        with pytest.raises(ClientError) as caught:
            await copy(missing, server.uri)
        assert str(caught.value) == f"cannot open {missing}: No such file or directory"
        with pytest.raises(ClientError) as caught:
            await copy(server.uri, missing)
        assert str(caught.value) == f"cannot open {missing}: No such file or directory"


async def test_a_file_that_shrinks(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"x" * (3 << 20))
    async with open_server(size="3MiB", seed=1) as server:

        def shrink(part, whole):
            os.truncate(path, 1 << 20)

        with pytest.raises(ClientError) as caught:
            await copy(path, server.uri, in_flight=1, progress=shrink)
        assert str(caught.value) == f"cannot read {path}: it ends before byte 2097152"


# --- map ---------------------------------------------------------------------------------------


async def test_map_is_what_qemu_img_prints(tmp_path):
    image = sparse_file(tmp_path / "image")
    with activated([require("nbdkit"), "-f", "file", image], tmp_path / "socket") as uri:
        async with Client.connect(uri) as client:
            ours = qemu_json(await map_export(client))
        theirs = await peer("qemu-img", "map", "--output=json", "-f", "raw", uri)
        assert ours == theirs.decode()


async def test_map_merges_neighbours_and_forgets_bits_without_meaning():
    profile = Profile.of(
        size=4096,
        contexts={
            "base:allocation": [
                "512 data",
                "512 data",
                "1024 4",
                "2048 hole,zero",
            ]
        },
    )
    async with open_server(profile, seed=1) as server:
        async with Client.connect(server.uri) as client:
            runs = await map_export(client)
            assert runs == [Run(0, 1024, 0), Run(1024, 1024, 4), Run(2048, 2048, 3)]
            assert json.loads(qemu_json(runs)) == [
                {
                    "start": start,
                    "length": 2048,
                    "depth": 0,
                    "present": True,
                    "zero": zero,
                    "data": not zero,
                    "offset": start,
                }
                for start, zero in ((0, False), (2048, True))
            ]


# --- lists -------------------------------------------------------------------------------------


async def test_list_and_offers():
    profile = Profile.of(
        size="1MiB", name="disk", description="the first", block_size={"minimum": 512}
    )
    async with open_server(profile, seed=1) as server:
        assert await list_exports(server.uri) == (Listed("disk", "the first"),)
        ((listed, export_info),) = await list_export_infos(server.uri)
        assert listed == Listed("disk", "the first")
        assert isinstance(export_info, ExportInfo)
        assert (export_info.size, export_info.description) == (1 << 20, "the first")
        assert export_info.block_size == BlockSize(512, 4096, 1 << 25)
        assert export_info.contexts == ("base:allocation",)
        assert await describe_export(server.uri, export="disk") == export_info
        with pytest.raises(OptionRefusedError, match='does not open the export "other"'):
            await describe_export(server.uri, export="other")


async def test_contexts_that_are_listed_only_when_asked_for():
    async with open_server(find("quirks/context-list-leaves-some-out"), seed=1) as server:
        export_info = await describe_export(server.uri)
        assert export_info.contexts == ("base:allocation", "qemu:allocation-depth")


async def test_a_server_without_options_cannot_be_asked(tmp_path):
    command = [require("nbdkit"), "-f", "--mask-handshake=0", "memory", "1M"]
    with activated(command, tmp_path / "socket") as uri:
        with pytest.raises(OptionRefusedError) as caught:
            await list_exports(uri)
        assert str(caught.value) == (
            "the server knows no options, so it cannot be asked what it has"
        )


async def test_lists_of_others(tmp_path):
    image = sparse_file(tmp_path / "image")
    command = [require("qemu-nbd"), "--persistent", "-f", "raw", "-x", "disk", "-D", "mine", image]
    with activated(command, tmp_path / "socket") as uri:
        ((listed, export_info),) = await list_export_infos(uri)
        assert listed == Listed("disk", "mine")
        assert (export_info.size, export_info.description) == (1 << 21, "mine")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("nbd+unix:///?socket=/nowhere/socket", "No such file or directory"),
        ("nbd+vsock://4294967290/", None),
    ],
)
async def test_nothing_there(uri, message):
    with pytest.raises(ConnectionLostError) as caught:
        async with Client.connect(uri):
            raise AssertionError("there is no session")
    assert str(caught.value).startswith(f"cannot connect to {uri.rstrip('/')}")
    if message is not None:
        assert str(caught.value).endswith(message)


async def test_nobody_listens(unused_tcp_port_of_nobody):
    with pytest.raises(ConnectionLostError) as caught:
        async with Client.connect(f"nbd://127.0.0.1:{unused_tcp_port_of_nobody}/"):
            raise AssertionError("there is no session")
    assert str(caught.value) == (
        f"cannot connect to nbd://127.0.0.1:{unused_tcp_port_of_nobody}/: Connection refused"
    )


@pytest.fixture
def unused_tcp_port_of_nobody():
    """A port that is bound, so that nobody else gets it, but not listened on."""
    import socket

    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


async def test_no_answer_in_time(autojump_clock):
    class Silent:
        async def getaddrinfo(self, *_):
            await trio.sleep_forever()

    trio.socket.set_custom_hostname_resolver(Silent())
    try:
        with pytest.raises(ConnectionLostError) as caught:
            async with Client.connect("nbd://example.invalid/", timeout=5):
                raise AssertionError("there is no session")
    finally:
        trio.socket.set_custom_hostname_resolver(None)
    assert str(caught.value) == "cannot connect to nbd://example.invalid/: no answer within 5 s"
