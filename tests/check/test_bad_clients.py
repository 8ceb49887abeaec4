"""Clients that are bad in one way each get exactly the verdict and the cause that they deserve."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

from fakenbd.check.adapters import Adapter, Check, OperationCommand
from fakenbd.check.case import CaseResult, run_case
from fakenbd.check.process import Limits
from fakenbd.profile import Profile
from tests.check.profiles import CORRECT, EIO, GAP, HANGS_UP, NO_FLUSH, SPLIT

CLIENTS = Path(__file__).parent / "clients"
CONTENT = bytes(CORRECT.open_exports()[0].read(0, 4096))
LIMITS = Limits(seconds=300, memory=256 << 20, file=16 << 20)
SHORT = attrs.evolve(LIMITS, seconds=0.5)


def client(name: str, operation: str = "read", check: Check = "file") -> Adapter:
    command = (
        sys.executable,
        "-E",
        "-S",
        str(CLIENTS / f"{name}.py"),
        "{socket}",
        "{output}",
        "{size}",
    )
    return Adapter(name, operations={operation: OperationCommand(command, check)})


def played(name: str, profile: Profile, limits: Limits = LIMITS) -> CaseResult:
    (operation,) = profile.expect.operations
    check: Check = "file" if operation == "read" else "status"
    return run_case(profile, client(name, operation, check), seed=1, limits=limits)


BAD = [
    ("crashes", EIO, LIMITS, "crash", "it was killed by SIGSEGV", ""),
    ("raises", EIO, LIMITS, "crash", "it ended with a traceback: KeyError: 0", ""),
    (
        "sanitized",
        EIO,
        LIMITS,
        "crash",
        "it ended with a sanitizer's report: ==4711==ERROR: AddressSanitizer: heap-use-after-free "
        "on 0x602000000010",
        "",
    ),
    ("hangs", EIO, SHORT, "hang", "it was still running after 0.5 s", ""),
    (
        "accepts_a_gap",
        GAP,
        LIMITS,
        "wrong-data",
        f"in its output, byte 1024 is 0x00, not {CONTENT[1024]:#04x}",
        "",
    ),
    (
        "swallows_an_error",
        NO_FLUSH,
        LIMITS,
        "false-success",
        "it reported success although the operation cannot have succeeded",
        "",
    ),
    (
        "gives_up",
        SPLIT,
        LIMITS,
        "false-failure",
        "it failed with exit status 1: fragmented replies are not supported",
        "",
    ),
    (
        "reconnects_for_ever",
        HANGS_UP,
        LIMITS,
        "storm",
        "it made more than 100 connections",
        "",
    ),
    ("asks_for_ever", EIO, LIMITS, "storm", "it sent more than 20032 requests", ""),
    ("fills_the_disk", EIO, LIMITS, "resource-limit", "it wrote a file larger than the limit", ""),
    ("forks_and_stays", EIO, SHORT, "hang", "it was still running after 0.5 s", ""),
    (
        "lies",
        EIO,
        LIMITS,
        "wrong-data",
        f"in its output, byte 0 is 0x00, not {CONTENT[0]:#04x}",
        "",
    ),
    (
        "breaks_a_must",
        CORRECT,
        LIMITS,
        "violation",
        "NBD_CMD_READ of 512 bytes at offset 4096 ends at 4608, past the export's size of 4096",
        "C-88",
    ),
]


@pytest.mark.parametrize(("name", "profile", "limits", "cause", "reason", "rule"), BAD)
def test_a_bad_client_fails_for_what_it_does(
    name: str, profile: Profile, limits: Limits, cause: str, reason: str, rule: str
) -> None:
    verdict = played(name, profile, limits).verdict
    assert (verdict.name, verdict.cause, verdict.reason, verdict.rule) == (
        "fail",
        cause,
        reason,
        rule,
    )


def test_memory_is_reported_in_full() -> None:
    verdict = played("eats_memory", EIO).verdict
    assert (verdict.name, verdict.cause) == ("fail", "resource-limit")
    assert verdict.reason.startswith("it used ")
    assert verdict.reason.endswith(" MiB of memory, more than the limit of 256 MiB")


GOOD = [
    ("good", CORRECT, "pass", "it succeeded, and the result is right"),
    ("good", EIO, "pass", "it failed, as allowed (read)"),
    ("accepts_a_gap", SPLIT, "pass", "it succeeded, and the result is right"),
    ("breaks_a_should", CORRECT, "warn", "NBD_OPT_GO did not ask for NBD_INFO_BLOCK_SIZE"),
    (
        "good",
        SPLIT,
        "not-exercised",
        "fault 'split' never fired: the closest was NBD_CMD_READ number 1 on connection 1 "
        "(wanted structured = true)",
    ),
]


@pytest.mark.parametrize(("name", "profile", "verdict", "reason"), GOOD)
def test_others_get_what_they_deserve(
    name: str, profile: Profile, verdict: str, reason: str
) -> None:
    result = played(name, profile).verdict
    assert (result.name, result.reason) == (verdict, reason)


def test_a_case_that_nobody_asks_about_is_not_exercised() -> None:
    verdict = played("does_nothing", NO_FLUSH).verdict
    assert verdict.name == "not-exercised"
    assert verdict.reason == (
        "fault 'EIO' never fired: the closest was NBD_CMD_DISC number 1 on connection 1 "
        '(wanted command = "flush")'
    )


def test_the_same_seed_gives_the_same_verdict() -> None:
    def summary() -> list[tuple[object, ...]]:
        return [
            (result.verdict, [each.wire for each in result.operations])
            for result in (played("good", EIO), played("accepts_a_gap", GAP))
        ]

    assert summary() == summary()
