"""Where a server listens: TCP, a Unix socket, or sockets that a supervisor hands over.

An endpoint makes its listening sockets and has the URI of them. Every error with an address is one
ServeError that names it.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.errors import ServeError
from fakenbd.protocol.uri import Uri

__all__ = ["Endpoint", "activated", "bind_address", "bind_tcp", "bind_unix"]

_BACKLOG: Final = 1024
_LONGEST_PATH: Final = 107
_ADDRESS: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([^:]*))?")
_LARGEST_PORT: Final = 65535
_FIRST_HANDED_DESCRIPTOR: Final = 3
_LOOPBACK: Final = "127.0.0.1"
_EVERYWHERE: Final = "*"
_REACHED_AT: Final = {_EVERYWHERE: _LOOPBACK, "0.0.0.0": _LOOPBACK, "::": "::1"}
"""The loopback address for the URI of a server that listens on all interfaces."""


@attrs.define(eq=False)
class Endpoint:
    """Listening sockets and their address.

    `path` is the Unix socket's, `folder` the private folder made for it, if any.
    """

    sockets: list[socket.socket]
    host: str = ""
    port: int = 0
    path: str = ""
    folder: tempfile.TemporaryDirectory[str] | None = None
    handed: bool = False
    _places: list[_Place] = attrs.field(factory=list, init=False, repr=False)

    def uri(self, export: str, **parameters: Any) -> str:
        """The URI of one export here; `parameters` are the fields of Uri for TLS."""
        if self.path:
            return str(Uri("unix", socket=self.path, export=export, **parameters))
        return str(Uri("tcp", host=self.host, port=self.port, export=export, **parameters))

    def suspend(self) -> None:
        """Stop listening for a while: clients are refused."""
        self._places = [_Place.of(sock) for sock in self.sockets]
        for sock in self.sockets:
            sock.close()
        if self.path and not self.handed:
            Path(self.path).unlink(missing_ok=True)

    def resume(self) -> None:
        """Listen again on the same address. Raises ServeError if it is taken."""
        if self.path:
            self.sockets = [_listen_unix(self.path)]
            return
        again: list[socket.socket] = []
        try:
            again.extend(place.listen() for place in self._places)
        except OSError as error:
            for sock in again:
                sock.close()
            raise ServeError(
                f"cannot listen on {self.host}:{self.port}: {_reason(error)}"
            ) from error
        self.sockets = again

    def close(self) -> None:
        """Stop listening, and remove socket files and folders."""
        for sock in self.sockets:
            sock.close()
        if self.path and not self.handed:
            Path(self.path).unlink(missing_ok=True)
        if self.folder is not None:
            self.folder.cleanup()


def bind_address(address: str) -> Endpoint:
    """Listen on the TCP address "HOST:PORT", with a free port where that is 0 or left out.

    HOST may be an IPv6 address in brackets, "*" for all interfaces, or "" for the loopback
    address. Raises ServeError.
    """
    pieces = _ADDRESS.fullmatch(address)
    if pieces is None:
        raise ServeError(
            f"cannot listen on {address}: expected HOST:PORT, an IPv6 address in brackets as in "
            "[::1]:0"
        )
    host, port = pieces[1] or pieces[2] or _LOOPBACK, pieces[3] or "0"
    if not re.fullmatch("[0-9]{1,5}", port) or int(port) > _LARGEST_PORT:
        raise ServeError(f"cannot listen on {address}: a port is a number from 0 to 65535")
    return bind_tcp(host, int(port))


def bind_tcp(host: str = _LOOPBACK, port: int = 0) -> Endpoint:
    """Listen on a TCP address; port 0 lets the system choose, host "*" means all interfaces.

    Raises ServeError where the name is unknown or the address not available.
    """
    try:
        sock = (
            _listen_everywhere(port) if host == _EVERYWHERE else _Place.named(host, port).listen()
        )
    except (OSError, OverflowError) as error:
        where = host if isinstance(error, socket.gaierror) else f"{host}:{port}"
        raise ServeError(f"cannot listen on {where}: {_reason(error)}") from error
    return Endpoint([sock], host=_REACHED_AT.get(host, host), port=sock.getsockname()[1])


def _listen_everywhere(port: int) -> socket.socket:
    """A socket on all interfaces, for IPv6 and IPv4, or for IPv4 alone where there is no IPv6."""
    try:
        return _Place(socket.AF_INET6, ("::", port), dual=True).listen()
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
        return _Place(socket.AF_INET, ("0.0.0.0", port)).listen()


@attrs.frozen
class _Place:
    """A TCP address to listen on; with `dual` an IPv6 one takes IPv4 clients, too."""

    family: int
    address: Any
    dual: bool = False

    @classmethod
    def named(cls, host: str, port: int) -> _Place:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return cls(family, address)

    @classmethod
    def of(cls, sock: socket.socket) -> _Place:
        dual = sock.family == socket.AF_INET6 and not sock.getsockopt(
            socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
        )
        return cls(sock.family, sock.getsockname(), dual)

    def listen(self) -> socket.socket:
        """A listening socket. Raises OSError, or OverflowError for an impossible port."""
        sock = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not self.dual))
            sock.bind(self.address)
            sock.listen(_BACKLOG)
        except BaseException:
            sock.close()
            raise
        sock.setblocking(False)
        return sock


def bind_unix(path: str) -> Endpoint:
    """Listen on a Unix socket; "-" makes one in a private folder that is removed with the server.

    A socket file without a listener is replaced. Raises ServeError where the path is too long,
    taken, or not writable.
    """
    folder = None
    if path == "-":
        folder = tempfile.TemporaryDirectory(prefix="fakenbd-")
        path = os.path.join(folder.name, "nbd.sock")
    # Absolute, because a client may run in another working directory.
    path = os.path.abspath(path)
    try:
        return Endpoint([_listen_unix(path)], path=path, folder=folder)
    except ServeError:
        if folder is not None:
            folder.cleanup()
        raise


def _listen_unix(path: str) -> socket.socket:
    size = len(os.fsencode(path))
    if size > _LONGEST_PATH:
        raise ServeError(
            f"cannot listen on {path}: the path of a Unix socket has at most "
            f"{_LONGEST_PATH} bytes, this one has {size}"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_dead(path):
                raise
            os.unlink(path)
            sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ServeError(f"cannot listen on {path}: {_reason(error)}") from error
    sock.setblocking(False)
    return sock


def activated() -> Endpoint | None:
    """The sockets that a supervisor (systemd, libnbd) handed over, or None if there are none.

    See sd_listen_fds(3): LISTEN_PID names this process, LISTEN_FDS counts descriptors from 3. The
    variables are removed from the environment, so that children do not inherit them.
    """
    pid = os.environ.get("LISTEN_PID")
    count = os.environ.get("LISTEN_FDS")
    if count is None or pid != str(os.getpid()):
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    try:
        descriptors = range(_FIRST_HANDED_DESCRIPTOR, _FIRST_HANDED_DESCRIPTOR + int(count))
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except (OSError, ValueError) as error:
        raise ServeError(f"LISTEN_FDS={count} does not name listening sockets: {error}") from error
    if not sockets:
        raise ServeError("LISTEN_FDS=0 hands over no socket")
    for sock in sockets:
        if not _can_be_served(sock):
            for each in sockets:
                each.close()
            raise ServeError(
                f"LISTEN_FDS={count} hands over a socket that is not a listening TCP or Unix "
                f"socket ({_name(sock.family)}, {_name(sock.type)})"
            )
        sock.set_inheritable(False)
        sock.setblocking(False)
    name = sockets[0].getsockname()
    if sockets[0].family == socket.AF_UNIX:
        path = os.fsdecode(name) if isinstance(name, bytes) else name
        return Endpoint(sockets, path=path, handed=True)
    host = _LOOPBACK if _Place.of(sockets[0]).dual and name[0] == "::" else name[0]
    return Endpoint(sockets, host=_REACHED_AT.get(host, host), port=name[1], handed=True)


def _can_be_served(sock: socket.socket) -> bool:
    return (
        sock.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        and sock.type == socket.SOCK_STREAM
        and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    )


def _name(number: int) -> str:
    return getattr(number, "name", str(number))


def _is_dead(path: str) -> bool:
    """Whether it is a socket without a listener; files of any other kind are not replaced."""
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        return False
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
