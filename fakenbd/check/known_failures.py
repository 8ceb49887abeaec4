"""Known failures: what a client is expected to fail, and why that is accepted for now.

    [[known]]
    case    = "extents/zero-length"          # an id, or a pattern of ids
    client  = "some-client"                  # optional
    cause   = "hang"                         # optional: this cause and no other
    message = "still running"                # optional: a piece of the reason
    sometimes = true                         # optional: races of the client's own let it pass, too
    reason  = "reported upstream as …"       # required

Outdated entries are reported: an entry whose case passes fails the run, and so does one that
matches no case at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import attrs

from fakenbd.check.case import matches
from fakenbd.check.toml_file import read_toml
from fakenbd.check.verdicts import Cause, Verdict
from fakenbd.faults.readers import boolean, text
from fakenbd.profile.table_reader import Reader, list_of, read_table, word

__all__ = ["KnownFailure", "apply", "read_known_failures", "stale"]


@attrs.frozen
class KnownFailure:
    """One known failure."""

    case: str
    reason: str
    client: str = ""
    cause: Cause | None = None
    message: str = ""
    sometimes: bool = False

    def concerns(self, case: str, client: str) -> bool:
        """Whether it applies to that case; a family's id stands for all of its members."""
        return self.client in ("", client) and matches(case, (self.case,))

    def explains(self, verdict: Verdict) -> bool:
        """Whether the case failed in the way that the entry describes."""
        return (
            verdict.name == "fail"
            and self.cause in (None, verdict.cause)
            and self.message in verdict.reason
        )


def _reason(value: Any) -> str:
    if not text(value).strip():
        raise ValueError('expected a reason, got ""')
    return str(value)


_ENTRY: Final[Mapping[str, Reader]] = {
    "case": text,
    "reason": _reason,
    "client": text,
    "cause": word(*get_args(Cause)),
    "message": text,
    "sometimes": boolean,
}


def _entry(value: Any) -> KnownFailure:
    return KnownFailure(**read_table(value, _ENTRY, required=("case", "reason")))


def _entries(tables: dict[str, Any]) -> tuple[KnownFailure, ...]:
    return tuple(read_table(tables, {"known": list_of(_entry)}).get("known", ()))


def read_known_failures(path: Path) -> tuple[KnownFailure, ...]:
    """The entries of a file. Raises ProfileError with every mistake."""
    return read_toml(path, _entries)


def apply(verdict: Verdict, known: Iterable[KnownFailure], case: str, client: str) -> Verdict:
    """The verdict after known failures: xfail, xpass, or unchanged."""
    entries = [entry for entry in known if entry.concerns(case, client)]
    if not entries:
        return verdict
    if verdict.name in ("pass", "warn"):
        if all(entry.sometimes for entry in entries):
            return verdict
        sentence = f"it passes now, although it is known to fail: {entries[0].reason}"
        return attrs.evolve(verdict, name="xpass", reason=sentence)
    for entry in entries:
        if entry.explains(verdict):
            return attrs.evolve(verdict, name="xfail", reason=f"{entry.reason} ({verdict.reason})")
    return verdict


def stale(known: Sequence[KnownFailure], cases: Iterable[str], client: str) -> list[str]:
    """A sentence for each entry on this client that matches no case."""
    ids = list(cases)
    return [
        f'the known failure "{entry.case}" matches no case ({entry.reason})'
        for entry in known
        if entry.client in ("", client) and not any(entry.concerns(case, client) for case in ids)
    ]
