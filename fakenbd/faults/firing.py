"""A fault at the moment it fires, and the record that is kept of it."""

from __future__ import annotations

from random import Random

import attrs

from fakenbd.faults.event import Event

__all__ = ["Firing", "FiringRecord"]


@attrs.frozen
class Firing:
    """What a kind may know: the event, the fault's name, how often it was met on this connection.

    `occurrence` counts, from 1, the events of the connection that met the fault's fixed conditions.
    """

    event: Event
    fault: str = ""
    occurrence: int = 1
    seed: int = 0

    def address(self, purpose: str = "") -> str:
        """Where randomness is taken from: seed, connection, fault and occurrence.

        `purpose` distinguishes two uses in one firing, which would otherwise draw the same numbers.
        """
        address = f"{self.seed}/{self.event.connection}/{self.fault}/{self.occurrence}"
        return f"{address}/{purpose}" if purpose else address

    def random(self, purpose: str = "") -> Random:
        """The randomness at an address: the same numbers in every run."""
        return Random(self.address(purpose))


@attrs.frozen
class FiringRecord:
    """The record of a firing: which fault with which kinds, where, and what it changed."""

    fault: str
    kinds: tuple[str, ...]
    occurrence: int
    connection: int
    change: str

    def __str__(self) -> str:
        return f"fault '{self.fault}' fired on connection {self.connection}: {self.change}"
