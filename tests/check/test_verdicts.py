"""The table of verdicts: what was expected, how the client ended, what the journal knows."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from fakenbd.check.operation_result import Breach, OperationResult, WireSummary
from fakenbd.check.verdicts import Finding, Verdict, judge
from fakenbd.profile import Expect

MET = WireSummary(connections=1, fired=1, standing=False)
MISSED = attrs.evolve(MET, fired=0, unfired=("fault 'a' never fired: …",))
STANDING = WireSummary(connections=1)
UNASKED = WireSummary(connections=1, asked=False)
MUST = Breach("C-88", "MUST", "a read past the end")
SHOULD = Breach("C-93", "SHOULD", "a read of 700 bytes")
ADVICE = Breach("C-90", "advisory", "a read of half a block")


def did(wire: WireSummary = MET, **how: Any) -> OperationResult:
    return OperationResult("read", wire=wire, **how)


def with_breaches(*breaches: Breach) -> WireSummary:
    return attrs.evolve(MET, breaches=breaches)


FAILED = did(status=1, errors="first\nlast words\n\n")
RIGHT = "it succeeded, and the result is right"
AS_IT_MAY = "it failed, as allowed (read)"
TRACEBACK = "Traceback (most recent call last):\n  File x\nValueError: no\n"
PANIC = "thread 'main' panicked at src/main.rs:1:1:\nboom"

ROWS: list[tuple[str, OperationResult, str, str | None, str]] = [
    # what went well
    ("succeeds", did(), "pass", None, RIGHT),
    ("either", did(), "pass", None, RIGHT),
    ("either", FAILED, "pass", None, AS_IT_MAY),
    ("fails", FAILED, "pass", None, AS_IT_MAY),
    ("succeeds", did(STANDING), "pass", None, RIGHT),
    ("succeeds", did(with_breaches(ADVICE)), "pass", None, RIGHT),
    ("succeeds", did(with_breaches(SHOULD)), "warn", None, SHOULD.sentence),
    # what did not
    ("succeeds", FAILED, "fail", "false-failure", "it failed with exit status 1: last words"),
    ("succeeds", did(status=2), "fail", "false-failure", "it failed with exit status 2"),
    (
        "fails",
        did(),
        "fail",
        "false-success",
        "it reported success although the operation cannot have succeeded",
    ),
    (
        "fails",
        did(STANDING),
        "fail",
        "false-success",
        "it reported success although the operation cannot have succeeded",
    ),
    ("either", did(wrong="byte 7"), "fail", "wrong-data", "byte 7"),
    ("fails", did(wrong="byte 7"), "fail", "wrong-data", "byte 7"),
    ("fails", did(status=1, wrong="byte 7"), "pass", None, AS_IT_MAY),
    ("either", did(with_breaches(MUST)), "fail", "violation", MUST.sentence),
    ("succeeds", did(with_breaches(SHOULD, MUST)), "fail", "violation", MUST.sentence),
    # crashes
    ("either", did(status=None, signal=11), "fail", "crash", "it was killed by SIGSEGV"),
    ("fails", did(status=None, signal=64), "fail", "crash", "it was killed by SIGRTMAX"),
    (
        "fails",
        did(status=134),
        "fail",
        "crash",
        "exit status 134 means that a program it ran was killed by SIGABRT",
    ),
    ("fails", did(status=130), "pass", None, AS_IT_MAY),
    (
        "fails",
        did(status=1, errors=TRACEBACK),
        "fail",
        "crash",
        "it ended with a traceback: ValueError: no",
    ),
    (
        "fails",
        did(status=1, output=TRACEBACK),
        "fail",
        "crash",
        "it ended with a traceback: ValueError: no",
    ),
    (
        "fails",
        did(status=101, errors=PANIC),
        "fail",
        "crash",
        "it ended with a panic: thread 'main' panicked at src/main.rs:1:1:",
    ),
    (
        "fails",
        did(status=2, errors="panic: runtime error\n\ngoroutine 1 [running]:"),
        "fail",
        "crash",
        "it ended with a panic: panic: runtime error",
    ),
    (
        "either",
        did(errors="nbd.c:12:3: runtime error: signed integer overflow"),
        "fail",
        "crash",
        "it ended with a sanitizer's report: nbd.c:12:3: runtime error: signed integer overflow",
    ),
    (
        "either",
        did(errors="WARNING: ThreadSanitizer: data race (pid=7)"),
        "fail",
        "crash",
        "it ended with a sanitizer's report: WARNING: ThreadSanitizer: data race (pid=7)",
    ),
    ("either", did(crash="it raised KeyError: 1"), "fail", "crash", "it raised KeyError: 1"),
    # what we had to stop
    (
        "either",
        did(status=None, stopped="time", stop_reason="too long"),
        "fail",
        "hang",
        "too long",
    ),
    (
        "either",
        did(attrs.evolve(MET, connections=9), status=None, stopped="time", stop_reason="too long"),
        "fail",
        "storm",
        "too long, and had made connection number 9",
    ),
    (
        "either",
        did(status=None, stopped="memory", stop_reason="too much"),
        "fail",
        "resource-limit",
        "too much",
    ),
    (
        "either",
        did(status=None, stopped="storm", stop_reason="too many"),
        "fail",
        "storm",
        "too many",
    ),
    (
        "either",
        did(status=None, signal=25),
        "fail",
        "resource-limit",
        "it wrote a file larger than the limit",
    ),
    # what proves nothing
    ("succeeds", did(MISSED), "not-exercised", None, "fault 'a' never fired: …"),
    ("fails", did(MISSED), "not-exercised", None, "fault 'a' never fired: …"),
    ("fails", did(MISSED, status=1), "not-exercised", None, "fault 'a' never fired: …"),
    (
        "fails",
        did(UNASKED),
        "not-exercised",
        None,
        "the client did not ask what read is about",
    ),
    (
        "succeeds",
        did(MISSED, status=1),
        "fail",
        "false-failure",
        "it failed with exit status 1",
    ),
    ("succeeds", did(MISSED, wrong="byte 7"), "fail", "wrong-data", "byte 7"),
    (
        "succeeds",
        did(status=None, incapable="prog is not installed"),
        "not-exercised",
        None,
        "read: prog is not installed",
    ),
    # what is our own trouble
    ("succeeds", did(harness_error="no port"), "error", None, "no port"),
    ("fails", did(attrs.evolve(MET, failures=("a bug",))), "error", None, "a bug"),
]


@pytest.mark.parametrize(("outcome", "result", "name", "cause", "reason"), ROWS)
def test_verdict(
    outcome: Any, result: OperationResult, name: str, cause: str | None, reason: str
) -> None:
    verdict = judge(Expect(outcome, None, ("read",)), [result])
    assert (verdict.name, verdict.cause, verdict.reason) == (name, cause, reason)


def test_the_gravest_finding_decides_and_the_others_are_kept() -> None:
    result = did(with_breaches(MUST), status=None, signal=11)
    assert judge(Expect("succeeds"), [result]) == Verdict(
        "fail",
        "it was killed by SIGSEGV",
        "crash",
        "",
        "read",
        (Finding("violation", MUST.sentence, "C-88", "read"),),
    )


def test_a_client_that_was_stopped_owes_no_disconnect() -> None:
    leaving = Breach("C-128", "MUST", "it left without a word")
    stopped = did(with_breaches(leaving), status=None, stopped="time", stop_reason="too long")
    assert judge(Expect("either"), [stopped]).also == ()


def test_one_failure_among_several_operations_is_enough_where_it_must_fail() -> None:
    results = [did(), attrs.evolve(FAILED, operation="write")]
    verdict = judge(Expect("fails"), results)
    assert (verdict.name, verdict.reason) == ("pass", "it failed, as allowed (write)")


def test_operations_that_cannot_be_done_do_not_hide_those_that_can() -> None:
    results = [did(incapable="no command"), attrs.evolve(FAILED, operation="write")]
    verdict = judge(Expect("succeeds"), results)
    assert (verdict.name, verdict.cause, verdict.operation) == ("fail", "false-failure", "write")


def test_what_a_profile_leads_to_is_no_warning() -> None:
    expect = Expect(may_break=("C-93",))
    assert judge(expect, [did(with_breaches(SHOULD))]).name == "pass"
    other = Breach("C-15", "SHOULD", "a long name")
    assert judge(expect, [did(with_breaches(SHOULD, other))]).reason == "a long name"
    grave = attrs.evolve(SHOULD, level="MUST")
    assert judge(expect, [did(with_breaches(grave))]).cause == "violation"


@pytest.mark.parametrize(
    ("session", "quit_", "name"),
    [("continues", (3,), "warn"), ("continues", (), "pass"), ("reconnects", (3,), "pass")],
)
def test_dropping_a_connection_that_could_go_on_is_worth_a_warning(
    session: Any, quit_: tuple[int, ...], name: str
) -> None:
    verdict = judge(Expect("succeeds", session), [did(attrs.evolve(MET, quit=quit_))])
    assert verdict.name == name
    if name == "warn":
        assert verdict.reason == (
            "it dropped connection 3 and came back, although it could have continued"
        )


@pytest.mark.parametrize(
    ("verdict", "text", "bad"),
    [
        (Verdict("pass", ""), "pass", False),
        (Verdict("fail", "", "hang"), "fail (hang)", True),
        (Verdict("xpass", ""), "xpass", True),
        (Verdict("error", ""), "error", True),
        (Verdict("xfail", "", "hang"), "xfail (hang)", False),
        (Verdict("not-exercised", ""), "not-exercised", False),
    ],
)
def test_verdicts_are_shown_with_their_cause(verdict: Verdict, text: str, bad: bool) -> None:
    assert (str(verdict), verdict.bad) == (text, bad)
