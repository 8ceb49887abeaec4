"""One operation of an external client: its server, its process, and its result.

Each operation gets a fresh server, so that the counts of a fault do not depend on earlier
operations, and a scratch folder, which is deleted with all its files.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import attrs

from fakenbd.check.adapters import Adapter, OperationCommand
from fakenbd.check.operation_result import OperationResult
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.placeholders import environment, fill, server_values
from fakenbd.check.process import Limits, run
from fakenbd.check.result_checks import Job, mismatch
from fakenbd.check.sample_ranges import MAPPED, WHOLE
from fakenbd.check.storm_guard import StormGuard
from fakenbd.check.wire_summary import wire_summary
from fakenbd.export import Export, RandomBytes
from fakenbd.profile import Profile
from fakenbd.protocol.uri import Uri
from fakenbd.server import Server, background_server

__all__ = ["perform"]

PART: Final = 1 << 16
"""Bytes that are zeroed or trimmed, and that are read of an export too large to be read whole."""

_WHOLE_OPERATIONS: Final = frozenset(("read", "copy", "write", "map", "reconnect"))
_MAPS: Final = frozenset(("qemu-map", "nbdinfo-map"))
_MAP: Final = 1 << 28
"""Bytes of output that are kept of a map, which must be complete to be read."""

_UNDECIDED: Final = "a command insists on TLS or does without, and here it depends"
_SETTLE: Final = 0.3
"""Seconds within which the server has to notice the client's end."""


def perform(
    profile: Profile,
    adapter: Adapter,
    operation: str,
    options: Mapping[str, Any],
    limits: Limits,
) -> OperationResult:
    """Have a client perform one operation against a server of the profile.

    `options` are the server's. Raises ServeError where the server cannot start.
    """
    operation_command = adapter.command_for(operation)
    incapable = operation_command.missing()
    tls = _secured(profile)
    if not incapable and tls is None:
        incapable = _UNDECIDED
    elif not incapable and tls and not operation_command.tls:
        incapable = f"{adapter.name} has no command for TLS"
    if incapable:
        return OperationResult(operation, incapable=incapable)
    where = {"unix": "-"} if adapter.transport == "unix" and not tls else {}
    with background_server(profile, **options, **where) as background:
        result = _perform(
            background.server, profile, operation_command, operation, limits, tls=bool(tls)
        )
    if result.incapable or result.harness_error:
        return result
    return wire_summary(result, background.server, profile)


def _perform(
    server: Server,
    profile: Profile,
    operation_command: OperationCommand,
    operation: str,
    limits: Limits,
    *,
    tls: bool,
) -> OperationResult:
    """Run the client, wait until the server has noticed its end, and check the result."""
    export = server.export
    command = _command(operation_command, export, tls=tls)
    if not command:
        return OperationResult(operation, incapable=_too_large(export))
    storm_guard = StormGuard(export.size)
    server.journal.attach(storm_guard)
    with tempfile.TemporaryDirectory(prefix="fakenbd-check-", ignore_cleanup_errors=True) as name:
        job = _job(Path(name), profile, export, operation, operation_command)
        values = _values(server, job, tls=tls)
        argv = tuple(fill(word, values) for word in command)
        try:
            result = run(
                argv,
                Path(name),
                attrs.evolve(limits, output=_MAP) if operation_command.check in _MAPS else limits,
                environment=environment(values),
                storming=lambda: storm_guard.storm,
            )
        except OSError as error:
            harness_error = f"{argv[0]} cannot be started: {error.strerror}"
            return OperationResult(operation, harness_error=harness_error, command=argv)
        storm_guard.wait_alone(_SETTLE)
        problem = ""
        if result.succeeded:
            advertised = frozenset(storm_guard.sizes)
            problem = mismatch(
                operation_command.check, attrs.evolve(job, advertised=advertised), result.output
            )
    return attrs.evolve(result, operation=operation, wrong=problem)


def _command(operation_command: OperationCommand, export: Export, *, tls: bool) -> tuple[str, ...]:
    """The command for an export of that size; () if there is none."""
    command = operation_command.tls if tls else operation_command.command
    if operation_command.check in _MAPS:
        return command if export.size <= MAPPED else ()
    if operation_command.check in ("file", "input") and export.size > WHOLE:
        return operation_command.large
    return command


def _secured(profile: Profile) -> bool | None:
    """Whether a client is to use TLS; None where both must be tried, which no command can."""
    offered, policy = profile.handshake.tls, profile.tls_policy
    if policy == "allow" and offered == "optional" and profile.faults:
        return None
    return (policy != "off" and offered != "off") or policy == "require"


def _too_large(export: Export) -> str:
    return f"an export of {export.size} bytes is more than its command can take whole"


# --- the operation -----------------------------------------------------------------------------


def _job(
    folder: Path,
    profile: Profile,
    export: Export,
    operation: str,
    operation_command: OperationCommand,
) -> Job:
    blocks = export.block_size
    unit = max(1, blocks.minimum) if blocks is not None else 1
    whole = operation in _WHOLE_OPERATIONS and export.size <= WHOLE
    length = export.size if whole or operation == "map" else min(PART, export.size)
    if not whole and length > unit:
        length -= length % unit
    job = Job(GroundTruth.of(profile, export), 0, length, folder / "input", folder / "output")
    if operation_command.check == "input" or any(
        "{input}" in word for word in operation_command.command
    ):
        with job.input.open("wb") as file:
            file.write(RandomBytes("what the client is to write").read(0, length))
    if operation_command.check == "trim":
        job = attrs.evolve(job, before=bytes(export.read(0, length)))
    return job


def _values(server: Server, job: Job, *, tls: bool) -> dict[str, str]:
    """The values of a command's placeholders."""
    return {
        **server_values(server),
        "uri": str(attrs.evolve(Uri.parse(server.uri), tls=tls)),
        "offset": str(job.offset),
        "length": str(job.length),
        "input": str(job.input),
        "output": str(job.output),
    }
