"""Programs that others wrote, as clients of the correct server: what they read, write and tell.

Each runs over TCP and over a Unix socket, with simple and with structured replies. Whatever passes
is checked against the export. The rules that they really break are listed in `KNOWN`; there may
be no other violation.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from fakenbd import background_server
from fakenbd.conversation import Handshake
from fakenbd.journal import Received, Violated
from fakenbd.server import BackgroundServer
from tests.peers import require

SIZE = 1 << 20
CONTENT = random.Random(1).randbytes(SIZE // 4)

KNOWN = {
    "fio": {"C-128"},  # closes the socket without NBD_CMD_DISC
    "qemu-img convert -n": {"C-88"},  # writes whole sectors, past the end of an odd-sized export
}

TRANSPORTS: dict[str, dict[str, Any]] = {"tcp": {}, "unix": {"unix": "-"}}


@attrs.frozen
class Stage:
    """A server that holds a quarter of data, then nothing, and a folder for the clients' files."""

    server: BackgroundServer
    folder: Path
    structured: bool

    @property
    def uri(self) -> str:
        return self.server.uri

    def run(self, program: str, *arguments: str, status: int = 0, text: str | None = None) -> str:
        """What a program prints; it ends with `status`."""
        # Python programs find the libraries of the system's Python, not of the tests'.
        path = f"/usr/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [require(program), *arguments],
            input=text,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=self.folder,
            env=os.environ | {"PATH": path},
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout

    def content(self) -> bytes:
        return bytes(self.server.export.read(0, SIZE))

    def commands(self) -> set[str]:
        return set(self.server.journal.totals.commands)

    def violations(self) -> set[str]:
        self.server.settle()
        assert self.server.errors == []
        return {entry.rule for entry in self.server.journal if isinstance(entry, Violated)}


@pytest.fixture(params=["simple", "structured"])
def replies(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "structured")


@pytest.fixture(params=TRANSPORTS)
def stage(request: pytest.FixtureRequest, replies: bool, tmp_path: Path) -> Iterator[Stage]:
    handshake = Handshake(structured_replies=replies, extended_headers=replies)
    options = {"size": SIZE, "content": CONTENT, "description": "a quarter of data"}
    transport = TRANSPORTS[request.param]
    with background_server(handshake=handshake, **transport, **options) as server:
        yield Stage(server, tmp_path, replies)


