"""Makes a server from a user's options, and closes it.

Errors are raised here, before anything is served: ServeError for the set-up, ProfileError for what
is to be served. Sockets and files are cleaned up then.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Hashable, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fakenbd.conversation.export_options import Catalogue
from fakenbd.conversation.shared_state import SharedState
from fakenbd.conversation.source import ExportSource
from fakenbd.errors import ProfileError
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.profile import Profile
from fakenbd.protocol import rules
from fakenbd.server.endpoint import Endpoint, bind_address, bind_unix
from fakenbd.server.server import Server
from fakenbd.server.tls import TLS, TLSCredentials

if TYPE_CHECKING:
    from fakenbd.faults import Fault

__all__ = ["close", "follow_clock", "open_server", "prepare"]


def prepare(
    profile: Profile | str | os.PathLike[str] | None = None,
    *,
    tcp: str | None = None,
    unix: str | None = None,
    endpoints: Iterable[Endpoint] | None = None,
    seed: int | None = None,
    faults: Iterable[Fault] = (),
    every: Iterable[Profile] = (),
    journal: dict[str, Any] | None = None,
    tls: TLS | None = None,
    client: Hashable = None,
    **export: Any,
) -> Server:
    """A server that listens, but does not accept yet.

    `profile` is a profile, its id, or the path of its file; without one the options of an export
    are given: `size="1MiB"`, `content="zeros"` and all other keys of a profile's [export]. `tcp` is
    "HOST:PORT", `unix` a path or "-" for a private one; without either it listens on a free port
    of the loopback address. `journal` are options of the Journal. The first export of each profile
    in `every` is served too, under the profile's id and with the faults that fire after an export
    was named. `tls` has the mode and the certificates of TLS; without it the profile decides the
    mode, and certificates are made. `client` is a label of the one client that all connections
    belong to, where that is known: without it rules across connections are not judged (C-102).
    Raises ServeError or ProfileError.
    """
    if isinstance(profile, str | os.PathLike):
        # Imported here: the reader is not needed to serve a Profile.
        from fakenbd.profile import find

        profile = find(os.fspath(profile))
    if profile is None:
        profile = Profile.of(**export)
    elif export:
        raise ProfileError(
            f"profile {profile.id}",
            ["expected either a profile, or the options of an export, got both"],
        )
    # Loaded now: a violation's level comes from this file, which may be out of reach by then.
    rules.load()
    if seed is None:
        seed = secrets.randbelow(1 << 31)
    if endpoints is None:
        endpoints = [bind_address(tcp or "") if unix is None else bind_unix(unix)]
    listening = list(endpoints)
    security = None
    try:
        handshake = (tls or TLS()).handshake(profile.handshake)
        if handshake.tls != "off":
            security = TLSCredentials.of(tls or TLS(), [endpoint.host for endpoint in listening])
            security.check((*profile.faults, *faults))
        exports = {export.name: export for export in profile.open_exports()}
        faults_of = {}
        for each in every:
            exports[each.id] = attrs.evolve(each.exports[0], name=each.id).build()
            faults_of[each.id] = Faults(each.faults, seed=seed)
        shared = SharedState(
            ExportSource(Catalogue(exports, handshake)),
            handshake,
            Faults((*profile.faults, *faults), seed=seed),
            Journal(perf_counter, **(journal or {})),
            perf_counter,
            client,
            faults_of,
        )
    except BaseException:
        for endpoint in listening:
            endpoint.close()
        if security is not None:
            security.close()
        raise
    return Server(shared, exports, listening, profile, seed, security)


def follow_clock(server: Server) -> None:
    """Have the server follow the clock of the event loop that runs it, which is this one."""
    # Tasks sleep until a deadline by trio's clock, and a test's clock can jump.
    # Not trio.current_time, which has to find the clock first, for every record of the journal.
    clock = trio.lowlevel.current_clock().current_time
    server.shared.clock = server.journal.clock = clock
    server.journal.began = clock()


@asynccontextmanager
async def open_server(
    profile: Profile | str | os.PathLike[str] | None = None, **options: Any
) -> AsyncIterator[Server]:
    """A server that runs as long as the block; options as for `prepare`.

    It accepts clients when the block begins.
    """
    server = prepare(profile, **options)
    follow_clock(server)
    failure = None
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            try:
                yield server
            except trio.Cancelled:
                raise
            except BaseException as error:
                # Raised again outside of the nursery, which would wrap it in a group.
                failure = error
            nursery.cancel_scope.cancel()
    finally:
        close(server)
    if failure is not None:
        raise failure


def close(server: Server) -> None:
    """Stop listening, and close the exports."""
    for endpoint in server.endpoints:
        endpoint.close()
    if server.security is not None:
        server.security.close()
    for export in server.exports.values():
        export.close()
