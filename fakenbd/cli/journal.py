"""`fakenbd journal`: a journal on disk as a transcript for people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["show_journal"]


def show_journal(
    file: Annotated[Path, Parameter(help="A journal written with --journal.")],
    /,
    *,
    colour: Annotated[
        bool | None,
        Parameter(help="Colours; by default only on a terminal.", negative="--no-colour"),
    ] = None,
    links: Annotated[
        bool,
        Parameter(
            help="Number the entries; show stream offsets, and which entry each belongs to.",
            negative=(),
        ),
    ] = False,
) -> int:
    """Show a recorded journal: messages, fired faults, and violations."""
    from fakenbd.errors import ServeError
    from fakenbd.journal.jsonl import load
    from fakenbd.journal.transcript import transcript

    try:
        header, entries = load(file)
    except OSError as error:
        raise ServeError(f"cannot read {file}: {error.strerror}") from error
    seed = "" if header.seed is None else f", seed {header.seed}"
    print(f"profile {header.profile or 'unknown'}{seed}, {len(entries)} entries")
    colour = sys.stdout.isatty() if colour is None else colour
    shown = transcript(entries, colour=colour, links=links)
    print(shown, end="")
    return 0
