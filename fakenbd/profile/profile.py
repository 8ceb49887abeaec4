"""A profile: exports and their faults, the handshake, and the expected result of a client.

Profiles are values, and hold nothing that a client could change. Each server builds exports of its
own from the specifications.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import attrs

from fakenbd.conversation import Handshake
from fakenbd.conversation.handshake import TLS
from fakenbd.errors import ProfileError
from fakenbd.export import Export
from fakenbd.profile.export_spec import ExportSpec
from fakenbd.profile.export_table import read_export
from fakenbd.profile.table_reader import nested, outermost
from fakenbd.protocol.constants import Option

if TYPE_CHECKING:
    from fakenbd.faults import Fault

__all__ = [
    "OPERATIONS",
    "Expect",
    "Operation",
    "Outcome",
    "Profile",
    "Session",
    "TLSPolicy",
]

TLSPolicy: TypeAlias = Literal["off", "allow", "require"]
Outcome: TypeAlias = Literal["succeeds", "fails", "either"]
Session: TypeAlias = Literal["continues", "disconnects", "soft-disconnects", "reconnects"]
Operation: TypeAlias = Literal[
    "info", "list", "read", "write", "copy", "map", "zero", "trim", "flush", "cache", "reconnect"
]
OPERATIONS: Final[tuple[Operation, ...]] = (
    *("info", "list", "read", "write", "copy"),
    *("map", "zero", "trim", "flush", "cache", "reconnect"),
)

_NAMING: Final = frozenset(
    (
        *(Option.EXPORT_NAME, Option.INFO, Option.GO),
        *(Option.LIST_META_CONTEXT, Option.SET_META_CONTEXT),
    )
)
"""The options that name an export."""

_POLICIES: Final[dict[TLS, TLSPolicy]] = {
    "off": "off",
    "optional": "allow",
    "required": "require",
}


@attrs.frozen
class Expect:
    """The expected result of a client that does `operations` against a profile.

    It must never crash, hang, or accept wrong data as valid. `recovering` is the outcome for a
    client that says it recovers by itself, where that differs. `session` None: any end of the
    connection is allowed. `tls` is the client's TLS policy, if it does not follow from the
    handshake. `may_break` are SHOULD rules that a correct client may break here. Without
    operations no client that keeps the rules can trigger the fault, and the profile is no case.
    """

    outcome: Outcome = "succeeds"
    session: Session | None = None
    operations: tuple[Operation, ...] = ("info", "read")
    tls: TLSPolicy | None = None
    recovering: Outcome | None = None
    may_break: tuple[str, ...] = ()


@attrs.frozen
class Profile:
    """What one server serves, with its faults, and why.

    `rules` are ids of the rule tables, `seen_in` are programs that behaved like this, `source` is
    the file it was read from.
    """

    id: str
    summary: str = ""
    about: str = ""
    rules: tuple[str, ...] = ()
    seen_in: tuple[str, ...] = ()
    exports: tuple[ExportSpec, ...] = attrs.field(factory=lambda: (ExportSpec(),))
    handshake: Handshake = attrs.field(factory=Handshake)
    faults: tuple[Fault, ...] = ()
    expect: Expect = attrs.field(factory=Expect)
    source: Path | None = None

    @classmethod
    def of(
        cls,
        *,
        id: str = "python",  # noqa: A002 (the profile's own word)
        summary: str = "",
        rules: Sequence[str] = (),
        handshake: Handshake | None = None,
        faults: Sequence[Fault] = (),
        expect: Expect | None = None,
        exports: Sequence[Mapping[str, Any]] = (),
        **export: Any,
    ) -> Profile:
        """A profile from Python: `Profile.of(size="64KiB", content=b"hello", flags=["flush"])`.

        The keywords are the keys of [export] with underscores: name, size, content, block_size,
        flags, contexts, description, canonical_name, round_size_to, any_alignment, tls_only; for
        several exports a dictionary of them each in `exports`. Values are those of the TOML, or a
        content object, bytes, a function `(offset, length) -> bytes`, a BlockSize, a function of
        extents. Raises ProfileError with every mistake.
        """
        specs: list[ExportSpec] = []
        mistakes: list[str] = []
        for index, options in enumerate(exports or [export]):
            table = {key.replace("_", "-"): value for key, value in options.items()}
            try:
                specs.append(read_export(table))
            except ValueError as error:
                mistakes += nested(f"exports[{index}]", error) if exports else outermost(error)
        if exports and export:
            mistakes.append("expected either exports, or the options of one, got both")
        if mistakes:
            raise ProfileError(f"profile {id}", mistakes)
        return cls(
            id,
            summary=summary,
            rules=tuple(rules),
            exports=tuple(specs),
            handshake=handshake or Handshake(),
            faults=tuple(faults),
            expect=expect or Expect(),
        )

    @property
    def breaks_must(self) -> bool | None:
        """Whether the server breaks a MUST; None where it names no rule."""
        if not self.rules:
            return None
        from fakenbd.protocol.rules import rule  # imported here: loading the tables takes long

        return any(rule(rule_id).permits_disconnect for rule_id in self.rules)

    @property
    def picked_by_name(self) -> bool:
        """Whether a server of many profiles can show all of it once a client has named its export.

        Nothing of it comes before that: no handshake of its own, no fault on a connect, a greeting,
        an option without a name or a connection by number; and it has no other exports.
        """
        return (
            len(self.exports) == 1
            and self.handshake == Handshake()
            and all(map(_comes_after_a_name, self.faults))
        )

    @property
    def tls_policy(self) -> TLSPolicy:
        """Whether a client is to use no TLS, to ask for it, or to require it."""
        return self.expect.tls or _POLICIES[self.handshake.tls]

    def open_exports(self) -> list[Export]:
        """The exports of one server, built afresh. Raises ServeError for a file that is gone."""
        return [spec.build() for spec in self.exports]


def _comes_after_a_name(fault: Fault) -> bool:
    """Whether each event that it can meet is of an export that the client has named."""
    options = fault.when.option
    names = isinstance(options, frozenset) and options <= _NAMING
    return fault.when.connection is None and (
        fault.events <= {"command"} or (names and fault.events <= {"option"})
    )
