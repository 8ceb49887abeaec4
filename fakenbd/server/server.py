"""A running server: its shared state, its listeners, and a session for each client.

`factory` makes one and lets it run in trio, `background` in a thread.
"""

from __future__ import annotations

import errno
import socket as sockets
import traceback
from collections import defaultdict
from collections.abc import Hashable, Mapping
from threading import current_thread, main_thread
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from fakenbd.conversation.conversation import Conversation
from fakenbd.conversation.past_events import past_events
from fakenbd.conversation.shared_state import SharedState
from fakenbd.errors import ServeError
from fakenbd.export import Export
from fakenbd.faults import Event, Faults
from fakenbd.faults.answer import StartTLS, TakeListenerDown
from fakenbd.journal import Entry, Journal, Waiter
from fakenbd.profile import Profile
from fakenbd.server.endpoint import Endpoint
from fakenbd.server.session import Session
from fakenbd.server.tls import TLSCredentials
from fakenbd.server.tls_transport import TLSHandshakeError
from fakenbd.server.transport import (
    SPIN_MS,
    SPIN_POLLS,
    SocketTransport,
    StreamTransport,
    Transport,
)

if TYPE_CHECKING:
    from fakenbd.faults.builder import On

__all__ = ["Server"]

_ROUNDS: Final = 4


_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
"""Errors of accept that are temporary; see accept(2)."""
_LOST: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.ENOPROTOOPT,
        errno.EHOSTDOWN,
        errno.ENONET,
        errno.EHOSTUNREACH,
        errno.EOPNOTSUPP,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)
"""Errors of accept that concern one client, which has gone; see accept(2)."""


@attrs.frozen
class _Peer:
    """The addresses and the transport of a client."""

    address: str
    transport: str
    local: str = ""


