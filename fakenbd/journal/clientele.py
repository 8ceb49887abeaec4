"""Which connections belong to one client: for what concerns more than the one it happened on.

That is commands over several connections (C-102), and giving up: a client leaves all of its
connections when the server broke a MUST on one of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import attrs

__all__ = ["Clientele"]


@attrs.define(eq=False)
class Clientele:
    """The connections of one server, with their clients, and those that have sent commands."""

    _clients: dict[Any, Hashable] = attrs.Factory(dict)
    _commanding: dict[tuple[Hashable, str], set[Hashable]] = attrs.Factory(dict)

    def joins(self, client: Hashable, connection: Hashable) -> None:
        """A connection of `client` is there; None where nobody can tell whose it is."""
        self._clients[connection] = client

    def siblings(self, connection: Hashable) -> Iterator[Any]:
        """The other connections that are there, as far as they may be the same client's."""
        if connection not in self._clients:
            return
        client = self._clients[connection]
        for other, owner in self._clients.items():
            if owner == client and other is not connection:
                yield other

    def commands(self, client: Hashable, export: str, connection: Hashable) -> int:
        """Note that the connection sends commands; how many of that client do so now."""
        connections = self._commanding.setdefault((client, export), set())
        connections.add(connection)
        return len(connections)

    def leaves(self, connection: Hashable) -> None:
        """The connection has ended."""
        self._clients.pop(connection, None)
        for key, connections in list(self._commanding.items()):
            connections.discard(connection)
            if not connections:
                del self._commanding[key]
