"""Known failures, and how they are kept correct."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from fakenbd.check.known_failures import KnownFailure, apply, read_known_failures, stale
from fakenbd.check.verdicts import Cause, Verdict
from fakenbd.errors import ProfileError

HANG = Verdict("fail", "it was still running after 10 s", "hang")
PASS = Verdict("pass", "it succeeded")
WARN = Verdict("warn", "a read of 700 bytes")
SKIPPED = Verdict("not-exercised", "nobody asked")

ENTRY = KnownFailure("extents/zero", "reported upstream")


@pytest.mark.parametrize(
    ("entry", "verdict", "name", "reason"),
    [
        (ENTRY, HANG, "xfail", "reported upstream (it was still running after 10 s)"),
        (KnownFailure("extents/*", "r"), HANG, "xfail", "r (it was still running after 10 s)"),
        (KnownFailure("extents/zero", "r", client="qemu"), HANG, "fail", HANG.reason),
        (KnownFailure("extents/zero", "r", client="libnbd"), HANG, "xfail", f"r ({HANG.reason})"),
        (KnownFailure("extents/zero", "r", cause="hang"), HANG, "xfail", f"r ({HANG.reason})"),
        (KnownFailure("extents/zero", "r", cause="crash"), HANG, "fail", HANG.reason),
        (KnownFailure("extents/zero", "r", message="still"), HANG, "xfail", f"r ({HANG.reason})"),
        (KnownFailure("extents/zero", "r", message="dead"), HANG, "fail", HANG.reason),
        (KnownFailure("extents/odd", "r"), HANG, "fail", HANG.reason),
        (
            ENTRY,
            PASS,
            "xpass",
            "it passes now, although it is known to fail: reported upstream",
        ),
        (
            ENTRY,
            WARN,
            "xpass",
            "it passes now, although it is known to fail: reported upstream",
        ),
        (KnownFailure("extents/*", "r", sometimes=True), PASS, "pass", PASS.reason),
        (KnownFailure("extents/*", "r", sometimes=True), HANG, "xfail", f"r ({HANG.reason})"),
        (ENTRY, SKIPPED, "not-exercised", "nobody asked"),
    ],
)
def test_a_verdict_in_the_light_of_what_is_known(
    entry: KnownFailure, verdict: Verdict, name: str, reason: str
) -> None:
    weighed = apply(verdict, [entry], "extents/zero", "libnbd")
    assert (weighed.name, weighed.reason) == (name, reason)
    assert weighed.cause == verdict.cause


def test_a_family_stands_for_its_members() -> None:
    assert apply(HANG, [KnownFailure("extents/zero", "r")], "extents/zero@one", "x").name == "xfail"


def test_what_fails_sometimes_and_always_may_not_pass() -> None:
    known = [
        KnownFailure("a", "r", cause="hang"),
        KnownFailure("a", "s", cause="crash", sometimes=True),
    ]
    assert apply(PASS, known, "a", "x").name == "xpass"


def test_the_second_entry_may_explain_what_the_first_does_not() -> None:
    known = [KnownFailure("a", "r", cause="crash"), KnownFailure("a", "s", cause="hang")]
    assert apply(HANG, known, "a", "x").reason == f"s ({HANG.reason})"


def test_entries_that_match_no_case_are_reported() -> None:
    known = [ENTRY, KnownFailure("gone/*", "old"), KnownFailure("gone/b", "other", client="qemu")]
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
    assert read_known_failures(path) == (
        KnownFailure("a/b", "r", "c", "hang", "m", True),
        KnownFailure("d", "s"),
    )


def test_an_empty_file_knows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text("")
    assert read_known_failures(path) == ()


def test_every_mistake_in_it_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('[[known]]\ncase = 7\n[[known]]\ncase = "a"\nreason = " "\ncause = "bad"\n')
    with pytest.raises(ProfileError) as caught:
        read_known_failures(path)
    listed = ", ".join(f'"{cause}"' for cause in get_args(Cause))
    assert caught.value.mistakes == (
        "known[0].case: expected a text, got 7",
        "known[0].reason: expected a value, got nothing",
        'known[1].reason: expected a reason, got ""',
        f'known[1].cause: expected one of {listed}, got "bad"',
    )


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read: No such file or directory"):
        read_known_failures(tmp_path / "known.toml")
