"""One breach of one rule, by the client or by the server.

The rule tables have more levels; here they are reduced to three.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import attrs

from fakenbd.obligations.breach import Breach

__all__ = ["Finding", "Judged", "Level", "Side", "Violation", "level_of"]

Level: TypeAlias = Literal["MUST", "SHOULD", "advisory"]
Side: TypeAlias = Literal["client", "server"]


def level_of(rule_id: str) -> Level:
    """The level of a rule in general; MUST NOT and broken framing count as MUST."""
    # Imported here: the whole table, needed only after a breach.
    from fakenbd.protocol.rules import rule

    row = rule(rule_id)
    if row.must:
        return "MUST"
    return "SHOULD" if row.level.startswith("SHOULD") else "advisory"


@attrs.frozen
class Finding:
    """`side` broke `rule`; `sentence` describes it.

    `level` is the rule's, or another one where the case differs. `offset` is where the message
    begins in the stream of `side`, None where there is no message (the end of a stream).
    """

    rule: str
    side: Side
    level: Level
    sentence: str
    offset: int | None = None

    def __str__(self) -> str:
        return f"{self.sentence} ({self.rule}, {self.level})"


class Violation(NamedTuple):
    """The client broke `rule`; `level` None means the rule's own."""

    rule: str
    sentence: str
    level: Level | None = None


Judged: TypeAlias = tuple[Violation | Breach, int | None]
"""What a message broke, and where it begins in its side's stream."""
