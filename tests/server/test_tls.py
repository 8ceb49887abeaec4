"""TLS on the server's side, over connections in memory: correct, with faults, and its end."""

from __future__ import annotations

import ssl
import warnings
from contextlib import nullcontext

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fakenbd.journal import Closed, InternalFailure, Violated
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.messages import (
    Ack,
    Chunk,
    ErrorReply,
    InfoQuery,
    OptionRequest,
    Raw,
    Request,
    SimpleReply,
)
from fakenbd.server import TLS, open_server
from fakenbd.server.tls_transport import _pieces
from tests.server.speaker import Speaker

pytestmark = pytest.mark.trio

READ = Request(Command.READ, 7, 512, 1024)


def secured(**options):
    return open_server(size="64KiB", endpoints=(), tls=TLS("required", **options))


async def upgraded(server, **settings):
    """A client under TLS, in negotiation."""
    client = Speaker(server.connect())
    await client.starttls()
    await client.secure(server, **settings)
    return client


async def ended(server):
    """How the connection ended, once it has."""
    news = trio.Event()
    unsubscribe = server.journal.subscribe(lambda: news.set())
    with trio.fail_after(60):
        while not (found := [entry for entry in server.journal if isinstance(entry, Closed)]):
            await news.wait()
            news = trio.Event()
    unsubscribe()
    assert server.errors == []
    return found[0].by, found[0].how, found[0].detail


def violations(server):
    return [(entry.rule, entry.level) for entry in server.journal if isinstance(entry, Violated)]


# --- correct servers ---------------------------------------------------------------------------


async def test_a_session():
    async with secured() as server:
        client = await upgraded(server)
        await client.go()
        assert await client.reply(READ) == SimpleReply(7, 0, server.export.read(512, 1024))
        await client.say(Request(Command.DISC))
        await client.stream.aclose()
        assert await ended(server) == ("client", "DISC", "")
        assert violations(server) == []


async def test_all_that_was_agreed_in_clear_is_void():
    async with open_server(size="64KiB", endpoints=(), tls=TLS("optional")) as server:
        client = Speaker(server.connect())
        await client.greet()
        assert await client.option(Option.STRUCTURED_REPLY) == Ack()
        assert await client.option(Option.STARTTLS) == Ack()
        await client.secure(server)
        await client.go()
        assert await client.reply(READ) == SimpleReply(7, 0, server.export.read(512, 1024))


async def test_in_clear_nothing_is_served_that_needs_tls():
    async with secured() as server:
        client = Speaker(server.connect())
        await client.greet()
        refusal = ErrorReply("TLS is required: send NBD_OPT_STARTTLS first")
        assert await client.option(Option.GO, InfoQuery("")) == refusal
        assert await client.option(Option.STARTTLS) == Ack()
        await client.secure(server)
        assert await client.option(Option.STARTTLS) == ErrorReply("TLS is already in use")
        await client.go()


@pytest.mark.parametrize("with_certificate", [True, False])
async def test_a_client_needs_a_certificate_where_it_is_verified(with_certificate):
    async with secured(verify_clients=True) as server:
        client = Speaker(server.connect())
        await client.starttls()
        context = ssl.create_default_context(cafile=server.security.ca_file)
        if with_certificate:
            folder = server.security.directory
            context.load_cert_chain(f"{folder}/client-cert.pem", f"{folder}/client-key.pem")
        client.stream = trio.SSLStream(client.stream, context, server_hostname="127.0.0.1")
        await client.stream.do_handshake()
        if with_certificate:
            await client.go()
            return
        with pytest.raises(trio.BrokenResourceError):
            await client.go()
        detail = "peer did not return a certificate"
        assert await ended(server) == ("client", "TLS failure", detail)


# --- bytes in clear where none may be ------------------------------------------------------------


async def test_bytes_in_clear_behind_starttls_are_never_read_as_protected():
    async with secured() as server:
        client = Speaker(server.connect())
        await client.greet()
        await client.say(OptionRequest(Option.STARTTLS), OptionRequest(Option.GO, InfoQuery("x")))
        detail = "plaintext received after NBD_OPT_STARTTLS"
        assert await ended(server) == ("server", "refused", detail)
        assert not [entry for entry in server.journal if getattr(entry, "option", 0) == Option.GO]


async def test_bytes_in_clear_in_place_of_the_handshake():
    async with secured() as server:
        client = Speaker(server.connect())
        await client.starttls()
        await client.say(OptionRequest(Option.GO, InfoQuery("")))
        by, how, _ = await ended(server)
        assert (by, how) == ("client", "TLS failure")
        assert violations(server) == [("C-52", "MUST")]


