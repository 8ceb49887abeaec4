"""`fakenbd check` and `fakenbd report`: any client against every lie, and what came of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from fakenbd.check import CheckOptions, run_check
from fakenbd.errors import ProfileError

__all__ = ["check", "report"]


def check(
    *profiles: Annotated[str, Parameter(help="Profiles by id or path; all, if none.")],
    command: Annotated[
        str,
        Parameter(help="A client of one operation as a JSON list of words; or give it after --."),
    ] = "[]",
    client: Annotated[
        str,
        Parameter(
            help="reference, libnbd, qemu, nbd-client, fio, or a .toml file that describes one."
        ),
    ] = "reference",
    select: Annotated[
        tuple[str, ...],
        Parameter(help="Only cases whose id is like this (may be repeated).", negative=""),
    ] = (),
    skip: Annotated[
        tuple[str, ...],
        Parameter(help="Not the cases whose id is like this (may be repeated).", negative=""),
    ] = (),
    jobs: Annotated[
        str, Parameter(name=["--jobs", "-n"], help="Processes, a number or auto.")
    ] = "",
    timeout: Annotated[float, Parameter(help="Seconds after which a client hangs.")] = 10.0,
    memory: Annotated[int, Parameter(help="MiB beyond which a client is bloated.")] = 1024,
    seed: Annotated[int | None, Parameter(help="The seed of everything random.")] = None,
    junit: Annotated[Path | None, Parameter(help="Write JUnit XML to this file.")] = None,
    report: Annotated[
        Path | None, Parameter(help="Write report.json and index.html into this folder.")
    ] = None,
    shard: Annotated[str, Parameter(help="Only part I of N, as I/N.")] = "",
    known: Annotated[
        Path | None, Parameter(help="Known failures, a .toml file with a reason for each.")
    ] = None,
    exit_first: Annotated[
        bool, Parameter(name=["--exit-first", "-x"], help="Stop at the first failure.", negative="")
    ] = False,
    last_failed: Annotated[
        bool,
        Parameter(name=["--last-failed", "--lf"], help="Only what failed last time.", negative=""),
    ] = False,
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Only failures and the summary.", negative="")
    ] = False,
) -> int:
    """Run every profile, or some, against a client, with a verdict for each."""
    return run_check(
        CheckOptions(
            profiles=profiles,
            client=client,
            command=_words(command),
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
    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ProfileError("check", [f"--command: expected a JSON list of words, got {text}"])
    return tuple(words)


def report(
    *folders: Annotated[Path, Parameter(help="Folders that check --report has written.")],
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="Where to write.")],
) -> int:
    """Merge the reports of several runs into one."""
    from fakenbd.check.report import merge

    if not folders:
        raise ProfileError("report", ["expected the folders of at least one report"])
    merge(folders, output)
    return 0
