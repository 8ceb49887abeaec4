"""The library that is shipped is in order: every profile loads and says what it has to say."""

from __future__ import annotations

import re
import tomllib

import pytest

from fakenbd.profile import export_table, find, library, library_folder, loader
from fakenbd.profile.lookup import locate
from fakenbd.profile.sweep import substitute
from fakenbd.protocol.rules import known, outcomes, rules

IDS = list(library())


def test_ids_are_unique_and_say_where_the_file_is():
    assert len(set(IDS)) == len(IDS) > 50
    for profile_id in IDS:
        assert re.fullmatch(r"[a-z]+/[a-z0-9-]+(@[A-Za-z0-9._+,-]+)?", profile_id)
        assert (library_folder() / f"{profile_id.partition('@')[0]}.toml").is_file()


def mistakes(profile_id: str) -> list[str]:
    """What a profile of the library has to be and is not."""
    profile = find(profile_id)
    for export in profile.open_exports():
        export.close()
    wanted = {
        "its id": profile.id == profile_id,
        "a trimmed summary": profile.summary == profile.summary.strip(),
        "a summary of at most 100 characters": 0 < len(profile.summary) <= 100,
        "a summary without a full stop": not profile.summary.endswith("."),
        "a summary without placeholders": "{" not in profile.summary,
        "a text about it": bool(profile.about.strip()),
        "rules that exist": all(map(known, profile.rules)),
        "an outcome that its rules allow": profile.expect.outcome in outcomes(profile.rules),
        "names of its faults": all(fault.name for fault in profile.faults),
    }
    return [f"{profile_id}: {what}" for what, holds in wanted.items() if not holds]


@pytest.mark.parametrize("folder", sorted({name.partition("/")[0] for name in IDS}))
def test_profiles_are_in_order(folder):
    names = [name for name in IDS if name.startswith(f"{folder}/")]
    assert [mistake for name in names for mistake in mistakes(name)] == []


def test_the_text_of_a_member_is_what_is_loaded():
    for profile_id in IDS:
        document, member = locate(profile_id)
        if member is not None:
            loaded = substitute(document.tables, document.members[member])
            assert tomllib.loads(document.text_of(member)) == loaded


def test_every_file_says_what_happens_and_no_rule():
    for source in library_folder().rglob("*.toml"):
        assert not re.search(r"(^|-)[csq]-?\d", source.stem)


def test_rows_that_no_profile_shows_are_rows_and_are_not_shown():
    readme = (library_folder() / "README.md").read_text(encoding="utf-8")
    table = readme.partition("## What no profile shows")[2]
    rows = re.findall(r"^\| ([CSQ]-\d+) \| (.+) \|$", table, re.MULTILINE)
    assert rows
    assert {row for row, _ in rows} <= {row.id for row in rules()}
    shown = {rule_id for profile_id in IDS for rule_id in find(profile_id).rules}
    assert not shown & {row for row, _ in rows}


def test_every_key_of_a_profile_is_documented():
    readme = (library_folder() / "README.md").read_text(encoding="utf-8")
    keys = {*export_table._EXPORT, "content", *export_table._POLICY, *export_table._CONTEXT}
    keys |= {*loader._HANDSHAKE, *loader._EXPECT, *loader.OPERATIONS}
    assert [key for key in keys if not re.search(rf"[`\s]{key}[`\s]", readme)] == []
