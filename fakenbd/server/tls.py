"""TLS credentials of a server: its certificates or keys, and the files that clients need.

TLSCredentials are made when a server with TLS is prepared, and closed with it. They hold one TLS
context for each kind of certificate, made when first needed, and a private folder with what clients
need, laid out as libnbd and QEMU expect it: ca-cert.pem, client-cert.pem and client-key.pem, or
keys.psk.
"""

from __future__ import annotations

import os
import ssl
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs

from fakenbd.errors import ServeError
from fakenbd.faults.answer import StartTLS
from fakenbd.profile import Handshake
from fakenbd.server.certificates import (
    CA_CERTIFICATE,
    CLIENT_CERTIFICATE,
    CLIENT_KEY,
    Authority,
)
from fakenbd.server.psk import read_keys
from fakenbd.server.tls_transport import SecureTransport, start_tls
from fakenbd.server.transport import Transport

if TYPE_CHECKING:
    from fakenbd.faults import Fault

__all__ = ["TLS", "TLSCredentials"]

_HOSTS: Final = ("localhost", "127.0.0.1", "::1")
_KEYS: Final = "keys.psk"
_VERSIONS: Final = {
    "1.0": ssl.TLSVersion.TLSv1,
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}
_UNREADABLE: Final = "expected a certificate and its key, not locked, as PEM"
_REASONS: Final = {"KEY_VALUES_MISMATCH": "the key is another certificate's"}
_OUTDATED: Final = ("1.0", "1.1")


@attrs.frozen
class TLS:
    """Options of TLS: the mode, and the credentials.

    `mode` is "off", "optional" or "required"; None leaves it to the profile. `certificates` is a
    folder as libnbd and QEMU have it (ca-cert.pem, server-cert.pem, server-key.pem); or
    `certificate` and `key` are files, with `ca` the one that issued them. Without any of them
    certificates are made. With `verify_clients` a client needs a certificate of the same CA.
    `psk` is a file of pre-shared keys, USER:HEXKEY a line, in place of certificates. The TLS
    handshake may take `deadline` seconds.
    """

    mode: Literal["off", "optional", "required"] | None = None
    certificates: str | os.PathLike[str] | None = None
    certificate: str | os.PathLike[str] | None = None
    key: str | os.PathLike[str] | None = None
    ca: str | os.PathLike[str] | None = None
    verify_clients: bool = False
    psk: str | os.PathLike[str] | None = None
    deadline: float = 10.0

    def __attrs_post_init__(self) -> None:
        given = [
            words
            for words, value in (
                ("a folder of certificates", self.certificates),
                ("a certificate", self.certificate),
                ("pre-shared keys", self.psk),
            )
            if value is not None
        ]
        if len(given) > 1:
            raise ServeError(f"TLS needs only one of {' and '.join(given)}")
        if (self.certificate is None) != (self.key is None):
            raise ServeError("a certificate for TLS and its key belong together")
        if self.ca is not None and self.certificate is None:
            raise ServeError("a CA for TLS goes with a certificate and its key")
        if self.verify_clients and (
            self.psk is not None or (self.certificate is not None and self.ca is None)
        ):
            raise ServeError("clients' certificates cannot be verified without a CA")

    def handshake(self, handshake: Handshake) -> Handshake:
        """A profile's handshake with this mode. Raises ServeError if its style has no STARTTLS."""
        if self.mode is None or self.mode == handshake.tls:
            return handshake
        if self.mode != "off" and handshake.style != "fixed":
            raise ServeError(f"the {handshake.style} handshake of this profile has no STARTTLS")
        return attrs.evolve(handshake, tls=self.mode)


