"""The kinds of faults as a chapter of the library's README, made of their own documentation.

`python -m tests.faults.paragraphs` writes it there, when a kind came or its docstring changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fakenbd.faults import KINDS
from fakenbd.faults.event import REPLY_EVENTS
from fakenbd.faults.kind_docs import KindDoc, kind_doc, message_fields

__all__ = ["README", "between", "chapter"]

README = Path(__file__).parents[2] / "profiles" / "README.md"
BEGIN = "<!-- kinds: `python -m tests.faults.paragraphs` writes what follows -->\n"
END = "<!-- end of kinds -->\n"


def between(text: str) -> str:
    """What stands in the README now."""
    return text.partition(BEGIN)[2].partition(END)[0]


def chapter() -> str:
    """What has to stand there."""
    return "\n".join([*_kinds(), *_messages()])


def _kinds() -> Iterator[str]:
    family = ""
    for slug in KINDS:
        each = kind_doc(slug)
        if each.family != family:
            family = each.family
            yield f"### Family {family}\n"
        yield from _paragraphs(each)


def _paragraphs(each: KindDoc) -> Iterator[str]:
    yield f"#### `{each.slug}`\n"
    for paragraph in each.paragraphs:
        yield f"{paragraph}\n"
    yield f"```toml\n{each.example}\n```\n"
    facts = list(each.facts)
    if len(each.events) < len(REPLY_EVENTS):
        facts.insert(0, f"Fires at {' and '.join(each.events)}.")
    if facts:
        yield " ".join(facts) + "\n"
    if each.parameters:
        yield "| parameter | | if left out |\n|---|---|---|"
        for parameter in each.parameters:
            yield f"| `{parameter.name}` | {parameter.meaning} | {_default(parameter.default)} |"
        yield ""


def _default(words: str) -> str:
    if words in ("required", "default nothing"):
        return "(required)" if words == "required" else "not given"
    return f"`{words.removeprefix('default ')}`"


def _messages() -> Iterator[str]:
    yield "### Messages and their fields\n"
    yield "For `reply`, `insert` and `set`:\n"
    yield "| message | fields |\n|---|---|"
    for word, fields in message_fields().items():
        yield f"| `{word}` | {', '.join(fields)} |"
    yield ""


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    README.write_text(text.replace(BEGIN + between(text) + END, BEGIN + chapter() + END), "utf-8")
