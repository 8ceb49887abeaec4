"""The servers of one test: started by its fixtures, shown in its reports, checked at its end.

Only a test that passed is checked. In one that failed, unfired faults and dropped connections
follow from the failure; they are listed in its report beside the transcript.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from traceback import format_exception
from typing import Any, Final

import attrs
import pytest

from fakenbd.errors import FakenbdError
from fakenbd.journal.transcript import transcript
from fakenbd.pytest_plugin.findings import Finding, deepest, findings
from fakenbd.pytest_plugin.settings import Policy, Settings
from fakenbd.server import BackgroundServer, Server, background_server, open_server

__all__ = ["Servers"]

_ENTRIES: Final = 200


@attrs.frozen(eq=False)
class _Served:
    """One server of the test."""

    name: str
    server: Server
    settings: Settings
    settle: Callable[[], None]

    def policy(self, finding: Finding) -> Policy:
        policy = self.settings.policies[finding.subject]
        return "warn" if finding.mild and policy == "error" else policy


@attrs.define(eq=False)
class Servers:
    """All servers of `item`."""

    item: pytest.Item
    settings: Settings
    _served: list[_Served] = attrs.field(factory=list)
    _passed: bool = False

    @classmethod
    def of(cls, item: pytest.Item) -> Servers:
        """The servers of a test, none started yet; the test fails if its markers are wrong."""
        with _in_a_sentence():
            return cls(item, Settings.of(item))

    # --- starting ------------------------------------------------------------------------------

    @contextmanager
    def background(self) -> Iterator[BackgroundServer]:
        """The server of `nbd_server`."""
        with ExitStack() as stack:
            with _in_a_sentence():
                server = self._start(stack, "nbd_server", self.settings)
            yield server

    @contextmanager
    def factory(self) -> Iterator[Callable[..., BackgroundServer]]:
        """The function of `make_nbd_server`."""
        with ExitStack() as stack:

            def make(*values: Any, **options: Any) -> BackgroundServer:
                settings = self.settings.override("make_nbd_server()", values, options)
                name = f"server {1 + sum(each.name != 'nbd_server' for each in self._served)}"
                return self._start(stack, name, settings)

            yield make

    @asynccontextmanager
    async def in_memory(self) -> AsyncIterator[Server]:
        """The server of `trio_nbd_server`."""
        from trio.testing import wait_all_tasks_blocked

        settings = self.settings
        options = {"endpoints": [], **settings.running}
        async with open_server(settings.profile, seed=settings.seed, **options) as server:
            self._served.append(_Served("trio_nbd_server", server, settings, lambda: None))
            yield server
            await wait_all_tasks_blocked()

    def _start(self, stack: ExitStack, name: str, settings: Settings) -> BackgroundServer:
        started = background_server(settings.profile, seed=settings.seed, **settings.running)
        background = stack.enter_context(started)
        # Wait for the client's last messages: they may hold the violation.
        stack.callback(background.settle)
        self._served.append(_Served(name, background.server, settings, background.settle))
        return background

    # --- checking -------------------------------------------------------------------------------

    def report(self, report: pytest.TestReport) -> None:
        """Record the outcome of a phase; if the test failed, add the transcripts to its report."""
        if report.when == "call":
            self._passed = report.passed
        if report.failed and self._served:
            # A test that passed and fails for an unfired fault already names it.
            text = "\n".join(_shown(each, unfired=not self._passed) for each in self._served)
            report.sections.append(("fakenbd transcript", text))
            errors = [error for each in self._served for error in each.server.errors]
            if errors:
                text = "\n".join("".join(format_exception(deepest(error))) for error in errors)
                report.sections.append(("fakenbd server error", text))

    def judge(self) -> None:
        """Fail the test, or warn, for the findings on its servers."""
        failures = []
        for served in self._served if self._passed else ():
            for finding in findings(served.server):
                policy = served.policy(finding)
                sentence = finding.sentence
                if len(self._served) > 1:
                    sentence = f"{served.name}: {sentence}"
                if policy == "error" or (policy == "warn" and not self._warn(finding, sentence)):
                    failures.append(sentence)
        if failures:
            pytest.fail("\n".join(failures), pytrace=False)

    def _warn(self, finding: Finding, sentence: str) -> bool:
        """Warn; False where the user's filters turn the warning into an error."""
        try:
            self.item.warn(finding.category(sentence))
        except finding.category:
            return False
        return True


def _shown(served: _Served, *, unfired: bool) -> str:
    served.settle()
    server = served.server
    where = f", {server.uri}" if server.endpoints else ""
    lines = [
        f"{served.name}: profile {server.profile.id}{where}",
        f"seed {server.seed}; for the same again: pytest --fakenbd-seed={server.seed}",
        transcript(server.journal.entries(), limit=_ENTRIES).rstrip("\n") or "no client connected",
        *(server.unfired() if unfired else ()),
    ]
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Fail with one sentence, without a traceback, for mistakes in a marker."""
    try:
        yield
    except FakenbdError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None
