"""`fakenbd check` and `fakenbd merge-reports`: any client against every profile, and the
results.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter

from fakenbd.check import CheckOptions, run_check
from fakenbd.errors import ProfileError

__all__ = ["check", "merge_reports"]


def check(
    *profiles: Annotated[str, Parameter(help="Profiles by id or path (default: all).")],
    command: Annotated[str | None, Parameter(show=False)] = None,
    options: CheckOptions | None = None,
) -> int:
    """Run every profile, or some, against a client, with a verdict for each."""
    options = options or CheckOptions()
    if options.client is not None and command is not None:
        raise ProfileError("check", ["expected either --client or a command after --, got both"])
    words = () if command is None else _words(command)
    return run_check(attrs.evolve(options, profiles=profiles, command=words))


def _words(text: str) -> tuple[str, ...]:
    """The command given after "--"."""
    words: list[str] = json.loads(text)
    if not words:
        raise ProfileError("check", ["expected a client to run after --"])
    return tuple(words)


def merge_reports(
    *folders: Annotated[Path, Parameter(help="Folders written by check --report.")],
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="Folder to write to.", metavar="FOLDER")
    ],
) -> int:
    """Merge the reports of several runs into one."""
    from fakenbd.check.report import merge

    if not folders:
        raise ProfileError("merge-reports", ["expected the folders of at least one report"])
    merge(folders, output)
    return 0
