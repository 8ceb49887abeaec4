"""What all connections of one server share: the exports, the lies, the memory. No I/O.

`--all` serves many profiles at once: each export then has faults of its own, and the export's name
picks them. Faults of the connection and of the greeting come before any name and so belong to the
service as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import attrs

from fakenbd.export import Export
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.journal.obligations import Clientele
from fakenbd.profile import Handshake
from fakenbd.server.options import Catalogue

__all__ = ["Service"]


@attrs.define(eq=False)
class Service:
    """The sans-I/O heart of a server.

    `breaks_must` says whether the lies break a MUST of the specification (None: not known, each
    kind of fault then answers for itself); a client is not blamed for leaving after such a lie.
    """

    catalogue: Catalogue
    faults: Faults
    journal: Journal
    clock: Callable[[], float]
    breaks_must: bool | None = None
    faults_of: Mapping[str, Faults] = attrs.field(factory=dict)
    clientele: Clientele = attrs.field(factory=Clientele)
    connections: int = 0

    @classmethod
    def of(
        cls,
        exports: Iterable[Export],
        *,
        handshake: Handshake,
        faults: Faults,
        journal: Journal,
        clock: Callable[[], float],
        breaks_must: bool | None = None,
        faults_of: Mapping[str, Faults] | None = None,
    ) -> Service:
        """A service of these exports, each under its own name."""
        catalogue = Catalogue({export.name: export for export in exports}, handshake)
        return cls(catalogue, faults, journal, clock, breaks_must, faults_of or {})

    def faults_for(self, export: str) -> Faults:
        """The faults that fire on the export of that name."""
        return self.faults_of.get(export, self.faults)
