"""Kinds, conditions and messages as people read of them: all that there are, and nothing else."""

from __future__ import annotations

import re

import attrs
import pytest

from fakenbd.faults import KINDS, When
from fakenbd.faults.kind_docs import kind_doc, message_fields
from fakenbd.faults.registry import parameters
from fakenbd.faults.selection import SELECTORS
from tests.faults.paragraphs import README, between, chapter

TEXT = README.read_text(encoding="utf-8")


def test_the_chapter_on_kinds_is_what_the_kinds_say() -> None:
    assert between(TEXT) == chapter(), "python -m tests.faults.paragraphs writes it anew"


@pytest.mark.parametrize("slug", KINDS)
def test_a_page_holds_all_of_a_docstring(slug: str) -> None:
    kind, documented = KINDS[slug], kind_doc(slug)
    names = [name.replace("_", "-") for name in parameters(kind)]
    assert [each.name for each in documented.parameters] == [
        slug if name == (kind.main or "").replace("_", "-") else name for name in names
    ]
    assert documented.summary.endswith(".")
    words = " ".join((*documented.paragraphs, documented.example))
    for each in documented.parameters:
        words += f" {each.meaning} {each.default}"
    assert set(re.findall(r"[\w-]{4,}", kind.__doc__ or "")) - set(
        re.findall(r"[\w-]{4,}", words)
    ) <= {"Example", *parameters(kind)}


def test_the_table_of_conditions_is_complete() -> None:
    table = TEXT.partition("| condition |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `([a-z]+) = ", table, re.MULTILINE)
    assert documented == [field.name for field in attrs.fields(When) if field.init]


def test_all_that_at_can_be_is_reported() -> None:
    (paragraph,) = re.findall(r"^`at` selects .*?(?=\n\n)", TEXT, re.MULTILINE | re.DOTALL)
    assert sorted(re.findall(r'`"([a-z-]+)"`', paragraph)) == sorted(SELECTORS)


def test_fields_of_messages() -> None:
    fields = message_fields()
    assert fields["greeting"] == ("magic", "option-magic", "flags")
    assert fields["info-export"] == (
        *("magic", "flags", "type", "length", "option", "size", "payload"),
    )
    assert set(fields) <= set(SELECTORS) | {"oldstyle-greeting"}
