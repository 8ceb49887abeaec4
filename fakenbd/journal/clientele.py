"""Who uses which export over which connections: for the one rule that concerns several (C-102)."""

from __future__ import annotations

from collections.abc import Hashable

import attrs

__all__ = ["Clientele"]


@attrs.define(eq=False)
class Clientele:
    """All connections of one server that have sent commands, by client and export."""

    _commanding: dict[tuple[Hashable, str], set[Hashable]] = attrs.Factory(dict)

    def commands(self, client: Hashable, export: str, connection: Hashable) -> int:
        """Note that the connection sends commands; how many of that client do so now."""
        connections = self._commanding.setdefault((client, export), set())
        connections.add(connection)
        return len(connections)

    def leaves(self, connection: Hashable) -> None:
        """The connection has ended."""
        for key, connections in list(self._commanding.items()):
            connections.discard(connection)
            if not connections:
                del self._commanding[key]
