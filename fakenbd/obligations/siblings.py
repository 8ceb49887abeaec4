"""Which connections belong to one client, for rules and excuses that concern more than one.

Those are commands over several connections (C-102), and giving up: a client may leave all of its
connections once the server broke a MUST on one of them, or owes something on one of them. Who is
one client is told by the owner, as a label; it is never guessed. Connections without a label may
all be of one client: that excuses, and blames nobody.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import attrs

__all__ = ["Member", "Siblings"]


class Member(Protocol):
    """A connection among its siblings."""

    client: Hashable | None

    @property
    def owes(self) -> bool:
        """Whether the server owes something there."""

    def excuse(self) -> None:
        """The client may give up another connection of what may be the same client."""


@attrs.define(eq=False)
class Siblings:
    """The open connections of one server, and which of them have sent commands."""

    _members: dict[Member, None] = attrs.Factory(dict)
    _commanding: dict[tuple[Hashable, str], set[Member]] = attrs.Factory(dict)

    def join(self, member: Member) -> None:
        """A connection was made."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """A connection has ended."""
        self._members.pop(member, None)
        for key, members in list(self._commanding.items()):
            members.discard(member)
            if not members:
                del self._commanding[key]

    def excuse_others(self, member: Member) -> None:
        """The client may give up this connection, and so the others that may be the same client's.

        Without effect once it has ended.
        """
        if member in self._members:
            for other in self._others(member):
                other.excuse()

    def is_owed_elsewhere(self, member: Member) -> bool:
        """Whether the server owes something on another connection of what may be one client."""
        return any(other.owes for other in self._others(member))

    def _others(self, member: Member) -> list[Member]:
        return [
            other
            for other in self._members
            if other is not member and other.client == member.client
        ]

    def command(self, member: Member, export: str) -> int:
        """The connection sends commands; returns how many of its client's now do, to that export.

        1 for a connection without a label: nobody can tell which others are the same client's.
        """
        if member.client is None:
            return 1
        members = self._commanding.setdefault((member.client, export), set())
        members.add(member)
        return len(members)
