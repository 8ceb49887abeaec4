"""`fakenbd info`, `map`, `list`: what the reference client finds out about a server."""

from __future__ import annotations

import json as json_format
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
import trio
from cyclopts import Parameter

from fakenbd.client import TLS, Client, Noncompliance
from fakenbd.protocol.constants import State, TransmissionFlag, flag_names
from fakenbd.protocol.messages import Extent
from fakenbd.protocol.text import visible
from fakenbd.protocol.uri import Uri

__all__ = ["ClientOptions", "info", "show_map"]

_DEFAULT_TIMEOUT: Final = 30.0


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ClientOptions:
    """Options of the reference client."""

    timeout: Annotated[float, Parameter(help="Seconds that any one wait may take.")] = (
        _DEFAULT_TIMEOUT
    )
    strict: Annotated[
        bool, Parameter(help="Fail at the first breach instead of coping with it.", negative="")
    ] = False
    tls: Annotated[
        Literal["off", "allow", "require"] | None,
        Parameter(help="Whether to ask for TLS; by default as the URI says."),
    ] = None
    tls_ca: Annotated[Path | None, Parameter(help="Trust the certificates in this file.")] = None
    tls_hostname: Annotated[
        str | None, Parameter(help="The name that the server's certificate must have.")
    ] = None
    tls_no_verify: Annotated[bool, Parameter(help="Accept any certificate.", negative="")] = False

    def security(self, uri: Uri) -> TLS:
        """The URI's wishes for TLS, and what the options say otherwise."""
        security = TLS.of(uri)
        if self.tls is not None:
            security = attrs.evolve(security, policy=self.tls)
        if self.tls_ca is not None:
            security = attrs.evolve(security, authority=str(self.tls_ca))
        if self.tls_hostname is not None:
            security = attrs.evolve(security, hostname=self.tls_hostname)
        return attrs.evolve(security, verify=security.verify and not self.tls_no_verify)

    @asynccontextmanager
    async def connect(
        self, target: str, contexts: Sequence[str] = ("base:allocation",)
    ) -> AsyncIterator[Client]:
        """A client of `target`; what it put up with is told on standard error at the end."""
        uri = Uri.parse(target)
        # The notes are told at the end, each once; the log would say them again.
        logging.getLogger("fakenbd").addHandler(logging.NullHandler())
        for name, _ in uri.unknown:
            print(f"fakenbd: the URI's parameter {visible(name)} is not known", file=sys.stderr)
        async with Client.connect(
            uri,
            contexts=contexts,
            tolerance="strict" if self.strict else "tolerant",
            timeout=self.timeout,
            tls=self.security(uri),
        ) as client:
            try:
                yield client
            finally:
                if not self.strict:
                    tell(client.notes)


def tell(notes: Sequence[Noncompliance]) -> None:
    """Say what the client put up with, each breach once and how often it came."""
    seen: dict[str, int] = {}
    for note in notes:
        seen[str(note)] = seen.get(str(note), 0) + 1
    for text, count in seen.items():
        often = f" ({count} times)" if count > 1 else ""
        print(f"fakenbd: noted: {visible(text)}{often}", file=sys.stderr)


def show_map(
    uri: Annotated[str, Parameter(help="The URI of an export.")],
    /,
    *,
    context: Annotated[str, Parameter(help="The metadata context to show.")] = "base:allocation",
    json: Annotated[
        bool, Parameter(help="As qemu-img map --output=json prints it.", negative="")
    ] = False,
    options: ClientOptions | None = None,
) -> int:
    """Show which parts of an export hold data, and which are holes."""
    extents = trio.run(_extents, uri, context, options or ClientOptions())
    if json:
        print(map_json(extents))
        return 0
    words = _allocation if context == "base:allocation" else hex
    for start, length, flags in extents:
        print(f"{start:>15} {length:>15}  {flags:>3}  {words(flags)}")
    return 0


async def _extents(uri: str, context: str, options: ClientOptions) -> list[tuple[int, int, int]]:
    async with options.connect(uri, (context,)) as client:
        if not client.contexts and context == "base:allocation":
            # Without block status everything is data: the answer that is always safe.
            return [(0, client.size, 0)] if client.size else []
        return [each async for each in _placed(client.block_status(0, client.size))]


async def _placed(extents: AsyncIterator[Extent]) -> AsyncIterator[tuple[int, int, int]]:
    """Extents with their offsets; neighbours that agree are one."""
    start = length = flags = 0
    async for extent in extents:
        if length and extent.flags == flags:
            length += extent.length
            continue
        if length:
            yield start, length, flags
        start, length, flags = start + length, extent.length, extent.flags
    if length:
        yield start, length, flags


def map_json(extents: Sequence[tuple[int, int, int]]) -> str:
    """A map in the form of `qemu-img map --output=json`."""
    rows = [
        f'{{ "start": {start}, "length": {length}, "depth": 0, '
        f'"zero": {_bool(flags & State.ZERO)}, "data": {_bool(not flags & State.HOLE)}}}'
        for start, length, flags in extents
    ]
    return "[" + ",\n".join(rows) + "]"


def _bool(value: int) -> str:
    return "true" if value else "false"


def _allocation(flags: int) -> str:
    known = {
        0: "data",
        State.HOLE: "hole",
        State.ZERO: "zero",
        State.HOLE | State.ZERO: "hole,zero",
    }
    return known.get(flags & 3, "") + (f",{flags & ~3:#x}" if flags & ~3 else "")


def info(
    uri: Annotated[str, Parameter(help="The URI of an export.")],
    /,
    *,
    json: Annotated[bool, Parameter(help="As JSON.", negative="")] = False,
    options: ClientOptions | None = None,
) -> int:
    """Show what a server says of an export."""
    facts = trio.run(_facts, uri, options or ClientOptions())
    if json:
        print(json_format.dumps(facts, indent=1, ensure_ascii=False))
        return 0
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        print(f"{name + ':':<{width}}  {visible(_shown(value))}")
    return 0


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not said" if value is None else str(value)


async def _facts(uri: str, options: ClientOptions) -> dict[str, Any]:
    async with options.connect(uri) as client:
        sizes = client.block_size
        return {
            "export": client.export,
            "size": client.size,
            "style": client.session.style,
            "replies": "extended"
            if client.extended
            else "structured"
            if client.structured
            else "simple",
            "tls": client.tls,
            "flags": flag_names(TransmissionFlag, client.flags).split("|"),
            "minimum block": sizes and sizes.minimum,
            "preferred block": sizes and sizes.preferred,
            "maximum payload": sizes and sizes.maximum,
            "name": client.canonical_name,
            "description": client.description,
            "contexts": list(client.contexts),
        }