@attrs.define(eq=False, repr=False)
class Server:
    """A fake NBD server with its journal, faults and exports.

    `errors` are exceptions of the server itself, which are bugs: clients cannot cause any.
    """

    shared: SharedState
    exports: Mapping[str, Export]
    endpoints: list[Endpoint]
    profile: Profile
    seed: int
    security: TLSCredentials | None = None
    errors: list[BaseException] = attrs.field(factory=list)
    _nursery: trio.Nursery | None = None
    _away: int = 0
    _away_until: float = 0.0
    _listening: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _suspended: float | None = None

    def __repr__(self) -> str:
        where = self.uri if self.endpoints else "in memory"
        return f"<Server of {self.profile.id}, {where}, seed {self.seed}>"

    # --- what a test reads -------------------------------------------------------------------

    @property
    def journal(self) -> Journal:
        """The record of all messages, firings, violations and ends."""
        return self.shared.journal

    @property
    def faults(self) -> Faults:
        """The faults, which may be added and removed at any time."""
        return self.shared.faults

    @property
    def export(self) -> Export:
        """The first export, or the only one."""
        return next(iter(self.exports.values()))

    @property
    def endpoint(self) -> Endpoint:
        """Where the server listens. Raises ServeError where it does not."""
        if not self.endpoints:
            raise ServeError("this server listens nowhere: it is reached by connect()")
        return self.endpoints[0]

    @property
    def uri(self) -> str:
        """The URI of the first export."""
        return self.uri_of(self.export.name)

    @property
    def port(self) -> int:
        """The TCP port, 0 for a Unix socket."""
        return self.endpoint.port

    @property
    def socket(self) -> str:
        """The path of the Unix socket, "" for TCP."""
        return self.endpoint.path

    def uri_of(self, export: str, *, credentials: bool = False) -> str:
        """The URI of one export, with a TLS scheme where TLS is required.

        With `credentials` it has the files that a client needs for TLS, as libnbd reads them.
        """
        required = self.shared.handshake.tls == "required"
        if credentials and self.security is not None:
            return self.endpoint.uri(export, tls=required, **self.security.parameters())
        return self.endpoint.uri(export, tls=required)

    def on(self, event: str | int | None = None, /, **conditions: Any) -> On:
        """Begin a fault: `server.on("read", nth=2).error("EIO")`."""
        return self.faults.on(event, **conditions)

    def fired(self) -> int:
        """How often any fault fired."""
        return sum(self.journal.totals.fired.values())

    def unfired(self) -> list[str]:
        """A sentence for each fault that never fired: the closest event, and what differed.

        Those of an export with faults of its own begin with its name.
        """
        events: defaultdict[Faults, list[Event]] = defaultdict(list)
        for event in past_events(self.journal):
            events[self.shared.faults_for(event.export)].append(event)
        return [
            *self.faults.unfired(events[self.faults]),
            *(
                f"{name}: {sentence}"
                for name, faults in self.shared.faults_of.items()
                for sentence in faults.unfired(events[faults])
            ),
        ]

    async def wait_for(
        self, command: str | int | None = None, *, count: int = 1, timeout: float = 5, **wanted: Any
    ) -> list[Entry]:
        """Wait until entries meet the conditions; those that are there already count.

        Raises ExpectationError after `timeout` seconds.
        """
        conditions = wanted if command is None else {"command": command, **wanted}
        waiter = Waiter(self.journal, conditions, count)
        news = trio.Event()

        def notice() -> None:
            news.set()

        unsubscribe = self.journal.subscribe(notice)
        try:
            with trio.move_on_after(timeout):
                while not waiter.done():
                    await news.wait()
                    news = trio.Event()
                return waiter.found
        finally:
            unsubscribe()
        raise waiter.error(timeout)

    async def settle(self, timeout: float = 1) -> None:
        """Wait until all that has reached the server is handled, at most `timeout` seconds.

        What clients sent before they closed is then in the journal; delayed replies still wait.
        """
        with trio.move_on_after(timeout):
            # Clients that wait to be accepted get a session, and sessions at their end finish.
            for _ in range(_ROUNDS):
                await trio.lowlevel.checkpoint()
            if self._nursery is not None and self._nursery.child_tasks:
                from trio.testing import wait_all_tasks_blocked  # slow to import

                await wait_all_tasks_blocked()

    # --- clients -----------------------------------------------------------------------------

    def connect(self, client: Hashable = None) -> trio.StapledStream[Any, Any]:
        """A client's end of a new connection in memory.

        Connections with the same label `client` belong to one client. Raises
        ConnectionRefusedError while the server does not listen.
        """
        from trio.testing import memory_stream_pair  # for tests only, and slow to import

        if self._is_away():
            raise ConnectionRefusedError("the server is away")
        ours, theirs = memory_stream_pair()
        self._serve(StreamTransport(ours), _Peer("memory", "memory"), client)
        return theirs

    async def serve_stream(self, stream: trio.abc.Stream, peer: str = "stdio") -> None:
        """Serve one client on a connected stream, until it ends."""
        await self._run(self._session(StreamTransport(stream), _Peer(peer, peer)))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Accept and serve clients until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            while True:
                with self._listening:
                    async with trio.open_nursery() as listeners:
                        for endpoint in self.endpoints:
                            for sock in endpoint.sockets:
                                listeners.start_soon(self._accept, sock)
                        await trio.sleep_forever()
                self._listening = trio.CancelScope()
                if self._suspended is not None:
                    await self._suspend(self._suspended)

    async def _suspend(self, seconds: float) -> None:
        self._suspended = None
        for endpoint in self.endpoints:
            endpoint.suspend()
        await trio.sleep(seconds)
        for endpoint in self.endpoints:
            await self._resume(endpoint)

    async def _resume(self, endpoint: Endpoint) -> None:
        """Listen again, as soon as the address is free."""
        recorded = ""
        while True:
            try:
                endpoint.resume()
            except ServeError as error:
                if str(error) != recorded:
                    recorded = str(error)
                    self.journal.internal_failure(None, recorded)
                await trio.sleep(1)
            else:
                return

    async def _accept(self, listener: sockets.socket) -> None:
        # Where this is not the main thread, the client may run in that, and polling would stop it.
        polls = SPIN_POLLS if current_thread() is main_thread() else SPIN_MS
        short = False
        while True:
            try:
                sock, peer = listener.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(listener)
                continue
            except OSError as error:
                if error.errno in _LOST:
                    continue
                sentence = f"a connection could not be accepted: {error.strerror}"
                if error.errno not in _SHORTAGES:
                    self.journal.internal_failure(
                        None, f"{sentence}; nothing more is accepted here"
                    )
                    return
                if not short:
                    self.journal.internal_failure(None, sentence)
                short = True
                await trio.sleep(0.05)
                continue
            short = False
            sock.setblocking(False)
            if self._is_away():
                SocketTransport(sock).reset()
                continue
            self._serve(SocketTransport(sock, self._has_one_client, polls), _peer(sock, peer))

    def _has_one_client(self) -> bool:
        return self.shared.clients == 1

    def _serve(self, transport: Transport, peer: _Peer, client: Hashable = None) -> None:
        assert self._nursery is not None, "the server is serving"
        self._nursery.start_soon(self._run, self._session(transport, peer, client))

    def _session(self, transport: Transport, peer: _Peer, client: Hashable = None) -> Session:
        shared = self.shared
        shared.connections += 1
        number = shared.connections
        shared.journal.connected(number, peer.address, peer.transport, peer.local)
        conversation = Conversation(shared, number, client)
        return Session(conversation, transport, self._secure, self._go_away)

    async def _run(self, session: Session) -> None:
        try:
            await session.run()
        except Exception as error:  # a bug in one session must not end the others
            cause = _deepest(error)
            self.errors.append(cause)
            place = traceback.extract_tb(cause.__traceback__)[-1]
            self.journal.internal_failure(
                session.conversation.connection,
                f"{type(cause).__name__}: {cause} ({place.name}, line {place.lineno})",
            )

    # --- actions of faults ---------------------------------------------------------------------

    async def _secure(self, transport: Transport, step: StartTLS) -> tuple[Transport, str]:
        assert self.security is not None, "a server without TLS does not agree to it"
        try:
            secured = await self.security.secure(transport, step)
            return secured, secured.inner.version() or ""
        except ServeError as error:
            self.journal.internal_failure(None, f"a fault could not fire: {error}")
            raise TLSHandshakeError("server", "closed") from error

    def _go_away(self, step: TakeListenerDown) -> None:
        if step.attempts is not None:
            self._away = step.attempts
        if step.seconds is not None:
            self._away_until = trio.current_time() + step.seconds
            self._suspended = step.seconds
            self._listening.cancel()

    def _is_away(self) -> bool:
        if self._away:
            self._away -= 1
            return True
        return bool(self._away_until) and trio.current_time() < self._away_until


def _deepest(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _peer(sock: sockets.socket, address: object) -> _Peer:
    local = _text(sock.getsockname())
    if sock.family != sockets.AF_UNIX:
        sock.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        return _Peer(_text(address), "tcp", local)
    return _Peer(_text(address), "unix", local)


def _text(address: object) -> str:
    if isinstance(address, tuple):
        host = f"[{address[0]}]" if ":" in str(address[0]) else address[0]
        return f"{host}:{address[1]}"
    return str(address) if address else ""
