"""Conditions on entries: a name and a wanted value, as tests and `explain` filters write them.

The names that an entry has are in its class (`conditions`). The names used also select the kind of
entry: `rule` means violations, `error` messages of the server, and a name that messages of both
sides have means the client's. Numbers and words of the specification are interchangeable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from difflib import get_close_matches
from enum import IntEnum, IntFlag
from typing import Any, Final, TypeAlias

from fakenbd.journal.entries import (
    Closed,
    Connected,
    Entry,
    FaultFired,
    InternalFailure,
    Noted,
    Received,
    Sent,
    Violated,
)
from fakenbd.protocol.constants import (
    ChunkFlag,
    ChunkType,
    Command,
    CommandFlag,
    Error,
    Option,
    Reply,
    TransmissionFlag,
    flag_number,
    slug,
)
from fakenbd.protocol.messages import Chunk, Request

__all__ = ["Conditions", "Kind", "differences", "kind_for", "matches", "shown"]

Kind: TypeAlias = type[Entry]
Conditions: TypeAlias = Mapping[str, Any]

_KINDS: Final[tuple[Kind, ...]] = (
    Received,
    Sent,
    FaultFired,
    Violated,
    Closed,
    Connected,
    InternalFailure,
    Noted,
)
_WORDS: Final[dict[str, tuple[type[IntEnum], ...]]] = {
    "command": (Command,),
    "option": (Option,),
    "error": (Error, Reply),
    "type": (ChunkType, Reply),
}
_TOGETHER: Final = frozenset({"flags", "kinds"})
_BYTES_SHOWN: Final = 16
_FLAGS: Final[dict[type, type[IntFlag]]] = {Request: CommandFlag, Chunk: ChunkFlag}


def kind_for(conditions: Conditions) -> Kind:
    """The kind of entry that can be asked for all of `conditions`.

    Raises TypeError naming a condition that does not exist, or those that no entry has together.
    """
    for kind in _KINDS:
        if all(name in kind.conditions for name in conditions):
            return kind
    known = sorted({name for kind in _KINDS for name in kind.conditions})
    for name in conditions:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            nearest = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(
                f"there is no condition {name!r}{nearest} (known are {', '.join(known)})"
            )
    raise TypeError(f"no entry has all of these: {', '.join(conditions)}")


def matches(entry: Entry, conditions: Conditions) -> bool:
    """Whether `entry` meets all of `conditions`."""
    return all(_meets(entry, name, wanted) for name, wanted in conditions.items())


def differences(entry: Entry, conditions: Conditions) -> list[str]:
    """One phrase for each condition that `entry` does not meet: "length is 4096, not 512"."""
    return [
        f"{name} is {shown(name, getattr(entry, name, None))}, not {shown(name, wanted)}"
        for name, wanted in conditions.items()
        if not _meets(entry, name, wanted)
    ]


def _meets(entry: Entry, name: str, wanted: Any) -> bool:
    actual = getattr(entry, name, None)
    if isinstance(wanted, list | tuple | Set) and name not in _TOGETHER:
        return any(_meets(entry, name, one) for one in wanted)
    if isinstance(wanted, range):
        return isinstance(actual, int) and actual in wanted
    if callable(wanted):
        test: Callable[[Any], bool] = wanted
        return actual is not None and bool(test(actual))
    if name == "flags" and not isinstance(wanted, int):
        return isinstance(actual, int) and _has_flags(entry, actual, wanted)
    if name == "kinds":
        kinds = (wanted,) if isinstance(wanted, str) else tuple(wanted)
        return actual is not None and set(kinds) <= set(actual)
    if name in _WORDS and actual is not None and wanted is not None:
        return actual in _spellings(_WORDS[name], wanted)
    return bool(actual == wanted)


def _spellings(enumerations: tuple[type[IntEnum], ...], wanted: str | int) -> set[str]:
    """The words that match a value: "EIO", "NBD_EIO" and 5 all mean "eio"."""
    if isinstance(wanted, int):
        return {slug(enumeration, wanted) for enumeration in enumerations}
    word = wanted.lower().replace("_", "-")
    for prefix in ("nbd-cmd-", "nbd-opt-", "nbd-reply-type-", "nbd-rep-", "nbd-"):
        word = word.removeprefix(prefix)
    return {word, f"err-{word}"}


def _has_flags(entry: Entry, actual: int, wanted: Any) -> bool:
    message = getattr(entry, "message", None)
    names = list(wanted) if isinstance(wanted, list | tuple | Set) else wanted
    value = flag_number(_FLAGS.get(type(message), TransmissionFlag), names)
    return actual & value == value


def shown(name: str, value: Any) -> str:
    """A wanted value in words: "4096", "1..9", "read or write", "what len accepts"."""
    if isinstance(value, range) and value.step == 1:
        return f"{value.start}..{value.stop}"
    if isinstance(value, list | tuple | Set):
        joint = " and " if name in _TOGETHER else " or "
        return joint.join(sorted(shown(name, one) for one in value)) or "nothing"
    if callable(value):
        return f"what {getattr(value, '__name__', 'the condition')} accepts"
    if isinstance(value, bytes) and len(value) > _BYTES_SHOWN:
        return f"{value[:_BYTES_SHOWN]!r}… ({len(value)} bytes)"
    if isinstance(value, str):
        return value if value.replace("-", "").isalnum() else repr(value)
    return "absent" if value is None else str(value)
