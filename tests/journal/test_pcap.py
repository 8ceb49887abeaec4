from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import attrs
import pytest

from fakenbd.journal import Journal, PcapSink
from fakenbd.journal.tcp import addresses
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Raw, Request, SimpleReply
from tests.journal.conversation import millisecond_clock, received, sample, sent
from tests.peers import require

CHECKED = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]


def tshark(path: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [require("tshark"), "-r", str(path), *CHECKED, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def fields(path: Path, *names: str, select: str = "") -> list[tuple[str, ...]]:
    wanted = [argument for name in names for argument in ("-e", name)]
    lines = tshark(path, "-T", "fields", "-Y", select or "tcp", *wanted)
    return [tuple(line.split("\t")) for line in lines]


def healthy(path: Path) -> None:
    """No checksum is wrong, no segment lost, repeated or out of order, nothing malformed."""
    wrong = (
        "_ws.malformed || tcp.analysis.flags || tcp.checksum.status == 0 || ip.checksum.status == 0"
    )
    suspicious = fields(path, "frame.number", "tcp.analysis.flags", select=f"({wrong})")
    assert suspicious == []


@attrs.frozen
class Capture:
    path: Path
    journal: Journal


@pytest.fixture
def capture(tmp_path: Path) -> Iterator[Capture]:
    path = tmp_path / "capture.pcapng"
    journal = Journal(millisecond_clock())
    detach = journal.attach(PcapSink(path.open("wb"), 1_700_000_000.0))
    yield Capture(path, journal)
    detach()


def test_wireshark_reads_a_session_as_nbd(capture: Capture) -> None:
    path, journal = capture.path, capture.journal
    journal.connected(1, "127.0.0.1:41873", "tcp", "127.0.0.1:4711")
    received(journal, 1, Request(0, 7, 4096, 512))
    sent(journal, 1, SimpleReply(7, 0, bytes(512)))
    received(journal, 1, Request(1, 8, 512, 6, payload=b"hidden"))
    sent(journal, 1, SimpleReply(8, 28))
    raw = b"".join(encode(Request(0, cookie, cookie * 512, 100_000)) for cookie in range(3))
    buffers = [part for n in range(3) for part in (encode(SimpleReply(n)), bytes(100_000))]
    sizes = {"received": len(raw), "sent": sum(map(len, buffers))}
    journal.plain_batch(1, raw, 3, (), buffers, extended=False, structured=False, **sizes)
    received(journal, 1, Request(2, 9))
    journal.closed(1, "client", "DISC")
    healthy(path)
    requests = fields(
        path, "nbd.type", "nbd.handle", "nbd.from", "nbd.len", select="nbd.magic == 0x25609513"
    )
    assert requests == [
        ("0", "0x0000000000000007", "0x0000000000001000", "512"),
        ("1", "0x0000000000000008", "0x0000000000000200", "6"),
        (
            "0,0,0",
            "0x0000000000000000,0x0000000000000001,0x0000000000000002",
            "0x0000000000000000,0x0000000000000200,0x0000000000000400",
            "100000,100000,100000",
        ),
        ("2", "0x0000000000000009", "0x0000000000000000", "0"),
    ]
    replies = fields(path, "nbd.handle", "nbd.error", select="nbd.magic == 0x67446698")
    assert [
        one for reply in replies for one in zip(*(x.split(",") for x in reply), strict=True)
    ] == [
        ("0x0000000000000007", "0"),
        ("0x0000000000000008", "28"),
        ("0x0000000000000000", "0"),
        ("0x0000000000000001", "0"),
        ("0x0000000000000002", "0"),
    ]
    assert fields(path, "ip.src", "tcp.srcport", "ip.dst", "tcp.dstport", "frame.time_epoch")[
        0
    ] == (
        "127.0.0.1",
        "41873",
        "127.0.0.1",
        "4711",
        "1700000000.001000000",
    )


def test_each_connection_is_a_conversation_of_its_own(capture: Capture) -> None:
    path, journal = capture.path, capture.journal
    sample(journal)
    streams = fields(path, "tcp.stream", "tcp.flags.str", "ip.src", select="tcp.len == 0")
    assert streams == [
        ("0", "··········S·", "127.0.0.1"),
        ("0", "·······A··S·", "127.0.0.1"),
        ("0", "·······A····", "127.0.0.1"),
        ("1", "··········S·", "192.0.2.1"),
        ("1", "·······A··S·", "192.0.2.2"),
        ("1", "·······A····", "192.0.2.1"),
        ("0", "·······A···F", "127.0.0.1"),
        ("0", "·······A···F", "127.0.0.1"),
        ("0", "·······A····", "127.0.0.1"),
        ("1", "·······A·R··", "192.0.2.2"),
    ]
    followed = "".join(tshark(path, "-q", "-z", "follow,tcp,raw,0"))
    received = b"".join(
        encode(entry.whole)
        for entry in journal
        if entry.kind in ("received", "sent") and entry.connection == 1
    ).hex()
    assert len(received) > 2000
    assert received in followed.replace("\t", "").replace("\n", "")
    healthy(path)


def test_firings_and_violations_are_comments(capture: Capture) -> None:
    sample(capture.journal)
    assert fields(capture.path, "frame.comment", select="frame.comment") == [
        ("✗ C-14 MUST: NBD_OPT_LIST came with data (about entry 8)",),
        ("⚡ 'second read fails' (1st): error 0 -> NBD_EIO (about entry 16)",),
        (
            "⚡ 'odd tail' (12th): extents (about entry 25),"
            "✗ C-89 SHOULD: the range was asked for twice (about entry 20)",
        ),
    ]


def test_megabytes_and_ipv6(capture: Capture) -> None:
    path, journal = capture.path, capture.journal
    journal.connected(1, "[::1]:41873", "tcp", "[::1]:10809")
    for _ in range(40):
        sent(journal, 1, Raw(bytes(range(256)) * 513))
    journal.closed(1, "server", "EOF")
    journal.closed(1, "client", "EOF")
    healthy(path)
    lengths = fields(path, "tcp.len", select="tcp.len > 0 && ipv6.src == ::1")
    assert sum(int(length) for (length,) in lengths) == 40 * 256 * 513
    assert len(fields(path, "frame.number", select="tcp.flags.fin == 1")) == 2


def test_what_was_cut_is_captured_cut(capture: Capture) -> None:
    path, journal = capture.path, capture.journal
    journal.sent(4, SimpleReply(7, 0, bytes(512)), 3, 0, wire=[b"cut"])
    assert fields(path, "tcp.payload", select="tcp.len > 0") == [("637574",)]


ADDRESSES = {
    ("127.0.0.1:5", "127.0.0.2:6"): "127.0.0.1:5 127.0.0.2:6",
    ("", ""): "192.0.2.1:32775 192.0.2.2:10809",
    ("/run/socket", "@abstract:5"): "192.0.2.1:32775 192.0.2.2:10809",
    ("127.0.0.1:5", ""): "127.0.0.1:5 192.0.2.2:10809",
    ("[fe80::1%eth0]:5", ""): "fe80::1:5 2001:db8::2:10809",
    ("127.0.0.1:5", "[::1]:6"): "192.0.2.1:32775 192.0.2.2:10809",
    ("localhost:5", "localhost:6"): "192.0.2.1:32775 192.0.2.2:10809",
}


@pytest.mark.parametrize(("given", "shown"), ADDRESSES.items())
def test_addresses(given: tuple[str, str], shown: str) -> None:
    ends = addresses(7, *given)
    assert " ".join(f"{host}:{port}" for host, port in (ends["client"], ends["server"])) == shown


def test_the_file_has_a_name() -> None:
    assert str(PcapSink(BytesIO())) == "the capture file"
