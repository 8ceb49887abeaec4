"""Known failures, and how they are kept honest."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fakenbd.check.known import Known, read_known, stale, weigh
from fakenbd.check.verdicts import Cause, Verdict
from fakenbd.errors import ProfileError

HANG = Verdict("fail", "it was still running after 10 s", "hang")
PASS = Verdict("pass", "it succeeded")
WARN = Verdict("warn", "a read of 700 bytes")
SKIPPED = Verdict("not-exercised", "nobody asked")

ENTRY = Known("extents/zero", "told upstream")


@pytest.mark.parametrize(
    ("entry", "verdict", "name", "reason"),
    [
        (ENTRY, HANG, "xfail", "told upstream (it was still running after 10 s)"),
        (Known("extents/*", "r"), HANG, "xfail", "r (it was still running after 10 s)"),
        (Known("extents/zero", "r", client="qemu"), HANG, "fail", HANG.reason),
        (Known("extents/zero", "r", client="libnbd"), HANG, "xfail", f"r ({HANG.reason})"),
        (Known("extents/zero", "r", cause="hang"), HANG, "xfail", f"r ({HANG.reason})"),
        (Known("extents/zero", "r", cause="crash"), HANG, "fail", HANG.reason),
        (Known("extents/zero", "r", message="still"), HANG, "xfail", f"r ({HANG.reason})"),
        (Known("extents/zero", "r", message="dead"), HANG, "fail", HANG.reason),
        (Known("extents/odd", "r"), HANG, "fail", HANG.reason),
        (
            ENTRY,
            PASS,
            "xpass",
            "it passes now, although it is known to fail: told upstream",
        ),
        (
            ENTRY,
            WARN,
            "xpass",
            "it passes now, although it is known to fail: told upstream",
        ),
        (Known("extents/*", "r", sometimes=True), PASS, "pass", PASS.reason),
        (Known("extents/*", "r", sometimes=True), HANG, "xfail", f"r ({HANG.reason})"),
        (ENTRY, SKIPPED, "not-exercised", "nobody asked"),
    ],
)
def test_a_verdict_in_the_light_of_what_is_known(
    entry: Known, verdict: Verdict, name: str, reason: str
) -> None:
    weighed = weigh(verdict, [entry], "extents/zero", "libnbd")
    assert (weighed.name, weighed.reason) == (name, reason)
    assert weighed.cause == verdict.cause


def test_a_family_stands_for_its_members() -> None:
    assert weigh(HANG, [Known("extents/zero", "r")], "extents/zero@one", "x").name == "xfail"


def test_what_fails_sometimes_and_always_may_not_pass() -> None:
    known = [Known("a", "r", cause="hang"), Known("a", "s", cause="crash", sometimes=True)]
    assert weigh(PASS, known, "a", "x").name == "xpass"


def test_the_second_entry_may_explain_what_the_first_does_not() -> None:
    known = [Known("a", "r", cause="crash"), Known("a", "s", cause="hang")]
    assert weigh(HANG, known, "a", "x").reason == f"s ({HANG.reason})"


def test_entries_that_match_no_case_are_told() -> None:
    known = [ENTRY, Known("gone/*", "old"), Known("gone/b", "other", client="qemu")]
    assert stale(known, ["extents/zero", "extents/odd"], "libnbd") == [
        'the known failure "gone/*" matches no case (old)'
    ]


def test_a_file_of_them(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text(
        '[[known]]\ncase = "a/b"\nreason = "r"\nclient = "c"\ncause = "hang"\nmessage = "m"\n'
        "sometimes = true\n"
        '[[known]]\ncase = "d"\nreason = "s"\n'
    )
    assert read_known(path) == (Known("a/b", "r", "c", "hang", "m", True), Known("d", "s"))


def test_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text("")
    assert read_known(path) == ()


def test_every_mistake_in_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('[[known]]\ncase = 7\n[[known]]\ncase = "a"\nreason = " "\ncause = "bad"\n')
    with pytest.raises(ProfileError) as caught:
        read_known(path)
    listed = ", ".join(f'"{cause}"' for cause in get_args(Cause))
    assert caught.value.mistakes == (
        "known[0].case: expected a text, got 7",
        "known[0].reason: expected a value, got nothing",
        'known[1].reason: expected a reason, got ""',
        f'known[1].cause: expected one of {listed}, got "bad"',
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: No such file or directory"):
        read_known(tmp_path / "known.toml")
