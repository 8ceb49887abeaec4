"""Where a server listens: TCP, a Unix socket, or sockets that a supervisor hands over.

An endpoint makes its listening sockets and knows the URI that leads to them. Everything that can go
wrong with an address is one ServeError that names it.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.errors import ServeError
from fakenbd.protocol.uri import Uri

__all__ = ["Endpoint", "activated", "bind_tcp", "bind_unix"]

_BACKLOG: Final = 1024
_LONGEST_PATH: Final = 107
_FIRST_HANDED_DESCRIPTOR: Final = 3


@attrs.define(eq=False)
class Endpoint:
    """Listening sockets and what a client needs to know to reach them.

    `path` is the Unix socket's, with `folder` the private folder made for it, if any.
    """

    sockets: list[socket.socket]
    host: str = ""
    port: int = 0
    path: str = ""
    folder: tempfile.TemporaryDirectory[str] | None = None
    handed: bool = False

    def uri(self, export: str, **parameters: Any) -> str:
        """The URI of one export here; `parameters` are fields of Uri that have to do with TLS."""
        if self.path:
            return str(Uri("unix", socket=self.path, export=export, **parameters))
        return str(Uri("tcp", host=self.host, port=self.port, export=export, **parameters))

    def suspend(self) -> None:
        """Stop listening for a while: clients are refused."""
        for sock in self.sockets:
            sock.close()
        if self.path and not self.handed:
            Path(self.path).unlink(missing_ok=True)

    def resume(self) -> None:
        """Listen again where it did before. Raises ServeError if that has been taken."""
        again = _listen_unix(self.path) if self.path else bind_tcp(self.host, self.port).sockets[0]
        self.sockets = [again]

    def close(self) -> None:
        """Stop listening and leave nothing behind."""
        for sock in self.sockets:
            sock.close()
        if self.path and not self.handed:
            Path(self.path).unlink(missing_ok=True)
        if self.folder is not None:
            self.folder.cleanup()


def bind_tcp(host: str = "127.0.0.1", port: int = 0) -> Endpoint:
    """Listen on a TCP address; port 0 lets the system choose.

    Raises ServeError where the name is unknown or the address is not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise ServeError(f"cannot listen on {host}: {error.strerror}") from error
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        sock.close()
        raise ServeError(f"cannot listen on {host}:{port}: {_reason(error)}") from error
    sock.setblocking(False)
    return Endpoint([sock], host=host, port=sock.getsockname()[1])


def bind_unix(path: str) -> Endpoint:
    """Listen on a Unix socket; "-" makes one in a private folder that goes with the server.

    A socket file that nobody listens on any more is replaced. Raises ServeError where the path is
    too long, taken, or not to be written.
    """
    folder = None
    if path == "-":
        folder = tempfile.TemporaryDirectory(prefix="fakenbd-")
        path = os.path.join(folder.name, "nbd.sock")
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
    """The sockets that a supervisor (systemd, libnbd) handed over, or None if it handed none.

    See sd_listen_fds(3): LISTEN_PID names this process, LISTEN_FDS counts descriptors from 3. The
    variables are taken out of the environment, as they are not for our children.
    """
    pid = os.environ.get("LISTEN_PID")
    count = os.environ.get("LISTEN_FDS")
    if count is None or pid != str(os.getpid()):
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    sockets = []
    try:
        for descriptor in range(_FIRST_HANDED_DESCRIPTOR, _FIRST_HANDED_DESCRIPTOR + int(count)):
            os.set_inheritable(descriptor, False)
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            sockets.append(sock)
    except (OSError, ValueError) as error:
        raise ServeError(f"LISTEN_FDS={count} does not name listening sockets: {error}") from error
    if not sockets:
        raise ServeError("LISTEN_FDS=0 hands over no socket")
    name = sockets[0].getsockname()
    if sockets[0].family == socket.AF_UNIX:
        path = os.fsdecode(name) if isinstance(name, bytes) else name
        return Endpoint(sockets, path=path, handed=True)
    return Endpoint(sockets, host=name[0], port=name[1], handed=True)


def _is_dead(path: str) -> bool:
    """Whether it is a socket that nobody listens on; a file of any other kind is not ours."""
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
