"""`fakenbd faults`: the kinds of faults, and what each takes."""

from __future__ import annotations

import sys
import textwrap
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from fakenbd.faults.kind_docs import KindDoc

__all__ = ["faults"]

_USAGE = 2
_WIDTH = 100


def faults(*names: Annotated[str, Parameter(help="Document these kinds.")]) -> int:
    """List the kinds of faults, or document some: what `do` takes in a profile."""
    from fakenbd.faults import KINDS
    from fakenbd.faults.kind_docs import kind_doc
    from fakenbd.faults.readers import unknown

    for name in names:
        if name not in KINDS:
            print(f"fakenbd: {unknown('kind', name, KINDS)}", file=sys.stderr)
            return _USAGE
    if names:
        print("\n\n\n".join(_page(kind_doc(name)) for name in names))
        return 0
    width = max(map(len, KINDS))
    for name in KINDS:
        print(f"{name:<{width}}  {kind_doc(name).summary}")
    return 0


def _page(doc: KindDoc) -> str:
    """A kind as a page of text."""
    *others, last = doc.events
    events = f"{', '.join(others)} and {last}" if others else last
    lines = [f"{doc.slug} ({doc.family}) fires at {events}"]
    for paragraph in doc.paragraphs:
        lines += ["", textwrap.fill(paragraph, _WIDTH)]
    lines += ["", f"  {doc.example}"]
    if doc.parameters:
        lines.append("")
    width = max((len(each.name) for each in doc.parameters), default=0)
    lines += [f"  {each.name:<{width}}  {each.meaning} ({each.default})" for each in doc.parameters]
    return "\n".join(lines)
