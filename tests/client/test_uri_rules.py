"""What a client owes to the URI that it is given (C-150 to C-157), rule by rule."""

from __future__ import annotations

import pytest
import trio

from fakenbd.cli import main
from fakenbd.client import TLS, Client, ResilientClient, copy, list_exports
from fakenbd.errors import ConnectionLostError, TLSError, UriError
from fakenbd.journal import Received
from fakenbd.protocol.messages import OptionRequest
from fakenbd.protocol.uri import Uri
from fakenbd.server import TLS as ServerTLS  # noqa: N811
from fakenbd.server import open_server

REFUSED = (
    "TLS is required, but the server refused it with NBD_REP_ERR_POLICY: this server speaks no TLS"
)


async def opened(uri, **options):
    """What a client that connects to `uri` negotiates there."""
    async with Client.connect(uri, timeout=60, **options) as client:
        await client.read(0, 1)
        return client.negotiated


def names(server):
    """The names of the exports that were asked for."""
    return [
        entry.message.body.name
        for entry in server.journal
        if isinstance(entry, Received)
        and isinstance(entry.message, OptionRequest)
        and hasattr(entry.message.body, "name")
    ]


# --- C-150: nbds means TLS, or nothing -----------------------------------------------------------


async def resiliently(uri, **options):
    async with ResilientClient.connect(uri, **options):
        raise AssertionError("there is no session")


async def copied(uri, **options):
    await copy(uri, "/nowhere/image", **options)


CALLS = {
    "client": opened,
    "client that comes back": resiliently,
    "list": list_exports,
    "copy": copied,
}


@pytest.mark.trio
@pytest.mark.parametrize("policy", [None, "allow", "require"])
@pytest.mark.parametrize("where", [{"tcp": "127.0.0.1:0"}, {"unix": "-"}], ids=["tcp", "unix"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nbds_never_goes_on_in_clear(call, where, policy):
    tls = None if policy is None else TLS(policy, verify=False)
    async with open_server(size=4096, name="secret", seed=1, **where) as server:
        uri = server.uri.replace("nbd", "nbds", 1)
        with pytest.raises(TLSError) as caught:
            await call(uri, tls=tls)
        assert str(caught.value) == REFUSED
        assert names(server) == []


@pytest.mark.trio
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_nbds_and_no_tls_contradict_each_other(call):
    with pytest.raises(TLSError) as caught:
        await call("nbds://127.0.0.1/", tls=TLS("off"))
    assert str(caught.value) == "nbds://127.0.0.1/ requires TLS, which is switched off"


# --- C-151: the port -----------------------------------------------------------------------------


class Dialled(trio.abc.SocketFactory):
    """Instead of sockets: a note of who was to be called."""

    def __init__(self):
        self.addresses = []

    def socket(self, family=None, type=None, proto=None):  # noqa: A002
        return _Socket(self.addresses)


class _Socket(trio.socket.SocketType):
    def __init__(self, addresses):
        self.addresses = addresses

    async def connect(self, address):
        self.addresses.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    def setsockopt(self, *_):
        return

    def close(self):
        return


PORTS = {
    "nbd://127.0.0.1/": ("127.0.0.1", 10809),
    "nbd://127.0.0.1": ("127.0.0.1", 10809),
    "nbd://127.0.0.1:/disk": ("127.0.0.1", 10809),
    "nbds://127.0.0.1/": ("127.0.0.1", 10809),
    "nbd://127.0.0.1:10810/": ("127.0.0.1", 10810),
    "nbd://[::1]/": ("::1", 10809, 0, 0),
}


@pytest.mark.trio
@pytest.mark.parametrize(("uri", "address"), PORTS.items())
async def test_the_port_that_is_called(uri, address):
    dialled = Dialled()
    trio.socket.set_custom_socket_factory(dialled)
    try:
        with pytest.raises(ConnectionLostError):
            await opened(uri)
    finally:
        trio.socket.set_custom_socket_factory(None)
    assert dialled.addresses == [address]


# --- C-152: the name -----------------------------------------------------------------------------

NAMES = {
    "": "",
    "/": "",
    "/disk": "disk",
    "//disk": "/disk",
    "/hello%20world": "hello world",
    "/a/b": "a/b",
    "/%2F": "/",
    "/100%25": "100%",
    "/a+b": "a+b",
    "/gr%C3%BC%C3%9Fe": "grüße",
    "/a%3Fb%23c": "a?b#c",
}


@pytest.mark.trio
@pytest.mark.parametrize(("path", "name"), NAMES.items())
async def test_the_name_that_is_asked_for(path, name):
    async with open_server(size=4096, name=name, seed=1) as server:
        negotiated = await opened(f"nbd://127.0.0.1:{server.port}{path}")
        assert negotiated.export == name
        assert set(names(server)) == {name}


# --- C-153: the socket ---------------------------------------------------------------------------


@pytest.mark.trio
@pytest.mark.parametrize("scheme", ["nbd+unix", "nbds+unix"])
@pytest.mark.parametrize("rest", [":///", ":///disk", ":///?tls-hostname=h", "://"])
async def test_unix_needs_a_socket(scheme, rest):
    with pytest.raises(UriError) as caught:
        await opened(scheme + rest)
    assert str(caught.value) == (
        f"'{scheme}{rest}' is not the URI of an NBD export: {scheme} needs the parameter socket "
        "with the path of a socket"
    )


# --- C-154: parameters that nobody knows ---------------------------------------------------------


@pytest.mark.parametrize("verb", ["map", "info", "list", "copy"])
def test_unknown_parameters_are_diagnosed(verb, capsys):
    end = ["/nowhere/image"] if verb == "copy" else []
    uri = "nbd+unix:///?socket=/nowhere/s&tls-verify=0&x%1b=1"
    assert main([verb, uri, *end]) == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "fakenbd: the URI's parameter tls-verify is not known",
        "fakenbd: the URI's parameter x\\x1b is not known",
    ]


def test_the_parameters_of_both_ends_are_diagnosed(capsys):
    assert main(["copy", "nbd+unix:///?socket=/nowhere/s&a=1", "nbd://127.0.0.1/?b=2"]) == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "fakenbd: the URI's parameter a is not known",
        "fakenbd: the URI's parameter b is not known",
    ]