# --- handshakes that come to nothing -------------------------------------------------------------


async def test_a_handshake_has_a_deadline(autojump_clock):
    async with secured(deadline=3) as server:
        client = Speaker(server.connect())
        await client.starttls()
        assert await client.stream.receive_some() == b""
        assert trio.current_time() == pytest.approx(3, abs=0.5)
        detail = "the client did not finish the TLS handshake within 3 s"
        assert await ended(server) == ("server", "refused", detail)


async def test_the_client_leaves_in_place_of_the_handshake():
    async with secured() as server:
        client = Speaker(server.connect())
        await client.starttls()
        await client.stream.aclose()
        assert await ended(server) == ("client", "EOF", "")
        assert violations(server) == []


@pytest.mark.parametrize("count", [0, 1, 5, 300])
async def test_so_many_bytes_of_the_handshake_leave(count):
    async with secured() as server:
        server.on(option="starttls").abort_handshake(count)
        client = Speaker(server.connect())
        await client.starttls()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hello = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname="x")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        await client.stream.send_all(outgoing.read())
        got = b""
        while data := await client.stream.receive_some():
            got += data
        assert len(got) == count
        assert await ended(server) == ("server", "fault", "")


async def test_a_handshake_that_is_shorter_is_broken_off_at_its_end():
    async with secured() as server:
        server.on(option="starttls").abort_handshake(1 << 20)
        client = await upgraded(server)
        with pytest.raises(trio.BrokenResourceError):
            await client.go()
        assert await ended(server) == ("server", "fault", "")


async def test_silence_instead_of_a_handshake_lasts_until_the_client_leaves():
    async with secured() as server:
        server.on(option="starttls").no_handshake("silence")
        client = Speaker(server.connect())
        await client.starttls()
        await client.say(Raw(b"\x16\x03\x01" + bytes(1000)))
        await wait_all_tasks_blocked()
        assert [entry for entry in server.journal if isinstance(entry, Closed)] == []
        await client.stream.aclose()
        assert await ended(server) == ("client", "EOF", "")
        assert violations(server) == []


async def test_clear_words_instead_of_a_handshake():
    async with secured() as server:
        server.on(option="starttls").no_handshake()
        client = Speaker(server.connect())
        await client.starttls()
        assert await client.option(Option.LIST) == ErrorReply(
            "TLS is required: send NBD_OPT_STARTTLS first"
        )
        assert violations(server) == [("C-52", "MUST")]


# --- certificates and versions that are not to be accepted ---------------------------------------

DISTRUSTED = {
    "expired": ("certificate has expired",),
    "wrong-host": ("Hostname mismatch, certificate is not valid for 'localhost'.",),
    "untrusted": ("unable to get local issuer certificate",),
    "self-signed": ("self-signed certificate", "self signed certificate"),
}


@pytest.mark.parametrize("kind", DISTRUSTED)
async def test_certificates_are_what_is_wrong_with_them_and_nothing_else(kind):
    async with secured() as server:
        server.on(option="starttls").certificate(kind)
        client = Speaker(server.connect())
        await client.starttls()
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.secure(server)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        assert caught.value.__cause__.verify_message in DISTRUSTED[kind]
        # Whoever looks at nothing gets through.
        client = await upgraded(server, check_hostname=False, verify_mode=ssl.CERT_NONE)
        await client.go()


@pytest.mark.parametrize("hostname", ["localhost", "127.0.0.1", "::1"])
async def test_the_certificate_is_for_all_names_of_this_machine(hostname):
    async with secured() as server:
        await upgraded(server, hostname=hostname)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3"])
async def test_one_version_only(version):
    async with secured() as server:
        server.on(option="starttls").tls_version(version)
        client = Speaker(server.connect())
        await client.starttls()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context = ssl.create_default_context(cafile=server.security.ca_file)
            context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        client.stream = trio.SSLStream(client.stream, context, server_hostname="localhost")
        await client.stream.do_handshake()
        assert client.stream.version() == f"TLSv{version}".removesuffix(".0")
        await client.go()


async def test_old_versions_are_not_spoken_unasked():
    async with secured() as server:
        client = Speaker(server.connect())
        await client.starttls()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old = ssl.TLSVersion.TLSv1_1
            with pytest.raises(trio.BrokenResourceError):
                await client.secure(server, minimum_version=old, maximum_version=old)


# --- what is kept --------------------------------------------------------------------------------


