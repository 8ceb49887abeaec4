"""TLS as the client wants it: who is trusted, what is refused, and what real servers make of it."""

from __future__ import annotations

import datetime
import ssl
import sys

import pytest
import trio
import trio.testing
import trustme

from fakenbd.client import TLS, Client, Timeouts
from fakenbd.errors import ConnectionLostError, DeadlineExceededError, ProtocolError, TLSError
from fakenbd.protocol.constants import Option
from fakenbd.protocol.decode import decode_client_flags
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Ack, ErrorReply, Greeting, OptionReply, Raw
from fakenbd.protocol.uri import Uri
from tests.client.scripted import Script, answer, content
from tests.client.test_peers import activated, sparse_file
from tests.peers import require

pytestmark = pytest.mark.trio

AUTHORITY = trustme.CA()
STRANGER = trustme.CA()
PAST = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
GOOD = AUTHORITY.issue_cert("localhost")


@pytest.fixture
def folder(tmp_path):
    """Certificates as libnbd and QEMU name them."""
    path = tmp_path / "certificates"
    path.mkdir()
    client = AUTHORITY.issue_cert("client.invalid", common_name="a client")
    AUTHORITY.cert_pem.write_to_path(path / "ca-cert.pem")
    for name, certificate in (("server", GOOD), ("client", client)):
        certificate.cert_chain_pems[0].write_to_path(path / f"{name}-cert.pem")
        certificate.private_key_pem.write_to_path(path / f"{name}-key.pem")
    return path


