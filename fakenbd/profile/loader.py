"""Loads profiles from a TOML file: strict, with every mistake at once.

A document is read after its sweep was substituted. Exports and faults are read by their own
readers; this module reads the other tables, and checks that all are consistent.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.conversation import Handshake
from fakenbd.errors import ProfileError
from fakenbd.faults import Fault, TableError, parse_fault
from fakenbd.faults.readers import boolean, shown, text
from fakenbd.profile.export_spec import ExportSpec
from fakenbd.profile.export_table import read_export
from fakenbd.profile.profile import OPERATIONS, Expect, Profile
from fakenbd.profile.sweep import Values, read_sweep, substitute, substitute_text
from fakenbd.profile.table_reader import Reader, list_of, nested, outermost, read_table, word
from fakenbd.protocol import rules

__all__ = ["Document", "read_document"]


def _operation(value: Any) -> str:
    return word(*OPERATIONS)(value)


_operations: Final = list_of(_operation)


def _rule(value: Any) -> str:
    rule_id = text(value)
    try:
        rules.rule(rule_id)
    except LookupError as error:
        raise ValueError(error.args[0]) from None
    return rule_id


_rules_listed: Final = list_of(_rule)


def _rules(value: Any) -> tuple[str, ...]:
    listed = _rules_listed(value)
    twice = [rule_id for rule_id in listed if listed.count(rule_id) > 1]
    if twice:
        raise ValueError(f"expected each rule once, got {twice[0]} again")
    return listed


def _lenient(value: Any) -> str:
    rule_id = _rule(value)
    level = rules.rule(rule_id).level
    if not (rule_id.startswith("C-") and level.startswith("SHOULD")):
        raise ValueError(f"expected a rule for clients that is a SHOULD, got {rule_id} ({level})")
    return rule_id


_HANDSHAKE: Final[Mapping[str, Reader]] = {
    "style": word("fixed", "newstyle", "oldstyle"),
    "no-zeroes": boolean,
    "structured-replies": boolean,
    "extended-headers": boolean,
    "tls": word("off", "optional", "required"),
}
_EXPECT: Final[Mapping[str, Reader]] = {
    "outcome": word("succeeds", "fails", "either"),
    "recovering": word("succeeds", "fails", "either"),
    "session": word("continues", "disconnects", "soft-disconnects", "reconnects"),
    "operations": _operations,
    "tls": word("off", "allow", "require"),
    "may-break": list_of(_lenient),
}


def _handshake(value: Any) -> Handshake:
    return Handshake(**_arguments(read_table(value, _HANDSHAKE)))


def _expect(value: Any) -> Expect:
    return Expect(**_arguments(read_table(value, _EXPECT)))


def _arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("-", "_"): value for key, value in given.items()}


def _exports(value: Any, folder: Path | None) -> tuple[ExportSpec, ...]:
    if not isinstance(value, list):
        return (read_export(value, folder),)
    specs: tuple[ExportSpec, ...] = list_of(partial(read_export, folder=folder))(value)
    if not specs:
        raise ValueError("expected at least one export, got an empty list")
    return specs


def _fault(value: Any) -> Fault:
    try:
        return parse_fault(value, "")
    except TableError as error:
        # The reader puts a key path before each mistake; the path of the list is added later.
        raise TableError([mistake.removeprefix(".") for mistake in error.mistakes]) from None


def _name_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _inconsistencies(given: Mapping[str, Any]) -> Iterator[str]:
    """Mistakes in values that are correct by themselves, but inconsistent."""
    exports: tuple[ExportSpec, ...] = given.get("export", ())
    handshake: Handshake = given.get("handshake", Handshake())
    faults: tuple[Fault, ...] = given.get("fault", ())
    twice = _name_twice(spec.name for spec in exports)
    if twice is not None:
        yield f"export: expected each export to have a name of its own, got {shown(twice)} twice"
    twice = _name_twice(fault.name for fault in faults if fault.name)
    if twice is not None:
        yield f"fault: expected each fault to have a name of its own, got {shown(twice)} twice"
    if handshake.style == "oldstyle" and len(exports) > 1:
        count = len(exports)
        yield f'export: expected one with style = "oldstyle", which has no names, got {count}'
    if handshake.style != "fixed" and handshake.tls != "off":
        yield (
            f'handshake.tls: expected "off" with style = "{handshake.style}", '
            f"which has no STARTTLS, got {shown(handshake.tls)}"
        )


@attrs.frozen
class Document:
    """A profile's file, parsed as TOML: one profile, or a family of them.

    `members` holds the parameters of each member of the family by name; None for one profile.
    """

    source: Path
    id: str
    text: str
    tables: Mapping[str, Any]
    members: Mapping[str, Values] | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of all profiles in it."""
        if self.members is None:
            return [self.id]
        return [f"{self.id}@{member}" for member in self.members]

    def text_of(self, member: str | None = None) -> str:
        """The TOML of one profile of it; of a member without the sweep, its values substituted."""
        if member is None or self.members is None:
            return self.text
        return substitute_text(self.text, self.members[member])

    def profile(self, member: str | None = None) -> Profile:
        """One profile of it. Raises ProfileError with every mistake."""
        try:
            return self._read(member)
        except ValueError as error:
            raise ProfileError(str(self.source), outermost(error)) from None

    def profiles(self) -> tuple[Profile, ...]:
        """All profiles of it. Raises ProfileError with every mistake, each listed once."""
        profiles: list[Profile] = []
        mistakes: dict[str, None] = {}
        for member in self.members or [None]:
            try:
                profiles.append(self._read(member))
            except ValueError as error:
                mistakes.update(dict.fromkeys(outermost(error)))
        if mistakes:
            raise ProfileError(str(self.source), list(mistakes))
        return tuple(profiles)

    def _read(self, member: str | None) -> Profile:
        tables, profile_id = self.tables, self.id
        if member is not None and self.members is not None:
            tables, profile_id = (
                substitute(tables, self.members[member]),
                f"{self.id}@{member}",
            )
        readers: dict[str, Reader] = {
            "summary": text,
            "about": text,
            "rules": _rules,
            "seen-in": list_of(text),
            "export": partial(_exports, folder=self.source.parent),
            "handshake": _handshake,
            "fault": list_of(_fault),
            "expect": _expect,
        }
        given = read_table(tables, readers)
        mistakes = list(_inconsistencies(given))
        if mistakes:
            raise TableError(mistakes)
        renamed = {"export": "exports", "fault": "faults"}
        arguments = {renamed.get(key, key): value for key, value in given.items()}
        return Profile(profile_id, source=self.source, **_arguments(arguments))


def read_document(source: Path, profile_id: str) -> Document:
    """The document in a file. Raises ProfileError if it cannot be read, or is not TOML."""
    try:
        toml = _read(source)
        tables = _tables(toml)
        members = None
        if "sweep" in tables:
            try:
                members = read_sweep(tables["sweep"])
            except ValueError as error:
                raise TableError(nested("sweep", error)) from None
        return Document(source, profile_id, toml, tables, members)
    except ValueError as error:
        raise ProfileError(str(source), outermost(error)) from None


def _read(source: Path) -> str:
    try:
        return source.read_bytes().decode()
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from None


def _tables(toml: str) -> dict[str, Any]:
    try:
        return tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"is not TOML: {error}") from None