async def test_state_that_is_kept():
    async with open_server(size="64KiB", endpoints=(), tls=TLS("optional")) as server:
        server.on(option="starttls").keep_state()
        client = Speaker(server.connect())
        await client.greet()
        assert await client.option(Option.STRUCTURED_REPLY) == Ack()
        assert await client.option(Option.STARTTLS) == Ack()
        await client.secure(server)
        await client.go()
        assert isinstance(await client.reply(READ, structured=True), Chunk)


# --- goodbyes ------------------------------------------------------------------------------------


async def leave_with_close_notify(client):
    await client.stream.aclose()


async def leave_without_close_notify(client):
    await client.stream.transport_stream.aclose()


@pytest.mark.parametrize(
    ("last", "leave", "broken"),
    [
        ("disc", leave_with_close_notify, []),
        ("disc", leave_without_close_notify, [("C-62", "SHOULD")]),
        ("abort", leave_with_close_notify, []),
        ("abort", leave_without_close_notify, [("C-62", "MUST")]),
    ],
)
async def test_a_client_owes_a_close_notify(last, leave, broken):
    async with secured() as server:
        client = await upgraded(server)
        if last == "disc":
            await client.go()
            await client.say(Request(Command.DISC))
        else:
            assert await client.option(Option.ABORT) == Ack()
        await leave(client)
        assert await ended(server) == ("client", last.upper(), "")
        assert violations(server) == broken


async def test_a_client_that_waits_for_the_end_gets_it(autojump_clock):
    async with secured() as server:
        client = await upgraded(server)
        await client.go()
        await client.say(Request(Command.DISC))
        assert await client.stream.receive_some() == b""
        await client.stream.aclose()
        assert await ended(server) == ("client", "DISC", "")
        assert violations(server) == []


@pytest.mark.parametrize(
    ("leave", "how"), [(leave_with_close_notify, "TLS close"), (leave_without_close_notify, "EOF")]
)
async def test_how_a_client_left_without_close_notify(leave, how):
    async with secured() as server:
        client = await upgraded(server)
        await client.go()
        await leave(client)
        assert await ended(server) == ("client", how, "")


async def test_what_is_no_tls_under_tls():
    async with secured() as server:
        client = await upgraded(server)
        await client.stream.transport_stream.send_all(b"no record of TLS")
        by, how, detail = await ended(server)
        assert (by, how) == ("client", "TLS failure")
        assert detail


@pytest.mark.parametrize(
    ("do", "announced"),
    [
        ({"then": "close"}, True),
        ({"then": "truncate"}, False),
        ({"then": "reset"}, False),
        ({"then": "half-close"}, False),
    ],
)
async def test_the_servers_own_close_notify(do, announced):
    async with secured() as server:
        server.on("read").cut(500, **do)
        client = await upgraded(server)
        await client.go()
        await client.say(READ)
        got = b""
        with nullcontext() if announced else pytest.raises(trio.BrokenResourceError):
            while data := await client.stream.receive_some():
                got += data
        assert len(got) == 500


# --- faults that are not possible here ------------------------------------------------------------


async def test_a_fault_that_cannot_be_shown_is_reported(tmp_path):
    async with secured() as server:
        good = server.security.authority.good
        (tmp_path / "cert.pem").write_bytes(good.chain)
        (tmp_path / "key.pem").write_bytes(good.key)
    files = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    async with secured(**files) as server:
        server.on(option="starttls").certificate("expired")
        client = Speaker(server.connect())
        await client.starttls()
        assert await ended(server) == ("server", "closed", "")
        (failure,) = [
            entry.sentence for entry in server.journal if isinstance(entry, InternalFailure)
        ]
        assert failure == (
            "a fault could not fire: an expired certificate cannot be made: the key of the CA is "
            "not known (ca-key.pem beside ca-cert.pem would be it)"
        )


# --- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sizes", "pieces"),
    [
        ([], []),
        ([16], [16]),
        ([16, 32, 16], [64]),
        ([16, 1 << 15, 16], [16, 1 << 15, 16]),
        ([(1 << 20) + 1], [1 << 18] * 4 + [1]),
        ([1 << 14] * 20, [1 << 18, 1 << 16]),
    ],
)
async def test_answers_are_encrypted_in_pieces(sizes, pieces):
    buffers = [bytes([place]) * size for place, size in enumerate(sizes)]
    cut = list(_pieces(buffers))
    assert [len(piece) for piece in cut] == pieces
    assert b"".join(cut) == b"".join(buffers)
