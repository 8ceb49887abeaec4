"""Choosing and applying in a row, for a reply that is made already."""

from __future__ import annotations

from fakenbd.faults import Answer, Event, Faults
from fakenbd.faults.firing import FiringRecord

__all__ = ["fire"]


def fire(faults: Faults, event: Event, answer: Answer) -> tuple[Answer, list[FiringRecord]]:
    """The reply after the faults that an event meets, and a record of each that fired."""
    return faults.apply(faults.choose(event), answer)