# --- C-155: who is trusted -----------------------------------------------------------------------

UNTRUSTED = "the TLS handshake failed: the server's certificate is not to be trusted: "

# what the certificate is, what the URI says, how the client takes it
TRUST = [
    (None, "", None),
    (None, "&tls-verify-peer=1", None),
    (None, "&tls-type=x509", None),
    (None, "&tls-hostname=elsewhere", UNTRUSTED + "Hostname mismatch"),
    (None, "&tls-hostname=localhost", None),
    ("expired", "", UNTRUSTED + "certificate has expired"),
    ("expired", "&tls-verify-peer=0", None),
    ("wrong-host", "", UNTRUSTED),
    ("wrong-host", "&tls-verify-peer=0", None),
    ("untrusted", "", UNTRUSTED),
    ("untrusted", "&tls-verify-peer=1", UNTRUSTED),
    ("untrusted", "&tls-verify-peer=0", None),
    ("self-signed", "", UNTRUSTED),
    ("self-signed", "&tls-verify-peer=0", None),
]


@pytest.mark.trio
@pytest.mark.parametrize(("certificate", "parameters", "failure"), TRUST)
async def test_who_is_trusted(certificate, parameters, failure):
    async with open_server(size=4096, tls=ServerTLS("required"), seed=1) as server:
        if certificate is not None:
            server.on(option="starttls").certificate(certificate)
        uri = f"nbds://127.0.0.1:{server.port}/?tls-certificates={server.security.directory}{parameters}"
        if failure is None:
            assert (await opened(uri)).tls
            return
        with pytest.raises(TLSError) as caught:
            await opened(uri)
        assert str(caught.value).startswith(failure)


@pytest.mark.trio
async def test_without_an_authority_the_system_s_are_asked():
    async with open_server(size=4096, tls=ServerTLS("required"), seed=1) as server:
        with pytest.raises(TLSError) as caught:
            await opened(f"nbds://127.0.0.1:{server.port}/")
        assert str(caught.value).startswith(UNTRUSTED)


# --- C-156: IPv6 ---------------------------------------------------------------------------------


@pytest.mark.trio
async def test_a_literal_in_brackets():
    async with open_server(size=4096, tcp="[::1]:0", seed=1) as server:
        assert server.uri.startswith("nbd://[::1]:")
        assert (await opened(server.uri)).size == 4096


# --- C-157: TLS that this client cannot speak ----------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ("tls-type=anon", "anonymous TLS (tls-type=anon) is not available in Python"),
        ("tls-type=psk", "tls-type=psk needs a file of pre-shared keys: tls-psk-file"),
    ],
)
def test_kinds_of_tls_that_are_not_available(parameters, message):
    with pytest.raises(TLSError) as caught:
        TLS.of(Uri.parse(f"nbds://localhost/?{parameters}"))
    assert str(caught.value) == message
    assert TLS.of(Uri.parse(f"nbd://localhost/?{parameters}")) == TLS("off")


def test_certificates_are_used_where_both_are_named():
    uri = Uri.parse("nbds://localhost/?tls-type=x509&tls-psk-file=keys")
    assert TLS.of(uri) == TLS()
