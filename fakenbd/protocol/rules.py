"""The rule tables: requirements on clients, faults of servers, legal but unusual behaviour.

The rows stand in rules.toml, one table an id. The file is read at the first call, and a row is
parsed when it is asked for. Ids are the handles
that profiles, checks and violations share: C-… for clients, S-… for servers, Q-… for unusual
behaviour that every client must accept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from typing import Final, Literal, TypeAlias, cast

import attrs

__all__ = ["Group", "Outcome", "Rule", "known", "load", "outcomes", "rule", "rules"]

Group: TypeAlias = Literal["C", "S", "Q"]
Outcome: TypeAlias = Literal["succeeds", "fails", "either"]


@attrs.frozen
class Rule:
    """One row. `text` is the requirement (C), the fault (S) or the behaviour (Q).

    `level` keeps RFC 2119's words; `section` is a heading of the specification. Q has neither:
    there `basis` is the heading that makes the behaviour legal, `bug` what bad clients do. `detect`
    belongs to C; `should` (what a good client does) and `breaks` (what a bad one does) to S.
    """

    id: str
    group: Group
    text: str
    phase: str
    section: str = ""
    level: str = ""
    detect: str = ""
    should: str = ""
    breaks: str = ""
    basis: str = ""
    bug: str = ""

    @property
    def must(self) -> bool:
        """Whether breaking the rule breaks a MUST of the specification, or the framing itself."""
        return self.level.startswith(("MUST", "(framing)")) or (
            self.group == "S" and "MUST" in self.level
        )

    @property
    def permits_disconnect(self) -> bool:
        """Whether a client may drop the connection after a server did this (S rows)."""
        return self.group == "S" and (self.must or "HARD" in self.should)


@cache
def _rows() -> dict[str, str]:
    """The TOML of each row by id, not parsed yet."""
    # Here, not above: most processes never ask for a rule.
    from pkgutil import get_data

    text = (get_data("fakenbd.protocol", "rules.toml") or b"").decode()
    _, *pieces = re.split(r"^\[(.+)\]$", text, flags=re.MULTILINE)
    return dict(zip(pieces[::2], pieces[1::2], strict=True))


@cache
def _parsed(rule_id: str) -> Rule:
    import tomllib

    row: dict[str, str] = tomllib.loads(_rows()[rule_id])
    return Rule(rule_id, cast(Group, rule_id[0]), **row)


def load() -> None:
    """Have all in memory that the other functions need; they open no file afterwards."""
    _parsed(next(iter(_rows())))


def rule(rule_id: str) -> Rule:
    """The row of that id; LookupError naming the nearest ids where there is none."""
    if not known(rule_id):
        raise LookupError(f"there is no rule {rule_id!r}; {_nearest(rule_id)}")
    return _parsed(rule_id)


def known(rule_id: str) -> bool:
    """Whether there is a row of that id."""
    return rule_id in _rows()


def rules(group: Group | None = None) -> tuple[Rule, ...]:
    """All rows in the tables' order, or those of one group."""
    return tuple(row for row in map(_parsed, _rows()) if group in (None, row.group))


def _nearest(rule_id: str) -> str:
    match = re.fullmatch(r"([CSQ])-?(\d+)", rule_id.strip().upper())
    if match is None:
        return "ids look like C-89, S-209 or Q-35"
    group, number = match[1], int(match[2])
    ids = [row.id for row in rules() if row.group == group]
    ids.sort(key=lambda known: (abs(int(known[2:]) - number), known))
    return f"the nearest are {', '.join(ids[:3])}"


# --- what a profile may expect -----------------------------------------------------------------

_ANY: Final[frozenset[Outcome]] = frozenset(("succeeds", "fails", "either"))
_FAILS: Final[frozenset[Outcome]] = frozenset(("fails", "either"))
_COPES: Final[frozenset[Outcome]] = frozenset(("succeeds", "either"))
_SUCCEEDS: Final[frozenset[Outcome]] = frozenset(("succeeds",))
_EITHER: Final[frozenset[Outcome]] = frozenset(("either",))

_CODES: Final[dict[str, frozenset[Outcome]]] = {
    "HARD!": _FAILS,
    "HARD": _FAILS,
    "FAIL": _FAILS,
    "SOFT!": _FAILS,
    "TOL": _SUCCEEDS,
    "FALL": _SUCCEEDS,
    "UNDEF": _EITHER,
}
_CODE: Final = re.compile(r"\b(?:HARD!?|FAIL|SOFT!|TOL|FALL|UNDEF)")


def _ids(prefix: str, numbers: str, allowed: frozenset[Outcome]) -> dict[str, frozenset[Outcome]]:
    return {f"{prefix}-{number}": allowed for number in numbers.split()}


# Rows whose last column is prose. A choice between disconnecting and tolerating allows any outcome;
# a fault that no client can see lets it succeed; an unusual behaviour that refuses something may
# end in failure although the client did nothing wrong.
_IN_WORDS: Final[dict[str, frozenset[Outcome]]] = {
    **_ids("S", "08 25 42 53 55 58 60 62 68 70 81 83 84 87 102 103 110 114", _ANY),
    **_ids("S", "170 182 183 184 185 188 206 207 208 217 220 222 224", _ANY),
    **_ids("S", "10 11 28 32 66 73 75 100 104 105 106 107 111 113 133 135 186 189", _FAILS),
    **_ids("S", "169 180 181 190 191 192 212 221", _COPES),
    **_ids("S", "223", _EITHER),
    **_ids("Q", "13 14 15 16 27 28 29 30 32 34 41 42 43 44 46 47 50 55", _ANY),
}


def _allowed(row: Rule) -> frozenset[Outcome]:
    if row.id in _IN_WORDS:
        return _IN_WORDS[row.id]
    if row.group == "C":
        return _ANY
    if row.group == "Q":
        return _SUCCEEDS
    return frozenset[Outcome]().union(*(_CODES[code] for code in _CODE.findall(row.should)))


def outcomes(rule_ids: Iterable[str]) -> frozenset[Outcome]:
    """The outcomes that a profile showing these rules may expect of a good client.

    Follows the codes of the "client should" column; the union where a row, or several rows, leave
    a choice. A C-row only names what a profile provokes, and allows any outcome; so does no row.
    """
    allowed = [_allowed(rule(rule_id)) for rule_id in rule_ids]
    return frozenset[Outcome]().union(*allowed) if allowed else _ANY
