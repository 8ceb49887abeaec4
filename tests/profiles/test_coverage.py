"""Every S- and Q-row of the rule tables is shown by a profile, or listed as not shown."""

from __future__ import annotations

import re

from fakenbd.profile import find_all, library, library_folder
from fakenbd.protocol.rules import rules

ROWS = {row.id for row in rules() if row.group in "SQ"}
README = (library_folder() / "README.md").read_text(encoding="utf-8")
NOT_SHOWN = dict(
    re.findall(
        r"^\| ([SQ]-\d+) \| (.+) \|$",
        README.partition("## What no profile shows")[2],
        re.MULTILINE,
    )
)
FILES = sorted({profile_id.partition("@")[0] for profile_id in library()})
SHOWN = {
    rule_id for name in FILES for profile in find_all(name) for rule_id in profile.rules
} & ROWS


def in_order(rows):
    return sorted(rows, key=lambda row: (row[0], int(row[2:])))


def test_every_row_is_shown_or_explained():
    assert in_order(ROWS - SHOWN - NOT_SHOWN.keys()) == []


def test_no_row_is_both_shown_and_explained_away():
    assert in_order(SHOWN & NOT_SHOWN.keys()) == []


def test_what_is_explained_is_a_row_and_has_a_reason():
    assert in_order(NOT_SHOWN.keys() - ROWS) == []
    assert all(len(reason.split()) > 5 and reason.endswith(".") for reason in NOT_SHOWN.values())
