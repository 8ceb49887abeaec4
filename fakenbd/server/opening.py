"""Opening a server: from what the user asks for to a server that listens, and its end.

What can go wrong goes wrong here and at once: ServeError for the set-up, ProfileError for what is
to be served. Nothing is left behind then.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import attrs
import trio

from fakenbd.errors import ProfileError
from fakenbd.faults import Faults
from fakenbd.journal import Journal
from fakenbd.profile import Profile
from fakenbd.protocol import rules
from fakenbd.server.endpoint import Endpoint, bind_address, bind_unix
from fakenbd.server.server import Server
from fakenbd.server.service import Service
from fakenbd.server.tls import TLS, Security

if TYPE_CHECKING:
    from fakenbd.faults import Fault

__all__ = ["close", "open_server", "prepare"]


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
    **export: Any,
) -> Server:
    """A server that listens already but serves nobody yet.

    `profile`, or its id, or the path of its file, says what to serve; or the options of an export
    do: `size="1MiB"`, `content="zeros"` and whatever else a profile's [export] has. `tcp` is
    "HOST:PORT", `unix` a path or "-" for a private one; without either it listens on a free port
    of the loopback address. `journal` are options of the Journal. The first export of each profile
    in `every` is served too, under the profile's id and with the faults that fire after an export
    was named. `tls` says whether TLS is spoken, and with which certificates; without it the profile
    says whether, and certificates are made. Raises ServeError or ProfileError.
    """
    if isinstance(profile, str | os.PathLike):
        from fakenbd.profile import find  # what reads files is not needed to serve a value

        profile = find(os.fspath(profile))
    if profile is None:
        profile = Profile.of(**export)
    elif export:
        raise ProfileError(
            f"profile {profile.id}",
            ["expected either a profile, or the options of an export, got both"],
        )
    # A client's violation is weighed by its row, and a file may be out of reach by then.
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
            security = Security.of(tls or TLS(), [endpoint.host for endpoint in listening])
            security.check((*profile.faults, *faults))
        exports = {export.name: export for export in profile.open_exports()}
        faults_of = {}
        for each in every:
            exports[each.id] = attrs.evolve(each.exports[0], name=each.id).build()
            faults_of[each.id] = Faults(each.faults, seed=seed)
        service = Service.of(
            exports.values(),
            handshake=handshake,
            faults=Faults((*profile.faults, *faults), seed=seed),
            journal=Journal(perf_counter, **(journal or {})),
            clock=perf_counter,
            breaks_must=profile.breaks_must,
            faults_of=faults_of,
        )
    except BaseException:
        for endpoint in listening:
            endpoint.close()
        if security is not None:
            security.close()
        raise
    return Server(service, listening, profile, seed, security)


@asynccontextmanager
async def open_server(
    profile: Profile | str | os.PathLike[str] | None = None, **options: Any
) -> AsyncIterator[Server]:
    """A server that runs as long as the block does; options as for `prepare`.

    It is ready for clients when the block begins.
    """
    server = prepare(profile, **options)
    # Delays and stalls follow trio's clock, so that a test's clock can jump over them.
    # Not trio.current_time, which has to find the clock first, for every record of the journal.
    clock = trio.lowlevel.current_clock().current_time
    server.service.clock = server.journal.clock = clock
    server.journal.began = clock()
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
    """Stop listening and give back what the exports needed."""
    for endpoint in server.endpoints:
        endpoint.close()
    if server.security is not None:
        server.security.close()
    for export in server.exports.values():
        export.close()
