"""Why a fault never fired: the closest event, and the condition that it did not meet.

Computed from the events of a journal when the report is asked for; a running server keeps nothing
for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from fakenbd.faults.event import Event
from fakenbd.faults.fault import Fault

__all__ = ["unfired_sentence"]


def unfired_sentence(
    fault: Fault, events: Sequence[Event], missed: tuple[Event, int, str] | None = None
) -> str:
    """The sentence on a fault that never fired.

    `missed` is an event at which all its conditions held, with its occurrence, and what stood in
    the way.
    """
    begin = f"fault '{fault.name}' never fired: "
    if missed is not None:
        event, _, reason = missed
        return begin + f"at {_described(event, events)} {reason}"
    if not fault.armed:
        return begin + "it was not armed"
    closest: Event | None = None
    words, distance, number = "", 0, 0
    seen: Counter[int] = Counter()
    for event, occurrence in _numbered(events):
        if event.kind not in fault.events:
            continue
        unmet = fault.when.unmet(event)
        scope = event.connection if fault.when.per == "connection" else 0
        seen[scope] += not unmet
        # Of events with the same distance the first is reported; of those that fail only a
        # condition on occurrence, the last, which came closest to it.
        if closest is None or unmet < distance or not unmet:
            closest, distance, number = event, unmet, occurrence
            words = fault.when.differs(event) or fault.when.waits(seen[scope], 0) or _luck(fault)
    if closest is None:
        return begin + "there was no event that it could fire at"
    return begin + f"the closest was {closest.describe(number)} ({words})"


def _luck(fault: Fault) -> str:
    chance = fault.when.chance
    return "the fault came later, or failed" if chance is None else f"wanted chance = {chance:g}"


def _numbered(events: Iterable[Event]) -> Iterator[tuple[Event, int]]:
    """The events with their occurrence, counted by connection, kind and number."""
    counts: Counter[tuple[int, str, int | None]] = Counter()
    for event in events:
        key = (event.connection, event.kind, event.number)
        counts[key] += 1
        yield event, counts[key]


def _described(missed: Event, events: Sequence[Event]) -> str:
    for event, occurrence in _numbered(events):
        if event == missed:
            return event.describe(occurrence)
    return missed.describe()