async def upgraded(server, certificate, **context_options):
    """The server's half of STARTTLS, up to the ACK and the TLS handshake."""
    await server.say(Greeting(3))
    await server.hear(decode_client_flags)
    assert (await server.option()).option == Option.STARTTLS
    await server.say(OptionReply(Option.STARTTLS, Ack()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in context_options.items():
        setattr(context, name, value)
    if context.verify_mode == ssl.CERT_REQUIRED:
        AUTHORITY.configure_trust(context)
    stream = trio.SSLStream(server.stream, context, server_side=True, https_compatible=True)
    await stream.do_handshake()
    return Script(stream)


async def session_under_tls(server, certificate=GOOD, **options):
    inner = await upgraded(server, certificate, **options)
    await inner.options()
    request = await inner.request()
    await inner.say(answer(request))
    await inner.disconnect()


async def conversation(script, use, tls, **options):
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(script, Script(theirs))
        async with Client.connect(ours, tls=tls, **options) as client:
            await use(client)


async def failure(script, tls, kind=TLSError, **options):
    """What the client says of a server with which there is no session."""
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve():
        async with theirs:
            try:
                await script(Script(theirs))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        with pytest.raises(kind) as caught:
            async with Client.connect(ours, tls=tls, **options):
                raise AssertionError("there is no session")
    return str(caught.value)


async def read_something(client):
    assert client.tls
    assert await client.read(4096, 512) == content(4096, 512)


async def test_session_under_tls(folder):
    tls = TLS(authority=str(folder / "ca-cert.pem"), hostname="localhost")
    await conversation(session_under_tls, read_something, tls)


async def test_client_certificate(folder):
    async def script(server):
        await session_under_tls(server, verify_mode=ssl.CERT_REQUIRED)

    files = {
        "authority": str(folder / "ca-cert.pem"),
        "certificate": str(folder / "client-cert.pem"),
        "key": str(folder / "client-key.pem"),
    }
    await conversation(script, read_something, TLS(hostname="localhost", **files))
    # Only now does the server see that there is no certificate: its word is lost, the session ends.
    del files["certificate"], files["key"]
    await failure(script, TLS(hostname="localhost", **files), ConnectionLostError)


DISTRUSTED = {
    "expired": (
        lambda: AUTHORITY.issue_cert("localhost", not_before=PAST, not_after=PAST),
        "certificate has expired",
    ),
    "wrong host": (
        lambda: AUTHORITY.issue_cert("elsewhere.invalid"),
        "Hostname mismatch, certificate is not valid for 'localhost'.",
    ),
    "untrusted": (
        lambda: STRANGER.issue_cert("localhost"),
        "unable to get local issuer certificate",
    ),
}


@pytest.mark.parametrize(("issue", "reason"), DISTRUSTED.values(), ids=DISTRUSTED)
async def test_certificates_that_are_not_trusted(folder, issue, reason):
    certificate = issue()

    async def script(server):
        await session_under_tls(server, certificate)

    authority = str(folder / "ca-cert.pem")
    message = await failure(script, TLS(authority=authority, hostname="localhost"))
    assert message == (
        f"the TLS handshake failed: the server's certificate is not to be trusted: {reason}"
    )
    await conversation(script, read_something, TLS(verify=False))


async def test_without_a_host_any_name_is_good_that_is_trusted(folder):
    authority = str(folder / "ca-cert.pem")
    await conversation(session_under_tls, read_something, TLS(authority=authority))

    async def script(server):
        await session_under_tls(server, STRANGER.issue_cert("localhost"))

    assert "not to be trusted" in await failure(script, TLS(authority=authority))


async def test_old_tls_is_refused():
    async def script(server):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.set_ciphers("ALL:@SECLEVEL=0")
        GOOD.configure_cert(context)
        await acknowledge(server)
        await trio.SSLStream(server.stream, context, server_side=True).do_handshake()

    message = await failure(script, TLS(verify=False))
    assert message.startswith("the TLS handshake failed: ")


async def acknowledge(server, *glued):
    await server.say(Greeting(3))
    await server.hear(decode_client_flags)
    assert (await server.option()).option == Option.STARTTLS
    await server.say(OptionReply(Option.STARTTLS, Ack()), *glued)


async def test_clear_bytes_behind_the_ack_end_the_session():
    async def script(server):
        await acknowledge(server, OptionReply(Option.STRUCTURED_REPLY, Ack()))
        await server.nothing_more()

    assert await failure(script, TLS(verify=False), ProtocolError) == (
        "20 bytes came in clear behind the NBD_REP_ACK to NBD_OPT_STARTTLS (S-105)"
    )


async def test_option_replies_instead_of_tls():
    async def script(server):
        await acknowledge(server)
        await server.stream.receive_some(1)
        await server.say(OptionReply(Option.STRUCTURED_REPLY, Ack()))
        while await server.stream.receive_some(1000):
            pass

    message = await failure(script, TLS(verify=False))
    assert message.startswith("the TLS handshake failed: ")


async def test_closed_instead_of_tls():
    async def script(server):
        await acknowledge(server)
        await server.stream.receive_some(1)
        await server.stream.aclose()

    message = await failure(script, TLS(verify=False))
    assert message.startswith("the TLS handshake failed: ")


async def test_silence_instead_of_tls(autojump_clock):
    async def script(server):
        await acknowledge(server)
        while await server.stream.receive_some(1000):
            pass

    message = await failure(
        script, TLS(verify=False), DeadlineExceededError, timeout=Timeouts(option=7)
    )
    assert message == "no end of the TLS handshake came within 7 s"


async def test_truncated_content_is_not_taken_for_whole():
    """An end without a TLS close_notify in the middle of a payload (S-111)."""

    async def script(server):
        inner = await upgraded(server, GOOD)
        await inner.options()
        request = await inner.request()
        whole = answer(request)
        await inner.say(Raw(encode(whole)[:100]))
        await server.stream.aclose()

    async def use(client):
        with pytest.raises(
            ConnectionLostError, match=r"in the middle of a reply|the other side closed it"
        ):
            await client.read(4096, 512)

    await conversation(script, use, TLS(verify=False))


async def test_refused_tls_is_no_reason_to_go_on_in_clear():
    async def script(server):
        await server.say(Greeting(3))
        await server.hear(decode_client_flags)
        assert (await server.option()).option == Option.STARTTLS
        await server.say(OptionReply(Option.STARTTLS, ErrorReply("no"), 0x80000002))
        assert (await server.option()).option == Option.ABORT
        await server.say(OptionReply(Option.ABORT, Ack()))
        await server.nothing_more()

    assert await failure(script, TLS(), export="secret") == (
        "TLS is required, but the server refused it with NBD_REP_ERR_POLICY: no"
    )


# --- credentials -------------------------------------------------------------------------------


async def test_uri_says_what_to_trust(folder):
    uri = Uri.parse(
        f"nbds://alice@example.com/?tls-certificates={folder}&tls-hostname=h&tls-verify-peer=0"
    )
    assert TLS.of(uri) == TLS(
        policy="require",
        authority=str(folder / "ca-cert.pem"),
        certificate=str(folder / "client-cert.pem"),
        key=str(folder / "client-key.pem"),
        hostname="h",
        verify=False,
        username="alice",
    )
    assert TLS.of(Uri.parse("nbd://example.com/")) == TLS(policy="off")


async def test_a_folder_without_an_authority(tmp_path):
    with pytest.raises(TLSError) as caught:
        TLS.of(Uri.parse(f"nbds:///?tls-certificates={tmp_path}"))
    assert str(caught.value) == f"there is no ca-cert.pem in {tmp_path}"


async def test_files_that_cannot_be_used(tmp_path):
    (tmp_path / "empty.pem").touch()
    with pytest.raises(TLSError, match=r"the TLS credentials cannot be used: .*No such file"):
        TLS(authority=str(tmp_path / "missing.pem")).upgrader("")
    with pytest.raises(TLSError, match="the TLS credentials cannot be used: "):
        TLS(authority=str(tmp_path / "empty.pem")).upgrader("")


async def test_pre_shared_keys(tmp_path):
    path = tmp_path / "keys.psk"
    path.write_text("alice:0102\nbob:0304\n")
    missing = TLS(psk_file=str(path), username="carol")
    with pytest.raises(TLSError) as caught:
        missing.upgrader("")
    assert str(caught.value) == (f'the TLS credentials cannot be used: no key of "carol" in {path}')
    if sys.version_info < (3, 13):
        with pytest.raises(TLSError) as caught:
            TLS(psk_file=str(path)).upgrader("")
        assert str(caught.value) == "pre-shared keys need Python 3.13 or later"
    else:
        TLS(psk_file=str(path)).upgrader("")


# --- real servers ------------------------------------------------------------------------------


def qemu_nbd(folder, image):
    credentials = f"tls-creds-x509,id=tls,endpoint=server,dir={folder},verify-peer=on"
    options = ["--object", credentials, "--tls-creds", "tls", "--persistent", "--shared=4"]
    return [require("qemu-nbd"), *options, "-f", "raw", image]


def nbdkit(folder, image):
    options = ["--tls=require", f"--tls-certificates={folder}", "--tls-verify-peer"]
    return [require("nbdkit"), "-f", *options, "file", image]


@pytest.mark.parametrize("command", [qemu_nbd, nbdkit])
async def test_real_server(command, folder, tmp_path):
    image = sparse_file(tmp_path / "image")
    with activated(command(folder, image), tmp_path / "socket") as clear:
        uri = clear.replace("nbd+unix", "nbds+unix") + f"&tls-certificates={folder}"
        async with Client.connect(uri + "&tls-hostname=localhost") as client:
            assert client.tls
            data = await client.read(0, client.size)
            assert data == (tmp_path / "image").read_bytes()
            await client.write(100, b"hello")
        with pytest.raises(TLSError, match="certificate is not to be trusted: Hostname mismatch"):
            async with Client.connect(uri + "&tls-hostname=elsewhere"):
                raise AssertionError("there is no session")
        anonymous = TLS(authority=str(folder / "ca-cert.pem"))
        with pytest.raises(ConnectionLostError):
            async with Client.connect(clear, tls=anonymous):
                raise AssertionError("there is no session")
        with pytest.raises(TLSError, match="the server requires TLS: it answered"):
            async with Client.connect(clear):
                raise AssertionError("there is no session")
    assert (tmp_path / "image").read_bytes()[100:105] == b"hello"


def qemu_nbd_with_keys(keys, image):
    credentials = f"tls-creds-psk,id=tls,endpoint=server,dir={keys.parent}"
    options = ["--object", credentials, "--tls-creds", "tls", "--persistent", "--shared=4"]
    return [require("qemu-nbd"), *options, "-f", "raw", image]


def nbdkit_with_keys(keys, image):
    return [require("nbdkit"), "-f", "--tls=require", f"--tls-psk={keys}", "file", image]


@pytest.mark.skipif(sys.version_info < (3, 13), reason="Python has pre-shared keys from 3.13 on")
@pytest.mark.parametrize("command", [qemu_nbd_with_keys, nbdkit_with_keys])
async def test_real_server_with_pre_shared_keys(command, tmp_path):
    keys = tmp_path / "keys.psk"
    keys.write_text("alice:000102030405060708090a0b0c0d0e0f\n")
    image = sparse_file(tmp_path / "image")
    with activated(command(keys, image), tmp_path / "socket") as clear:
        uri = clear.replace("nbd+unix://", "nbds+unix://alice@") + f"&tls-psk-file={keys}"
        async with Client.connect(uri) as client:
            assert client.tls
            assert await client.read(0, client.size) == (tmp_path / "image").read_bytes()
            await client.write(100, b"hello")
        stranger = tmp_path / "stranger"
        stranger.write_text("alice:ffffffffffffffffffffffffffffffff\n")
        with pytest.raises(TLSError):
            async with Client.connect(uri, tls=TLS(psk_file=str(stranger), username="alice")):
                raise AssertionError("there is no session")
    assert (tmp_path / "image").read_bytes()[100:105] == b"hello"
