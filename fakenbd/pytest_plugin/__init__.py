"""The pytest plugin: fake servers as fixtures, checked at the end of each test.

    def test_read_is_retried(nbd_server):
        nbd_server.on("read", times=1).error("EIO")
        ...

After a test that passed, a fault that never fired, a MUST that the client broke and an exception in
the server fail it; a broken SHOULD is a warning. The report of a failure holds the transcript and
the seed.

This module is loaded in every run of pytest where fakenbd is installed, so it imports nothing but
pytest; servers are imported when a fixture is used. It has no assertions to rewrite:
PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

from fakenbd.pytest_plugin.category import (
    NBDViolationWarning,
    ServerErrorWarning,
    UnfiredFaultWarning,
)

if TYPE_CHECKING:
    from fakenbd.pytest_plugin.servers import Servers
    from fakenbd.server import BackgroundServer, Server

__all__ = [
    "NBDViolationWarning",
    "ServerErrorWarning",
    "UnfiredFaultWarning",
    "make_nbd_server",
    "nbd_server",
    "trio_nbd_server",
]

_POLICIES: Final = "error", "warn", "ignore"
_JUDGED: Final = {
    "unfired": "the result of a test that passed although a fault never fired",
    "violations": "the result of a test that passed although its client broke a MUST",
    "errors": "the result of a test that passed although the server raised an exception",
}
_MARKER: Final = (
    "fakenbd(profile=None, *, unfired, violations, errors, seed, **options): what the servers of a "
    'test serve: a profile, or the options of an export such as size="1MiB"; and whether faults '
    "that never fired, violations and the server's own errors fail the test "
    '("error", "warn" or "ignore")'
)
_SERVERS: Final = pytest.StashKey["Servers"]()


# --- options -----------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, meaning in _JUDGED.items():
        parser.addini(f"fakenbd_{name}", f'{meaning}: "error", "warn" or "ignore"', default="error")
    parser.addini("fakenbd_seed", "the seed of all that is random in fake servers", default="")
    parser.getgroup("fakenbd", "fake NBD servers").addoption(
        "--fakenbd-seed", metavar="N", type=int, help="the random seed of fake servers"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    for name in _JUDGED:
        word = config.getini(f"fakenbd_{name}")
        if word not in _POLICIES:
            raise pytest.UsageError(
                f'fakenbd_{name}: expected "error", "warn" or "ignore", got "{word}"'
            )
    seed = config.getini("fakenbd_seed")
    if seed and not seed.isdecimal():
        raise pytest.UsageError(f'fakenbd_seed: expected a whole number from 0, got "{seed}"')


# --- fixtures ----------------------------------------------------------------------------------


@pytest.fixture
def _nbd_servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The servers of this test: set up before them, so torn down (and checking them) after."""
    from fakenbd.pytest_plugin.servers import Servers

    servers = Servers.of(request.node)
    request.node.stash[_SERVERS] = servers
    yield servers
    servers.judge()


@pytest.fixture
def nbd_server(_nbd_servers: Servers) -> Iterator[BackgroundServer]:
    """A fake NBD server in a thread, for synchronous and asyncio tests."""
    with _nbd_servers.background() as server:
        yield server


@pytest.fixture
def make_nbd_server(_nbd_servers: Servers) -> Iterator[Callable[..., BackgroundServer]]:
    """A function that starts another server like `nbd_server` with each call.

    It takes the arguments of the marker `fakenbd`, for this server only.
    """
    with _nbd_servers.factory() as make:
        yield make


@pytest.fixture
def _trio_test(request: pytest.FixtureRequest) -> None:
    """Fail a test that is not a trio test before pytest sees an async fixture it cannot run."""
    plugins = request.config.pluginmanager
    if not any(map(plugins.hasplugin, ("trio", "pytest_trio.plugin"))):
        pytest.fail(
            "trio_nbd_server needs pytest-trio, which is not installed or not active; "
            "nbd_server does without",
            pytrace=False,
        )
    if request.node.get_closest_marker("trio") is None:
        pytest.fail(
            "trio_nbd_server is for trio tests: mark this one with @pytest.mark.trio, "
            "or set trio_mode = true",
            pytrace=False,
        )


@pytest.fixture
async def trio_nbd_server(_trio_test: None, _nbd_servers: Servers) -> AsyncIterator[Server]:
    """A fake NBD server inside a trio test, reached through memory by `connect()`.

    With pytest-trio's `autojump_clock` its delays and stalls take no time.
    """
    async with _nbd_servers.in_memory() as server:
        yield server


# --- reports -----------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    servers = item.stash.get(_SERVERS, None)
    if servers is not None:
        servers.report(report)
    return report
