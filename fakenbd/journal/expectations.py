"""Questions to a journal, assertions on it, and the text of a failed assertion.

An expectation is a command (or none) and conditions on fields. When it fails the text has what
was wanted, which entries come closest and which of their fields differ, and the transcript around
the closest one, so that the failed run need not be repeated with tracing on.

The journal may have dropped its oldest entries. Counts are then taken from its totals where these
suffice; otherwise the question is refused, naming `journal_limit`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import attrs

from fakenbd.errors import ExpectationError
from fakenbd.journal.conditions import Conditions, Kind, differences, kind_for, matches, shown
from fakenbd.journal.entries import Entry, Received, Violated
from fakenbd.protocol.messages import Request

if TYPE_CHECKING:
    from fakenbd.journal.totals import Totals

__all__ = ["Expectations", "Waiter", "Wanted"]

Wanted: TypeAlias = "str | Mapping[str, Any]"

_CLOSEST: Final = 3


@attrs.frozen
class _Found:
    """The `entries` that are held, and how many there ever were in `total`; None if unknown."""

    kind: Kind
    wanted: Conditions
    entries: list[Entry]
    total: int | None

    def __str__(self) -> str:
        held = len(self.entries)
        if self.total is None:
            return f"at least {_times(held)}" if held else "none"
        if self.total > held:
            return f"{_times(self.total)}, {_times(held)} of them held"
        return _times(held)


class Expectations:
    """The questions and assertions of a journal; its subclass holds the entries."""

    limit: int
    payload_limit: int

    @property
    def totals(self) -> Totals:
        """The counts since the journal began."""
        raise NotImplementedError

    def entries(self) -> list[Entry]:
        """The entries held, oldest first."""
        raise NotImplementedError

    def since(self, index: int) -> list[Entry]:
        """The entries held from serial number `index` on."""
        raise NotImplementedError

    def __reversed__(self) -> Iterator[Entry]:
        raise NotImplementedError

    def select(self, kind: Kind | None = None, **conditions: Any) -> list[Entry]:
        """The entries of `kind` that meet `conditions`; the kind follows from them if not given.

        A wanted value may be a value, a list of values (any of them), a range, or a function.
        """
        kind = kind or kind_for(conditions)
        return [e for e in self.entries() if isinstance(e, kind) and matches(e, conditions)]

    def requests(self, command: str | int | None = None, **conditions: Any) -> list[Received]:
        """The commands of the transmission phase that were received and meet `conditions`."""
        wanted = _wanted(command, conditions)
        return [
            entry
            for entry in self.entries()
            if isinstance(entry, Received)
            and isinstance(entry.message, Request)
            and matches(entry, wanted)
        ]

    def last(self, command: str | int | None = None, **conditions: Any) -> Any:
        """The newest entry that meets the conditions, or None."""
        wanted = _wanted(command, conditions)
        kind = kind_for(wanted) if wanted else Entry.__args__
        return next((e for e in reversed(self) if isinstance(e, kind) and matches(e, wanted)), None)

    def expect(
        self, command: str | int | None = None, *, count: int | None = None, **conditions: Any
    ) -> list[Any]:
        """The entries that meet the conditions: `count` of them, or at least one.

        `expect("read", offset=4096)`, `expect(option="go")`, `expect(fault="cut")`, …
        Those that are no longer held are counted but not returned. Raises ExpectationError, also
        where they cannot be counted: only a command, option, fault or rule alone can.
        """
        found = self._find(_wanted(command, conditions))
        total, held = found.total, len(found.entries)
        if total == count if count is not None else total or held:
            return found.entries
        amount = "at least one" if count is None else _times(count)
        if total is None and (count is None or held <= count):
            raise self._refusal(found, amount)
        raise ExpectationError(self._explain(found, amount))

    def expect_none(self, command: str | int | None = None, **conditions: Any) -> None:
        """Check that nothing meets the conditions. Raises ExpectationError, as `expect` does."""
        found = self._find(_wanted(command, conditions))
        if found.total is None and not found.entries:
            raise self._refusal(found, "none")
        if found.total != 0:
            raise ExpectationError(self._explain(found, "none"))

    def expect_order(self, order: Sequence[Wanted]) -> list[Any]:
        """Entries that meet each of `order`, one after another; others may lie between them.

        Each is a command's name or a mapping of conditions. Raises ExpectationError.
        """
        held = self.entries()
        entries = iter(held)
        found: list[Entry] = []
        for position, one in enumerate(order):
            wanted = {"command": one} if isinstance(one, str) else dict(one)
            kind = kind_for(wanted)
            match = next((e for e in entries if isinstance(e, kind) and matches(e, wanted)), None)
            if match is None:
                if held and held[0].index and self.totals.counted(wanted) != 0:
                    raise self._refusal(_Found(kind, wanted, [], None), "in this order")
                raise ExpectationError(self._explain_order(order, position, wanted, found))
            found.append(match)
        return found

    def _find(self, wanted: Conditions) -> _Found:
        if not wanted:
            raise TypeError("an expectation needs a command or a condition")
        kind = kind_for(wanted)
        totals = self.totals
        entries = self.entries()
        found = [e for e in entries if isinstance(e, kind) and matches(e, wanted)]
        if not (entries and entries[0].index) and not _only_counted(kind, entries, totals):
            return _Found(kind, wanted, found, len(found))
        total = totals.counted(wanted)
        return _Found(kind, wanted, found, None if total is None else max(total, len(found)))

    def _refusal(self, found: _Found, amount: str) -> ExpectationError:
        lines = [f"expected {amount}: {describe(found.wanted)}", f"found {found}", ""]
        return ExpectationError("\n".join([*lines, self._missing(found)]))

    def _missing(self, found: _Found) -> str:
        """Why not all entries are held, and how to hold more."""
        entries = self.entries()
        first = entries[0].index if entries else 0
        if not first:
            return (
                "this cannot be answered:"
                " repeated violations of one rule on a connection are counted, without more entries"
            )
        return (
            "this cannot be answered:"
            f" the journal no longer holds its first {first} entries\n"
            f"raise journal_limit, now --journal-limit {self.limit} or"
            f' journal={{"limit": {self.limit}, "payload_limit": {self.payload_limit}}}'
        )

    def _explain(self, look: _Found, amount: str) -> str:
        kind, wanted, found = look.kind, look.wanted, look.entries
        lines = [f"expected {amount}: {describe(wanted)}", f"found {look}"]
        entries = self.entries()
        if found:
            lines += ["", "found:", *(f"  {_line(entry)}" for entry in found[:_CLOSEST])]
            if len(found) > _CLOSEST:
                lines.append(f"  … and {len(found) - _CLOSEST} more")
        near = _closest(kind, wanted, entries) if amount != "none" else []
        around = found[-1] if found else near[0][0] if near else None
        return "\n".join([*lines, *_differing(near), "", *_excerpt(entries, around)])

    def _explain_order(
        self, order: Sequence[Wanted], position: int, wanted: Conditions, found: list[Entry]
    ) -> str:
        lines = ["expected in this order:"]
        for place, one in enumerate(order):
            conditions = {"command": one} if isinstance(one, str) else one
            mark = f"at entry {found[place].index}" if place < len(found) else "not reached"
            if place == position:
                mark = "not found" + (f" after entry {found[-1].index}" if found else "")
            lines.append(f"  {place + 1}. {describe(conditions)}: {mark}")
        entries = self.entries()
        kind = kind_for(wanted)
        earlier = [e for e in entries if isinstance(e, kind) and matches(e, wanted)]
        around = found[-1] if found else None
        if earlier:
            lines += [
                "",
                "it came earlier:",
                *(f"  {_line(entry)}" for entry in earlier[:_CLOSEST]),
            ]
        elif near := _closest(kind, wanted, entries):
            lines += _differing(near)
            around = near[0][0]
        return "\n".join([*lines, "", *_excerpt(entries, around)])


@attrs.define(eq=False)
class Waiter:
    """Looks for entries as they come: ask `done` after each notice of `Journal.subscribe`.

    Each entry is looked at once. `found` are the entries that meet the conditions, `count` of them
    are enough. Where the journal dropped entries before they were looked at, its totals decide, if
    they can.
    """

    journal: Expectations
    wanted: Conditions
    count: int = 1
    found: list[Entry] = attrs.field(init=False, factory=list)
    _next: int = attrs.field(init=False, default=0)
    _dropped: bool = attrs.field(init=False, default=False)
    _kind: Kind = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._kind = kind_for(self.wanted)

    def done(self) -> bool:
        """Whether enough has been found."""
        entries = self.journal.since(self._next)
        if entries:
            self._dropped |= entries[0].index > self._next
            self._next = entries[-1].index + 1
        self.found += [
            entry
            for entry in entries
            if isinstance(entry, self._kind) and matches(entry, self.wanted)
        ]
        return len(self.found) >= self.count or (self._total() or 0) >= self.count

    def error(self, seconds: float) -> ExpectationError:
        """The error to raise after waiting for `seconds` without success."""
        amount = "at least one" if self.count == 1 else f"at least {_times(self.count)}"
        found = _Found(self._kind, self.wanted, self.found, self._total())
        text = self.journal._explain(found, amount)
        if found.total is None and self._dropped:
            text = f"{self.journal._missing(found)}\n{text}"
        return ExpectationError(f"waited {seconds:g} s without success\n{text}")

    def _total(self) -> int | None:
        held = len(self.found)
        if not self._dropped and self._kind is not Violated:
            return held
        total = self.journal.totals.counted(self.wanted)
        return None if total is None else max(total, held)


def describe(wanted: Conditions) -> str:
    """Conditions in words: "read with offset 4096, length 512"."""
    words = [f"{name} {shown(name, value)}" for name, value in wanted.items() if name != "command"]
    phrase = ", ".join(words)
    if "command" not in wanted:
        return phrase
    command = shown("command", wanted["command"])
    return f"{command} with {phrase}" if phrase else command


def _wanted(command: str | int | None, conditions: Conditions) -> dict[str, Any]:
    return {"command": command, **conditions} if command is not None else dict(conditions)


def _only_counted(kind: Kind, entries: Iterable[Entry], totals: Totals) -> bool:
    """Whether there were violations that were only counted."""
    if kind is not Violated:
        return False
    return sum(totals.violations.values()) > sum(isinstance(e, Violated) for e in entries)


def _times(count: int) -> str:
    return {0: "none", 1: "one"}.get(count, str(count))


def _closest(
    kind: Kind, wanted: Conditions, entries: Iterable[Entry]
) -> list[tuple[Entry, list[str]]]:
    """The entries of `kind` that differ in the fewest conditions, the same command first."""
    ranked = []
    for entry in entries:
        if isinstance(entry, kind):
            differing = differences(entry, wanted)
            # An entry of another command (or of none) is close only when nothing else is.
            other = any(getattr(entry, key, None) is None for key in wanted)
            if differing:
                ranked.append((other, len(differing), entry.index, entry, differing))
    ranked.sort(key=lambda rank: rank[:3])
    return [(entry, differing) for *_, entry, differing in ranked[:_CLOSEST]]


def _differing(near: list[tuple[Entry, list[str]]]) -> list[str]:
    lines = ["", "closest:"] if near else []
    for entry, differing in near:
        lines += [f"  {_line(entry)}", f"      {'; '.join(differing)}"]
    return lines


def _line(entry: Entry) -> str:
    from fakenbd.journal.transcript import transcript

    return f"[{entry.index}] {transcript([entry]).splitlines()[0].strip()}"


def _excerpt(entries: Sequence[Entry], around: Entry | None) -> list[str]:
    # Imported here: only a failing test needs it.
    from fakenbd.journal.transcript import transcript

    if not entries:
        return ["nothing was recorded"]
    index = around.index if around is not None else None
    return ["transcript:", transcript(entries, around=index).rstrip("\n")]
