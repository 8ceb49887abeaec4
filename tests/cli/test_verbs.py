"""Every verb as a user types it: its output in full, its exit status, and as a process once."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fakenbd import Server, open_server
from fakenbd import __version__ as fakenbd_version
from fakenbd.cli.options import ServerOptions
from fakenbd.cli.run import run
from fakenbd.journal import Closed, Header, Journal, JsonlSink, Received, Violated, load
from fakenbd.protocol.constants import Option
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import InfoQuery, OptionRequest, Request
from tests.conversation.talk import handshake
from tests.program import FAKENBD, fakenbd, process, started

NOTED = (
    "fakenbd: noted: the extent at 0 is 1000 bytes long, not a multiple of 512; "
    "taken as 512 bytes (S-209)\n"
    "fakenbd: noted: the extent at 512 is 488 bytes long, not a multiple of 512; "
    "taken as 512 bytes of data (S-209)\n"
)


def client(*arguments: str) -> list[str]:
    """The same program again, as the captive client."""
    return [*FAKENBD, *arguments]


def test_the_main_job() -> None:
    done = process("run", "quirks/qemu-odd-tail", "--", *client("map", "--json", "{uri}"))
    assert (
        done.stdout == '[{ "start": 0, "length": 1024, "depth": 0, "present": true, "zero": false, '
        '"data": true, "offset": 0}]\n'
    )
    assert done.stderr == NOTED
    assert done.returncode == 0


def test_a_strict_client_fails_as_before_the_workaround() -> None:
    done = fakenbd("run", "quirks/qemu-odd-tail", "--", *client("map", "--strict", "{uri}"))
    assert done.stdout == ""
    assert done.stderr == (
        "fakenbd: the extent at 0 is 1000 bytes long, not a multiple of 512 (S-209)\n"
    )
    assert done.returncode == 1


def test_a_map_for_people() -> None:
    done = fakenbd("run", "baseline/data-then-hole", "--", *client("map", "{uri}"))
    assert done.stdout == (
        "              0             512    0  data\n"
        "            512           65024    3  hole,zero\n"
    )
    assert (done.stderr, done.returncode) == ("", 0)


def test_info_for_programs() -> None:
    done = fakenbd("run", "baseline/read-only", "--", *client("info", "--json", "{uri}"))
    facts = json.loads(done.stdout)
    assert (done.stderr, done.returncode) == ("", 0)
    assert "NBD_FLAG_READ_ONLY" in facts["flags"]
    assert facts["style"] == "fixed"
    assert facts["contexts"] == ["base:allocation"]


def test_the_exit_status_is_the_client_s() -> None:
    assert fakenbd("run", "baseline/plain", "--", "sh", "-c", "exit 7").returncode == 7
    killed = fakenbd("run", "baseline/plain", "--", "sh", "-c", "kill -9 $$")
    assert killed.returncode == 128 + signal.SIGKILL


def test_the_client_finds_the_values_in_its_environment() -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    done = fakenbd(
        "run", "--unix", "-", "--seed", "7", "baseline/plain", "--", sys.executable, "-c", script
    )
    result = json.loads(done.stdout)
    assert result["NBD_URI"] == result["FAKENBD_URI"]
    assert result["NBD_URI"].startswith("nbd+unix:///?socket=")
    assert result["FAKENBD_SOCKET"].endswith("nbd.sock")
    assert not Path(result["FAKENBD_SOCKET"]).exists()
    assert result["FAKENBD_SEED"] == "7"
    assert result["FAKENBD_PROFILE"] == "baseline/plain"
    assert int(result["FAKENBD_SIZE"]) > 0
    assert len(result["FAKENBD_SHA256"]) == 64


def test_placeholders_are_replaced_once() -> None:
    echo = (sys.executable, "-c", "import sys; print(*sys.argv[1:])")
    words = ("{export}", "{seed}/{export}", "{{seed}}", "{nothing} {")
    serve = ("--seed", "7", "--export", "{seed}", "baseline/plain")
    done = fakenbd("run", *serve, "--", *echo, *words)
    assert (done.stdout, done.returncode) == ("{seed} 7/{seed} {7} {nothing} {\n", 0)


def test_a_fault_that_never_fired_is_reported() -> None:
    done = fakenbd("run", "reads/gap-before-done@first", "--", "true")
    assert done.returncode == 0
    assert done.stderr.startswith("fakenbd: fault '")
    assert "never fired" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (
            ("serve", "quirks/qemu-odd-tali"),
            2,
            "fakenbd: quirks/qemu-odd-tali: no such profile; the nearest is quirks/qemu-odd-tail\n",
        ),
        (
            ("serve", "--tcp", "127.0.0.1:99999"),
            3,
            "fakenbd: cannot listen on 127.0.0.1:99999: a port is a number from 0 to 65535\n",
        ),
        (
            ("serve", "--tcp", "[::1]:nbd"),
            3,
            "fakenbd: cannot listen on [::1]:nbd: a port is a number from 0 to 65535\n",
        ),
        (
            ("serve", "--tcp", "::1"),
            3,
            "fakenbd: cannot listen on ::1: expected HOST:PORT, an IPv6 address in brackets as in "
            "[::1]:0\n",
        ),
        (
            ("serve", "--unix", f"/{'x' * 107}"),
            3,
            f"fakenbd: cannot listen on /{'x' * 107}: the path of a Unix socket has at most "
            "107 bytes, this one has 108\n",
        ),
        (
            ("serve", "--unix", "no/such/folder"),
            3,
            "fakenbd: cannot listen on {cwd}/no/such/folder: No such file or directory\n",
        ),
        (
            ("serve", "--journal", "no/such/folder", "baseline/plain"),
            3,
            "fakenbd: cannot write no/such/folder: No such file or directory\n",
        ),
        (("run", "baseline/plain"), 2, "fakenbd: run: expected a client to run after --\n"),
        (
            ("run", "baseline/plain", "--", "no-such-program"),
            3,
            "fakenbd: cannot run no-such-program: No such file or directory\n",
        ),
        (("journal", "nothing"), 3, "fakenbd: cannot read nothing: No such file or directory\n"),
        (("profiles", "list", "nothing/*"), 5, "fakenbd: no profile is called nothing/*\n"),
        (
            ("map", "http://localhost/"),
            2,
            "fakenbd: 'http://localhost/' is not the URI of an NBD export: ",
        ),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments: tuple[str, ...], status: int, sentence: str, tmp_path: Path
) -> None:
    done = fakenbd(*arguments, cwd=tmp_path)
    assert done.stdout == ""
    assert done.stderr.startswith(sentence.replace("{cwd}", str(tmp_path)))
    assert done.stderr.count("\n") == 1
    assert done.returncode == status


def test_a_port_in_use_is_an_error_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fakenbd("serve", "--tcp", f"127.0.0.1:{port}")
    assert done.stderr == f"fakenbd: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert done.returncode == 3


def test_every_mistake_of_a_profile_is_listed(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('summary = 1\n[export]\nsize = "many"\nsise = 4\n')
    done = fakenbd("profiles", "validate", "bad.toml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == "0 of 1 valid\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("bad.toml: ") for line in lines)


def test_the_library_is_listed_and_shown() -> None:
    listed = process("profiles", "list", "quirks/*")
    assert listed.returncode == 0
    assert "quirks/qemu-odd-tail" in listed.stdout
    shown = fakenbd("profiles", "show", "quirks/qemu-odd-tail")
    assert shown.returncode == 0
    assert shown.stdout.startswith("quirks/qemu-odd-tail")
    assert "S-209" in shown.stdout
    rows = json.loads(fakenbd("profiles", "list", "--json", "quirks/qemu-odd-tail").stdout)
    assert rows[0]["rules"] == ["S-209"]


def test_the_whole_library_is_valid() -> None:
    done = fakenbd("profiles", "validate")
    assert done.stderr == ""
    assert done.stdout.endswith(" valid\n")
    assert done.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_announces_itself_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    ready, path = tmp_path / "ready", tmp_path / "nbd.sock"
    arguments = ("serve", "baseline/plain", "--unix", str(path), "--seed", "3")
    with started(
        *arguments, "--ready-file", str(ready), stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert json.loads(line) == {
            "uri": f"nbd+unix:///?socket={path}",
            "profile": "baseline/plain",
            "seed": 3,
            "pid": server.pid,
        }
        assert ready.read_text() == line
        assert path.exists()
        mapped = fakenbd("map", "--json", json.loads(line)["uri"])
        assert mapped.returncode == 0
        server.send_signal(number)
        assert server.wait(timeout=60) == 0
    assert not path.exists()


def test_all_profiles_at_once(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    arguments = ("serve", "--all", "--unix", str(tmp_path / "s"))
    with started(*arguments, stdout=pipe, stderr=pipe, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        uri = f"nbd+unix:///quirks/qemu-odd-tail?socket={tmp_path / 's'}"
        done = fakenbd("map", "--json", uri)
        server.terminate()
        _, result = server.communicate(timeout=60)
        assert server.returncode == 0
    assert done.stderr == NOTED
    assert done.returncode == 0
    words = " ".join(result.split())
    begin, names = words.split("`fakenbd serve ID` serves one alone: ")
    assert re.fullmatch(
        r"fakenbd: \d+ of \d+ profiles are left out, because an export name is not enough to "
        "select them; ",
        begin,
    )
    listed = names.split(", ")
    assert {"handshake/never-greets", "baseline/oldstyle"} <= set(listed)
    assert "quirks/qemu-odd-tail" not in listed


def test_a_journal_is_written_and_explained(tmp_path: Path) -> None:
    journal, capture = tmp_path / "j.jsonl", tmp_path / "c.pcapng"
    done = fakenbd(
        "run",
        "--journal",
        str(journal),
        "--pcap",
        str(capture),
        "quirks/qemu-odd-tail",
        "--",
        *client("map", "{uri}"),
    )
    assert done.returncode == 0
    assert capture.read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
    result = fakenbd("journal", str(journal))
    assert result.returncode == 0
    assert result.stdout.startswith("profile quirks/qemu-odd-tail, seed ")
    assert "C> NBD_OPT_GO" in result.stdout
    assert result.stdout.endswith("-- the client ended the connection: DISC\n")
    linked = fakenbd("journal", "--links", str(journal)).stdout
    assert re.search(r"^  \d\.\d{3}  #1 +\[1\] +@0 +<S greeting", linked, re.MULTILINE)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> list[Server]:
    """The servers that `fakenbd run` opens in this process, still there when it is over."""
    servers: list[Server] = []

    @asynccontextmanager
    async def remembering(*arguments: Any, **options: Any) -> AsyncIterator[Server]:
        async with open_server(*arguments, **options) as server:
            servers.append(server)
            yield server

    monkeypatch.setattr("fakenbd.cli.run.open_server", remembering)
    return servers


@pytest.mark.parametrize("limit", [100_000, 10])
def test_a_journal_on_disk_is_all_messages(
    limit: int, tmp_path: Path, remembered: list[Server]
) -> None:
    """As equal as the entries that memory still holds, and complete where it holds no more."""
    path = tmp_path / "j.jsonl"
    options = ServerOptions(journal=path, journal_limit=limit, seed=5)
    before = time.time()
    copying = client("copy", "{uri}", str(tmp_path / "copy"))
    status = run("reads/in-pieces@512", *copying, options=options)
    (server,) = remembered
    header, entries = load(path)
    assert status == 0
    assert (header.version, header.profile, header.seed) == (
        fakenbd_version,
        "reads/in-pieces@512",
        5,
    )
    assert header.began is not None
    assert before - 1 < header.began < time.time()
    assert [entry.index for entry in entries] == list(range(server.journal.next_index))
    assert len(server.journal) == min(limit, len(entries))
    assert entries[-len(server.journal) :] == server.journal.entries()
    assert isinstance(entries[-1], Closed)


LEAVES_AT_ONCE = """
import os, socket, sys
words = open(sys.argv[2], "rb").read()
clients = [socket.socket(socket.AF_UNIX) for _ in range(40)]
for client in clients:
    client.connect(sys.argv[1])
    client.sendall(words)
