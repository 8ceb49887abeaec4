"""A dozen profiles of each folder against installed clients: whatever they do, the harness lives.

Some of these clients cope, some fail, a few hang or crash. None of that is judged here: what counts
is that each one comes to an end that we noticed and can name, in bounded time, that the server
knows how each of its connections ended, and that nothing of its own went wrong.
"""

from __future__ import annotations

import json
import signal

import pytest

from fakenbd import background_server
from fakenbd.check.process import Limits, run
from fakenbd.journal import Closed, Connected
from fakenbd.journal.transcript import transcript
from fakenbd.profile import find, library
from tests.peers import require

LIMITS = Limits(seconds=1)
DOZEN = 12
LARGE = 1 << 26
"""Exports above are only looked at: reading them whole would take for ever."""

CLIENTS = {
    "nbdinfo": ["nbdinfo", "--map", "{uri}"],
    "nbdcopy": ["nbdcopy", "{uri}", "null:"],
    "qemu-img": ["qemu-img", "map", "-f", "raw", "--output=json", "{uri}"],
    "qemu-io": [
        *("qemu-io", "-f", "raw", "-c", "read 0 4k", "-c", "write -P 7 0 4k"),
        *("-c", "write -z 4k 4k", "-c", "discard 0 4k", "-c", "flush", "{uri}"),
    ],
}


def chosen() -> list[str]:
    """A member of each of a dozen files a folder, evenly spread; none that needs certificates."""
    first_of: dict[str, dict[str, str]] = {}
    for profile_id in library():
        name = profile_id.partition("@")[0]
        if find(profile_id).handshake.tls == "off":
            first_of.setdefault(name.partition("/")[0], {}).setdefault(name, profile_id)
    return [
        profile_id
        for by_name in first_of.values()
        for profile_id in spread(list(by_name.values()), DOZEN)
    ]


def spread(ids: list[str], most: int) -> list[str]:
    """So many of the ids, at even distances; all, where there are fewer."""
    count = min(most, len(ids))
    return [ids[index * len(ids) // count] for index in range(count)]


def how_it_ended(done) -> str:
    """The end of a client in one phrase; exactly one of the three must be known."""
    ends = {
        "status": done.status is not None,
        "signal": done.signal is not None,
        "stopped": bool(done.stopped),
    }
    assert sum(ends.values()) == 1, ends
    if done.status is not None:
        return f"status {done.status}"
    if done.signal is not None:
        return f"killed by {signal.Signals(done.signal).name}"
    return done.stop_reason


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("profile_id", chosen())
def test_whatever_a_client_does_the_harness_lives(profile_id, client, tmp_path):
    program = require(CLIENTS[client][0])
    profile = find(profile_id)
    with background_server(profile, seed=1) as server:
        if client == "nbdcopy" and server.export.size > LARGE:
            command = [require("nbdinfo"), server.uri]
        else:
            command = [program, *(word.format(uri=server.uri) for word in CLIENTS[client][1:])]
        done = run(command, tmp_path, LIMITS)
    assert how_it_ended(done)
    assert server.errors == [], transcript(server.journal)
    connected = {entry.connection for entry in server.journal if isinstance(entry, Connected)}
    ended = {entry.connection for entry in server.journal if isinstance(entry, Closed)}
    assert connected <= ended, transcript(server.journal)


def test_a_client_that_hangs_is_noticed_and_killed(tmp_path):
    with background_server(find("handshake/never-greets")) as server:
        done = run([require("nbdinfo"), server.uri], tmp_path, Limits(seconds=0.5))
    assert how_it_ended(done) == "it was still running after 0.5 s"


# --- faults that clients detect ----------------------------------------------------------------


def mapped(profile_id, tmp_path):
    """What qemu-img makes of the map of a profile: start, length, zero and data of each run."""
    with background_server(find(profile_id)) as server:
        command = [require("qemu-img"), "map", "-f", "raw", "--output=json", server.uri]
        done = run(command, tmp_path, Limits(seconds=60))
    assert done.status == 0, done.errors
    return [
        (run["start"], run["length"], run["zero"], run["data"]) for run in json.loads(done.output)
    ]


@pytest.mark.parametrize(
    ("profile_id", "runs"),
    [
        ("quirks/qemu-odd-tail", [(0, 1024, False, True)]),
        ("extents/equal-neighbours", [(0, 65536, False, True)]),
        ("extents/a-sector-at-a-time", [(0, 65536, False, True)]),
        (
            "extents/unaligned@hole-in-mid-block",
            [(0, 1024, False, True), (1024, 64512, True, False)],
        ),
    ],
)
def test_an_installed_client_maps_what_the_extents_say(profile_id, runs, tmp_path):
    assert mapped(profile_id, tmp_path) == runs


@pytest.mark.parametrize("address", [{"tcp": "127.0.0.1"}, {"unix": "-"}], ids=["tcp", "unix"])
def test_a_write_that_was_taken_and_not_answered_is_sent_again(address, tmp_path):
    profile = find("recovery/write-taken-and-never-answered")
    with background_server(profile, **address) as server:
        where = (
            f"server.type=inet,server.host=127.0.0.1,server.port={server.port}"
            if "tcp" in address
            else f"server.type=unix,server.path={server.socket}"
        )
        options = f"driver=nbd,{where},reconnect-delay=7"
        command = [require("qemu-io"), "--image-opts", "-c", "write -P 7 0 3M", options]
        done = run(command, tmp_path, Limits(seconds=60))
        server.journal.expect("write", offset=0, length=3 << 20, count=2)
        assert server.export.read(0, 3 << 20) == b"\7" * (3 << 20)
    assert "wrote 3145728/3145728 bytes at offset 0" in done.output
    assert done.status == 0
