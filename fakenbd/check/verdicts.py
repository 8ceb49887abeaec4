"""The verdict on a case: a pure function of what was expected and of each operation's result.

A case is judged in two steps. Every finding is collected, from the processes (signals, limits,
reports of sanitizers, wrong results) and from the journal (requests without bound, violations).
Then the gravest decides, in the order of `_GRAVITY`: a crash outweighs how the client ended its
connection. The others stay in the verdict.

A case whose faults did not fire, or whose client never asked for what the case is about, is
`not-exercised`, unless it failed anyway.
"""

from __future__ import annotations

import re
import signal as signals
from collections.abc import Iterator, Sequence
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.check.operation_result import OperationResult
from fakenbd.profile.profile import Expect

__all__ = ["Cause", "Finding", "Verdict", "VerdictName", "judge"]

VerdictName: TypeAlias = Literal["pass", "warn", "fail", "not-exercised", "xfail", "xpass", "error"]
Cause: TypeAlias = Literal[
    "crash",
    "hang",
    "wrong-data",
    "false-success",
    "false-failure",
    "violation",
    "storm",
    "resource-limit",
]
_GRAVITY: Final[tuple[Cause, ...]] = (
    *("crash", "resource-limit", "storm", "hang"),
    *("wrong-data", "false-success", "false-failure", "violation"),
)

MANY_CONNECTIONS: Final = 8
"""A client stopped at the time limit after more connections than this is a storm, not a hang."""

_SHELL: Final = 128
_FATAL: Final = frozenset(
    (signals.SIGSEGV, signals.SIGABRT, signals.SIGBUS, signals.SIGILL, signals.SIGFPE)
)
"""What a shell adds to the number of a signal, and the signals that only a defect causes."""

_REPORTS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("a sanitizer's report", re.compile(r"^==\d+==\s*ERROR: \w+Sanitizer.*$", re.M)),
    ("a sanitizer's report", re.compile(r"^WARNING: (?:Thread|Memory)Sanitizer.*$", re.M)),
    ("a sanitizer's report", re.compile(r"^\S+:\d+:\d+: runtime error: .*$", re.M)),
    ("a traceback", re.compile(r"^\s*Traceback \(most recent call last\):$", re.M)),
    ("a panic", re.compile(r"^thread '.*' (?:\(\d+\) )?panicked at .*$", re.M)),
    ("a panic", re.compile(r"^panic: .*$", re.M)),
    ("an uncaught exception", re.compile(r"^terminate called .*$", re.M)),
    ("an uncaught exception", re.compile(r'^Exception in thread "[^"]*".*$', re.M)),
)


@attrs.frozen
class Finding:
    """One thing that is wrong: its cause, a sentence, and the rule and the operation, if any."""

    cause: Cause
    reason: str
    rule: str = ""
    operation: str = ""


@attrs.frozen
class Verdict:
    """The verdict on one case; `also` are findings less grave than the cause."""

    name: VerdictName
    reason: str
    cause: Cause | None = None
    rule: str = ""
    operation: str = ""
    also: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        return self.name if self.cause is None else f"{self.name} ({self.cause})"

    @property
    def bad(self) -> bool:
        """Whether it fails the run."""
        return self.name in ("fail", "xpass", "error")


def judge(expect: Expect, results: Sequence[OperationResult]) -> Verdict:
    """The verdict on one case, from what was expected and how each operation went."""
    for each in results:
        harness_error = each.harness_error or "; ".join(each.wire.failures)
        if harness_error:
            return Verdict("error", harness_error, operation=each.operation)
    able = [each for each in results if not each.incapable]
    if not able:
        return Verdict("not-exercised", _incapable(results))
    found = [finding for each in able for finding in _findings(each)]
    found += _outcome(expect, able)
    found.sort(key=lambda finding: _GRAVITY.index(finding.cause))
    if found:
        first = found[0]
        return Verdict(
            "fail", first.reason, first.cause, first.rule, first.operation, tuple(found[1:])
        )
    if not any(each.wire.reached for each in able):
        return Verdict("not-exercised", _unreached(able))
    for each in able:
        for sentence, rule in _warnings(expect, each):
            return Verdict("warn", sentence, rule=rule, operation=each.operation)
    return Verdict("pass", _praise(expect, able))


# --- one operation -----------------------------------------------------------------------------


