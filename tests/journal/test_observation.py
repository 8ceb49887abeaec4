"""Each obligation of the rule tables is accounted for exactly once."""

from __future__ import annotations

from collections import Counter

from fakenbd.journal.observation import BAIT, COVERED, OBSERVABLE, UNOBSERVABLE
from fakenbd.protocol.rules import rules


def test_every_client_rule_stands_in_exactly_one_table() -> None:
    listed = Counter([*OBSERVABLE, *COVERED, *BAIT, *UNOBSERVABLE])
    assert listed == Counter(row.id for row in rules("C"))
