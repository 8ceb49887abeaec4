"""How one operation went: for the verdict, and for people who want to see for themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import attrs

from fakenbd.check.verdicts import Performance
from fakenbd.journal import Entry, Struck, Violated
from fakenbd.journal.transcript import transcript

__all__ = ["Account", "excerpt"]

_LINES: Final = 40
_ENDING: Final = 10


@attrs.frozen
class Account:
    """One operation: the performance, the command it took, and what was said at the time.

    The transcript shows the lines before and after the first strike, or breach, which is marked.
    """

    performance: Performance
    command: tuple[str, ...] = ()
    transcript: str = ""
    seconds: float = 0.0


def excerpt(entries: Sequence[Entry]) -> str:
    """The transcript around the first strike, or else the first breach, and how it ended."""
    for kind in (Struck, Violated):
        for entry in entries:
            if isinstance(entry, kind):
                return transcript(entries, around=entry.index, limit=_LINES, ending=_ENDING)
    return transcript(entries, limit=_LINES)
