"""The client on servers that others wrote: size, content and map as their own tools see them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess

import pytest
import trio

from fakenbd.client import Client
from fakenbd.protocol.constants import TransmissionFlag
from tests.peers import require

pytestmark = pytest.mark.trio


@contextlib.contextmanager
def activated(command, path):
    """A server started by socket activation: it can be connected to at once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = subprocess.Popen(
            ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", *command],
            stdin=subprocess.DEVNULL,
            preexec_fn=lambda: os.dup2(listener.fileno(), 3),
            pass_fds=(3,),
        )
    try:
        yield f"nbd+unix:///?socket={path}"
    finally:
        server.terminate()
        server.wait()


def sparse_file(path):
    """Data, a hole, data, a hole: 2 MiB."""
    with path.open("wb") as file:
        file.write(random.Random(1).randbytes(1 << 16))
        file.seek(1 << 20)
        file.write(random.Random(2).randbytes(1 << 17))
        file.truncate(1 << 21)
    return str(path)


def odd_file(path):
    path.write_bytes(random.Random(3).randbytes(1000))
    return str(path)


def qcow2_file(path):
    raw = sparse_file(path.with_suffix(".raw"))
    subprocess.run([require("qemu-img"), "convert", "-O", "qcow2", raw, path], check=True)
    return str(path)


QEMU = ("qemu-nbd", "--persistent", "--shared=8")

# the command, the file that it is given, and what is special
SERVERS = {
    "qemu-nbd, raw": ((*QEMU, "-f", "raw"), sparse_file, {}),
    "qemu-nbd, probed": (QEMU, sparse_file, {}),
    "qemu-nbd, raw, odd size": ((*QEMU, "-f", "raw"), odd_file, {}),
    "qemu-nbd, probed, odd size": (QEMU, odd_file, {"rules": {"S-209"}}),
    "qemu-nbd, qcow2": ((*QEMU, "-f", "qcow2"), qcow2_file, {}),
    "nbdkit memory": (("nbdkit", "-f", "memory", "3M"), None, {}),
    "nbdkit pattern": (("nbdkit", "-f", "pattern", "3M"), None, {}),
    "nbdkit pattern, odd size": (("nbdkit", "-f", "pattern", "1000001"), None, {}),
    "nbdkit sparse-random": (("nbdkit", "-f", "sparse-random", "4M", "seed=7"), None, {}),
    "nbdkit file": (("nbdkit", "-f", "file"), sparse_file, {}),
    "nbdkit, blocks of 64 KiB": (
        (
            "nbdkit",
            "-f",
            "--filter=blocksize-policy",
            "pattern",
            "3M",
            "blocksize-error-policy=error",
            "blocksize-minimum=65536",
            "blocksize-preferred=65536",
            "blocksize-maximum=131072",
        ),
        None,
        {},
    ),
    "nbdkit without structured replies": (
        ("nbdkit", "-f", "--no-sr", "pattern", "3M"),
        None,
        {"structured": False},
    ),
    "nbdkit, oldstyle": (
        ("nbdkit", "-f", "--oldstyle", "pattern", "3M"),
        None,
        {"structured": False, "style": "oldstyle"},
    ),
    "nbdkit, newstyle without options": (
        ("nbdkit", "-f", "--mask-handshake=0", "pattern", "3M"),
        None,
        {"structured": False, "style": "newstyle"},
    ),
    "nbdkit, zeroes behind EXPORT_NAME": (
        ("nbdkit", "-f", "--mask-handshake=1", "pattern", "3M"),
        None,
        {},
    ),
}


async def peer(*command):
    done = await trio.run_process(
        [require(command[0]), *map(str, command[1:])], capture_stdout=True
    )
    return done.stdout


