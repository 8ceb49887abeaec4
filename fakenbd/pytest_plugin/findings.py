"""Findings on a server after its test: unfired faults, violations by the client, server errors.

A client that breaks a rule once usually breaks it at every request, so the violations of a rule are
one finding: the sentence of the first, and their count.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from fakenbd.journal import Violated
from fakenbd.pytest_plugin.category import (
    NBDViolationWarning,
    ServerErrorWarning,
    UnfiredFaultWarning,
)
from fakenbd.pytest_plugin.settings import Subject
from fakenbd.server import Server

__all__ = ["Finding", "deepest", "findings"]


_CATEGORIES: Final[dict[Subject, type[Warning]]] = {
    "unfired": UnfiredFaultWarning,
    "violations": NBDViolationWarning,
    "errors": ServerErrorWarning,
}


@attrs.frozen
class Finding:
    """One sentence; a `mild` one is a warning at most."""

    subject: Subject
    sentence: str
    mild: bool = False

    @property
    def category(self) -> type[Warning]:
        """The category of its warning, where it is no error."""
        return _CATEGORIES[self.subject]


def findings(server: Server) -> Iterator[Finding]:
    """All findings, the most severe first."""
    for error in server.errors:
        cause = deepest(error)
        yield Finding("errors", f"the server failed: {type(cause).__name__}: {cause}")
    yield from sorted(_violations(server), key=lambda finding: finding.mild)
    for sentence in server.unfired():
        yield Finding("unfired", sentence)


def deepest(error: BaseException) -> BaseException:
    """The first leaf exception within nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _violations(server: Server) -> Iterator[Finding]:
    first: dict[tuple[str, str], str] = {}
    for entry in server.journal:
        if isinstance(entry, Violated):
            first.setdefault((entry.rule, entry.level), entry.sentence)
    # The journal drops old entries, but keeps their counts.
    for (rule, level), count in server.journal.totals.violation_levels.items():
        if level in ("MUST", "SHOULD"):
            sentence = first.get((rule, level), "the journal no longer holds the entry")
            times = f", {count} times" if count > 1 else ""
            yield Finding(
                "violations",
                f"the client broke {rule} ({level}{times}): {sentence}",
                mild=level == "SHOULD",
            )
