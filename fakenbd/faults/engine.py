"""The faults of a server: which of them an event meets, whose turn it is, and what they change.

Faults are chosen before and applied after: `choose` counts an event and picks from its conditions
alone, `apply` changes the correct reply to it, which exists only then. A chosen fault that changes
nothing has not fired.

The hot path is a look into a set: `command in faults.touched_commands`. Faults are indexed by the
kind of event and its number; a fault that is not armed, or can never fire again, is not in the
index, so that a hundred faults on other commands cost nothing. The index is built aside and put in
place by one assignment: faults may come and go in another thread while events are being answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from fakenbd.faults.answer import Answer
from fakenbd.faults.event import ANY, EVENT_KINDS, Event, EventKind
from fakenbd.faults.firing import Firing, FiringRecord

if TYPE_CHECKING:
    from fakenbd.faults.builder import On
    from fakenbd.faults.condition import When
    from fakenbd.faults.fault import Fault

__all__ = ["Choice", "Faults"]


@attrs.define(eq=False)
class _Tally:
    """How many events met the fixed conditions, for how many the fault is chosen but not applied
    yet, and at how many it fired.
    """

    seen: int = 0
    pending: int = 0
    fired: int = 0


@attrs.define(eq=False)
class _Live:
    """A fault with its counters."""

    fault: Fault
    total: _Tally = attrs.field(factory=_Tally)
    connections: dict[int, _Tally] = attrs.field(factory=dict)
    is_over: bool = False
    # The last event that met its conditions but at which it did not fire, and the reason.
    missed: tuple[Event, int, str] | None = None

    @property
    def is_active(self) -> bool:
        return self.fault.armed and not self.is_over

    def tally(self, connection: int) -> _Tally:
        tally = self.connections.get(connection)
        if tally is None:
            tally = self.connections[connection] = _Tally()
        return tally


@attrs.frozen(eq=False)
class Choice:
    """The faults that are chosen for an event, in order; false where there are none.

    `effect` is whether the command is performed, or the option followed, all the same.
    """

    event: Event
    effect: bool = True
    _chosen: tuple[tuple[_Live, int], ...] = attrs.field(default=(), repr=False)
    """Each fault with the occurrence of the event that it counted."""

    @property
    def replaces(self) -> bool:
        """Whether a chosen kind makes a reply of its own in place of the correct one."""
        return any(live.fault.replaces for live, _ in self._chosen)

    def __bool__(self) -> bool:
        return bool(self._chosen)


class _Everything(frozenset[int]):
    """A set that any number is in."""

    def __contains__(self, _: object) -> bool:
        return True


_NOTHING: Final[frozenset[int]] = frozenset()
_EVERYTHING: Final = _Everything()


@attrs.frozen(eq=False)
class _Index:
    """The live faults by kind of event and number; None stands for every number not listed."""

    faults: Mapping[EventKind, Mapping[int | None, tuple[_Live, ...]]]

    @classmethod
    def of(cls, live: Sequence[_Live]) -> _Index:
        faults = {}
        for kind in EVENT_KINDS:
            able = [each for each in live if kind in each.fault.events]
            wanted = [_wanted(each.fault.when, kind) for each in able]
            numbers: set[int | None] = {None}
            numbers.update(number for each in wanted if each is not None for number in each)
            faults[kind] = {
                number: found
                for number in numbers
                if (
                    found := tuple(
                        each
                        for each, them in zip(able, wanted, strict=True)
                        if them is None or number in them
                    )
                )
            }
        return cls(faults)

    def find(self, event: Event) -> tuple[_Live, ...]:
        faults = self.faults[event.kind]
        number = event.number
        return faults[number] if number in faults else faults.get(None, ())

    def touched_commands(self) -> frozenset[int]:
        faults = self.faults["command"]
        if None in faults:
            return _EVERYTHING
        return frozenset(number for number in faults if number is not None)


def _wanted(when: When, kind: EventKind) -> frozenset[int] | None:
    """The numbers that a fault wants of a kind of event, None for all."""
    numbers = when.option if kind == "option" else when.command if kind == "command" else None
    return None if numbers is None or numbers == ANY else numbers


@attrs.define(eq=False)
class Faults:
    """The faults of a server, in the order in which they were added.

    `touched_commands` holds the numbers of the commands at which an armed fault could fire (every
    number, where one takes any); events of other commands need not be shown to `choose`.
    """

    _initial: Iterable[Fault] = attrs.field(default=(), repr=False)
    seed: int = 0
    touched_commands: frozenset[int] = attrs.field(default=_NOTHING, init=False)
    _all: list[_Live] = attrs.field(factory=list, init=False, repr=False)
    _index: _Index = attrs.field(factory=lambda: _Index.of(()), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        for fault in self._initial:
            self.add(fault)

    def __iter__(self) -> Iterator[Fault]:
        return iter([live.fault for live in list(self._all)])

    def __len__(self) -> int:
        return len(self._all)

    def add(self, fault: Fault) -> Fault:
        """Add a fault after those that are there. Returns it, with a name if it had none.

        Raises ValueError if a fault of that name is there already.
        """
        names = {each.name for each in self}
        if not fault.name:
            fault = attrs.evolve(
                fault, name=_free_name(f"{fault.words} on {fault.when.target}", names)
            )
        elif fault.name in names:
            raise ValueError(f"a fault named '{fault.name}' is there already")
        self._all.append(_Live(fault))
        self._rebuild()
        return fault

    def remove(self, fault: Fault | str) -> None:
        """Remove a fault, given itself or by name. Raises ValueError if there is none such."""
        self._all.remove(self._find(fault))
        self._rebuild()

    def arm(self, fault: Fault | str) -> None:
        """Let a fault fire again; it goes on counting. Raises ValueError if there is none such."""
        self._set_armed(fault, True)

    def disarm(self, fault: Fault | str) -> None:
        """Keep a fault from firing; events do not count meanwhile. Raises ValueError as `arm`."""
        self._set_armed(fault, False)

    def _set_armed(self, fault: Fault | str, armed: bool) -> None:
        live = self._find(fault)
        live.fault = attrs.evolve(live.fault, armed=armed)
        self._rebuild()

    def on(
        self,
        event: str | int | None = None,
        /,
        *,
        name: str = "",
        also: bool = False,
        **conditions: Any,
    ) -> On:
        """Begin a fault: `faults.on("read", nth=2).error("EIO")`.

        `event` is a command, "connect" or "greeting"; the conditions are those of When. What the
        fault does is the next call, a method for each kind, `call` for a function, `do` for
        several kinds. Raises ValueError for conditions that do not exist or cannot hold.
        """
        # Imported here: it takes a third of a server's start, which few servers need.
        from fakenbd.faults.builder import On

        return On.when(self.add, event, conditions, name=name, also=also)

    def fired(self, fault: Fault | str, connection: int | None = None) -> int:
        """How often a fault fired, in all or on one connection."""
        live = self._find(fault)
        if connection is None:
            return live.total.fired
        tally = live.connections.get(connection)
        return 0 if tally is None else tally.fired

    def forget(self, connection: int) -> None:
        """Drop what was counted for a connection that is over."""
        for live in list(self._all):
            tally = live.connections.pop(connection, None)
            if tally is not None:
                live.total.pending -= tally.pending

    def choose(self, event: Event) -> Choice:
        """Count an event, and choose for it the first fault whose turn it is and every `also`.

        The choice depends on the event and on those before it only. It is to be applied once.
        """
        chosen: list[tuple[_Live, int]] = []
        winner = ""
        is_stale = False
        for live in self._index.find(event):
            if live.is_over or not live.fault.when.matches(event):
                continue
            own = live.tally(event.connection)
            own.seen += 1
            live.total.seen += 1
            if self._is_due(live, event, own):
                if winner and not live.fault.also:
                    live.missed = (event, own.seen, f"fault '{winner}' came first")
                else:
                    own.pending += 1
                    live.total.pending += 1
                    chosen.append((live, own.seen))
                    winner = winner or ("" if live.fault.also else live.fault.name)
            live.is_over = _is_over(live)
            is_stale = is_stale or live.is_over
        if is_stale:
            self._rebuild()
        effect = all(live.fault.keeps_effect(event) for live, _ in chosen)
        return Choice(event, effect, tuple(chosen))

    def apply(self, choice: Choice, answer: Answer) -> tuple[Answer, list[FiringRecord]]:
        """The reply to send in place of the correct one, and a record of each fault that fired.

        Raises TypeError where a function of the user's returned no answer.
        """
        event = choice.event
        records: list[FiringRecord] = []
        is_stale = False
        for live, occurrence in choice._chosen:
            own = live.connections.get(event.connection)
            if own is not None and own.pending:  # else the connection was forgotten meanwhile
                own.pending -= 1
                live.total.pending -= 1
            firing = Firing(event, live.fault.name, occurrence, self.seed)
            answer, changes = _applied(live.fault, answer, firing)
            if not changes:
                live.missed = (event, occurrence, "it left the answer as it was")
                continue
            if own is not None:
                own.fired += 1
            live.total.fired += 1
            records.append(_record(live.fault, firing, changes))
            live.is_over = _is_over(live)
            is_stale = is_stale or live.is_over
        if is_stale:
            self._rebuild()
        return answer, records

    def unfired(self, events: Iterable[Event]) -> list[str]:
        """A sentence for each fault that never fired: the closest event, and what differed."""
        from fakenbd.faults.unfired import unfired_sentence

        events = list(events)
        return [
            unfired_sentence(live.fault, events, live.missed)
            for live in list(self._all)
            if not live.total.fired
        ]

    def _is_due(self, live: _Live, event: Event, own: _Tally) -> bool:
        when = live.fault.when
        tally = own if when.per == "connection" else live.total
        if when.waits(tally.seen, tally.pending + tally.fired) is not None:
            return False
        if when.chance is None:
            return True
        firing = Firing(event, live.fault.name, own.seen, self.seed)
        return firing.random("chance").random() < when.chance

    def _find(self, fault: Fault | str) -> _Live:
        name = fault if isinstance(fault, str) else fault.name
        for live in list(self._all):
            if live.fault.name == name:
                return live
        raise ValueError(f"there is no fault named '{name}'")

    def _rebuild(self) -> None:
        # Another thread may change the faults meanwhile: then the index is old, and is built again.
        while True:
            live = [each for each in list(self._all) if each.is_active]
            index = _Index.of(live)
            self._index = index
            self.touched_commands = index.touched_commands()
            if live == [each for each in list(self._all) if each.is_active]:
                return


def _free_name(words: str, names: set[str]) -> str:
    name, count = words, 1
    while name in names:
        count += 1
        name = f"{words} ({count})"
    return name


def _applied(fault: Fault, answer: Answer, firing: Firing) -> tuple[Answer, list[tuple[str, str]]]:
    """The reply after all kinds of a fault; of each that changed it, its name and its note."""
    from fakenbd.faults.fault import apply_change, kind_name

    changes = []
    for change in fault.do:
        answer, note = apply_change(change, answer, firing)
        if note:
            changes.append((kind_name(change), note))
    return answer, changes


def _record(fault: Fault, firing: Firing, changes: list[tuple[str, str]]) -> FiringRecord:
    return FiringRecord(
        fault=fault.name,
        kinds=tuple(kind for kind, _ in changes),
        occurrence=firing.occurrence,
        connection=firing.event.connection,
        change="; ".join(note for _, note in changes),
    )


def _is_over(live: _Live) -> bool:
    when = live.fault.when
    if when.per == "server":
        return when.exhausted(live.total.seen, live.total.fired)
    # More connections may come; only connections named in the condition can be all used up.
    return when.connection is not None and all(
        number in live.connections
        and when.exhausted(live.connections[number].seen, live.connections[number].fired)
        for number in when.connection
    )
