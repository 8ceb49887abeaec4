"""Each of the client's rules is accounted for exactly once, each bait is laid, each excuse real."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from fakenbd import obligations
from fakenbd.obligations.excuses import CERTAIN, VOID
from fakenbd.obligations.rule_coverage import BAIT, COVERED, OBSERVABLE, UNOBSERVABLE
from fakenbd.profile import find, library
from fakenbd.protocol.rules import rules


def test_every_client_rule_stands_in_exactly_one_table() -> None:
    listed = Counter([*OBSERVABLE, *COVERED, *BAIT, *UNOBSERVABLE])
    assert listed == Counter(row.id for row in rules("C"))


def test_every_bait_is_laid_by_a_profile() -> None:
    assert BAIT.keys() - {rule_id for name in library() for rule_id in find(name).rules} == set()


def test_every_observable_rule_has_its_excuse_or_none() -> None:
    assert VOID.keys() == OBSERVABLE.keys()
    assert OBSERVABLE.keys() >= CERTAIN


def test_every_observable_rule_is_named_where_it_is_judged() -> None:
    room = Path(obligations.__file__).parent
    tables = ("rule_coverage.py", "server_coverage.py", "excuses.py")
    texts = [path.read_text() for path in room.glob("*.py") if path.name not in tables]
    named = {rule_id for text in texts for rule_id in re.findall(r"\bC-\d+\b", text)}
    assert OBSERVABLE.keys() - named == set()
