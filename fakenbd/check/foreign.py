"""One operation of a foreign client: a server of its own, the client's process, and the account.

Each operation gets a fresh server, so that what a fault counts does not depend on what was done
before, and a scratch folder that goes away with all the client has left there.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.check.account import Account, excerpt
from fakenbd.check.adapters import Adapter, Deed
from fakenbd.check.conduct import conduct
from fakenbd.check.evidence import Job, wrong
from fakenbd.check.findings import Facts
from fakenbd.check.placeholders import environment, fill, server_values
from fakenbd.check.process import Completed, Limits, run
from fakenbd.check.verdicts import Performance
from fakenbd.check.witness import Witness
from fakenbd.errors import ServeError
from fakenbd.export import Export, RandomBytes
from fakenbd.profile import Profile
from fakenbd.protocol.uri import Uri
from fakenbd.server import BackgroundServer, Server, background_server

__all__ = ["perform"]

WHOLE: Final = 1 << 26
"""An export up to this size is taken whole."""

MAPPED: Final = 1 << 36
"""An export up to this size is mapped; a larger one takes too many requests of at most 4 GiB."""

PART: Final = 1 << 16
"""So much of it is zeroed or trimmed, and so much is read of a larger one."""

_WHOLE_OPERATIONS: Final = frozenset(("read", "copy", "write", "map", "reconnect"))
_MAPS: Final = frozenset(("qemu-map", "nbdinfo-map"))
_MAP: Final = 1 << 28
"""Bytes of output that a map may have: it is no map any more if some are left out."""

_UNDECIDED: Final = "a command insists on TLS or does without, and here it depends"
_SETTLE: Final = 0.3
"""Seconds that the server has to notice that the client is gone."""


def perform(
    profile: Profile, adapter: Adapter, operation: str, *, seed: int, limits: Limits
) -> Account:
    """Have a client perform one operation against a server that plays the profile."""
    deed = adapter.deed(operation)
    incapable = deed.missing()
    if incapable:
        return Account(Performance(operation, incapable=incapable))
    tls = _secured(profile)
    if tls is None:
        return Account(Performance(operation, incapable=_UNDECIDED))
    if tls and not deed.tls:
        return Account(Performance(operation, incapable=f"{adapter.name} has no command for TLS"))
    options: dict[str, Any] = {"unix": "-"} if adapter.transport == "unix" and not tls else {}
    try:
        with background_server(profile, seed=seed, **options) as server:
            witness = Witness(server.export.size)
            server.journal.attach(witness)
            stage = _Stage(server, profile, deed, operation, witness, tls)
            account = stage.perform(limits)
    except ServeError as error:
        return Account(Performance(operation, trouble=str(error)))
    if account.performance.incapable or account.performance.trouble:
        return account
    told = conduct(server.server, profile, operation)
    return attrs.evolve(
        account,
        performance=attrs.evolve(account.performance, conduct=told),
        transcript=excerpt(server.journal.entries()),
    )


@attrs.frozen
class _Stage:
    """A server that runs, and what a client is to do there."""

    server: BackgroundServer
    profile: Profile
    deed: Deed
    operation: str
    witness: Witness
    tls: bool

    def perform(self, limits: Limits) -> Account:
        """Run the client, wait until the server knows that it is gone, and look at the result."""
        export, deed = self.server.export, self.deed
        command = deed.tls if self.tls else deed.command
        if deed.check in _MAPS:
            command = command if export.size <= MAPPED else ()
        elif deed.check in ("file", "input") and export.size > WHOLE:
            command = deed.large
        if not command:
            return Account(Performance(self.operation, incapable=_too_large(export)))
        with tempfile.TemporaryDirectory(
            prefix="fakenbd-check-", ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            job = _job(folder, self.profile, export, self.operation, deed)
            values = _values(self.server.server, job, tls=self.tls)
            argv = [fill(word, values) for word in command]
            try:
                done = run(
                    argv,
                    folder,
                    attrs.evolve(limits, output=_MAP) if deed.check in _MAPS else limits,
                    environment=environment(values),
                    storming=lambda: self.witness.storm,
                )
            except OSError as error:
                trouble = f"{argv[0]} cannot be started: {error.strerror}"
                return Account(Performance(self.operation, trouble=trouble), tuple(argv))
            self.witness.wait_alone(_SETTLE)
            problem = ""
            if done.status == 0 and not done.stopped:
                told = frozenset(self.witness.sizes)
                problem = wrong(deed.check, attrs.evolve(job, told=told), done.output)
        return Account(_account(self.operation, done, problem), tuple(argv), "", done.seconds)


def _secured(profile: Profile) -> bool | None:
    """Whether a client is to use TLS; None where it has to find out, which a command cannot say."""
    offered, policy = profile.handshake.tls, profile.tls_policy
    if policy == "allow" and offered == "optional" and profile.faults:
        return None
    return (policy != "off" and offered != "off") or policy == "require"


def _account(operation: str, done: Completed, problem: str) -> Performance:
    return Performance(
        operation,
        done.status,
        done.signal,
        done.stopped,
        done.stop_reason,
        done.output,
        done.errors,
        problem,
    )


def _too_large(export: Export) -> str:
    return f"an export of {export.size} bytes is more than its command can take whole"


# --- what is to be done ------------------------------------------------------------------------


def _job(folder: Path, profile: Profile, export: Export, operation: str, deed: Deed) -> Job:
    blocks = export.block_size
    unit = max(1, blocks.minimum) if blocks is not None else 1
    whole = operation in _WHOLE_OPERATIONS and export.size <= WHOLE
    length = export.size if whole or operation == "map" else min(PART, export.size)
    if not whole and length > unit:
        length -= length % unit
    job = Job(Facts.of(profile, export), 0, length, folder / "input", folder / "output")
    if deed.check == "input" or any("{input}" in word for word in deed.command):
        with job.input.open("wb") as file:
            file.write(RandomBytes("what the client is to write").read(0, length))
    if deed.check == "trim":
        job = attrs.evolve(job, before=bytes(export.read(0, length)))
    return job


def _values(server: Server, job: Job, *, tls: bool) -> dict[str, str]:
    """What the placeholders of a command stand for."""
    return {
        **server_values(server),
        "uri": str(attrs.evolve(Uri.parse(server.uri), tls=tls)),
        "offset": str(job.offset),
        "length": str(job.length),
        "input": str(job.input),
        "output": str(job.output),
    }
