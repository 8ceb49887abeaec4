"""Cases as pytest's items, so that selection, order, reports and exit codes are pytest's own.

Every profile that pytest finds in a .toml file is a case. An item runs it while it is set up, so
that a harness error is an `error` and not a failure of the client, and fails or passes when it is
called. The result travels with the report, from a worker if need be.

A client that fails on a correct server is probably set up wrongly. So such a server comes first and
last; if the client fails there, the run ends with exit status 3. If the client only breaks a rule
there, the run goes on.
"""

from __future__ import annotations

import pickle
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from fakenbd.check.adapters import Adapter, bundled, one_command
from fakenbd.check.case import PLAIN, CaseResult, matches, plain, run_case
from fakenbd.check.case_json import case_json
from fakenbd.check.console import failure, headline, status
from fakenbd.check.known_failures import KnownFailure, apply, read_known_failures, stale
from fakenbd.check.options import CheckOptions
from fakenbd.check.process import Limits
from fakenbd.check.verdicts import Verdict
from fakenbd.errors import ProfileError
from fakenbd.profile import Profile, find_all, library
from fakenbd.profile.profile import OPERATIONS, Operation

__all__ = ["WORKER_INPUT", "Cases", "Setup"]

WORKER_INPUT: Final = "fakenbd-check"
"""The key of the setup in what pytest-xdist sends to its workers."""

_HARNESS: Final = 3
_NOTHING: Final = int(pytest.ExitCode.NO_TESTS_COLLECTED)
_MIB: Final = 1 << 20


class FailureError(Exception):
    """The client failed the case."""


class HarnessError(Exception):
    """The case could not be run; a harness error, not a failure of the client."""


@attrs.frozen
class Setup:
    """The options of a session, and the files that they name, read."""

    options: CheckOptions
    adapter: Adapter
    known: tuple[KnownFailure, ...]

    @classmethod
    def of(cls, options: CheckOptions) -> Setup:
        """Read the files. Raises ProfileError with every mistake in the one that has some."""
        if options.command:
            adapter = one_command(options.command)
        else:
            adapter = bundled(options.client or "reference")
        return cls(
            options,
            adapter,
            read_known_failures(options.known_failures) if options.known_failures else (),
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The words that name the client on the command line."""
        if self.options.command:
            return ("--", *self.options.command)
        return () if self.adapter.built_in else ("--client", str(self.options.client))

    def wants(self, case: str) -> bool:
        """Whether a case is selected; a family's id stands for all of its members."""
        select, skip = self.options.select, self.options.skip
        return (not select or matches(case, select)) and not matches(case, skip)

    def run(self, profile: Profile) -> CaseResult:
        """Run one case."""
        limits = Limits(self.options.timeout, self.options.memory * _MIB)
        return run_case(profile, self.adapter, seed=self.options.seed or 0, limits=limits)


# --- items -------------------------------------------------------------------------------------


class ProfileFile(pytest.File):
    """A file with one profile, or a family of them."""

    setup_: Setup

    def collect(self) -> Iterator[pytest.Item]:
        for profile in find_all(str(self.path)):
            if profile.expect.operations and self.setup_.wants(profile.id):
                client = self.setup_.adapter.name
                case: Case = Case.from_parent(
                    self, name=profile.id, nodeid=f"{client}::{profile.id}"
                )
                case.profile, case.setup_ = profile, self.setup_
                yield case

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        if isinstance(excinfo.value, ProfileError):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class Case(pytest.Item):
    """One profile, against the client of the session."""

    profile: Profile
    setup_: Setup
    verdict: Verdict | None = None
    case_json: dict[str, Any] | None = None

    def setup(self) -> None:
        setup = self.setup_
        result = setup.run(self.profile)
        self.verdict = apply(result.verdict, setup.known, result.id, setup.adapter.name)
        self.case_json = case_json(result, self.verdict, setup.words)
        if self.verdict.name == "error":
            raise HarnessError(self.verdict.reason)

    def runtest(self) -> None:
        assert self.verdict is not None, "the case has been run"
        if self.verdict.name == "not-exercised":
            pytest.skip(self.verdict.reason)
        if self.verdict.name == "xfail":
            pytest.xfail(self.verdict.reason)
        if self.verdict.bad:
            raise FailureError(self.verdict.reason)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, FailureError | HarnessError) and self.case_json is not None:
            return failure(self.case_json)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


# --- the session -------------------------------------------------------------------------------


