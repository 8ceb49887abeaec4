"""TLS settings of a client: trust, credentials, and whether TLS is required.

The server is verified unless `verify` is off. Certificates are files, or in a directory with the
names of libnbd and QEMU: ca-cert.pem, client-cert.pem, client-key.pem. Pre-shared keys are in a
file of lines USER:HEX-KEY, and need Python 3.13.
"""

from __future__ import annotations

import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

from fakenbd.client.negotiation import TLSPolicy
from fakenbd.errors import TLSError
from fakenbd.protocol.messages import Buffer
from fakenbd.protocol.text import quoted
from fakenbd.protocol.uri import Uri

if TYPE_CHECKING:
    from fakenbd.client.channel import Upgrader

__all__ = ["TLS"]

# Pre-shared keys of TLS 1.2 need no certificate; 1.3 has no callback for them before OpenSSL 3.
PSK_CIPHERS: Final = "PSK:@SECLEVEL=0"


@attrs.define(eq=False)
class _Protected(trio.abc.Stream):
    """A TLS stream that sends close_notify (C-62), and does not need one from the server.

    NBD's own lengths distinguish a truncation from an end.
    """

    inner: trio.SSLStream[Any]

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        try:
            return await self.inner.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLEOFError):
                return b""
            raise

    async def send_all(self, data: Buffer) -> None:
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self.inner.aclose()


@attrs.frozen
class TLS:
    """The TLS settings of a connection.

    `policy`: "off" never asks for TLS, "allow" continues in clear where the server has none,
    "require" never does. `authority` is a file of trusted certificates (default: the system's).
    `certificate` and `key` are files of the client's own. `hostname` is the name that the server's
    certificate must have (default: the host connected to). `verify` off accepts any peer.
    `psk_file` and `username` use a pre-shared key instead of certificates.
    """

    policy: TLSPolicy = "require"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    hostname: str | None = None
    verify: bool = True
    psk_file: str | None = None
    username: str | None = None

    @classmethod
    def of(cls, uri: Uri) -> TLS:
        """The settings of a URI: required for nbds schemes, not asked for otherwise."""
        if uri.tls and uri.tls_type == "anon":
            raise TLSError("anonymous TLS (tls-type=anon) is not available in Python")
        if uri.tls and uri.tls_type == "psk" and uri.tls_psk_file is None:
            raise TLSError("tls-type=psk needs a file of pre-shared keys: tls-psk-file")
        files = _in_directory(uri.tls_certificates) if uri.tls_certificates is not None else {}
        return cls(
            policy="require" if uri.tls else "off",
            hostname=uri.tls_hostname,
            verify=uri.tls_verify_peer is not False,
            psk_file=uri.tls_psk_file if uri.tls_type != "x509" else None,
            username=uri.username,
            **files,
        )

    def upgrader(self, host: str) -> Upgrader:
        """A function that upgrades a stream to `host`. Raises TLSError for unusable credentials."""
        context = self._context()
        hostname = self.hostname or host or None
        if hostname is None and context.check_hostname:
            # A Unix socket has no host: the certificate must be trusted, with any name.
            context.check_hostname = False

        async def upgrade(stream: trio.abc.Stream) -> trio.abc.Stream:
            protected: trio.SSLStream[Any] = trio.SSLStream(
                stream, context, server_hostname=hostname
            )
            try:
                await protected.do_handshake()
            except trio.BrokenResourceError as error:
                raise TLSError(f"the TLS handshake failed: {_reason(error)}") from error
            return _Protected(protected)

        return upgrade

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # C-60
        try:
            for path in (self.authority, self.certificate, self.key):
                if path is not None:
                    os.stat(path)  # the ssl module's error does not name the missing file
            if self.psk_file is not None:
                self._use_psk(context, self.psk_file)
            elif not self.verify:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            elif self.authority is not None:
                context.load_verify_locations(self.authority)
            else:
                context.load_default_certs()
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise TLSError(f"the TLS credentials cannot be used: {error}") from error
        return context

    def _use_psk(self, context: ssl.SSLContext, path: str) -> None:
        username, key = _psk(path, self.username)
        install = getattr(context, "set_psk_client_callback", None)
        if install is None:
            raise TLSError("pre-shared keys need Python 3.13 or later")
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(PSK_CIPHERS)
        install(lambda hint: (username, key))


def _in_directory(directory: str) -> dict[str, str]:
    """The files in a directory of certificates, by field of TLS."""
    names = {
        "authority": "ca-cert.pem",
        "certificate": "client-cert.pem",
        "key": "client-key.pem",
    }
    found = {field: Path(directory, name) for field, name in names.items()}
    if not found["authority"].exists():
        raise TLSError(f"there is no ca-cert.pem in {directory}")
    return {field: os.fspath(path) for field, path in found.items() if path.exists()}


def _psk(path: str, username: str | None) -> tuple[str, bytes]:
    """The user and key in a file of pre-shared keys: of `username`, or the first."""
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        user, colon, key = line.partition(":")
        if colon and username in (None, user):
            return user, bytes.fromhex(key)
    wanted = "no key" if username is None else f"no key of {quoted(username)}"
    raise ValueError(f"{wanted} in {path}")


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate is not to be trusted: {cause.verify_message}"
    return str(getattr(cause, "reason", None) or cause or error)
