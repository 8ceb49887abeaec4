"""A profile as a page of text: its summary, its text, its rules, and its TOML.

A family has a page of its own, which lists its members; a member's page has its values substituted.
The text is folded to the width of the terminal (80 columns where there is none, at most 100). The
TOML is printed as in the file, without the summary and the text, which are above it.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from fakenbd.profile import Profile
from fakenbd.profile.lookup import find, locate
from fakenbd.protocol.rules import rule

__all__ = ["page"]

_WIDEST: Final = 100
_ABOVE: Final = re.compile(
    r"""^(?:summary|about) *= *(?:\"{3}.*?\"{3}|'{3}.*?'{3}|[^\n]*)\n+""", re.MULTILINE | re.DOTALL
)
"""The keys of a profile that are not shown again."""


def page(name: str) -> str:
    """The page of the profile, family or member of that name. Raises ProfileError."""
    if name.endswith(".py"):
        profile = find(name)
        source = Path(name).read_text(encoding="utf-8")
        return _joined(_own_head(profile), source, "python")
    document, member = locate(name)
    if member is None and document.members is not None:
        family = document.profiles()
        summary, about = (str(document.tables.get(key, "")) for key in ("summary", "about"))
        head = _head(document.id, summary, about, family)
        return _joined(head, document.text, "toml", _members(family))
    return _joined(_own_head(find(name)), document.text_of(member), "toml")


def _own_head(profile: Profile) -> Iterator[str]:
    return _head(profile.id, profile.summary, profile.about, [profile])


def _joined(head: Iterable[str], source: str, language: str, tail: str = "") -> str:
    shown = _ABOVE.sub("", source) if language == "toml" else source
    return "\n\n".join(filter(None, (*head, _highlighted(shown.strip(), language), tail)))


def _head(name: str, summary: str, about: str, profiles: Sequence[Profile]) -> Iterator[str]:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    yield "\n".join(filter(None, (name, textwrap.fill(summary, width))))
    for paragraph in re.split(r"\n\s*\n", about.strip("\n")):
        # Indented lines are not folded.
        laid_out = re.search(r"^\s", paragraph, re.MULTILINE)
        yield paragraph if laid_out else textwrap.fill(paragraph, width, break_on_hyphens=False)
    ids = dict.fromkeys(rule_id for profile in profiles for rule_id in profile.rules)
    yield "\n".join(_row(rule_id, width) for rule_id in ids)


def _row(rule_id: str, width: int) -> str:
    """A rule: its id, level and section, then its text below."""
    row = rule(rule_id)
    facts = (row.id, row.level, row.section or row.basis)
    title = "  ".join(fact for fact in facts if fact not in ("", "—"))
    return f"{title}\n{textwrap.indent(textwrap.fill(row.text, width - 2), '  ')}"


def _members(family: Sequence[Profile]) -> str:
    width = max(len(member.id) for member in family)
    return "\n".join(f"{member.id:<{width}}  {member.summary}" for member in family)


def _highlighted(source: str, language: str) -> str:
    """The source, highlighted if the output is a terminal."""
    if not sys.stdout.isatty():
        return source
    from rich.console import Console
    from rich.syntax import Syntax

    console = Console()
    with console.capture() as capture:
        # Not folded, so that it can be copied from the terminal.
        console.print(Syntax("", language, theme="ansi_dark").highlight(source), soft_wrap=True)
    return capture.get().rstrip("\n")