def _findings(each: OperationResult) -> Iterator[Finding]:
    yield from _ends(each)
    if each.wrong and each.succeeded:
        yield Finding("wrong-data", each.wrong, operation=each.operation)
    if each.stopped:
        # A client that was stopped breaks no rule by how its connections ended.
        return
    for breach in each.wire.breaches:
        if breach.level == "MUST":
            yield Finding("violation", breach.sentence, breach.rule, each.operation)


def _ends(each: OperationResult) -> Iterator[Finding]:
    crash = _crash(each)
    if crash:
        yield Finding("crash", crash, operation=each.operation)
    if each.signal == signals.SIGXFSZ and not each.stopped:
        yield Finding(
            "resource-limit", "it wrote a file larger than the limit", operation=each.operation
        )
    elif each.stopped == "memory":
        yield Finding("resource-limit", each.stop_reason, operation=each.operation)
    elif each.stopped == "storm":
        yield Finding("storm", each.stop_reason, operation=each.operation)
    elif each.stopped == "time":
        connections = each.wire.connections
        if connections > MANY_CONNECTIONS:
            sentence = f"{each.stop_reason}, and had made connection number {connections}"
            yield Finding("storm", sentence, operation=each.operation)
        else:
            yield Finding("hang", each.stop_reason, operation=each.operation)


def _crash(each: OperationResult) -> str:
    if each.crash:
        return each.crash
    for text in (each.errors, each.output):
        for what, pattern in _REPORTS:
            match = pattern.search(text)
            if match is not None:
                return f"it ended with {what}: {_last_line(text, match)}"
    if each.stopped:
        return ""
    if each.signal is not None and each.signal != signals.SIGXFSZ:
        return f"it was killed by {_signal_name(each.signal)}"
    if each.status is not None and each.status - _SHELL in _FATAL:
        name = _signal_name(each.status - _SHELL)
        return f"exit status {each.status} means that a program it ran was killed by {name}"
    return ""


def _last_line(text: str, match: re.Match[str]) -> str:
    """The text of a report: its own line, or the last line of a traceback."""
    if "Traceback" not in match[0]:
        return match[0].strip()
    for line in text[match.end() :].splitlines():
        if line and not line[0].isspace():
            return line.strip()
    return match[0].strip()


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _status(each: OperationResult) -> str:
    words = "it failed" if each.status is None else f"it failed with exit status {each.status}"
    lines = [line.strip() for line in each.errors.splitlines() if line.strip()]
    return f"{words}: {lines[-1]}" if lines else words


# --- the case as a whole -----------------------------------------------------------------------


def _outcome(expect: Expect, able: Sequence[OperationResult]) -> Iterator[Finding]:
    ended = [each for each in able if not each.stopped and each.signal is None and not each.crash]
    if expect.outcome == "succeeds":
        for each in ended:
            if not each.succeeded:
                yield Finding("false-failure", _status(each), operation=each.operation)
    elif expect.outcome == "fails" and len(ended) == len(able):
        met = [each for each in ended if each.wire.reached]
        if met and all(each.succeeded for each in met):
            sentence = "it reported success although the operation cannot have succeeded"
            yield Finding("false-success", sentence, operation=met[0].operation)


def _warnings(expect: Expect, each: OperationResult) -> Iterator[tuple[str, str]]:
    for breach in each.wire.breaches:
        if breach.level == "SHOULD" and breach.rule not in expect.may_break:
            yield breach.sentence, breach.rule
    if expect.session == "continues" and each.wire.quit:
        connection = each.wire.quit[0]
        yield (
            f"it dropped connection {connection} and came back, although it could have continued",
            "",
        )


def _incapable(results: Sequence[OperationResult]) -> str:
    return "; ".join(dict.fromkeys(f"{each.operation}: {each.incapable}" for each in results))


def _unreached(able: Sequence[OperationResult]) -> str:
    unfired = dict.fromkeys(sentence for each in able for sentence in each.wire.unfired)
    if unfired:
        return "; ".join(unfired)
    operations = " and ".join(dict.fromkeys(each.operation for each in able))
    return f"the client did not ask what {operations} is about"


def _praise(expect: Expect, able: Sequence[OperationResult]) -> str:
    failed = [each.operation for each in able if not each.succeeded]
    if not failed:
        return "it succeeded, and the result is right"
    return f"it failed, as allowed ({' and '.join(failed)})"