@attrs.define(eq=False)
class TLSCredentials:
    """The credentials of a server: either an authority or pre-shared keys."""

    options: TLS
    folder: tempfile.TemporaryDirectory[str]
    authority: Authority | None = None
    keys: dict[str, bytes] | None = None
    _contexts: dict[tuple[str, str | None], ssl.SSLContext] = attrs.field(factory=dict)

    @classmethod
    def of(cls, options: TLS, hosts: Iterable[str] = ()) -> TLSCredentials:
        """Credentials read or made; `hosts` are where the server listens. Raises ServeError."""
        security = cls(options, tempfile.TemporaryDirectory(prefix="fakenbd-tls-"))
        try:
            if options.psk is not None:
                security.keys = read_keys(Path(options.psk))
            else:
                names = tuple(dict.fromkeys((*_HOSTS, *filter(None, hosts))))
                security.authority = _authority(options, names)
            security._hand_out()
            security._context("good", None)
        except BaseException:
            security.close()
            raise
        return security

    # --- for clients ---------------------------------------------------------------------------

    @property
    def directory(self) -> str:
        """The folder with a client's files, for libnbd's tls-certificates and QEMU's dir."""
        if self.authority is not None and self.authority.folder is not None:
            return os.fspath(self.authority.folder)
        return self.folder.name

    @property
    def ca_file(self) -> str:
        """The path of the certificate that clients are to trust (PEM); "" with pre-shared keys."""
        return "" if self.authority is None else os.path.join(self.directory, CA_CERTIFICATE)

    @property
    def psk_file(self) -> str:
        """The path of the file of pre-shared keys; "" with certificates."""
        return "" if self.keys is None else os.path.join(self.directory, _KEYS)

    def parameters(self) -> dict[str, Any]:
        """The fields of a Uri that name a client's credentials."""
        if self.keys is None:
            return {"tls_certificates": self.directory}
        return {"username": next(iter(self.keys)), "tls_psk_file": self.psk_file}

    def close(self) -> None:
        """Remove the private folder."""
        self.folder.cleanup()

    def _hand_out(self) -> None:
        if self.keys is not None:
            lines = (f"{user}:{key.hex()}\n" for user, key in self.keys.items())
            self._write(_KEYS, "".join(lines).encode())
        elif self.authority is not None and self.authority.folder is None:
            self._write(CA_CERTIFICATE, self.authority.ca)
            if self.authority.client is not None:
                self._write(CLIENT_CERTIFICATE, self.authority.client.chain)
                self._write(CLIENT_KEY, self.authority.client.key)

    def _write(self, name: str, data: bytes) -> Path:
        path = Path(self.folder.name, name)
        path.touch(0o600)
        path.write_bytes(data)
        return path

    # --- for the server ------------------------------------------------------------------------

    def check(self, faults: Iterable[Fault]) -> None:
        """Raise ServeError if a fault needs a certificate that cannot be made."""
        for fault in faults:
            # A server without faults does not import their kinds.
            from fakenbd.faults.kinds.tls import Certificate as CertificateKind

            for change in fault.do:
                if isinstance(change, CertificateKind):
                    self._context(change.certificate, None)

    async def secure(self, transport: Transport, step: StartTLS) -> SecureTransport:
        """Upgrade a connection.

        Raises TLSHandshakeError, or ServeError for a certificate that cannot be made."""
        context = self._context(step.certificate, step.version)
        deadline = self.options.deadline
        return await start_tls(transport, context, deadline=deadline, abort=step.abort)

    def _context(self, kind: str, version: str | None) -> ssl.SSLContext:
        if (kind, version) not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.authority is None:
                self._use_keys(context, kind)
            else:
                self._use_certificate(context, self.authority, kind)
            if version is not None:
                _limit(context, version)
            self._contexts[kind, version] = context
        return self._contexts[kind, version]

    def _use_keys(self, context: ssl.SSLContext, kind: str) -> None:
        if kind != "good":
            raise ServeError(f"no {kind} certificate can be shown: this server uses keys instead")
        keys = self.keys or {}
        # In TLS 1.3 OpenSSL's callback for keys works with one cipher only; 1.2 always works.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("PSK")
        install: Any = getattr(context, "set_psk_server_callback")  # noqa: B009 (from 3.13 on)
        install(lambda user: keys.get(user or "", b""))

    def _use_certificate(self, context: ssl.SSLContext, authority: Authority, kind: str) -> None:
        certificate = authority.certificate(kind)
        path = self._write("server.pem", certificate.chain + b"\n" + certificate.key)
        try:
            # Without a password OpenSSL would ask the terminal for that of a locked key.
            context.load_cert_chain(path, password="")
            if self.options.verify_clients:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(cadata=authority.ca.decode("ascii"))
        except (ssl.SSLError, ValueError) as error:
            reason = _REASONS.get(getattr(error, "reason", ""), _UNREADABLE)
            raise ServeError(f"{_source(self.options)} cannot be used for TLS: {reason}") from error
        finally:
            path.unlink()


def _authority(options: TLS, hosts: tuple[str, ...]) -> Authority:
    if options.certificates is not None:
        return Authority.of_folder(Path(options.certificates), hosts)
    if options.certificate is not None and options.key is not None:
        ca = None if options.ca is None else Path(options.ca)
        return Authority.of_files(Path(options.certificate), Path(options.key), ca, hosts)
    return Authority.made(hosts)


def _source(options: TLS) -> str:
    if options.certificates is not None:
        return f"the certificate in {os.fspath(options.certificates)}"
    if options.certificate is not None and options.key is not None:
        return f"{os.fspath(options.certificate)} with {os.fspath(options.key)}"
    return "the certificate"


def _limit(context: ssl.SSLContext, version: str) -> None:
    limit = _VERSIONS[version]
    with warnings.catch_warnings():
        # Outdated versions are requested on purpose.
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = limit
    if version in _OUTDATED:
        # Above this level OpenSSL 3 rejects their signatures as too weak.
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
