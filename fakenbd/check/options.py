"""The options of a run of cases, declared once, as those of `fakenbd check`.

The same value goes to pytest as part of a plugin object, and to pytest-xdist's workers by pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

__all__ = ["CheckOptions"]


def _shard(text: str) -> tuple[int, int]:
    """The part and the number of parts in a text such as "2/5". Raises ValueError."""
    part, slash, parts = text.partition("/")
    if slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts):
        return int(part), int(parts)
    raise ValueError('Must be a part such as "2/5".')


def _part(_: object, text: str) -> None:
    _shard(text or "1/1")


def _processes(_: object, text: str) -> None:
    if text and text != "auto" and not (text.isdecimal() and int(text)):
        raise ValueError('Must be a number from 1, or "auto".')


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class CheckOptions:
    """Options of `fakenbd check`.

    `profiles` are paths or ids; without any, all of the library. `command` is what follows "--",
    and goes before `client`.
    """

    profiles: Annotated[tuple[str, ...], Parameter(parse=False)] = ()
    command: Annotated[tuple[str, ...], Parameter(parse=False)] = ()
    client: Annotated[
        str | None,
        Parameter(
            help="reference (the default), libnbd, qemu, nbd-client, fio, or a .toml file that "
            "describes one.",
            metavar="CLIENT",
        ),
    ] = None
    select: Annotated[
        tuple[str, ...],
        Parameter(
            help="Run only cases whose id matches PATTERN (may be repeated).", metavar="PATTERN"
        ),
    ] = ()
    skip: Annotated[
        tuple[str, ...],
        Parameter(help="Skip cases whose id matches PATTERN (may be repeated).", metavar="PATTERN"),
    ] = ()
    jobs: Annotated[
        str,
        Parameter(
            name=["--jobs", "-n"],
            help="Number of cases to run in parallel (needs pytest-xdist).",
            metavar="N|auto",
            validator=_processes,
        ),
    ] = ""
    timeout: Annotated[
        float,
        Parameter(
            help="Time limit per operation; reported as a hang.",
            metavar="SECONDS",
            show_default=True,
            validator=Number(gt=0),
        ),
    ] = 10.0
    memory: Annotated[
        int,
        Parameter(
            help="Memory limit per client.",
            metavar="MIB",
            show_default=True,
            validator=Number(gte=1),
        ),
    ] = 1024
    seed: Annotated[int | None, Parameter(help="Random seed.", metavar="N")] = None
    junit: Annotated[
        Path | None, Parameter(help="Write JUnit XML to this file.", metavar="FILE")
    ] = None
    report: Annotated[
        Path | None,
        Parameter(help="Write report.json and index.html into this folder.", metavar="FOLDER"),
    ] = None
    shard: Annotated[
        str,
        Parameter(help="Run part I of N of the cases.", metavar="I/N", validator=_part),
    ] = ""
    known_failures: Annotated[
        Path | None,
        Parameter(help="Known failures, a .toml file with a reason for each.", metavar="FILE"),
    ] = None
    exit_first: Annotated[
        bool, Parameter(name=["--exit-first", "-x"], help="Stop at the first failure.")
    ] = False
    last_failed: Annotated[
        bool,
        Parameter(name=["--last-failed", "--lf"], help="Run only the cases that failed last time."),
    ] = False
    quiet: Annotated[
        bool, Parameter(name=["--quiet", "-q"], help="Print only failures and the summary.")
    ] = False

    @property
    def part(self) -> tuple[int, int]:
        """The part of the cases to run, and the number of parts. Raises ValueError."""
        return _shard(self.shard or "1/1")
