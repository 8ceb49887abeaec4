"""Which connections belong to one client, for rules and excuses that concern more than one.

Those are commands over several connections (C-102), and giving up: a client may leave all of its
connections once the server broke a MUST on one of them. Who is one client is told by the owner, as
a label; it is never guessed.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

import attrs

__all__ = ["Member", "Siblings"]


class Member(Protocol):
    """A connection among its siblings."""

    client: Hashable | None

    def excuse(self) -> None:
        """The server broke a MUST on another connection of what may be the same client."""


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

    def breached(self, member: Member) -> None:
        """The server broke a MUST on this connection: excuse the others of the same label.

        A connection without a label excuses those without one.
        """
        if member not in self._members:
            return
        for other in tuple(self._members):
            if other is not member and other.client == member.client:
                other.excuse()

    def command(self, member: Member, export: str) -> int:
        """The connection sends commands; returns how many of its client's now do, to that export.

        1 for a connection without a label: nobody can tell which others are the same client's.
        """
        if member.client is None:
            return 1
        members = self._commanding.setdefault((member.client, export), set())
        members.add(member)
        return len(members)
