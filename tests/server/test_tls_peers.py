"""Real clients over TLS, and our own, over sockets; data checked on both sides."""

from __future__ import annotations

import json
import ssl
import subprocess

import pytest

from fakenbd.client import TLS as ClientTLS  # noqa: N811
from fakenbd.client import Client
from fakenbd.errors import TLSError
from fakenbd.server import TLS, background_server, open_server
from tests.peers import require

SIZE = 1 << 21
PSK = getattr(ssl, "HAS_PSK", False)


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def succeed(*command):
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def content(server):
    return bytes(server.export.read(0, SIZE))


def qemu_options(server):
    """The arguments of qemu-img: its credentials, and the address of the image."""
    return [
        "--object",
        f"tls-creds-x509,id=tls0,endpoint=client,dir={server.security.directory}",
        "--image-opts",
        f"driver=nbd,host=localhost,port={server.port},tls-creds=tls0",
    ]


@pytest.mark.parametrize("verify_clients", [False, True])
def test_libnbd(verify_clients, tmp_path):
    nbdinfo, nbdcopy = require("nbdinfo"), require("nbdcopy")
    with background_server(size=SIZE, tls=TLS("required", verify_clients=verify_clients)) as server:
        uri = server.uri_of("", credentials=True)
        (export,) = json.loads(succeed(nbdinfo, "--json", uri))["exports"]
        assert export["export-size"] == SIZE
        image = tmp_path / "image"
        succeed(nbdcopy, uri, str(image))
        assert image.read_bytes() == content(server)
        image.write_bytes(bytes(range(256)) * (SIZE // 256))
        succeed(nbdcopy, str(image), uri)
        assert content(server) == image.read_bytes()
        assert server.errors == []


def test_qemu(tmp_path):
    qemu_img = require("qemu-img")
    with background_server(size=SIZE, tls=TLS("required")) as server:
        image = tmp_path / "image"
        succeed(qemu_img, "convert", *qemu_options(server), "-O", "raw", str(image))
        assert image.read_bytes() == content(server)
        assert server.errors == []


@pytest.mark.parametrize("kind", ["expired", "wrong-host", "untrusted", "self-signed"])
def test_real_clients_do_not_fall_for_certificates(kind):
    nbdinfo, qemu_img = require("nbdinfo"), require("qemu-img")
    with background_server(size=SIZE, tls=TLS("required")) as server:
        server.on(option="starttls").certificate(kind)
        assert run(nbdinfo, server.uri_of("", credentials=True)).returncode
        assert run(qemu_img, "info", *qemu_options(server)).returncode
        assert server.errors == []


@pytest.mark.trio
@pytest.mark.parametrize("where", [{}, {"unix": "-"}, {"tcp": "127.0.0.2:0"}])
async def test_our_own_client(where):
    async with open_server(size=SIZE, tls=TLS("required", verify_clients=True), **where) as server:
        async with Client.connect(server.uri_of("", credentials=True)) as client:
            assert client.tls
            assert await client.read(0, SIZE) == content(server)
            await client.write(4096, b"x" * (1 << 20))
        assert server.export.read(4096, 1 << 20) == b"x" * (1 << 20)
        assert server.errors == []


@pytest.mark.trio
async def test_our_own_client_trusts_nobody_unasked():
    async with open_server(size=SIZE, tls=TLS("required")) as server:
        with pytest.raises(TLSError):
            async with Client.connect(server.uri, tls=ClientTLS()):
                raise AssertionError("there is no session")


@pytest.mark.skipif(not PSK, reason="this Python has no pre-shared keys")
def test_pre_shared_keys(tmp_path):
    nbdcopy, qemu_img = require("nbdcopy"), require("qemu-img")
    keys = tmp_path / "given.psk"
    keys.write_text("alice:00112233445566778899aabbccddeeff\n")
    with background_server(size=SIZE, tls=TLS("required", psk=keys)) as server:
        image = tmp_path / "image"
        succeed(nbdcopy, server.uri_of("", credentials=True), str(image))
        assert image.read_bytes() == content(server)
        folder = server.security.directory
        succeed(
            *(qemu_img, "convert", "--object"),
            f"tls-creds-psk,id=tls0,endpoint=client,dir={folder},username=alice",
            *("--image-opts", f"driver=nbd,host=localhost,port={server.port},tls-creds=tls0"),
            *("-O", "raw", str(image)),
        )
        assert image.read_bytes() == content(server)
        keys.write_text("alice:ffffffffffffffffffffffffffffffff\n")
        stranger = f"nbds://alice@127.0.0.1:{server.port}/?tls-psk-file={keys}"
        assert run(nbdcopy, stranger, str(image)).returncode
        assert server.errors == []


@pytest.mark.trio
@pytest.mark.skipif(not PSK, reason="this Python has no pre-shared keys")
async def test_pre_shared_keys_with_our_own_client(tmp_path):
    keys = tmp_path / "given.psk"
    keys.write_text("alice:00112233445566778899aabbccddeeff\n")
    async with open_server(size=SIZE, tls=TLS("required", psk=keys)) as server:
        async with Client.connect(server.uri_of("", credentials=True)) as client:
            assert await client.read(0, SIZE) == content(server)
