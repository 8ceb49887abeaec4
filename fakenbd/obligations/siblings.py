"""Which connections belong to one client, for rules and excuses that concern more than one.

These are commands over several connections (C-102), and giving up: a client may end all of its
connections once the server broke a MUST on one of them, or owes something on one of them. The owner
labels the connections of a client; the label is never guessed. Connections without a label may all
belong to one client: that excuses an end, and is no basis for a violation.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import attrs

__all__ = ["Member", "Siblings"]


class Member(Protocol):
    """One connection of a server, with its client's label."""

    client: Hashable | None

    @property
    def owes(self) -> bool:
        """Whether the server owes something on this connection."""

    def excuse(self) -> None:
        """A connection whose client may be the same was excused: excuse this one."""


@attrs.define(eq=False)
class Siblings:
    """The open connections of one server, and which of them have sent commands."""

    _members: dict[Member, None] = attrs.Factory(dict)
    _commanding: dict[tuple[Hashable, str], set[Member]] = attrs.Factory(dict)

    def join(self, member: Member) -> None:
        """Add an open connection."""
        self._members[member] = None

    def leave(self, member: Member) -> None:
        """Remove a connection that has ended."""
        self._members.pop(member, None)
        for key, members in list(self._commanding.items()):
            members.discard(member)
            if not members:
                del self._commanding[key]

    def excuse_others(self, member: Member) -> None:
        """Excuse the other connections whose client may be the same.

        Without effect once it has ended.
        """
        if member in self._members:
            for other in self._others(member):
                other.excuse()

    def is_owed_elsewhere(self, member: Member) -> bool:
        """Whether the server owes something on another connection whose client may be the same."""
        return any(other.owes for other in self._others(member))

    def _others(self, member: Member) -> list[Member]:
        return [
            other
            for other in self._members
            if other is not member and other.client == member.client
        ]

    def command(self, member: Member, export: str) -> int:
        """Record that the connection sends commands; returns how many of its client's do.

        1 for a connection without a label, whose client is unknown.
        """
        if member.client is None:
            return 1
        members = self._commanding.setdefault((member.client, export), set())
        members.add(member)
        return len(members)
