"""NBD URIs: split as in RFC 3986, the parts read by tables.

Schemes, parameters and export names follow doc/uri.md of the specification; AF_VSOCK and the names
of local TLS files follow libnbd, which many clients share. Names and paths are `str` with surrogate
escapes, so that bytes which are not UTF-8 survive a round trip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address
from typing import Any, Final, Literal, TypeAlias, cast
from urllib.parse import quote, unquote

import attrs

from fakenbd.errors import UriError
from fakenbd.protocol.constants import DEFAULT_PORT
from fakenbd.protocol.text import escaped

__all__ = ["TLSType", "Transport", "Uri"]

Transport: TypeAlias = Literal["tcp", "unix", "vsock"]
TLSType: TypeAlias = Literal["anon", "x509", "psk"]

_SCHEMES: Final[dict[str, tuple[Transport, bool]]] = {
    "nbd": ("tcp", False),
    "nbds": ("tcp", True),
    "nbd+unix": ("unix", False),
    "nbds+unix": ("unix", True),
    "nbd+vsock": ("vsock", False),
    "nbds+vsock": ("vsock", True),
}
_SCHEME_OF: Final = {meaning: scheme for scheme, meaning in _SCHEMES.items()}
_DEFAULT_HOSTS: Final[dict[Transport, str]] = {"tcp": "localhost", "vsock": "2"}
_LARGEST_PORTS: Final[dict[Transport, int]] = {"tcp": 65535, "vsock": (1 << 32) - 1}

# RFC 3986, appendix B.
_PIECES: Final = re.compile(
    r"(?:(?P<scheme>[^:/?#]+):)?(?://(?P<authority>[^/?#]*))?(?P<path>[^?#]*)"
    r"(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?"
)
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f]")
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2}).{0,2}")


@attrs.frozen
class Uri:
    """The address of an NBD export, and its TLS parameters.

    `host` is a name, an address without brackets, or the CID of a vsock, and "" for a Unix socket;
    `socket` is a path, or a NUL and a name for Linux's abstract sockets. `tls` means that TLS must
    be negotiated (C-150). `unknown` holds undefined parameters, for a warning (C-154).
    """

    transport: Transport = "tcp"
    tls: bool = False
    host: str = ""
    port: int = DEFAULT_PORT
    socket: str = ""
    export: str = ""
    username: str | None = None
    tls_type: TLSType | None = None
    tls_hostname: str | None = None
    tls_verify_peer: bool | None = None
    tls_certificates: str | None = None
    tls_psk_file: str | None = None
    unknown: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Uri:
        """The URI that `text` spells. Raises UriError, one sentence."""
        try:
            return _parse(text)
        except ValueError as mistake:
            reason = escaped(str(mistake))
            raise UriError(f"{text!r} is not the URI of an NBD export: {reason}") from None

    @property
    def scheme(self) -> str:
        """The scheme of this transport, with or without TLS: "nbd", "nbds+unix", …"""
        return _SCHEME_OF[self.transport, self.tls]

    def __str__(self) -> str:
        query = "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in self._parameters())
        path = _quoted(self.export)
        return f"{self.scheme}://{self._authority()}/{path}" + (f"?{query}" if query else "")

    def _authority(self) -> str:
        host = quote(self.host, safe=":", errors="surrogateescape")
        if ":" in host:
            host = f"[{host}]"
        user = ""
        if self.username is not None:  # a slash would end the authority
            user = quote(self.username, safe="", errors="surrogateescape") + "@"
        port = "" if self.port == DEFAULT_PORT else f":{self.port}"
        return user + host + port

    def _parameters(self) -> Iterator[tuple[str, str]]:
        for name, (field, _) in _PARAMETERS.items():
            value = getattr(self, field)
            if isinstance(value, bool):
                yield name, str(int(value))
            elif value:
                yield name, value
        yield from self.unknown


def _parse(text: str) -> Uri:
    forbidden = _FORBIDDEN.search(text)
    if forbidden is not None:
        raise ValueError(
            f"character {forbidden.start() + 1} must be written %{ord(forbidden[0]):02X}"
        )
    stray = _STRAY_PERCENT.search(text)
    if stray is not None:
        raise ValueError(f"{stray[0]!r} does not encode a byte; write %25 for a percent sign")
    pieces = _PIECES.fullmatch(text)
    assert pieces is not None, "the pattern matches any text without a line break"

    scheme = (pieces["scheme"] or "").lower()
    if scheme not in _SCHEMES:
        found = f", not {scheme}" if scheme else ""
        raise ValueError(f"its scheme must be one of {', '.join(_SCHEMES)}{found}")
    transport, tls = _SCHEMES[scheme]
    if pieces["fragment"]:
        raise ValueError("a fragment has no meaning here; write %23 for a # in a name")
    path = pieces["path"]
    if path and not path.startswith("/"):
        raise ValueError(f"after {scheme}: must come //")

    fields = _read_parameters(pieces["query"] or "")
    if (transport == "unix") != ("socket" in fields):
        if transport == "unix":  # C-153
            raise ValueError(f"{scheme} needs the parameter socket with the path of a socket")
        raise ValueError(f"the parameter socket belongs to {scheme}+unix, not to {scheme}")
    username, host, port = _read_authority(pieces["authority"] or "", transport)
    export = _unquoted(path.removeprefix("/"))  # C-152
    return Uri(transport, tls, host, port, export=export, username=username, **fields)


def _read_authority(text: str, transport: Transport) -> tuple[str | None, str, int]:
    userinfo, at, place = text.rpartition("@")
    username = _unquoted(userinfo) if at else None
    if transport == "unix":
        if place:
            raise ValueError(f"a Unix socket has no host nor port, so {place} has no meaning")
        return username, "", DEFAULT_PORT
    bracketed = re.fullmatch(r"\[(?P<host>[^\]]*)\](?::(?P<port>.*))?", place)  # C-156
    plain = re.fullmatch(r"(?P<host>[^:\[\]]*)(?::(?P<port>[^:]*))?", place)
    split = bracketed or plain
    if split is None:
        raise ValueError(
            f"{place} is neither HOST nor HOST:PORT; an IPv6 address stands in brackets, as [::1]"
        )
    host = _unquoted(split["host"])
    if bracketed:
        _check_ipv6(host)
    host = host or _DEFAULT_HOSTS[transport]
    if transport == "vsock":
        _number("the CID of a vsock", host, 0, (1 << 32) - 1)
    if not split["port"]:  # C-151
        return username, host, DEFAULT_PORT
    return username, host, _number("the port", split["port"], 1, _LARGEST_PORTS[transport])


def _check_ipv6(host: str) -> None:
    try:
        IPv6Address(host)
    except ValueError:
        raise ValueError(f"[{host}] does not hold an IPv6 address") from None


def _number(what: str, text: str, least: int, most: int) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(most))
    if not (digits and least <= int(text) <= most):
        raise ValueError(f"{what} must be a number from {least} to {most}, not {text}")
    return int(text)


# --- parameters --------------------------------------------------------------------------------


def _some(name: str, value: str) -> str:
    if not value:
        raise ValueError(f"the parameter {name} is empty")
    return _without_nul(value)


def _socket(name: str, value: str) -> str:
    # Linux's abstract sockets begin with a NUL, and may hold more.
    return value if value.startswith("\0") else _some(name, value)


def _tls_type(name: str, value: str) -> TLSType:
    if value not in ("anon", "x509", "psk"):
        raise ValueError(f"{name} must be anon, x509 or psk, not {value}")
    return cast(TLSType, value)


def _switch(name: str, value: str) -> bool:
    if value not in ("0", "1"):
        raise ValueError(f"{name} must be 0 or 1, not {value}")
    return value == "1"


_PARAMETERS: Final[dict[str, tuple[str, Callable[[str, str], Any]]]] = {
    "socket": ("socket", _socket),
    "tls-type": ("tls_type", _tls_type),
    "tls-hostname": ("tls_hostname", _some),
    "tls-verify-peer": ("tls_verify_peer", _switch),  # C-155
    "tls-certificates": ("tls_certificates", _some),
    "tls-psk-file": ("tls_psk_file", _some),
}


def _read_parameters(query: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    unknown: list[tuple[str, str]] = []
    for parameter in filter(None, query.split("&")):
        name, _, value = (
            unquote(part, errors="surrogateescape") for part in parameter.partition("=")
        )
        if name not in _PARAMETERS:  # C-154
            unknown.append((name, value))
            continue
        field, read = _PARAMETERS[name]
        if field in fields:
            raise ValueError(f"the parameter {name} is given twice")
        fields[field] = read(name, value)
    return {**fields, "unknown": tuple(unknown)}


def _quoted(text: str) -> str:
    return quote(text, safe="/:@", errors="surrogateescape")


def _unquoted(text: str) -> str:
    return _without_nul(unquote(text, errors="surrogateescape"))


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("%00 has no meaning but at the start of an abstract socket's name")
    return text
