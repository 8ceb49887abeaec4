from __future__ import annotations

import json
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import IO

import pytest

from fakenbd.errors import FakenbdError
from fakenbd.journal import Header, Journal, JsonlSink, Received, Sent, Totals, load
from fakenbd.journal.jsonl import entry_from_json, entry_to_json
from fakenbd.journal.transcript import transcript
from fakenbd.protocol.messages import Request
from tests.journal.conversation import millisecond_clock, received, recorded, sample, sent
from tests.journal.test_journal import fill
from tests.journal.test_transcript import MESSAGES, Words

HEADER = Header("0.1.0", "quirks/qemu-odd-tail", 7, 1.7e9)


def written(path: Path, *, whole: bool = False) -> Journal:
    journal = Journal(millisecond_clock())
    detach = journal.attach(JsonlSink(path.open("wb"), HEADER, whole))
    sample(journal)
    detach()
    return journal


@pytest.mark.parametrize("whole", [False, True])
def test_a_journal_loads_back_equal(tmp_path: Path, whole: bool) -> None:
    path = tmp_path / "journal.jsonl"
    journal = written(path, whole=whole)
    header, entries = load(path)
    assert header == HEADER
    assert entries == journal.entries()
    assert transcript(entries) == transcript(journal.entries())
    data = [entry.data for entry in entries if isinstance(entry, Received) and entry.payload]
    assert data == [b"hidden" if whole else None]


@pytest.mark.parametrize("case", MESSAGES, ids=lambda case: case.words)
def test_every_message_loads_back_equal(case: Words) -> None:
    journal = Journal(lambda: 0.0)
    if case.words.startswith("C>"):
        received(journal, 1, case.message)  # type: ignore[arg-type]
    else:
        sent(journal, 1, case.message)  # type: ignore[arg-type]
    line = json.dumps(entry_to_json(journal[0], whole=True))
    assert entry_from_json(json.loads(line)) == journal[0]


def test_lines_as_they_are() -> None:
    lines = [json.dumps(entry_to_json(entry)) for entry in recorded()]
    assert lines[23] == (
        '{"kind": "received", "index": 23, "time": 0.024, "connection": 1, "at": 173,'
        ' "name": "NBD_CMD_WRITE",'
        ' "message": {"is": "Request", "command": 1, "cookie": 9, "offset": 512, "length": 6,'
        ' "flags": 1}, "payload": {"length": 6, "digest": "e564b4081d7a9ea4"}}'
    )
    assert lines[18] == (
        '{"kind": "fired", "index": 18, "time": 0.019, "connection": 1,'
        ' "fault": "second read fails", "kinds": ["error"], "occurrence": 1,'
        ' "change": "error 0 -> NBD_EIO", "about": 16}'
    )
    assert lines[17] == (
        '{"kind": "sent", "index": 17, "time": 0.018, "connection": 1, "at": 247, "about": 16,'
        ' "message": {"is": "SimpleReply", "cookie": 7, "error": 5}}'
    )


def test_the_file_is_complete_though_the_ring_forgets(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(lambda: 0.0, limit=100, payload_limit=50_000)
    sink = JsonlSink(path.open("wb"))
    journal.attach(sink)
    fill(journal, 640)
    # Not closed: a server that is killed leaves what it wrote.
    _, entries = load(path)
    assert len(journal) <= 100
    assert len(entries) == 1280 == journal.next_index
    assert entries[-len(journal) :] == journal.entries()
    assert sum(isinstance(entry, Received) for entry in entries) == journal.totals.requests
    sink.close()


def test_half_a_last_line_is_left_by_a_server_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = written(path)
    path.write_bytes(path.read_bytes()[:-10])
    assert load(path)[1] == journal[:-1]


HEAD = '{"fakenbd-journal": 2}\n'
BROKEN = {
    "": "is no journal of fakenbd: its first line is no header",
    "\n": "is no journal of fakenbd: its first line is no header",
    "[]\n": "is no journal of fakenbd: its first line is no header",
    '{"version": "0.1.0"}\n': "is no journal of fakenbd: its first line is no header",
    '{"fakenbd-journal": 1}\n': "is a journal of format 1; this fakenbd reads format 2",
    HEAD + "nonsense\n": (
        "line 2 is no entry of a journal: Expecting value: line 1 column 1 (char 0)"
    ),
    HEAD + '{"kind": "seen"}\n': "line 2 is no entry of a journal: 'seen'",
    HEAD + '{"kind": "closed"}\n': (
        "line 2 is no entry of a journal: Closed.__init__() missing 5 required positional"
        " arguments: 'index', 'time', 'connection', 'by', and 'how'"
    ),
    HEAD + '{"kind": "received", "message": {"is": "Raw", "data": "x"}}\n': (
        "line 2 is no entry of a journal: non-hexadecimal number found in fromhex()"
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.items())
def test_what_is_no_journal_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(content)
    with pytest.raises(FakenbdError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_a_header_with_more_in_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"fakenbd-journal": 2, "seed": 3, "future": true}\n')
    assert load(path) == (Header(seed=3), [])


def full_disk() -> IO[bytes]:
    return open("/dev/full", "wb")


def test_a_full_disk_is_named() -> None:
    journal = Journal(lambda: 0.0)
    sink = JsonlSink(BytesIO())
    assert str(sink) == "the journal file"
    sink.stream = full_disk()
    journal.attach(sink)
    received(journal, 1, Request(2))
    assert sink.stream.closed
    assert transcript(journal[1:]) == (
        "  0.000    !! the journal file /dev/full is given up: No space left on device\n"
    )


def check_long(path: Path, requests: int) -> None:
    """The file holds every request though the ring does not, and says the same as the totals."""
    journal = Journal(millisecond_clock(), limit=1024, payload_limit=1 << 20)
    detach = journal.attach(JsonlSink(path.open("wb"), HEADER))
    fill(journal, requests)
    detach()
    _, entries = load(path)
    assert len(journal) == 1024
    assert entries[-1024:] == journal.entries()
    assert [entry.index for entry in entries] == list(range(2 * requests))
    received = [entry for entry in entries if isinstance(entry, Received)]
    sent = [entry for entry in entries if isinstance(entry, Sent)]
    assert journal.totals == Totals(
        commands=dict(Counter(entry.command for entry in received if entry.command)),
        received=len(received),
        sent=len(sent),
        bytes_received=len(received) * 28,
        bytes_sent=sum(16 + (entry.length or 0) for entry in sent),
    )


def test_a_long_journal_adds_up(tmp_path: Path) -> None:
    check_long(tmp_path / "journal.jsonl", 6400)


@pytest.mark.soak
def test_a_journal_of_a_million_requests_adds_up(tmp_path: Path) -> None:
    check_long(tmp_path / "journal.jsonl", 1_000_000)