def runs(stage: Stage) -> list[tuple[int, int, bool]]:
    """The true extents: where each begins, how long it is, whether it is a hole."""
    if not stage.structured:
        return [(0, SIZE, False)]
    return [(0, SIZE // 4, False), (SIZE // 4, SIZE - SIZE // 4, True)]


# --- QEMU ---------------------------------------------------------------------------------------


def test_qemu_img_info(stage: Stage) -> None:
    printed = json.loads(stage.run("qemu-img", "info", "--output=json", "-f", "raw", stage.uri))
    assert (printed["virtual-size"], printed["format"]) == (SIZE, "raw")
    assert stage.violations() == set()


def test_qemu_img_map(stage: Stage) -> None:
    printed = json.loads(stage.run("qemu-img", "map", "--output=json", "-f", "raw", stage.uri))
    assert [(run["start"], run["length"], not run["data"]) for run in printed] == runs(stage)
    assert [run["zero"] for run in printed] == [hole for _, _, hole in runs(stage)]
    assert stage.violations() == set()


def test_qemu_img_convert_from(stage: Stage) -> None:
    stage.run("qemu-img", "convert", "-f", "raw", "-O", "raw", stage.uri, "copy")
    assert (stage.folder / "copy").read_bytes() == stage.content()
    assert stage.violations() == set()


def test_qemu_img_convert_to(stage: Stage) -> None:
    data = random.Random(2).randbytes(SIZE // 2) + bytes(SIZE // 2)
    (stage.folder / "image").write_bytes(data)
    stage.run("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "image", stage.uri)
    assert stage.content() == data
    assert {"write", "write-zeroes", "flush"} <= stage.commands()
    assert stage.violations() == set()


def test_qemu_img_convert_to_an_odd_size(replies: bool, tmp_path: Path) -> None:
    handshake = Handshake(structured_replies=replies, extended_headers=replies)
    with background_server(handshake=handshake, size=1000) as server:
        stage = Stage(server, tmp_path, replies)
        (tmp_path / "image").write_bytes(random.Random(2).randbytes(1000))
        stage.run(
            "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", "image", stage.uri, status=1
        )
        assert stage.violations() == KNOWN["qemu-img convert -n"]


def test_qemu_img_compare(stage: Stage) -> None:
    command = ("compare", "-f", "raw", "-F", "raw", "image", stage.uri)
    (stage.folder / "image").write_bytes(stage.content())
    assert stage.run("qemu-img", *command) == "Images are identical.\n"
    stage.server.export.write(70_000, b"!")
    printed = stage.run("qemu-img", *command, status=1)
    assert printed == "Content mismatch at offset 69632!\n"
    assert stage.violations() == set()


def test_qemu_io(stage: Stage) -> None:
    commands = [
        "write -P 0x5a 4096 16384",
        "read -P 0x5a 4096 16384",
        "write -z 8192 4096",
        "read -P 0 8192 4096",
        "discard 12288 4096",
        "write -f -P 0x77 512 1024",
        "flush",
        "read -P 0x77 512 1024",
        "read -P 0x5a 16384 4096",
    ]
    arguments = [word for each in commands for word in ("-c", each)]
    expected = bytearray(stage.content())
    printed = stage.run("qemu-io", "-f", "raw", *arguments, stage.uri)
    assert "failed" not in printed
    expected[4096:20480] = b"\x5a" * 16384
    expected[8192:16384] = bytes(8192)
    expected[512:1536] = b"\x77" * 1024
    assert stage.content() == expected
    assert {"read", "write", "write-zeroes", "trim", "flush"} <= stage.commands()
    flags = {
        each.command: each.flags for each in stage.server.journal if isinstance(each, Received)
    }
    assert flags["trim"] == 0
    assert stage.violations() == set()


def test_qemu_io_finds_what_differs(stage: Stage) -> None:
    printed = stage.run("qemu-io", "-f", "raw", "-c", "read -P 1 0 512", stage.uri, status=1)
    assert "Pattern verification failed at offset 0, 512 bytes" in printed


# --- libnbd -------------------------------------------------------------------------------------


def test_nbdinfo(stage: Stage) -> None:
    printed = stage.run("nbdinfo", stage.uri)
    protocol = "newstyle-fixed without TLS, using %s packets"
    assert protocol % ("structured" if stage.structured else "simple") in printed
    assert f"export-size: {SIZE} (1M)" in printed
    assert "block_size_minimum: 1" in printed
    assert "can_fua: true" in printed
    assert "is_read_only: false" in printed
    assert ("base:allocation" in printed) == stage.structured
    assert stage.violations() == set()


def test_nbdinfo_json(stage: Stage) -> None:
    printed = json.loads(stage.run("nbdinfo", "--json", stage.uri))
    (export,) = printed["exports"]
    assert printed["structured"] == stage.structured
    assert export["export-size"] == SIZE
    assert export["description"] == "a quarter of data"
    assert export.get("contexts", []) == (["base:allocation"] if stage.structured else [])
    assert (export["can_df"], export["can_cache"]) == (stage.structured, True)
    assert stage.violations() == set()


def test_nbdinfo_list(stage: Stage) -> None:
    printed = json.loads(stage.run("nbdinfo", "--list", "--json", stage.uri))
    assert [each["export-name"] for each in printed["exports"]] == [""]
    assert stage.violations() == set()


def test_nbdinfo_map(stage: Stage) -> None:
    if not stage.structured:
        stage.run("nbdinfo", "--map", stage.uri, status=1)
        return
    printed = json.loads(stage.run("nbdinfo", "--map", "--json", stage.uri))
    assert [(run["offset"], run["length"], run["type"]) for run in printed] == [
        (start, length, 3 * hole) for start, length, hole in runs(stage)
    ]
    assert stage.violations() == set()


def test_nbdcopy_from(stage: Stage) -> None:
    stage.run("nbdcopy", stage.uri, "copy")
    assert (stage.folder / "copy").read_bytes() == stage.content()
    assert stage.server.journal.totals.connections > 1
    assert stage.violations() == set()


def test_nbdcopy_to(stage: Stage) -> None:
    data = random.Random(3).randbytes(SIZE // 2) + bytes(SIZE // 2)
    (stage.folder / "image").write_bytes(data)
    stage.run("nbdcopy", "--flush", "image", stage.uri)
    assert stage.content() == data
    assert {"write", "write-zeroes", "flush"} <= stage.commands()
    assert stage.violations() == set()


NBDSH = """
buffers, order = {}, []
for place in range(8):
    buffers[place] = nbd.Buffer(4096)
    h.aio_pread(buffers[place], place * 65536, lambda _, place=place: order.append(place) or 1)
while len(order) < 8:
    h.poll(-1)
print(order)
print([sum(buffers[place].to_bytearray()) for place in range(8)])
h.shutdown()
"""


def test_nbdsh_hears_answers_out_of_order(stage: Stage) -> None:
    stage.server.on("read", offset=0).hold(7, idle=60)
    stage.server.on("read", offset=65536).hold(5, idle=60)
    printed = stage.run("nbdsh", "--uri", stage.uri, "-c", "-", text=NBDSH)
    order, sums = map(json.loads, printed.splitlines())
    assert order == [2, 3, 4, 5, 6, 1, 7, 0]
    content = stage.content()
    assert sums == [sum(content[start : start + 4096]) for start in range(0, 8 << 16, 1 << 16)]
    assert stage.violations() == set()


# --- others -------------------------------------------------------------------------------------


def test_fio(stage: Stage) -> None:
    printed = stage.run(
        "fio",
        "--name=job",
        "--ioengine=nbd",
        f"--uri={stage.uri}",
        "--rw=randrw",
        "--bs=4k",
        f"--size={SIZE}",
        "--iodepth=16",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--output-format=json",
    )
    (job,) = json.loads(printed[printed.index("{") :])["jobs"]
    assert job["error"] == 0
    totals = stage.server.journal.totals.commands
    # What was written is read once more to verify it.
    assert totals["write"] > 0
    assert totals["read"] == SIZE // 4096
    assert stage.violations() == KNOWN["fio"]


def test_nbd_client_list(tmp_path: Path) -> None:
    exports = [{"name": "one"}, {"name": "two", "description": "the second"}]
    with background_server(exports=exports) as server:
        stage = Stage(server, tmp_path, structured=True)
        printed = stage.run("nbd-client", "-l", "127.0.0.1", str(server.port))
        assert printed == "Negotiation: ..\none\ntwo: the second\n"
        assert stage.violations() == set()