os._exit(0)
"""


def test_what_a_client_sends_last_is_recorded_though_it_is_gone(tmp_path: Path) -> None:
    path, words = tmp_path / "j.jsonl", tmp_path / "words"
    words.write_bytes(handshake() + encode(Request(1, 7, 512, 4096, payload=bytes(4096))))
    done = fakenbd(
        *("run", "--unix", "-", "--journal", str(path), "baseline/plain", "--"),
        *(sys.executable, "-c", LEAVES_AT_ONCE, "{socket}", str(words)),
    )
    _, entries = load(path)
    written = [e.connection for e in entries if isinstance(e, Received) and e.command == "write"]
    ended = [(e.connection, e.by) for e in entries if isinstance(e, Closed)]
    assert sorted(written) == list(range(1, 41))
    assert sorted(ended) == [(number, "client") for number in range(1, 41)]
    # Which of the two it is depends on what the server had time for before the request came;
    # neither where the end came while the reply to it was still owed.
    broken = [entry for entry in entries if isinstance(entry, Violated)]
    assert {entry.rule for entry in broken} <= {"C-110", "C-128"}
    connections = [entry.connection for entry in broken]
    assert len(set(connections)) == len(connections)
    assert done.stderr.count("fakenbd: the client broke ") == len(broken)


def test_a_connection_that_the_end_of_the_server_ends_is_recorded_to_the_last(
    tmp_path: Path,
) -> None:
    path, sock = tmp_path / "j.jsonl", tmp_path / "s"
    arguments = ("serve", "--unix", str(sock), "--journal", str(path))
    with started(*arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(sock))
            assert len(peer.recv(18, socket.MSG_WAITALL)) == 18
            server.terminate()
            assert server.wait(timeout=60) == 0
    _, entries = load(path)
    last = entries[-1]
    assert isinstance(last, Closed)
    assert (last.by, last.how) == ("server", "closed")


@pytest.mark.parametrize("option", ["--journal", "--pcap"])
def test_a_disk_that_is_full_is_one_sentence(option: str, tmp_path: Path) -> None:
    done = fakenbd("run", option, "/dev/full", "baseline/plain", "--", "true", cwd=tmp_path)
    assert done.stderr == "fakenbd: cannot write /dev/full: No space left on device\n"
    assert (done.stdout, done.returncode) == ("", 3)


HOSTILE = "red \x1b[31m and a bell \x07, \u202egnp.exe"


def on_a_terminal(*arguments: str) -> str:
    """What a program writes when its output is a terminal."""
    ours, theirs = os.openpty()
    with started(*arguments, stdout=theirs) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # so a terminal tells that nobody writes any more
            while part := os.read(ours, 1 << 16):
                shown += part
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return shown.decode().replace("\r\n", "\n")


def test_explained_in_colour_on_a_terminal_and_plainly_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(lambda: 0.0)
    detach = journal.attach(JsonlSink(path.open("wb"), Header("1", "some/profile", 7)))
    journal.connected(1, HOSTILE, "tcp")
    journal.received(1, OptionRequest(Option.GO, InfoQuery(HOSTILE)), 16, 0)
    journal.fired(1, "a fault", ["error"], 1, "a change")
    journal.violated(1, "C-14", "MUST", "a breach")
    detach()
    plain = fakenbd("journal", str(path)).stdout
    assert plain == (
        "profile some/profile, seed 7, 4 entries\n"
        "  0.000  #1  -- connected over tcp from red \\x1b[31m and a bell \\x07, \\u202egnp.exe\n"
        '  0.000  #1  C> NBD_OPT_GO export "red \\x1b[31m and a bell \\x07, \\u202egnp.exe"\n'
        "             ⚡ 'a fault' (1st): a change\n"
        "             ✗ C-14 MUST: a breach\n"
    )
    coloured = on_a_terminal("journal", str(path))
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == plain
    lead, colours = "\x1b[2m", ["\x1b[2m", "\x1b[36m", "\x1b[33;1m", "\x1b[31;1m"]
    lines = coloured.splitlines()[1:]
    assert all(line.startswith(lead) and line.endswith("\x1b[0m") for line in lines)
    assert [re.findall("\x1b\\[[0-9;]*m", line)[2] for line in lines] == colours
    assert fakenbd("journal", "--colour", str(path)).stdout == coloured
    assert on_a_terminal("journal", "--no-colour", str(path)) == plain


def test_the_server_ends_with_its_parent() -> None:
    script = (
        "import subprocess, sys, json\n"
        f"server = subprocess.Popen({[*FAKENBD, 'serve', '--exit-with-parent']!r}, "
        "stdout=subprocess.PIPE)\n"
        "print(json.loads(server.stdout.readline())['pid'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60
    )
    pid = int(done.stdout)
    # The parent is gone; the kernel has sent SIGTERM and the server needs but a moment.
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        readable, _, _ = select.select([handle], [], [], 60)
        assert readable, "the server outlived its parent"
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)
