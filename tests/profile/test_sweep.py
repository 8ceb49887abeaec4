"""One file, many profiles."""

from __future__ import annotations

import pytest

from fakenbd.errors import ProfileError
from fakenbd.faults import make_kind
from fakenbd.profile import find, find_all
from fakenbd.profile.sweep import substitute_text

MEMBERS = {
    "[sweep]\nn = { from = 0, to = 3 }": ["0", "1", "2", "3"],
    "[sweep]\nn = { from = -2, to = 7, step = 4 }": ["-2", "2", "6"],
    "[sweep]\nn = [8, 0, 16]": ["8", "0", "16"],
    '[sweep]\nn = ["first", "1.5", true]': ["first", "1.5", "true"],
    '[sweep]\nn = [1, 2]\nhow = ["a", "b"]': ["1,a", "1,b", "2,a", "2,b"],
    '[[sweep]]\nid = "one"\nn = 1\n[[sweep]]\nid = "two"\nn = 2': ["one", "two"],
}


@pytest.mark.parametrize("sweep", MEMBERS)
def test_members(sweep, tmp_path):
    source = tmp_path / "x.toml"
    how = "{how}" if "how" in sweep else ""
    source.write_text(f'summary = "{{n}} {how}"\n{sweep}')
    assert [profile.id for profile in find_all(str(source))] == [
        f"x@{member}" for member in MEMBERS[sweep]
    ]
    last = MEMBERS[sweep][-1]
    assert find(f"{source}@{last}") == find_all(str(source))[-1]


def test_values_go_where_they_are_named(tmp_path):
    source = tmp_path / "x.toml"
    source.write_text(
        """
        summary = "{n} bytes, then {how}"
        about = "$n {n} {other} {{n}}"
        [sweep]
        n = [7]
        how = ["reset"]
        [export]
        size = "$n"
        flags = ["flush", "$n"]
        description = "$ n"
        [[fault]]
        when = { command = "read" }
        do = { cut = "$n", then = "$how" }
        """
    )
    profile = find(f"{source}@7,reset")
    assert profile.summary == "7 bytes, then reset"
    assert profile.about == "$n 7 {other} {7}"
    assert profile.exports[0].size == 7
    assert profile.exports[0].flags == 7
    assert profile.exports[0].description == "$ n"
    assert profile.faults[0].do == (make_kind("cut", 7, then="reset"),)


def test_a_value_may_be_a_whole_table(tmp_path):
    source = tmp_path / "x.toml"
    source.write_text(
        """
        export = "$export"
        [[sweep]]
        id = "small"
        export = { size = 1 }
        [[sweep]]
        id = "large"
        export = { size = "1TiB", flags = 0 }
        """
    )
    sizes = [profile.exports[0].size for profile in find_all(str(source))]
    assert sizes == [1, 1 << 40]


def test_without_a_sweep_nothing_is_put_in(tmp_path):
    source = tmp_path / "x.toml"
    source.write_text('summary = "$n"\nabout = "{n}"')
    assert (find(str(source)).summary, find(str(source)).about) == ("$n", "{n}")


BROKEN = {
    "sweep = 3": ["sweep: expected a table of parameters, got 3"],
    "sweep = {}": ["sweep: expected at least one parameter, got an empty table"],
    "sweep = []": ["sweep: expected at least one member, got an empty list"],
    "[sweep]\nn = 7\nN = [1]\nm = []\no = { from = 3, to = 1 }\np = { from = 1, upto = 2 }": [
        "sweep.n: expected a list or { from = 0, to = 17 }, got 7",
        'sweep.N: expected small letters, digits and hyphens, got "N"',
        "sweep.m: expected at least one value, got none",
        "sweep.o: expected at least one value, got none",
        'sweep.p: unknown key "upto"; did you mean "to"?',
        "sweep.p.to: expected a value, got nothing",
    ],
    '[sweep]\nn = [1, "a b"]\nm = [[1]]\no = [1, 2, 1]': [
        "sweep.n: expected numbers and words to name the members by ([[sweep]] with an id is for "
        'others), got "a b"',
        "sweep.m: expected numbers and words to name the members by ([[sweep]] with an id is for "
        "others), got a list",
        "sweep.o: expected each value once, got one of them again",
    ],
    "[sweep]\nn = { from = 1, to = 101 }\nm = { from = 1, to = 100 }": [
        "sweep: expected at most 10000 members, got 10100"
    ],
    "[sweep]\nn = { from = 1, to = 1000000000000 }": [
        "sweep: expected at most 10000 members, got 1000000000000"
    ],
    '[[sweep]]\nid = "a"\nn = 1\n[[sweep]]\nid = "a"\nn = 2\n[[sweep]]\nid = "b"\n'
    '[[sweep]]\nid = "c d"\nn = 3\n[[sweep]]\nn = 4': [
        'sweep[1].id: expected each id once, got "a" again',
        "sweep[2]: expected the parameters of the first member: n",
        'sweep[3].id: expected letters, digits, and any of . _ + -, got "c d"',
        "sweep[4].id: expected letters, digits, and any of . _ + -, got nothing",
    ],
    '[sweep]\nnumber = [1]\n[export]\nsize = "$numbr"\nflags = ["$other", 1]': [
        'export.size: unknown parameter "$numbr"; did you mean "$number"?',
        'export.flags[0]: unknown parameter "$other"; known are $number',
        'sweep: expected the parameter number to be used as "$number", it is not',
    ],
    # Listed once, although every member has the first mistake.
    '[sweep]\nn = [1, "a", "b"]\n[export]\nsiz = 1\ntls-only = true\nround-size-to = "$n"': [
        'export: unknown key "siz"; did you mean "size"?',
        'export.round-size-to: expected a whole number from 1, got "a"',
        'export.round-size-to: expected a whole number from 1, got "b"',
    ],
}


@pytest.mark.parametrize("text", BROKEN)
def test_every_mistake_is_reported(text, tmp_path):
    source = tmp_path / "x.toml"
    source.write_text(text)
    with pytest.raises(ProfileError) as caught:
        find_all(str(source))
    assert list(caught.value.mistakes) == BROKEN[text]


FAMILY = """\
summary = "Cut after {n} of {m}"
# about n = {n}
rules = "$rules"
[sweep]
n = [1, 2]
[sweep.m]
from = 0
[export]
size = "$n"   # "$n"
content = { text = "$word" }
contexts = "$map"
flags = "$none"
"""

MEMBER = """\
summary = "Cut after 1 of {m}"
# about n = 1
rules = ["C-1", "S-2"]
[export]
size = 1   # 1
content = { text = "a \\"b\\" ü" }
contexts = { "base:allocation" = ["1 data"], "x" = true }
flags = "$none"
"""


def test_the_text_of_a_member_keeps_the_layout():
    values = {
        "n": 1,
        "rules": ["C-1", "S-2"],
        "word": 'a "b" ü',
        "map": {"base:allocation": ["1 data"], "x": True},
    }
    assert substitute_text(FAMILY, values) == MEMBER


def test_a_sweep_at_the_end_of_the_text():
    toml = '[export]\nsize = "$n"\n\n[[sweep]]\nid = "a"\nn = 1\n[[sweep]]\nid = "b"\nn = 2\n'
    assert substitute_text(toml, {"n": 2}) == "[export]\nsize = 2\n\n"