@attrs.define(eq=False)
class Cases:
    """The plugin of a session of cases.

    `interrupted`: the session ended by Ctrl-C, for which pytest's exit status is the same as for a
    failed collection.
    """

    setup: Setup
    results: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    harness_error: str = ""
    interrupted: bool = False
    config: pytest.Config = attrs.field(init=False)

    @pytest.hookimpl
    def pytest_configure(self, config: pytest.Config) -> None:
        self.config = config

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput[WORKER_INPUT] = pickle.dumps(self.setup)

    @pytest.hookimpl
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        # A subclass means a failed collection.
        self.interrupted = excinfo.type is KeyboardInterrupt

    @pytest.hookimpl
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Any:
        named = parent.session.isinitpath(file_path)
        if file_path.suffix == ".toml" or (file_path.suffix == ".py" and named):
            collector: ProfileFile = ProfileFile.from_parent(parent, path=file_path)
            collector.setup_ = self.setup
            return collector
        return None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        part, parts = self.setup.options.part
        if parts > 1:
            gone = [item for index, item in enumerate(items) if index % parts != part - 1]
            items[:] = items[part - 1 :: parts]
            self.config.hook.pytest_deselected(items=gone)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, Any, Any]:
        if self._is_worker or session.config.option.collectonly or self._is_idle(session):
            return (yield)
        self._check_without_faults("first")
        done = yield
        self._check_without_faults("last")
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, Any, Any]:
        report = yield
        if isinstance(item, Case) and item.case_json is not None:
            phase = "setup" if item.case_json["verdict"] == "error" else "call"
            if report.when == phase:
                report.fakenbd = item.case_json
        return report

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        case = getattr(report, "fakenbd", None)
        if case is not None:
            self.results[case["id"]] = case

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Any:
        case = getattr(report, "fakenbd", None)
        return status(case) if case is not None else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_worker:
            return
        cases = self.results.values()
        if self.harness_error or any(case["verdict"] == "error" for case in cases):
            session.exitstatus = _HARNESS
        elif session.exitstatus == pytest.ExitCode.OK:
            if self._stale():
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            elif cases and all(case["verdict"] == "not-exercised" for case in cases):
                session.exitstatus = _NOTHING
        if self.setup.options.report is not None:
            from fakenbd.check.report import write

            write(self.setup.options.report, list(cases))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        adapter = self.setup.adapter
        summary = f" ({adapter.summary})" if adapter.summary else ""
        self._say(f"client: {adapter.name}{summary}, seed: {self.setup.options.seed}")

    @pytest.hookimpl
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        for name in ("not-exercised", "warn", "xfail", "xpass", "error", "fail"):
            cases = [case for case in self.results.values() if case["verdict"] == name]
            if cases:
                terminalreporter.section(name)
            for case in cases:
                terminalreporter.write_line(headline(case))
        for sentence in self._stale():
            terminalreporter.write_line(sentence, red=True)
        if self.setup.options.report is not None:
            terminalreporter.write_line(f"report: {self.setup.options.report / 'index.html'}")

    # --- internals -----------------------------------------------------------------------------

    @property
    def _is_worker(self) -> bool:
        return hasattr(self.config, "workerinput")

    def _is_idle(self, session: pytest.Session) -> bool:
        """Whether there is nothing to run; False with workers, which collect for themselves."""
        return not session.items and not getattr(self.config.option, "numprocesses", None)

    def _say(self, line: str) -> None:
        reporter = self.config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None and not self._is_worker and reporter.verbosity > 0:
            reporter.ensure_newline()
            reporter.write_line(line)

    def _stale(self) -> list[str]:
        if not self.setup.known:
            return []
        return stale(self.setup.known, [*self.results, *library()], self.setup.adapter.name)

    def _check_without_faults(self, when: str) -> None:
        result = self.setup.run(plain(_operations(self.setup.adapter)))
        verdict = result.verdict
        name = f"{self.setup.adapter.name}::{PLAIN} ({when})"
        if verdict.name in ("pass", "warn"):
            self._say(f"{name} OK")
            return
        if verdict.cause == "violation":
            self._say(f"{name} works, but {verdict.reason} ({verdict.rule})")
            return
        self.harness_error = (
            f"{self.setup.adapter.name} fails on a correct server, so the client or the set-up is "
            f"broken, not the cases: {verdict}, {verdict.operation or 'all'}: {verdict.reason}"
        )
        raise pytest.exit.Exception(self.harness_error, returncode=_HARNESS)


def _operations(adapter: Adapter) -> tuple[Operation, ...]:
    """The operations that a client can perform; of those with the same command only the first."""
    # Reconnecting needs a fault.
    usual = [operation for operation in OPERATIONS if operation != "reconnect"]
    if adapter.built_in:
        return tuple(usual)
    first: dict[tuple[str, ...], Operation] = {}
    for operation in usual:
        if operation in adapter.operations:
            first.setdefault(adapter.operations[operation].command, operation)
    return tuple(first.values())
