"""The faults of a server: which of them an event meets, whose turn it is, and what they change.

The hot path is a look into a set: `command in faults.touched_commands`. Faults are indexed by the
kind of event and its number, and a fault that can never strike again leaves the index, so that a
hundred faults on other commands cost nothing. The index is built aside and put in place by one
assignment: faults may come and go in another thread while events are being answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from fakenbd.faults.answer import Answer
from fakenbd.faults.event import ANY, EVENT_KINDS, Event, EventKind
from fakenbd.faults.strike import Strike, Struck

if TYPE_CHECKING:
    from fakenbd.faults.builder import On
    from fakenbd.faults.condition import When
    from fakenbd.faults.fault import Fault

__all__ = ["Faults"]


@attrs.define(eq=False)
class _Tally:
    """How many events met the fixed conditions, and how many of them were struck."""

    seen: int = 0
    struck: int = 0


@attrs.define(eq=False)
class _Live:
    """A fault with its counters."""

    fault: Fault
    total: _Tally = attrs.field(factory=_Tally)
    connections: dict[int, _Tally] = attrs.field(factory=dict)
    is_over: bool = False
    # Why it did not strike where its conditions held: the last such event, and the reason.
    missed: tuple[Event, int, str] | None = None

    def tally(self, connection: int) -> _Tally:
        tally = self.connections.get(connection)
        if tally is None:
            tally = self.connections[connection] = _Tally()
        return tally


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
    def of(cls, live: Iterable[_Live]) -> _Index:
        live = [each for each in live if not each.is_over]
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

    def touched(self, kind: EventKind) -> frozenset[int]:
        faults = self.faults[kind]
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

    `touched_commands` and `touched_options` hold the numbers that a live fault could strike at
    (every number, where one takes any); `touches_greeting` and `touches_connect` say the same of
    those events. Only touched events need to be shown to `strike`.
    """

    _initial: Iterable[Fault] = attrs.field(default=(), repr=False)
    seed: int = 0
    touched_commands: frozenset[int] = attrs.field(default=_NOTHING, init=False)
    touched_options: frozenset[int] = attrs.field(default=_NOTHING, init=False)
    touches_greeting: bool = attrs.field(default=False, init=False)
    touches_connect: bool = attrs.field(default=False, init=False)
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
        """Arm a fault, after those that are there. Returns it, with a name if it had none.

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
        """Disarm a fault, given itself or by name. Raises ValueError if there is none such."""
        self._all.remove(self._find(fault))
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
        from fakenbd.faults.builder import On  # a third of a server's start, for who has lies

        return On.when(self.add, event, conditions, name=name, also=also)

    def strikes(self, fault: Fault | str, connection: int | None = None) -> int:
        """How often a fault struck, in all or on one connection."""
        live = self._find(fault)
        if connection is None:
            return live.total.struck
        tally = live.connections.get(connection)
        return 0 if tally is None else tally.struck

    def touches(self, command: int) -> bool:
        """Whether some live fault could strike at a command of that number."""
        return command in self.touched_commands

    def forget(self, connection: int) -> None:
        """Drop what was counted for a connection that is over."""
        for live in list(self._all):
            live.connections.pop(connection, None)

    def strike(self, event: Event, answer: Answer) -> tuple[Answer, list[Struck]]:
        """The answer to give to `event` in place of the true one, and a record of each strike.

        Raises TypeError where a function of the user's returned no answer.
        """
        candidates = self._index.find(event)
        records: list[Struck] = []
        winner = ""
        is_stale = False
        for live in candidates:
            if live.is_over or not live.fault.when.matches(event):
                continue
            own = live.tally(event.connection)
            own.seen += 1
            live.total.seen += 1
            if self._is_due(live, event, own):
                if winner and not live.fault.also:
                    live.missed = (event, own.seen, f"fault '{winner}' came first")
                else:
                    strike = Strike(event, live.fault.name, own.seen, self.seed)
                    answer, changes = _applied(live.fault, answer, strike)
                    if changes:
                        own.struck += 1
                        live.total.struck += 1
                        records.append(_record(live.fault, strike, changes))
                        winner = winner or ("" if live.fault.also else live.fault.name)
                    else:
                        live.missed = (event, own.seen, "it left the answer as it was")
            live.is_over = _is_over(live)
            is_stale = is_stale or live.is_over
        if is_stale:
            self._rebuild()
        return answer, records

    def unfired(self, events: Iterable[Event]) -> list[str]:
        """A sentence for each fault that never struck: the closest event, and what differed."""
        from fakenbd.faults.report import why_not

        events = list(events)
        return [
            why_not(live.fault, events, live.missed)
            for live in list(self._all)
            if not live.total.struck
        ]

    def _is_due(self, live: _Live, event: Event, own: _Tally) -> bool:
        when = live.fault.when
        tally = own if when.per == "connection" else live.total
        if when.waits(tally.seen, tally.struck) is not None:
            return False
        if when.chance is None:
            return True
        strike = Strike(event, live.fault.name, own.seen, self.seed)
        return strike.random("chance").random() < when.chance

    def _find(self, fault: Fault | str) -> _Live:
        name = fault if isinstance(fault, str) else fault.name
        for live in list(self._all):
            if live.fault.name == name:
                return live
        raise ValueError(f"there is no fault named '{name}'")

    def _rebuild(self) -> None:
        # Another thread may add or remove meanwhile; whoever put an old list in place goes again.
        while True:
            live = list(self._all)
            index = _Index.of(live)
            self._index = index
            self.touched_commands = index.touched("command")
            self.touched_options = index.touched("option")
            self.touches_greeting = bool(index.faults["greeting"])
            self.touches_connect = bool(index.faults["connect"])
            if live == self._all:
                return


def _free_name(words: str, names: set[str]) -> str:
    name, count = words, 1
    while name in names:
        count += 1
        name = f"{words} ({count})"
    return name


def _applied(fault: Fault, answer: Answer, strike: Strike) -> tuple[Answer, list[tuple[str, str]]]:
    """The answer after all kinds of a fault, and of each that changed it, its name and what."""
    from fakenbd.faults.difference import difference
    from fakenbd.faults.fault import kind_name
    from fakenbd.faults.registry import Kind

    changes = []
    for change in fault.do:
        if isinstance(change, Kind):
            if strike.event.kind not in change.events:
                continue
            changed = change.apply(answer, strike)
        else:
            changed = change(list(answer), strike)
            if not isinstance(changed, list):
                who, told = kind_name(change), type(changed).__name__
                raise TypeError(f"fault '{fault.name}': {who} returned {told}, not a list of steps")
        if changed != answer:
            changes.append((kind_name(change), difference(answer, changed)))
            answer = changed
    return answer, changes


def _record(fault: Fault, strike: Strike, changes: list[tuple[str, str]]) -> Struck:
    return Struck(
        fault=fault.name,
        kinds=tuple(kind for kind, _ in changes),
        occurrence=strike.occurrence,
        connection=strike.event.connection,
        change="; ".join(words for _, words in changes if words),
    )


def _is_over(live: _Live) -> bool:
    when = live.fault.when
    if when.per == "server":
        return when.exhausted(live.total.seen, live.total.struck)
    # Of connections to come nobody knows; only those named beforehand can be all used up.
    return when.connection is not None and all(
        number in live.connections
        and when.exhausted(live.connections[number].seen, live.connections[number].struck)
        for number in when.connection
    )
