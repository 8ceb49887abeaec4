"""Each obligation of the rule tables is accounted for exactly once, and each bait is laid."""

from __future__ import annotations

from collections import Counter

from fakenbd.journal.observation import BAIT, COVERED, OBSERVABLE, UNOBSERVABLE
from fakenbd.profile import find, library
from fakenbd.protocol.rules import rules


def test_every_client_rule_stands_in_exactly_one_table() -> None:
    listed = Counter([*OBSERVABLE, *COVERED, *BAIT, *UNOBSERVABLE])
    assert listed == Counter(row.id for row in rules("C"))


def test_every_bait_is_laid_by_a_profile() -> None:
    assert BAIT.keys() - {rule_id for name in library() for rule_id in find(name).rules} == set()
