"""The breaches that the client tolerated, one note for each.

A tolerant client keeps the note and continues; a strict one raises it. Tolerance is decided here
and nowhere else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

import attrs

from fakenbd.errors import NoncomplianceError

__all__ = ["Noncompliance", "Notes", "Tolerance"]

Tolerance: TypeAlias = Literal["tolerant", "strict"]

LIMIT: Final = 10_000
"""Notes kept for one connection: a server with a breach in every reply must not fill the memory."""

logger = logging.getLogger("fakenbd.client")


@attrs.frozen
class Noncompliance:
    """One tolerated breach: the rule broken, what was received, and how it was used."""

    rule: str
    came: str
    made: str

    def __str__(self) -> str:
        return f"{self.came}; {self.made} ({self.rule})"


@attrs.define(eq=False)
class Notes:
    """The tolerated breaches. Every one is logged, the first 10,000 are kept, all are counted."""

    tolerance: Tolerance = attrs.field(
        default="tolerant", validator=attrs.validators.in_(("tolerant", "strict"))
    )
    kept: list[Noncompliance] = attrs.field(factory=list, init=False)
    count: int = attrs.field(default=0, init=False)

    def add(self, notes: Iterable[Noncompliance]) -> None:
        """Keep and log `notes`. Raises NoncomplianceError for the first one when strict."""
        for note in notes:
            self.count += 1
            if len(self.kept) < LIMIT:
                self.kept.append(note)
            if self.tolerance == "strict":
                raise NoncomplianceError(note.came, rule=note.rule)
            logger.warning("%s", note)
