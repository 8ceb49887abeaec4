"""A breach of one obligation, and how much it weighs.

The rule tables speak in many shades; three are enough to act on. A MUST broken is the client's
fault; a SHOULD broken is worth a warning; anything else is advice.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import attrs

__all__ = ["Level", "Violation", "weight"]

Level: TypeAlias = Literal["MUST", "SHOULD", "advisory"]


def weight(rule_id: str) -> Level:
    """What breaking the rule weighs, from its level in the tables (MUST NOT weighs as MUST)."""
    from fakenbd.protocol.rules import rule  # a whole table, for clients that break a rule

    row = rule(rule_id)
    if row.must:
        return "MUST"
    return "SHOULD" if row.level.startswith("SHOULD") else "advisory"


def _by_rule(violation: Violation) -> Level:
    return weight(violation.rule)


@attrs.frozen
class Violation:
    """The client broke `rule`; `sentence` says how.

    `level` is the rule's, unless the case weighs less or more than the rule does in general.
    """

    rule: str
    sentence: str
    level: Level = attrs.field(default=attrs.Factory(_by_rule, takes_self=True))

    def __str__(self) -> str:
        return f"{self.sentence} ({self.rule}, {self.level})"
