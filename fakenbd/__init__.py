"""fakenbd: a fake NBD server that tells the truth by default and lies on cue.

    async with fakenbd.open_server(profile) as server: ...         # trio
    with fakenbd.background_server(size="1MiB") as server: ...     # anything else
    async with fakenbd.Client.connect(uri) as client: ...          # the reference client

Names are imported when they are first used, so that `import fakenbd` is cheap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.lazy import lazy_getattr

if TYPE_CHECKING:
    from fakenbd.client import Client, ResilientClient
    from fakenbd.errors import (
        ClientError,
        ExpectationError,
        FakenbdError,
        ProfileError,
        ProtocolError,
        ServeError,
    )
    from fakenbd.export import BlockSize, Export
    from fakenbd.faults import Fault
    from fakenbd.journal import Journal
    from fakenbd.profile import Profile
    from fakenbd.protocol.messages import Extent
    from fakenbd.server import BackgroundServer, Server, background_server, open_server

__version__ = "0.1.0"

_HOMES = {
    "BackgroundServer": "server",
    "BlockSize": "export",
    "Client": "client",
    "ClientError": "errors",
    "ExpectationError": "errors",
    "Export": "export",
    "Extent": "protocol.messages",
    "FakenbdError": "errors",
    "Fault": "faults",
    "Journal": "journal",
    "Profile": "profile",
    "ProfileError": "errors",
    "ProtocolError": "errors",
    "ResilientClient": "client",
    "ServeError": "errors",
    "Server": "server",
    "background_server": "server",
    "open_server": "server",
}

__all__ = [
    "BackgroundServer",
    "BlockSize",
    "Client",
    "ClientError",
    "ExpectationError",
    "Export",
    "Extent",
    "FakenbdError",
    "Fault",
    "Journal",
    "Profile",
    "ProfileError",
    "ProtocolError",
    "ResilientClient",
    "ServeError",
    "Server",
    "background_server",
    "open_server",
]


__getattr__ = lazy_getattr(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
