"""Options shared by `serve` and `run`: the profile, the address, and the files to record to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import IO, Annotated, Any, Literal

import attrs
from cyclopts import Parameter

from fakenbd import __version__
from fakenbd.errors import ProfileError, ServeError
from fakenbd.journal import Journal, Sink
from fakenbd.profile import Profile
from fakenbd.server import Server
from fakenbd.server.endpoint import Endpoint
from fakenbd.server.tls import TLS

__all__ = ["ServerOptions", "die_with_parent"]


def _positive(_: object, number: int) -> None:
    if number < 1:
        raise ValueError("Must be >= 1.")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ServerOptions:
    """Options of the server."""

    tcp: Annotated[
        str | None,
        Parameter(
            help="Address to listen on (default: loopback, any free port).", metavar="HOST:PORT"
        ),
    ] = None
    unix: Annotated[
        str | None,
        Parameter(
            help='Listen on a Unix socket; "-" makes a private one.',
            metavar="PATH|-",
            allow_leading_hyphen=True,
        ),
    ] = None
    export: Annotated[
        str | None, Parameter(help="Serve the first export under this name.", metavar="NAME")
    ] = None
    seed: Annotated[
        int | None,
        Parameter(help="Random seed.", metavar="N"),
    ] = None
    tls: Annotated[
        Literal["off", "optional", "required"] | None,
        Parameter(
            help="TLS mode (default: the profile's).",
            metavar="off|optional|required",
            show_choices=False,
        ),
    ] = None
    tls_certificates: Annotated[
        Path | None,
        Parameter(
            help="A folder with ca-cert.pem, server-cert.pem and server-key.pem; by default "
            "certificates are made.",
            metavar="FOLDER",
        ),
    ] = None
    tls_verify_peer: Annotated[
        bool, Parameter(help="Accept only clients with a certificate of the CA.")
    ] = False
    tls_psk: Annotated[
        Path | None,
        Parameter(
            help="A file of pre-shared keys, USER:HEXKEY a line (needs Python 3.13).",
            metavar="FILE",
        ),
    ] = None
    journal: Annotated[
        Path | None,
        Parameter(help="Write the journal of all messages to this JSONL file.", metavar="FILE"),
    ] = None
    pcap: Annotated[
        Path | None,
        Parameter(
            help="Write the connections as a capture for Wireshark (pcapng).", metavar="FILE"
        ),
    ] = None
    journal_data: Annotated[
        bool, Parameter(help="Keep the data read and written in the journal.")
    ] = False
    journal_limit: Annotated[
        int,
        Parameter(
            help="Entries that the journal holds in memory.",
            metavar="N",
            show_default=True,
            validator=_positive,
        ),
    ] = 100_000
    exit_with_parent: Annotated[bool, Parameter(help="Exit when the parent process ends.")] = False

    def chosen(self, name: str) -> Profile:
        """The profile of that name, after `suited`."""
        from fakenbd.profile import find

        return self.suited(find(name))

    def suited(self, profile: Profile) -> Profile:
        """The profile with its export renamed by --export.

        Raises ProfileError for TLS options where the profile does not offer TLS.
        """
        if (self.tls or profile.handshake.tls) == "off":
            for option, given in (
                ("--tls-certificates", self.tls_certificates),
                ("--tls-psk", self.tls_psk),
                ("--tls-verify-peer", self.tls_verify_peer or None),
            ):
                if given is not None:
                    raise ProfileError(option, ["expected --tls optional or required, too"])
        if self.export is not None:
            first, *others = profile.exports
            renamed = attrs.evolve(first, name=self.export)
            profile = attrs.evolve(profile, exports=(renamed, *others))
        return profile

    def server_options(self, endpoint: Endpoint | None = None) -> dict[str, Any]:
        """The keyword arguments for `open_server`."""
        if self.tcp is not None and self.unix is not None:
            raise ProfileError("--tcp and --unix", ["only one of them can be given"])
        options: dict[str, Any] = {
            "seed": self.seed,
            "tls": TLS(
                mode=self.tls,
                certificates=self.tls_certificates,
                verify_clients=self.tls_verify_peer,
                psk=self.tls_psk,
            ),
            "journal": {
                "limit": self.journal_limit,
                "payloads": "whole" if self.journal_data else "digest",
            },
        }
        if endpoint is not None:
            options["endpoints"] = [endpoint]
        elif self.unix is not None:
            options["unix"] = self.unix
        else:
            options["tcp"] = self.tcp
        return options

    @contextmanager
    def recording(self, server: Server) -> Iterator[None]:
        """Write the journal and the capture during the block, and report errors of writing them."""
        journal = server.journal
        journal.alarm = _report
        began = time() - (journal.clock() - journal.began)
        detach: list[Callable[[], None]] = []
        try:
            if self.journal is not None:
                from fakenbd.journal.jsonl import Header, JsonlSink

                header = Header(__version__, server.profile.id, server.seed, began)
                whole = journal.payloads == "whole"
                detach.append(
                    _attach(journal, self.journal, lambda file: JsonlSink(file, header, whole))
                )
            if self.pcap is not None:
                from fakenbd.journal.pcap import PcapSink

                detach.append(_attach(journal, self.pcap, lambda file: PcapSink(file, began)))
            yield
        finally:
            for each in detach:
                each()


def _report(sentence: str) -> None:
    # The server continues if standard error is closed.
    with suppress(OSError):
        print(f"fakenbd: {sentence}", file=sys.stderr, flush=True)


def _attach(journal: Journal, path: Path, make: Callable[[IO[bytes]], Sink]) -> Callable[[], None]:
    try:
        file = path.open("wb")
        try:
            return journal.attach(make(file))
        except OSError:
            with suppress(OSError):  # what could not be written is tried once more
                file.close()
            raise
    except OSError as error:
        raise ServeError(f"cannot write {path}: {error.strerror}") from error


def die_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent ends (Linux only)."""
    import ctypes
    import signal

    parent = os.getppid()
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != parent:
        raise ServeError("the parent process is gone already")
