"""Placeholders in a client's command line, and the same values in its environment.

One table serves `fakenbd run` and the clients of `fakenbd check`. Each placeholder is replaced
once; its value is not searched for placeholders again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import attrs

from fakenbd.faults.readers import unknown
from fakenbd.protocol.uri import Uri
from fakenbd.server import Server
from fakenbd.server.tls import TLSCredentials

__all__ = [
    "OPERATION",
    "PLACEHOLDERS",
    "SERVER",
    "environment",
    "fill",
    "server_values",
    "unknown_placeholders",
]

_WORD: Final = re.compile(r"\{([A-Za-z][A-Za-z0-9-]*)\}")


def _of_security(value: Callable[[TLSCredentials], str]) -> Callable[[Server], str]:
    return lambda server: "" if server.security is None else value(server.security)


def _tls_uri(server: Server) -> str:
    uri = Uri.parse(server.uri_of(server.export.name, credentials=True))
    return str(attrs.evolve(uri, tls=True))


SERVER: Final[Mapping[str, Callable[[Server], str]]] = {
    "uri": lambda server: server.uri,
    "tls-uri": _tls_uri,
    "host": lambda server: server.endpoint.host,
    "port": lambda server: str(server.port or ""),
    "socket": lambda server: server.socket,
    "export": lambda server: server.export.name,
    "size": lambda server: str(server.export.size),
    "sha256": lambda server: server.export.sha256() or "",
    "ca": _of_security(lambda security: security.ca_file),
    "ca-dir": _of_security(lambda security: security.directory),
    "psk": _of_security(lambda security: security.psk_file),
    "profile": lambda server: server.profile.id,
    "seed": lambda server: str(server.seed),
}
"""Placeholders for what is served, and where."""

OPERATION: Final = ("offset", "length", "input", "output")
"""Placeholders for what `check` asks of a client."""

PLACEHOLDERS: Final = (*SERVER, *OPERATION)


def server_values(server: Server) -> dict[str, str]:
    """The value of each placeholder of `SERVER`; "" where the server has none."""
    return {word: value(server) for word, value in SERVER.items()}


def fill(argument: str, values: Mapping[str, str]) -> str:
    """The argument with its placeholders replaced; other braces stay as they are."""
    return _WORD.sub(lambda match: values.get(match[1], match[0]), argument)


def unknown_placeholders(argv: Sequence[str]) -> list[str]:
    """A sentence for each word in braces that is no placeholder."""
    words = [word for argument in argv for word in _WORD.findall(argument)]
    return [
        unknown("placeholder", word, PLACEHOLDERS) for word in words if word not in PLACEHOLDERS
    ]


def environment(values: Mapping[str, str]) -> dict[str, str]:
    """The values as environment variables: NBD_URI, FAKENBD_URI, FAKENBD_SIZE, …"""
    names = {f"FAKENBD_{word.upper().replace('-', '_')}": text for word, text in values.items()}
    return {"NBD_URI": values["uri"], **names}
