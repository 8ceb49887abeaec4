"""A case: one profile, run against one client, operation by operation, and its result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

import attrs

from fakenbd.check import external, reference
from fakenbd.check.adapters import Adapter
from fakenbd.check.operation_result import OperationResult
from fakenbd.check.process import Limits
from fakenbd.check.verdicts import Verdict, judge
from fakenbd.errors import ServeError
from fakenbd.profile import Expect, Profile
from fakenbd.profile.profile import Operation

__all__ = ["PLAIN", "CaseResult", "matches", "plain", "run_case"]

PLAIN: Final = "plain"


@attrs.frozen
class CaseResult:
    """The verdict on one case, and the results that it follows from."""

    id: str
    client: str
    seed: int
    profile: Profile
    verdict: Verdict
    operations: tuple[OperationResult, ...]

    @property
    def seconds(self) -> float:
        return sum(each.seconds for each in self.operations)


def matches(case: str, patterns: Iterable[str]) -> bool:
    """Whether a case's id matches a pattern; a family's id stands for all of its members."""
    names = (case, case.partition("@")[0])
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def run_case(profile: Profile, adapter: Adapter, *, seed: int, limits: Limits) -> CaseResult:
    """Run one profile against a client."""
    operations = tuple(
        _perform(profile, adapter, operation, seed, limits)
        for operation in profile.expect.operations
    )
    verdict = judge(profile.expect, operations)
    return CaseResult(profile.id, adapter.name, seed, profile, verdict, operations)


def _perform(
    profile: Profile, adapter: Adapter, operation: Operation, seed: int, limits: Limits
) -> OperationResult:
    """Have the client perform one operation, against a server of its own."""
    # The server's options are the same for both kinds of client, so they are set here.
    options: dict[str, Any] = {"seed": seed, "client": adapter.name}
    try:
        if adapter.built_in:
            return reference.perform(profile, operation, options)
        return external.perform(profile, adapter, operation, options, limits)
    except ServeError as error:
        return OperationResult(operation, harness_error=str(error))


def plain(operations: Sequence[Operation]) -> Profile:
    """A profile without faults, for the operations that a client is tested in."""
    return Profile(
        PLAIN,
        summary="A correct server",
        expect=Expect("succeeds", None, tuple(operations)),
    )
