"""A case: one profile, run against one client, and all there is to say about how it went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from fakenbd.check import foreign, reference
from fakenbd.check.account import Account
from fakenbd.check.adapters import Adapter
from fakenbd.check.process import Limits
from fakenbd.check.verdicts import Verdict, judge
from fakenbd.profile import Expect, Profile
from fakenbd.profile.profile import Operation

__all__ = ["PLAIN", "CaseResult", "plain", "run_case"]

PLAIN: Final = "plain"


@attrs.frozen
class CaseResult:
    """The verdict, and what led to it."""

    id: str
    client: str
    seed: int
    profile: Profile
    verdict: Verdict
    accounts: tuple[Account, ...]

    @property
    def account(self) -> Account | None:
        """The operation that decided, or the first."""
        for account in self.accounts:
            if account.performance.operation == self.verdict.operation:
                return account
        return self.accounts[0] if self.accounts else None

    @property
    def seconds(self) -> float:
        return sum(account.seconds for account in self.accounts)


def run_case(profile: Profile, adapter: Adapter, *, seed: int, limits: Limits) -> CaseResult:
    """Run one profile against a client."""
    accounts = []
    for operation in profile.expect.exercise:
        if adapter.built_in:
            account = reference.perform(profile, operation, seed=seed)
        else:
            account = foreign.perform(profile, adapter, operation, seed=seed, limits=limits)
        accounts.append(account)
    verdict = judge(profile.expect, [account.performance for account in accounts])
    return CaseResult(profile.id, adapter.name, seed, profile, verdict, tuple(accounts))


def plain(operations: Sequence[Operation]) -> Profile:
    """An honest server, which every client must get on with in all that it is to be tested in."""
    return Profile(
        PLAIN,
        summary="An honest server",
        expect=Expect("succeeds", None, tuple(operations)),
    )
