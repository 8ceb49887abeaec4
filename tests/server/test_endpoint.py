"""Where a server listens, and the one sentence that says why it cannot."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from fakenbd.errors import ServeError
from fakenbd.server.endpoint import Endpoint, activated, bind_tcp, bind_unix


def reached(endpoint: Endpoint) -> None:
    """A client can connect."""
    family = socket.AF_UNIX if endpoint.path else socket.AF_INET
    address = endpoint.path or (endpoint.host, endpoint.port)
    with socket.socket(family) as client:
        client.connect(address)


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


def test_ipv6() -> None:
    endpoint = bind_tcp("::1")
    assert endpoint.uri("") == f"nbd://[::1]:{endpoint.port}/"
    endpoint.close()


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


def test_an_unknown_host() -> None:
    told = message(bind_tcp, "no-such-host.invalid", 0)
    assert told.startswith("cannot listen on no-such-host.invalid: ")
    assert told.endswith(("Name or service not known", "Temporary failure in name resolution"))


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
    ("count", "told"),
    [
        ("0", "LISTEN_FDS=0 hands over no socket"),
        (
            "many",
            "LISTEN_FDS=many does not name listening sockets: "
            "invalid literal for int() with base 10: 'many'",
        ),
    ],
)
def test_nonsense_handed_over(handed, count: str, told: str) -> None:
    handed(count)
    assert message(activated) == told
    assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & os.environ.keys()
