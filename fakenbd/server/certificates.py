"""The certificates that a server shows: given, made, and invalid ones.

An authority has a good certificate for the server and one for its clients. With the key of its CA
it can also issue certificates of which only the dates or the names are wrong; those that need no
such key (of another CA, self-signed) are always available. trustme and cryptography make them, and
are imported when the first certificate is made.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from fakenbd.errors import ServeError

if TYPE_CHECKING:
    from trustme import CA, LeafCert

__all__ = ["CA_CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY", "Authority", "Certificate"]

CA_CERTIFICATE: Final = "ca-cert.pem"
CLIENT_CERTIFICATE: Final = "client-cert.pem"
CLIENT_KEY: Final = "client-key.pem"
_CA_KEY: Final = "ca-key.pem"
_SERVER_CERTIFICATE: Final = "server-cert.pem"
_SERVER_KEY: Final = "server-key.pem"

_WRONG_HOST: Final = "somewhere-else.invalid"
_CLIENT: Final = "fakenbd-client"
_BEGIN: Final = datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
_PAST: Final = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
_FUTURE: Final = datetime.datetime(3000, 1, 1, tzinfo=datetime.UTC)


@attrs.frozen
class Certificate:
    """A certificate with its intermediate CAs, and its private key, as PEM."""

    chain: bytes
    key: bytes = attrs.field(repr=False)


@attrs.define(eq=False)
class Authority:
    """The issuer of a server's certificates: `ca` is what clients are to trust, as PEM.

    `hosts` are the names of the server, in invalid certificates too. `folder` is the folder that
    the files were read from.
    """

    hosts: tuple[str, ...]
    ca: bytes
    good: Certificate
    client: Certificate | None = None
    folder: Path | None = None
    _issuer: CA | None = None

    @classmethod
    def made(cls, hosts: Sequence[str]) -> Authority:
        """A new CA with certificates for a server of these names and for its clients.

        Raises ServeError for a name that no certificate can have.
        """
        import trustme  # slow to import

        issuer = trustme.CA()
        try:
            good = _pem(issuer.issue_cert(*hosts))
        except ValueError as error:
            names = ", ".join(hosts)
            raise ServeError(f"no certificate can be made for {names}: {error}") from error
        client = _pem(issuer.issue_cert(_CLIENT, common_name=_CLIENT))
        return cls(tuple(hosts), issuer.cert_pem.bytes(), good, client, issuer=issuer)

    @classmethod
    def of_folder(cls, folder: Path, hosts: Sequence[str]) -> Authority:
        """The certificates of a folder, laid out as libnbd and QEMU have it.

        ca-cert.pem, server-cert.pem and server-key.pem must be there; client-cert.pem and
        client-key.pem may be, and ca-key.pem, for invalid certificates of this CA. Raises
        ServeError.
        """
        ca = _read(folder / CA_CERTIFICATE)
        good = Certificate(_read(folder / _SERVER_CERTIFICATE), _read(folder / _SERVER_KEY))
        client = issuer = None
        if (folder / CLIENT_CERTIFICATE).exists():
            client = Certificate(_read(folder / CLIENT_CERTIFICATE), _read(folder / CLIENT_KEY))
        if (folder / _CA_KEY).exists():
            issuer = _issuer(folder / _CA_KEY, ca)
        return cls(tuple(hosts), ca, good, client, folder, issuer)

    @classmethod
    def of_files(
        cls, certificate: Path, key: Path, ca: Path | None, hosts: Sequence[str]
    ) -> Authority:
        """One certificate and its key; without `ca`, clients are to trust the certificate itself.

        Raises ServeError.
        """
        good = Certificate(_read(certificate), _read(key))
        return cls(tuple(hosts), good.chain if ca is None else _read(ca), good)

    def certificate(self, kind: str) -> Certificate:
        """The certificate for `StartTLS.certificate`.

        Raises ServeError for one that has to be issued by a CA whose key is not known.
        """
        return _KINDS[kind](self)

    def _expired(self) -> Certificate:
        issuer = self._issuer_of("an expired")
        return _pem(issuer.issue_cert(*self.hosts, not_before=_BEGIN, not_after=_PAST))

    def _wrong_host(self) -> Certificate:
        return _pem(self._issuer_of("a wrong host's").issue_cert(_WRONG_HOST))

    def _untrusted(self) -> Certificate:
        import trustme

        return _pem(trustme.CA().issue_cert(*self.hosts))

    def _self_signed(self) -> Certificate:
        return _self_signed(self.hosts)

    def _issuer_of(self, what: str) -> CA:
        if self._issuer is None:
            raise ServeError(
                f"{what} certificate cannot be made: the key of the CA is not known "
                f"({_CA_KEY} beside {CA_CERTIFICATE} would be it)"
            )
        return self._issuer


_KINDS: Final[dict[str, Callable[[Authority], Certificate]]] = {
    "good": lambda authority: authority.good,
    "expired": Authority._expired,
    "wrong-host": Authority._wrong_host,
    "untrusted": Authority._untrusted,
    "self-signed": Authority._self_signed,
}


def _pem(leaf: LeafCert) -> Certificate:
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return Certificate(chain, leaf.private_key_pem.bytes())


def _issuer(key: Path, ca: bytes) -> CA:
    import trustme

    try:
        return trustme.CA.from_pem(ca, _read(key))
    except (ValueError, TypeError) as error:
        raise ServeError(f"{key} and {CA_CERTIFICATE} make no CA: {error}") from error


def _self_signed(hosts: Sequence[str]) -> Certificate:
    """A self-signed certificate for `hosts` that is no CA."""
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )
    from cryptography.x509.oid import NameOID

    def name(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ip_address(host))
        except ValueError:
            return x509.DNSName(host)

    key = ec.generate_private_key(ec.SECP256R1())
    itself = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(itself)
        .issuer_name(itself)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_FUTURE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([name(host) for host in hosts]), critical=False)
        .sign(key, SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Certificate(certificate.public_bytes(Encoding.PEM), secret)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ServeError(f"cannot read {path}: {error.strerror}") from error
