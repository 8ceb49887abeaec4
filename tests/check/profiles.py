"""Small profiles for the tests of judgement: what a server says, and what is expected."""

from __future__ import annotations

from typing import Any

from fakenbd.faults import parse_fault
from fakenbd.profile import Expect, Profile

__all__ = ["CORRECT", "EIO", "GAP", "HANGS_UP", "NO_FLUSH", "SPLIT", "of"]


def of(
    name: str, outcome: str, operation: str, *faults: dict[str, Any], rules: str = ""
) -> Profile:
    """A profile of 4 KiB whose faults are given as in a .toml file."""
    return Profile.of(
        id=name,
        summary=f"A case named {name}",
        rules=rules.split(),
        size=4096,
        faults=[parse_fault(fault) for fault in faults],
        expect=Expect(outcome, None, (operation,)),  # type: ignore[arg-type]
    )


EIO = of(
    "eio", "fails", "read", {"name": "EIO", "when": {"command": "read"}, "do": {"error": "EIO"}}
)
GAP = of(
    "gap",
    "fails",
    "read",
    {
        "name": "gap",
        "when": {"command": "read", "structured": True},
        "do": [{"split": 1024}, {"drop": True, "at": 1}],
    },
    rules="S-133",
)
NO_FLUSH = of(
    "no-flush",
    "fails",
    "flush",
    {"name": "EIO", "when": {"command": "flush"}, "do": {"error": "EIO"}},
)
SPLIT = of(
    "split",
    "succeeds",
    "read",
    {"name": "split", "when": {"command": "read", "structured": True}, "do": {"split": 1024}},
    rules="Q-35",
)
HANGS_UP = of(
    "hangs-up",
    "fails",
    "read",
    {"name": "close", "when": {"command": "read"}, "do": {"close": True}},
)
CORRECT = of("correct", "succeeds", "read")
