"""The rule tables: complete, well formed, and of use to profiles."""

from __future__ import annotations

import re

import pytest

from fakenbd.protocol.rules import Rule, known, outcomes, rule, rules


def test_every_row_is_there() -> None:
    assert {group: len(rules(group)) for group in ("C", "S", "Q")} == {"C": 133, "S": 172, "Q": 57}
    assert len({row.id for row in rules()}) == len(rules())


@pytest.mark.parametrize("row", rules(), ids=lambda row: row.id)
def test_a_row_is_whole(row: Rule) -> None:
    assert re.fullmatch(r"[CSQ]-\d\d\d?", row.id)
    assert row.id[0] == row.group
    filled = {field for field in ("detect", "should", "bug") if getattr(row, field)}
    assert filled == {{"C": "detect", "S": "should", "Q": "bug"}[row.group]}
    assert bool(row.level) == (row.group != "Q")
    assert (bool(row.basis), bool(row.section)) == (row.group == "Q", row.group != "Q")
    assert set(re.split("[/ ]", row.phase)) <= {"HS", "OPT", "TLS", "TX", "END", "URI", "all"}
    for text in (row.text, row.section or row.basis):
        assert text == text.strip() != ""
        assert text != "same"
        assert not set(text) & set("`|")


def test_an_id_is_known_without_reading_its_row() -> None:
    assert all(known(row.id) for row in rules())
    assert not any(map(known, ("S-999", "S-2", "s-209", "", "S-209]", "text")))


def test_a_row_reads_as_the_table_does() -> None:
    assert rule("C-88") == Rule(
        id="C-88",
        group="C",
        text="offset + length <= export size "
        "(READ, WRITE, TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS; use 128-bit sum)",
        level="MUST NOT",
        phase="TX",
        section="Size constraints",
        detect="arithmetic. [rx] EINVAL / ENOSPC",
    )
    assert rule("S-153").should == "HARD!"
    assert rule("S-153").breaks == (
        "bounds test passes by wrap-around, memory before the buffer overwritten"
    )
    assert rule("S-156").section == "OFFSET_DATA; NBD_CMD_READ"
    assert rule("Q-33").bug == "length check off by 8"
    assert rule("Q-33").basis == "Size constraints"


@pytest.mark.parametrize(
    ("rule_id", "must", "permits_disconnect"),
    [
        ("C-89", True, False),
        ("C-07", True, False),
        ("C-90", False, False),
        ("C-83", False, False),
        ("C-41", False, False),
        ("S-01", True, True),
        ("S-07", False, False),
        ("S-22", False, True),
        ("S-209", False, False),
        ("Q-01", False, False),
    ],
)
def test_levels(rule_id: str, must: bool, permits_disconnect: bool) -> None:
    assert (rule(rule_id).must, rule(rule_id).permits_disconnect) == (must, permits_disconnect)


@pytest.mark.parametrize(
    ("rule_id", "message"),
    [
        ("S-74b", "there is no rule 'S-74b'; ids look like C-89, S-209 or Q-35"),
        ("C-18", "there is no rule 'C-18'; the nearest are C-17, C-16, C-20"),
        ("q99", "there is no rule 'q99'; the nearest are Q-57, Q-56, Q-55"),
        ("", "there is no rule ''; ids look like C-89, S-209 or Q-35"),
    ],
)
def test_an_unknown_id_names_the_nearest(rule_id: str, message: str) -> None:
    with pytest.raises(LookupError) as caught:
        rule(rule_id)
    assert str(caught.value) == message


@pytest.mark.parametrize("row", rules("S") + rules("Q"), ids=lambda row: row.id)
def test_every_server_row_allows_some_outcome_and_a_choice_allows_either(row: Rule) -> None:
    allowed = outcomes([row.id])
    assert allowed
    if {"succeeds", "fails"} <= allowed:
        assert "either" in allowed


@pytest.mark.parametrize(
    ("ids", "allowed"),
    [
        (["S-150"], {"fails", "either"}),
        (["S-120"], {"fails", "either"}),
        (["S-141"], {"fails", "either"}),
        (["S-34"], {"fails", "either"}),
        (["S-04"], {"succeeds"}),
        (["S-80"], {"succeeds"}),
        (["S-07"], {"either"}),
        (["S-207"], {"succeeds", "fails", "either"}),
        (["S-04", "S-80"], {"succeeds"}),
        (["S-04", "S-150"], {"succeeds", "fails", "either"}),
        (["Q-21"], {"succeeds"}),
        (["Q-47"], {"succeeds", "fails", "either"}),
        (["C-27"], {"succeeds", "fails", "either"}),
        ([], {"succeeds", "fails", "either"}),
    ],
)
def test_outcomes(ids: list[str], allowed: set[str]) -> None:
    assert outcomes(ids) == allowed
