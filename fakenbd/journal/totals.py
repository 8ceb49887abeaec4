"""What a journal counted, for answers that outlive the entries.

Counts are kept by command, option, fault and rule; so one of these words alone can be asked for,
whatever the journal still holds, and nothing else can.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs

from fakenbd.journal.conditions import Conditions, meets

__all__ = ["Totals"]


@attrs.frozen
class Totals:
    """What was counted since the journal began, whatever the ring still holds."""

    connections: int = 0
    commands: dict[str, int] = attrs.field(factory=dict)
    options: dict[str, int] = attrs.field(factory=dict)
    heard: int = 0
    said: int = 0
    bytes_heard: int = 0
    bytes_said: int = 0
    strikes: dict[str, int] = attrs.field(factory=dict)
    violations: dict[str, int] = attrs.field(factory=dict)
    failures: int = 0

    @property
    def requests(self) -> int:
        """Requests of the transmission phase."""
        return sum(self.commands.values())

    def counted(self, conditions: Conditions) -> int | None:
        """How many entries ever met `conditions`; None where that was not counted."""
        if len(conditions) != 1:
            return None
        ((name, wanted),) = conditions.items()
        words = self._counts.get(name)
        if words is None or wanted is None:
            return None
        return sum(n for word, n in words.items() if meets(_named(name, word), name, wanted))

    @property
    def _counts(self) -> dict[str, dict[str, int]]:
        return {
            "command": self.commands,
            "option": self.options,
            "fault": self.strikes,
            "rule": self.violations,
        }


def _named(name: str, word: str) -> Any:
    """What passes for an entry when only its `name` is asked for."""
    return SimpleNamespace(**{name: word})
