"""Runs of pytest inside tests, without plugins but those asked for."""

from __future__ import annotations

import linecache
import re
import warnings
from collections.abc import Callable
from typing import Final

import pytest

# What a run imports is forgotten after it, unless it was there before.
import fakenbd.pytest_plugin.category
import fakenbd.pytest_plugin.servers
import fakenbd.server  # noqa: F401

__all__ = ["Run", "plain"]

Run = Callable[..., pytest.RunResult]

# A minimal client: it negotiates nothing, sends ABORT with `tail` as data, and waits for the end.
_CLIENT: Final = """
import socket
import struct

def chat(server, flags=3, tail=b""):
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.recv(18, socket.MSG_WAITALL)
        abort = struct.pack(">8sII", b"IHAVEOPT", 2, len(tail)) + tail
        sock.sendall(struct.pack(">I", flags) + abort)
        while sock.recv(4096):
            pass
"""

_PREAMBLE: Final = "import pytest\nfrom client import chat\n"

_VARIES: Final = (
    (r"\d+\.\d+s\b", "<time>s"),
    (r"\b\d\.\d{3}\b", "0.000"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
    (r"\bseed \d+; (.*)=\d+", r"seed <seed>; \1=<seed>"),
    (r"\bline \d+\)", "line <line>)"),
    # Of a traceback only its frame: the lines between are other people's, too.
    (r"(?m)(?<=^Traceback \(most recent call last\):\n)(?: .*\n)+", "  <calls>\n"),
)


def plain(result: pytest.RunResult) -> str:
    """What pytest printed, without what differs from run to run."""
    text = "\n".join(result.outlines)
    for pattern, stand_in in _VARIES:
        text = re.sub(pattern, stand_in, text)
    return text


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the tests in a text, which may `chat` with servers, within this process."""
    arguments_for = _prepared(pytester, monkeypatch)

    def run(source: str, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        with warnings.catch_warnings():
            # Not the filters of the tests that this one is among.
            warnings.resetwarnings()
            # All the texts have the same name.
            linecache.clearcache()
            return pytester.runpytest_inprocess(*arguments_for(source, arguments, plugins))

    return run


@pytest.fixture
def run_process(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The same in a process of its own, which has nothing imported."""
    arguments_for = _prepared(pytester, monkeypatch)

    def run(source: str, *arguments: str, plugins: tuple[str, ...] = ()) -> pytest.RunResult:
        return pytester.runpytest_subprocess(*arguments_for(source, arguments, plugins))

    return run


def _prepared(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, tuple[str, ...], tuple[str, ...]], list[str]]:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    # In CI pytest does not cut the lines of its summary.
    for name in ("PYTEST_ADDOPTS", "CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)

    def arguments_for(
        source: str, arguments: tuple[str, ...], plugins: tuple[str, ...]
    ) -> list[str]:
        pytester.makepyfile(client=_CLIENT, test_it=_PREAMBLE + source)
        named = [part for name in ("fakenbd.pytest_plugin", *plugins) for part in ("-p", name)]
        return ["-q", "--tb=short", "--color=no", "-p", "no:cacheprovider", *named, *arguments]

    return arguments_for
