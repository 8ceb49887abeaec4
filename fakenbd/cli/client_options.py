"""Options that the verbs of the reference client have in common: timeout, strictness, TLS."""

from __future__ import annotations

import logging
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from fakenbd.client import TLS, BlockDevice, Client, Noncompliance, ResilientClient, RetryPolicy
from fakenbd.protocol.text import escaped
from fakenbd.protocol.uri import Uri

__all__ = ["ClientOptions"]

_TIMEOUT: Final = 30.0


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ClientOptions:
    """Options of the reference client."""

    timeout: Annotated[
        float,
        Parameter(
            help="Time limit of each wait.",
            metavar="SECONDS",
            show_default=True,
            validator=Number(gt=0),
        ),
    ] = _TIMEOUT
    retry: Annotated[
        int,
        Parameter(
            help="Number of reconnects for one call after a lost connection.",
            metavar="N",
            show_default=True,
            validator=Number(gte=0),
        ),
    ] = 0
    strict: Annotated[
        bool, Parameter(help="Fail at the first violation by the server instead of tolerating it.")
    ] = False
    tls: Annotated[
        Literal["off", "allow", "require"] | None,
        Parameter(
            help="TLS policy (default: the URI's).",
            metavar="off|allow|require",
            show_choices=False,
        ),
    ] = None
    tls_ca: Annotated[
        Path | None, Parameter(help="Trust the certificates in this file.", metavar="FILE")
    ] = None
    tls_certificates: Annotated[
        Path | None,
        Parameter(
            help="A folder with ca-cert.pem, client-cert.pem and client-key.pem.", metavar="FOLDER"
        ),
    ] = None
    tls_hostname: Annotated[
        str | None,
        Parameter(help="The name that the server's certificate must have.", metavar="NAME"),
    ] = None
    tls_psk: Annotated[
        Path | None,
        Parameter(
            help="A file of pre-shared keys, USER:HEXKEY a line (needs Python 3.13).",
            metavar="FILE",
        ),
    ] = None
    tls_no_verify: Annotated[bool, Parameter(help="Accept any certificate.")] = False

    @property
    def policy(self) -> RetryPolicy | None:
        """How often to retry; None for never."""
        return RetryPolicy(attempts=self.retry + 1) if self.retry else None

    def security(self, uri: Uri) -> TLS:
        """The TLS settings of the URI, overridden by the options."""
        if self.tls_certificates is not None:
            uri = attrs.evolve(uri, tls_certificates=str(self.tls_certificates))
        if self.tls_psk is not None:
            uri = attrs.evolve(uri, tls_psk_file=str(self.tls_psk))
        security = TLS.of(uri)
        given: dict[str, Any] = {
            "policy": self.tls,
            "authority": self.tls_ca and str(self.tls_ca),
            "hostname": self.tls_hostname,
        }
        return attrs.evolve(
            security,
            verify=security.verify and not self.tls_no_verify,
            **{name: value for name, value in given.items() if value is not None},
        )

    def settings(self, *uris: Uri) -> dict[str, Any]:
        """Keyword arguments to connect to `uris`, except `tls`; warns of unknown URI parameters."""
        for uri in uris:
            for name, _ in uri.unknown:  # C-154
                print(f"fakenbd: the URI's parameter {escaped(name)} is not known", file=sys.stderr)
        return {
            "tolerance": "strict" if self.strict else "tolerant",
            "timeout": self.timeout,
        }

    @asynccontextmanager
    async def connect(
        self, target: str, contexts: Sequence[str] = ("base:allocation",)
    ) -> AsyncIterator[BlockDevice]:
        """A client of `target`; tolerated breaches are printed on standard error at the end."""
        uri = Uri.parse(target)
        settings = {**self.settings(uri), "tls": self.security(uri), "contexts": contexts}
        policy = self.policy
        connection = (
            Client.connect(uri, **settings)
            if policy is None
            else ResilientClient.connect(uri, policy=policy, **settings)
        )
        with self.noting() as notes:
            async with connection as client:
                try:
                    yield client
                finally:
                    notes += client.notes

    @contextmanager
    def noting(self) -> Iterator[list[Noncompliance]]:
        """A list for tolerated breaches, which are printed on standard error at the end."""
        # Without a handler, logging would print them as well.
        logging.getLogger("fakenbd").addHandler(logging.NullHandler())
        notes: list[Noncompliance] = []
        try:
            yield notes
        finally:
            if not self.strict:
                _print_notes(notes)


def _print_notes(notes: Sequence[Noncompliance]) -> None:
    """Print each breach once, with the number of times."""
    seen: dict[str, int] = {}
    for note in notes:
        seen[str(note)] = seen.get(str(note), 0) + 1
    for text, count in seen.items():
        often = f" ({count} times)" if count > 1 else ""
        print(f"fakenbd: noted: {escaped(text)}{often}", file=sys.stderr)
