"""`fakenbd run`: a server for one captive client, which is started once the server listens.

The client gets the address in its environment and by placeholders in its arguments. Its exit status
is that of `run`; for a client killed by a signal it is 128 and the signal's number, as in a shell.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Annotated

import trio
from cyclopts import Parameter

from fakenbd.check.placeholders import environment, fill, server_values
from fakenbd.cli.options import ServerOptions, die_with_parent
from fakenbd.errors import ProfileError, ServeError
from fakenbd.profile import Profile
from fakenbd.server import Server, open_server

__all__ = ["run"]


def run(
    profile: Annotated[str, Parameter(help="The profile.")],
    /,
    *command: Annotated[
        str,
        Parameter(
            help="The client and its arguments, with placeholders.",
            allow_leading_hyphen=True,
        ),
    ],
    options: ServerOptions | None = None,
) -> int:
    """Run a command against a profile and return its exit status."""
    options = options or ServerOptions()
    if options.exit_with_parent:
        die_with_parent()
    if not command:
        raise ProfileError("run", ["expected a client to run after --"])
    return trio.run(_run, options.chosen(profile), command, options)


async def _run(profile: Profile, command: tuple[str, ...], options: ServerOptions) -> int:
    # The files are closed after the server, to record how its last connections end.
    with ExitStack() as files:
        async with open_server(profile, **options.server_options()) as server:
            files.enter_context(options.recording(server))
            values = server_values(server)
            status = await _client([fill(word, values) for word in command], values)
            await server.settle()
    for sentence in (*_violations(server), *server.unfired()):
        print(f"fakenbd: {sentence}", file=sys.stderr)
    for error in server.errors:
        print(f"fakenbd: the server failed: {error!r}", file=sys.stderr)
    return 3 if server.errors else status


async def _client(command: list[str], values: Mapping[str, str]) -> int:
    fields = os.environ | environment(values)
    try:
        process = await trio.lowlevel.open_process(command, env=fields)
    except OSError as error:
        raise ServeError(f"cannot run {command[0]}: {error.strerror}") from error
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_signals, process)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
        nursery.cancel_scope.cancel()
    return 128 - status if status < 0 else status


async def _pass_signals(process: subprocess.Popen[bytes] | trio.Process) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for number in signals:
            process.send_signal(number)


def _violations(server: Server) -> list[str]:
    from fakenbd.journal import Violated

    return [
        f"the client broke {entry.rule} ({entry.level}): {entry.sentence}"
        for entry in server.journal
        if isinstance(entry, Violated)
    ]
