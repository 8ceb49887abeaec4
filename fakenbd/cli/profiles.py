"""`fakenbd profiles`: list, show and validate profiles."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fakenbd.errors import ProfileError
from fakenbd.profile import find, find_all, library, select

if TYPE_CHECKING:
    pass

__all__ = ["list_profiles", "show", "validate"]

_USAGE = 2
_NOTHING_SELECTED = 5
_WIDTH = 100


def list_profiles(
    *patterns: Annotated[str, Parameter(help="List only ids that match these patterns.")],
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> int:
    """List the profiles of the library with their summaries."""
    names = select(patterns) if patterns else list(library())
    if not names:
        print(f"fakenbd: no profile is called {' or '.join(patterns)}", file=sys.stderr)
        return _NOTHING_SELECTED
    found, status = [], 0
    for name in names:
        try:
            found.append(find(name))
        except ProfileError as error:
            status = 1
            print(
                *(f"fakenbd: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr
            )
    if json:
        rows = [
            {
                "id": each.id,
                "summary": each.summary,
                "rules": list(each.rules),
                "outcome": each.expect.outcome,
            }
            for each in found
        ]
        print(json_format.dumps(rows, indent=1, ensure_ascii=False))
        return status
    width = max((len(each.id) for each in found), default=0)
    for each in found:
        print(f"{each.id:<{width}}  {each.summary}")
    return status


def show(profile: Annotated[str, Parameter(help="The profile.")], /) -> int:
    """Show what a profile is about, the rules it names, and its TOML."""
    from fakenbd.cli.profile_page import page

    print(page(profile))
    return 0


def validate(*files: Annotated[Path, Parameter(help="Profiles to check.")]) -> int:
    """Check profile files; every mistake is listed. Without files, the whole library."""
    names = [str(file) for file in files] or list(library())
    bad = 0
    for name in names:
        try:
            find_all(name)
        except ProfileError as error:
            bad += 1
            print(error, file=sys.stderr)
    good = len(names) - bad
    print(f"{good} of {len(names)} valid" if bad else f"{good} valid")
    return 1 if bad else 0
