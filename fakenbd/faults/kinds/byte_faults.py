"""Changes to the bytes that leave: cut short, corrupted, dribbled, slowed down."""

from __future__ import annotations

from typing import Any, cast

import attrs
from attrs.converters import optional

from fakenbd.faults.answer import Answer, CloseConnection, Ending, NeverSend, PaceBytes
from fakenbd.faults.byte_value import hex_bytes
from fakenbd.faults.change_summary import apart, ended, pacing
from fakenbd.faults.firing import Firing
from fakenbd.faults.readers import duration, integer, one_of, positive
from fakenbd.faults.registry import Kind, register
from fakenbd.faults.selection import Selector, is_message, materialised, optional_selector, selected
from fakenbd.faults.stream import carries_bytes, place_of, region, split_at, step_bytes
from fakenbd.protocol.messages import Raw, ServerMessage

__all__ = ["Corrupt", "Cut", "Dribble"]


def _ending(value: Any) -> str:
    return one_of(value, ("close", "reset", "half-close", "truncate", "stall"))


@register("cut", family="bytes", main="after", may_stall=True)
@attrs.frozen
class Cut(Kind):
    """Send only the first bytes of the answer, then end the connection or send nothing more.

    Positions past the answer's end change nothing; its very end is a position too.

    Example: do = { cut = 7, then = "reset" }

    after: bytes that still leave; a negative number counts from the end (required)
    then: "close", "reset", "half-close", "truncate" (no close_notify) or "stall" (default "close")
    at: count within these messages instead of the whole answer (default nothing)
    """

    after: int = attrs.field(converter=integer)
    then: str = attrs.field(default="close", converter=_ending)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        place = place_of(answer, self.at, self.after)
        if place is None:
            return answer, ""
        head, _ = split_at(answer, place)
        end = NeverSend() if self.then == "stall" else CloseConnection(cast(Ending, self.then))
        changed = [*head, end]
        return changed, ended(answer, changed)


def _mask(value: Any) -> bytes:
    data = hex_bytes(value)
    if not data:
        raise ValueError("expected at least one byte")
    return data


@register("corrupt", family="bytes", main="byte", may_stall=True)
@attrs.frozen
class Corrupt(Kind):
    """Change bytes of the answer without changing their number.

    Without a position the places are drawn by seed, anywhere in the answer (or in the messages
    that `at` names). Bytes past the end are left out.

    Example: do = { corrupt = 3, xor = "80" }

    byte: position of the first byte, from the end if negative; drawn if not given (default nothing)
    xor: bytes to combine with the correct ones (default "ff")
    overwrite: bytes to put over the correct ones, instead of xor (default nothing)
    count: how many places are drawn where no position is given (default 1)
    at: count within these messages instead of the whole answer (default nothing)
    """

    byte: int | None = attrs.field(default=None, converter=optional(integer))
    xor: bytes = attrs.field(default=b"\xff", converter=_mask)
    overwrite: bytes | None = attrs.field(default=None, converter=optional(_mask))
    count: int = attrs.field(default=1, converter=positive)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        changed = answer
        before: dict[int, int] = {}
        after: dict[int, int] = {}
        for place in self._places(answer, firing):
            changed, correct, wrong = self._corrupted(changed, place)
            before = dict(enumerate(correct, place)) | before
            after |= enumerate(wrong, place)
        places = [place for place in sorted(before) if before[place] != after[place]]
        if not places:
            return answer, ""
        first = places[0]
        if len(places) > 1:
            return changed, f"changed {len(places)} bytes, the first at {first}"
        return changed, f"changed byte {first}: {before[first]:#04x} -> {after[first]:#04x}"

    def _places(self, answer: Answer, firing: Firing) -> list[int]:
        if self.byte is not None:
            place = place_of(answer, self.at, self.byte)
            return [] if place is None else [place]
        within = region(answer, self.at)
        if within is None or within[0] == within[1]:
            return []
        span = range(*within)
        return sorted(firing.random().sample(span, min(self.count, len(span))))

    def _corrupted(self, answer: Answer, place: int) -> tuple[Answer, bytes, bytes]:
        """The answer with the bytes at one place changed, and those bytes before and after."""
        mask = self.xor if self.overwrite is None else self.overwrite
        head, rest = split_at(answer, place)
        middle, tail = split_at(rest, len(mask))
        # The pieces that split_at made are joined again, so that nothing but the bytes changes.
        correct = b"".join(map(step_bytes, middle))
        if self.overwrite is None:
            wrong = bytes(left ^ right for left, right in zip(correct, mask, strict=False))
        else:
            wrong = self.overwrite[: len(correct)]
        aside = [step for step in middle if not carries_bytes(step)]
        return _joined([*head, Raw(wrong), *aside, *tail]), correct, wrong


def _joined(answer: Answer) -> Answer:
    """The answer with neighbouring runs of raw bytes made one."""
    joined: Answer = []
    for step in answer:
        if isinstance(step, Raw) and joined and isinstance(joined[-1], Raw):
            joined[-1] = Raw(bytes(joined[-1].data) + bytes(step.data))
        else:
            joined.append(step)
    return joined


def _sizes(value: Any) -> int | tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError("expected at least one size")
        return tuple(map(positive, value))
    return positive(value)


@register("dribble", family="bytes", main="size", breaks_must=False)
@attrs.frozen
class Dribble(Kind):
    """Send the bytes in small writes, each a segment of its own where the network lets it.

    Example: do = { dribble = 1, seconds = 0.01 }

    size: bytes a write; a list gives the sizes of the first writes, and the rest is one (default 1)
    seconds: pause between two writes (default 0.0)
    at: only these messages (default nothing)
    """

    size: int | tuple[int, ...] = attrs.field(default=1, converter=_sizes)
    seconds: float = attrs.field(default=0.0, converter=duration)
    at: Selector | None = attrs.field(default=None, converter=optional_selector)

    def apply(self, answer: Answer, firing: Firing) -> tuple[Answer, str]:
        answer = materialised(answer)
        places = None if self.at is None else set(selected(answer, self.at))
        changed: Answer = []
        run: list[ServerMessage] = []
        for place, step in enumerate(answer):
            if is_message(step) and (places is None or place in places):
                run.append(step)  # type: ignore[arg-type]
                continue
            changed += [*self._paced(run), step]
            run = []
        changed += self._paced(run)
        paced = next(
            (step for step in changed if isinstance(step, PaceBytes) and step.messages), None
        )
        return changed, "" if paced is None else self._pacing(paced)

    def _pacing(self, paced: PaceBytes) -> str:
        if isinstance(self.size, int):
            return pacing(self.size, self.seconds)
        sizes = ", ".join(str(len(write)) for write in paced.writes())
        return f"sent in writes of {sizes} bytes{apart(self.seconds)}"

    def _paced(self, run: list[ServerMessage]) -> Answer:
        data = b"".join(map(step_bytes, run))
        return [PaceBytes(data, self.size, self.seconds, tuple(run))] if data else []
