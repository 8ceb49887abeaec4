"""What all connections of one server share: the source of replies, the faults, the journal.

Where many profiles are served at once, each export has faults of its own, selected by its name.
Faults of the connection and of the greeting come before any name and so belong to the server.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

import attrs

from fakenbd.conversation.handshake import Handshake
from fakenbd.conversation.source import Source
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.obligations import Siblings

__all__ = ["SharedState"]


@attrs.define(eq=False)
class SharedState:
    """The state that all connections of a server share.

    `clock` returns seconds. `client` is the label of the client that all connections belong to,
    None where that is unknown. `connections` counts all so far, `clients` the open ones.
    """

    source: Source
    handshake: Handshake
    faults: Faults
    journal: Journal
    clock: Callable[[], float]
    client: Hashable = None
    faults_of: Mapping[str, Faults] = attrs.field(factory=dict)
    siblings: Siblings = attrs.field(factory=Siblings)
    connections: int = 0
    clients: int = 0

    def faults_for(self, export: str) -> Faults:
        """The faults of the export of that name."""
        return self.faults_of.get(export, self.faults)
