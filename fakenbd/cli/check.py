"""`fakenbd check` and `fakenbd report`: any client against every lie, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from fakenbd.check import CheckOptions, run_check
from fakenbd.check.options import DEFAULT_MEMORY, DEFAULT_TIMEOUT
from fakenbd.check.options import shard as part_of
from fakenbd.errors import ProfileError

__all__ = ["check", "report"]


def _part(_: object, text: str) -> None:
    try:
        part_of(text or "1/1")
    except ValueError:
        raise ValueError('Must be a part such as "2/5".') from None


def _processes(_: object, text: str) -> None:
    if text and text != "auto" and not (text.isdecimal() and int(text)):
        raise ValueError('Must be a number from 1, or "auto".')


def check(
    *profiles: Annotated[str, Parameter(help="Profiles by id or path; all, if none.")],
    command: Annotated[str | None, Parameter(show=False)] = None,
    client: Annotated[
        str | None,
        Parameter(
            help="reference (the default), libnbd, qemu, nbd-client, fio, or a .toml file that "
            "describes one.",
            metavar="CLIENT",
        ),
    ] = None,
    select: Annotated[
        tuple[str, ...],
        Parameter(help="Only cases whose id is like this (may be repeated).", metavar="PATTERN"),
    ] = (),
    skip: Annotated[
        tuple[str, ...],
        Parameter(help="Not the cases whose id is like this (may be repeated).", metavar="PATTERN"),
    ] = (),
    jobs: Annotated[
        str,
        Parameter(
            name=["--jobs", "-n"],
            help="Run so many cases at once (needs pytest-xdist).",
            metavar="N|auto",
            validator=_processes,
        ),
    ] = "",
    timeout: Annotated[
        float,
        Parameter(
            help="A client that runs longer hangs.",
            metavar="SECONDS",
            show_default=True,
            validator=Number(gt=0),
        ),
    ] = DEFAULT_TIMEOUT,
    memory: Annotated[
        int,
        Parameter(
            help="A client that uses more is bloated.",
            metavar="MIB",
            show_default=True,
            validator=Number(gte=1),
        ),
    ] = DEFAULT_MEMORY,
    seed: Annotated[
        int | None, Parameter(help="The seed of everything random.", metavar="N")
    ] = None,
    junit: Annotated[
        Path | None, Parameter(help="Write JUnit XML to this file.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None,
        Parameter(help="Write report.json and index.html into this folder.", metavar="FOLDER"),
    ] = None,
    shard: Annotated[
        str,
        Parameter(help="Only the I-th of N parts of the cases.", metavar="I/N", validator=_part),
    ] = "",
    known: Annotated[
        Path | None,
        Parameter(help="Known failures, a .toml file with a reason for each.", metavar="FILE"),
    ] = None,
    exit_first: Annotated[
        bool, Parameter(name=["--exit-first", "-x"], help="Stop at the first failure.")
    ] = False,
    last_failed: Annotated[
        bool, Parameter(name=["--last-failed", "--lf"], help="Only what failed last time.")
    ] = False,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Only failures and the summary.")
    ] = False,
) -> int:
    """Run every profile, or some, against a client, with a verdict for each."""
    if client is not None and command is not None:
        raise ProfileError("check", ["expected either --client or a command after --, got both"])
    return run_check(
        CheckOptions(
            profiles=profiles,
            client="reference" if client is None else client,
            command=() if command is None else _words(command),
            select=select,
            skip=skip,
            jobs=jobs,
            timeout=timeout,
            memory=memory,
            seed=seed,
            junit=junit,
            report=report,
            shard=shard,
            known=known,
            exit_first=exit_first,
            last_failed=last_failed,
            quiet=quiet,
        )
    )


def _words(text: str) -> tuple[str, ...]:
    """The command that stood after "--"."""
    words: list[str] = json.loads(text)
    if not words:
        raise ProfileError("check", ["expected a client to run after --"])
    return tuple(words)


def report(
    *folders: Annotated[Path, Parameter(help="Folders that check --report has written.")],
    output: Annotated[
        Path, Parameter(name=["--output", "-o"], help="Where to write.", metavar="FOLDER")
    ],
) -> int:
    """Merge the reports of several runs into one."""
    from fakenbd.check.report import merge

    if not folders:
        raise ProfileError("report", ["expected the folders of at least one report"])
    merge(folders, output)
    return 0
