"""One operation of a foreign client: a server of its own, the client's process, and the result.

Each operation gets a fresh server, so that what a fault counts does not depend on what was done
before, and a scratch folder that goes away with all the client has left there.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.check.adapters import Adapter, Deed
from fakenbd.check.conduct import conduct
from fakenbd.check.evidence import Job, wrong
from fakenbd.check.findings import Facts
from fakenbd.check.operation_result import OperationResult
from fakenbd.check.placeholders import environment, fill, server_values
from fakenbd.check.process import Limits, run
from fakenbd.check.spans import MAPPED, WHOLE
from fakenbd.check.witness import Witness
from fakenbd.export import Export, RandomBytes
from fakenbd.profile import Profile
from fakenbd.protocol.uri import Uri
from fakenbd.server import Server, background_server

__all__ = ["perform"]

PART: Final = 1 << 16
"""Bytes that are zeroed or trimmed, and that are read of an export that is not taken whole."""

_WHOLE_OPERATIONS: Final = frozenset(("read", "copy", "write", "map", "reconnect"))
_MAPS: Final = frozenset(("qemu-map", "nbdinfo-map"))
_MAP: Final = 1 << 28
"""Bytes of output that a map may have: it is no map any more if some are left out."""

_UNDECIDED: Final = "a command insists on TLS or does without, and here it depends"
_SETTLE: Final = 0.3
"""Seconds that the server has to notice that the client is gone."""


def perform(
    profile: Profile,
    adapter: Adapter,
    operation: str,
    options: Mapping[str, Any],
    limits: Limits,
) -> OperationResult:
    """Have a client perform one operation against a server of the profile.

    `options` are the server's. Raises ServeError where there can be no such server.
    """
    deed = adapter.deed(operation)
    incapable = deed.missing()
    tls = _secured(profile)
    if not incapable and tls is None:
        incapable = _UNDECIDED
    elif not incapable and tls and not deed.tls:
        incapable = f"{adapter.name} has no command for TLS"
    if incapable:
        return OperationResult(operation, incapable=incapable)
    where = {"unix": "-"} if adapter.transport == "unix" and not tls else {}
    with background_server(profile, **options, **where) as background:
        result = _perform(background.server, profile, deed, operation, limits, tls=bool(tls))
    if result.incapable or result.trouble:
        return result
    return conduct(result, background.server, profile)


def _perform(
    server: Server, profile: Profile, deed: Deed, operation: str, limits: Limits, *, tls: bool
) -> OperationResult:
    """Run the client, wait until the server knows that it is gone, and look at the result."""
    export = server.export
    command = _command(deed, export, tls=tls)
    if not command:
        return OperationResult(operation, incapable=_too_large(export))
    witness = Witness(export.size)
    server.journal.attach(witness)
    with tempfile.TemporaryDirectory(prefix="fakenbd-check-", ignore_cleanup_errors=True) as name:
        job = _job(Path(name), profile, export, operation, deed)
        values = _values(server, job, tls=tls)
        argv = tuple(fill(word, values) for word in command)
        try:
            result = run(
                argv,
                Path(name),
                attrs.evolve(limits, output=_MAP) if deed.check in _MAPS else limits,
                environment=environment(values),
                storming=lambda: witness.storm,
            )
        except OSError as error:
            trouble = f"{argv[0]} cannot be started: {error.strerror}"
            return OperationResult(operation, trouble=trouble, command=argv)
        witness.wait_alone(_SETTLE)
        problem = ""
        if result.succeeded:
            told = frozenset(witness.sizes)
            problem = wrong(deed.check, attrs.evolve(job, told=told), result.output)
    return attrs.evolve(result, operation=operation, wrong=problem)


def _command(deed: Deed, export: Export, *, tls: bool) -> tuple[str, ...]:
    """The command for an export of that size; () if there is none."""
    command = deed.tls if tls else deed.command
    if deed.check in _MAPS:
        return command if export.size <= MAPPED else ()
    if deed.check in ("file", "input") and export.size > WHOLE:
        return deed.large
    return command


def _secured(profile: Profile) -> bool | None:
    """Whether a client is to use TLS; None where it has to find out, which a command cannot say."""
    offered, policy = profile.handshake.tls, profile.tls_policy
    if policy == "allow" and offered == "optional" and profile.faults:
        return None
    return (policy != "off" and offered != "off") or policy == "require"


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
