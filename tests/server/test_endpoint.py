"""Where a server listens, and the one sentence that says why it cannot."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakenbd.errors import ServeError
from fakenbd.protocol.uri import Uri
from fakenbd.server.endpoint import Endpoint, activated, bind_address, bind_tcp, bind_unix


def reached(endpoint: Endpoint) -> None:
    """A client can connect to where the URI says."""
    uri = Uri.parse(endpoint.uri(""))
    if uri.socket:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(uri.socket)
    else:
        socket.create_connection((uri.host, uri.port)).close()


def refused(endpoint: Endpoint) -> None:
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        reached(endpoint)


def test_a_free_port_of_the_loopback_address() -> None:
    endpoint = bind_tcp()
    assert endpoint.sockets[0].getsockname() == ("127.0.0.1", endpoint.port)
    assert endpoint.uri("") == f"nbd://127.0.0.1:{endpoint.port}/"
    assert endpoint.uri("a b") == f"nbd://127.0.0.1:{endpoint.port}/a%20b"
    reached(endpoint)
    endpoint.close()
    refused(endpoint)


LOOPBACK = "nbd://127.0.0.1:{port}/"
LOOPBACK_6 = "nbd://[::1]:{port}/"

ADDRESSES = {
    "127.0.0.1": LOOPBACK,
    "127.0.0.1:0": LOOPBACK,
    "127.0.0.1:": LOOPBACK,
    "": LOOPBACK,
    ":0": LOOPBACK,
    "localhost:0": "nbd://localhost:{port}/",
    "[::1]": LOOPBACK_6,
    "[::1]:0": LOOPBACK_6,
    "*": LOOPBACK,
    "*:0": LOOPBACK,
    "0.0.0.0:0": LOOPBACK,
    "[::]:0": LOOPBACK_6,
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_gives_a_uri_that_works(address: str) -> None:
    endpoint = bind_address(address)
    try:
        uri = endpoint.uri("")
        assert uri == ADDRESSES[address].format(port=endpoint.port)
        reached(endpoint)
        endpoint.suspend()
        refused(endpoint)
        endpoint.resume()
        assert endpoint.uri("") == uri
        reached(endpoint)
    finally:
        endpoint.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_star_listens_everywhere(host: str) -> None:
    endpoint = bind_address("*:0")
    try:
        for _ in range(2):
            socket.create_connection((host, endpoint.port)).close()
            endpoint.suspend()
            endpoint.resume()
    finally:
        endpoint.close()


def test_a_star_where_there_is_no_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = -1, *arguments: Any, **options: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
            super().__init__(family, *arguments, **options)

    monkeypatch.setattr("fakenbd.server.endpoint.socket.socket", WithoutIPv6)
    endpoint = bind_address("*:0")
    assert endpoint.sockets[0].getsockname() == ("0.0.0.0", endpoint.port)
    endpoint.close()


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = bind_unix("rel.sock")
    monkeypatch.chdir("/")
    assert endpoint.uri("") == f"nbd+unix:///?socket={tmp_path}/rel.sock"
    reached(endpoint)
    endpoint.close()
    assert list(tmp_path.iterdir()) == []


def test_a_private_socket_goes_with_its_folder() -> None:
    endpoint = bind_unix("-")
    folder = Path(endpoint.path).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert endpoint.uri("x") == f"nbd+unix:///x?socket={endpoint.path}"
    reached(endpoint)
    endpoint.close()
    assert not folder.exists()


def test_a_socket_file_is_removed(tmp_path: Path) -> None:
    endpoint = bind_unix(str(tmp_path / "s"))
    endpoint.close()
    assert list(tmp_path.iterdir()) == []


def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    endpoint = bind_unix(path)
    reached(endpoint)
    endpoint.close()


@pytest.mark.parametrize("bind", [bind_tcp, lambda: bind_unix("-")], ids=["tcp", "unix"])
def test_away_and_back(bind) -> None:
    endpoint = bind()
    where = endpoint.uri("")
    endpoint.suspend()
    refused(endpoint)
    endpoint.resume()
    assert endpoint.uri("") == where
    reached(endpoint)
    endpoint.close()


# --- what goes wrong ----------------------------------------------------------------------------


def message(bind, *arguments) -> str:
    with pytest.raises(ServeError) as caught:
        bind(*arguments)
    return str(caught.value)


def test_a_port_in_use() -> None:
    endpoint = bind_tcp()
    assert message(bind_tcp, "127.0.0.1", endpoint.port) == (
        f"cannot listen on 127.0.0.1:{endpoint.port}: Address already in use"
    )
    endpoint.close()


def test_an_address_that_is_not_ours() -> None:
    assert message(bind_tcp, "192.0.2.1", 0) == (
        "cannot listen on 192.0.2.1:0: Cannot assign requested address"
    )


FORM = "cannot listen on {}: expected HOST:PORT, an IPv6 address in brackets as in [::1]:0"
PORT = "cannot listen on {}: a port is a number from 0 to 65535"


@pytest.mark.parametrize(
    ("address", "message_text"),
    [
        *((each, FORM.format(each)) for each in ("::1", "::", "fe80::1:10809", "[::1]x:0")),
        *((each, PORT.format(each)) for each in ("127.0.0.1:http", "[::1]:65536", "*:-1")),
    ],
)
def test_an_address_that_is_none(address: str, message_text: str) -> None:
    assert message(bind_address, address) == message_text


def test_an_unknown_host() -> None:
    message_text = message(bind_tcp, "no-such-host.invalid", 0)
    assert message_text.startswith("cannot listen on no-such-host.invalid: ")
    assert message_text.endswith(
        ("Name or service not known", "Temporary failure in name resolution")
    )


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    path = "/" + "x" * 107
    assert message(bind_unix, path) == (
        f"cannot listen on {path}: the path of a Unix socket has at most 107 bytes, "
        "this one has 108"
    )


def test_a_socket_in_use(tmp_path: Path) -> None:
    endpoint = bind_unix(str(tmp_path / "s"))
    assert message(bind_unix, endpoint.path) == (
        f"cannot listen on {endpoint.path}: Address already in use"
    )
    reached(endpoint)
    endpoint.close()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    assert message(bind_unix, str(path)) == f"cannot listen on {path}: Address already in use"
    assert path.read_text() == "precious"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "s"
    assert message(bind_unix, str(path)) == f"cannot listen on {path}: No such file or directory"


# --- sockets from a supervisor ------------------------------------------------------------------


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch):
    """Say in the environment that `count` sockets are handed over to `pid`."""

    def say(count: str, pid: int | None = None) -> None:
        monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
        monkeypatch.setenv("LISTEN_FDS", count)
        monkeypatch.setenv("LISTEN_FDNAMES", "x")

    return say


def test_nothing_handed_over(handed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    assert activated() is None
    handed("1", pid=1)
    assert activated() is None
    # They were meant for another process, which may still look.
    assert os.environ["LISTEN_FDS"] == "1"


@pytest.mark.parametrize(
    ("count", "message_text"),
    [
        ("0", "LISTEN_FDS=0 hands over no socket"),
        (
            "many",
            "LISTEN_FDS=many does not name listening sockets: "
            "invalid literal for int() with base 10: 'many'",
        ),
    ],
)
def test_nonsense_handed_over(handed, count: str, message_text: str) -> None:
    handed(count)
    assert message(activated) == message_text
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()


def a_listener_of_a_virtual_machine() -> socket.socket:
    try:
        sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
        sock.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        sock.listen()
    except OSError as error:
        pytest.skip(f"no vsock here: {error}")
    return sock


def a_datagram_socket() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


def a_socket_that_does_not_listen() -> socket.socket:
    return socket.socket(socket.AF_INET)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (a_listener_of_a_virtual_machine, "AF_VSOCK, SOCK_STREAM"),
        (a_datagram_socket, "AF_UNIX, SOCK_DGRAM"),
        (a_socket_that_does_not_listen, "AF_INET, SOCK_STREAM"),
    ],
)
def test_a_socket_that_cannot_be_served(
    handed, monkeypatch: pytest.MonkeyPatch, make: Callable[[], socket.socket], what: str
) -> None:
    descriptor = make().detach()
    monkeypatch.setattr("fakenbd.server.endpoint._FIRST_HANDED_DESCRIPTOR", descriptor)
    handed("1")
    assert message(activated) == (
        f"LISTEN_FDS=1 hands over a socket that is not a listening TCP or Unix socket ({what})"
    )
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("make", [bind_tcp, lambda: bind_address("*"), lambda: bind_unix("-")])
def test_a_listener_that_is_handed_over(
    handed, monkeypatch: pytest.MonkeyPatch, make: Callable[[], Endpoint]
) -> None:
    theirs = make()
    descriptor = os.dup(theirs.sockets[0].fileno())
    monkeypatch.setattr("fakenbd.server.endpoint._FIRST_HANDED_DESCRIPTOR", descriptor)
    handed("1")
    ours = activated()
    assert ours is not None
    assert ours.uri("x") == theirs.uri("x")
    reached(ours)
    ours.close()
    theirs.close()
