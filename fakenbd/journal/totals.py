"""Counts of all that was recorded, kept when the entries are dropped.

Counts are kept by command, option and fault, and of violations by rule and level; only conditions
on these words alone can be answered from them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import attrs

from fakenbd.journal.conditions import Conditions, matches

__all__ = ["Totals"]


@attrs.frozen
class Totals:
    """The counts since the journal began, whatever the ring still holds."""

    connections: int = 0
    commands: dict[str, int] = attrs.field(factory=dict)
    options: dict[str, int] = attrs.field(factory=dict)
    received: int = 0
    sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    fired: dict[str, int] = attrs.field(factory=dict)
    violation_levels: dict[tuple[str, str], int] = attrs.field(factory=dict)
    failures: int = 0

    @property
    def requests(self) -> int:
        """Requests of the transmission phase."""
        return sum(self.commands.values())

    @property
    def violations(self) -> dict[str, int]:
        """How often each rule was broken."""
        rules: Counter[str] = Counter()
        for (rule, _), count in self.violation_levels.items():
            rules[rule] += count
        return dict(rules)

    def counted(self, conditions: Conditions) -> int | None:
        """How many entries ever met `conditions`; None where that was not counted."""
        for names, counts in self._tables():
            if names.issuperset(conditions) and None not in conditions.values():
                return sum(count for words, count in counts if matches(words, conditions))
        return None

    def _tables(self) -> Iterator[tuple[set[str], list[tuple[Any, int]]]]:
        """Names of conditions, with the counts that answer when only these are asked for."""
        for name, counts in (
            ("command", self.commands),
            ("option", self.options),
            ("fault", self.fired),
        ):
            yield {name}, [(SimpleNamespace(**{name: word}), n) for word, n in counts.items()]
        yield (
            {"rule", "level"},
            [
                (SimpleNamespace(rule=rule, level=level), count)
                for (rule, level), count in self.violation_levels.items()
            ],
        )