async def copied(uri, path, size):
    """The content as qemu-img reads it; it rounds odd sizes up."""
    await peer("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, path)
    return path.read_bytes()[:size]


def merged(extents):
    """Runs of equal flags: [start, length, flags]."""
    runs = []
    for start, length, flags in extents:
        if runs and runs[-1][2] == flags:
            runs[-1][1] += length
        else:
            runs.append([start, length, flags])
    return runs


@pytest.mark.parametrize(("command", "file", "special"), SERVERS.values(), ids=SERVERS)
async def test_server(command, file, special, tmp_path):
    arguments = [require(command[0]), *command[1:]]
    if file is not None:
        arguments.append(file(tmp_path / "image"))
    structured = special.get("structured", True)
    with activated(arguments, tmp_path / "socket") as uri:
        async with Client.connect(uri) as client:
            assert client.style == special.get("style", "fixed")
            assert client.structured == structured
            extents, start = [], 0
            if structured:
                async for length, flags in client.block_status(0, client.size):
                    extents.append((start, length, flags))
                    start += length
                assert start == client.size
            assert client.size == int(await peer("nbdinfo", "--size", uri))
            whole = await client.read(0, client.size)
            assert whole == await copied(uri, tmp_path / "copy", client.size)
            for place, length in ((1, 1), (511, 2), (4095, 10_000), (client.size - 3, 3)):
                if place + length <= client.size:
                    assert await client.read(place, length) == whole[place : place + length]
            assert {note.rule for note in client.notes} == special.get("rules", set())
        if structured:
            shown = json.loads(await peer("nbdinfo", "--map", "--json", uri))
            theirs = merged((run["offset"], run["length"], run["type"]) for run in shown)
            if not special.get("rules"):
                assert merged(extents) == theirs
            shown = json.loads(await peer("qemu-img", "map", "--output=json", "-f", "raw", uri))
            assert merged((place, length, flags & 3) for place, length, flags in extents) == merged(
                (
                    run["start"],
                    min(run["length"], client.size - run["start"]),
                    2 * run["zero"] + (not run["data"]),
                )
                for run in shown
                if run["start"] < client.size
            )


WRITERS = {
    "qemu-nbd": ((*QEMU, "-f", "raw"), sparse_file),
    "nbdkit memory": (("nbdkit", "-f", "memory", "2M"), None),
    "nbdkit, blocks of 64 KiB": (
        (
            "nbdkit",
            "-f",
            "--filter=blocksize-policy",
            "memory",
            "2M",
            "blocksize-error-policy=error",
            "blocksize-minimum=65536",
            "blocksize-preferred=65536",
            "blocksize-maximum=131072",
        ),
        None,
    ),
    "nbdkit without structured replies": (("nbdkit", "-f", "--no-sr", "memory", "2M"), None),
}


@pytest.mark.parametrize(("command", "file"), WRITERS.values(), ids=WRITERS)
async def test_writing(command, file, tmp_path):
    arguments = [require(command[0]), *command[1:]]
    if file is not None:
        arguments.append(file(tmp_path / "image"))
    chance = random.Random(4)
    with activated(arguments, tmp_path / "socket") as uri:
        async with Client.connect(uri) as client:
            expected = bytearray(await client.read(0, client.size))
            for number in range(60):
                place = chance.randrange(client.size)
                length = min(chance.choice([1, 511, 512, 5000, 300_000]), client.size - place)
                data = chance.randbytes(length)
                if number % 3:
                    await client.write(place, data, fua=number % 2 == 0)
                    expected[place : place + length] = data
                else:
                    await client.zero(place, length, hole=number % 2 == 0)
                    expected[place : place + length] = bytes(length)
            if client.offers(TransmissionFlag.SEND_TRIM):
                await client.trim(0, 1 << 17)
                await client.write(0, bytes(1 << 17))
                expected[: 1 << 17] = bytes(1 << 17)
            await client.flush()
            assert await client.read(0, client.size) == expected
            assert client.notes == []
        assert await copied(uri, tmp_path / "copy", len(expected)) == expected


async def test_nbd_server(tmp_path):
    """nbd-server serves the socket that it finds as its standard input."""
    path = sparse_file(tmp_path / "image")
    configuration = tmp_path / "configuration"
    configuration.write_text(f"[generic]\n[disk]\nexportname = {path}\nflush = true\n")
    ours, theirs = socket.socketpair()
    with theirs:
        server = await trio.lowlevel.open_process(
            [require("nbd-server"), "0", "-d", "-C", configuration], stdin=theirs.fileno()
        )
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(ours))
    async with Client.connect(stream, export="disk") as client:
        data = (tmp_path / "image").read_bytes()
        assert client.size == len(data)
        assert await client.read(0, client.size) == data
        await client.write(12345, b"hello")
        await client.flush()
    await server.wait()
    assert (tmp_path / "image").read_bytes()[12345:12350] == b"hello"
