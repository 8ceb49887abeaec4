"""`fakenbd serve`: a server for clients that are started elsewhere.

It prints one line of JSON with the address once it is listening, except on a socket that a
supervisor handed over (LISTEN_FDS).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import trio
from cyclopts import Parameter

from fakenbd.cli.options import ServerOptions, die_with_parent
from fakenbd.errors import ProfileError, ServeError
from fakenbd.profile import Profile
from fakenbd.server import Server, open_server
from fakenbd.server.endpoint import activated

__all__ = ["serve"]


def serve(
    profile: Annotated[
        str | None, Parameter(help="The profile; without one, an export of 1 MiB without faults.")
    ] = None,
    /,
    *,
    every: Annotated[
        bool,
        Parameter(name="--all", help="Serve all profiles; the export name selects one."),
    ] = False,
    stdio: Annotated[
        bool, Parameter(help="Serve one client on standard input and output.")
    ] = False,
    ready_file: Annotated[
        Path | None,
        Parameter(help="Write the line of JSON to this file, too.", metavar="FILE"),
    ] = None,
    options: ServerOptions | None = None,
) -> int:
    """Serve a profile until SIGINT or SIGTERM."""
    options = options or ServerOptions()
    if options.exit_with_parent:
        die_with_parent()
    _check(profile, every, stdio, ready_file, options)
    if profile is not None:
        chosen = options.chosen(profile)
    else:
        chosen = Profile.of(id="default")
        if not every:
            chosen = options.suited(chosen)
    trio.run(_serve, chosen, every, stdio, ready_file, options)
    return 0


def _check(
    profile: str | None, every: bool, stdio: bool, ready_file: Path | None, options: ServerOptions
) -> None:
    """Raise ProfileError for options that contradict each other."""
    for one, other, both in (
        ("a profile", "--all", profile is not None and every),
        ("--export", "--all", options.export is not None and every),
        ("--stdio", "--tcp", stdio and options.tcp is not None),
        ("--stdio", "--unix", stdio and options.unix is not None),
        ("--stdio", "--ready-file", stdio and ready_file is not None),
    ):
        if both:
            raise ProfileError("serve", [f"expected either {one} or {other}, got both"])


async def _serve(
    profile: Profile, every: bool, stdio: bool, ready_file: Path | None, options: ServerOptions
) -> None:
    endpoint = activated()
    settings = options.server_options(endpoint)
    if every:
        from fakenbd.profile import find, library

        found = [find(name) for name in library()]
        settings["every"] = [each for each in found if each.picked_by_name]
        # The server serves even if standard error is closed.
        with suppress(OSError):
            print(_left_out(found), file=sys.stderr, flush=True)
    if stdio:
        settings |= {"endpoints": []}
        for unused in ("tcp", "unix"):
            settings.pop(unused, None)
    async with trio.open_nursery() as nursery:
        # Clients may connect, and signals may be sent, as soon as the address is known.
        await nursery.start(_end_on_signal, nursery.cancel_scope)
        # The files are closed after the server, to record how its last connections end.
        with ExitStack() as files:
            async with open_server(profile, **settings) as server:
                files.enter_context(options.recording(server))
                if stdio:
                    await server.serve_stream(_standard_stream())
                else:
                    if endpoint is None:
                        _announce(server, ready_file)
                    await trio.sleep_forever()
        nursery.cancel_scope.cancel()


def _left_out(profiles: list[Profile]) -> str:
    """A paragraph on the profiles that no export name can select; a whole family is one word."""
    members = Counter(each.id.partition("@")[0] for each in profiles)
    out = [each.id for each in profiles if not each.picked_by_name]
    members_out = Counter(name.partition("@")[0] for name in out)
    names = dict.fromkeys(
        family if members[family] == members_out[family] else name
        for name in out
        for family in (name.partition("@")[0],)
    )
    return textwrap.fill(
        f"fakenbd: {len(out)} of {len(profiles)} profiles are left out, because an export name "
        "is not enough to select them; `fakenbd serve ID` serves one alone: " + ", ".join(names),
        100,
        break_on_hyphens=False,
    )


def _announce(server: Server, ready_file: Path | None) -> None:
    line = json.dumps(
        {
            "uri": server.uri,
            "profile": server.profile.id,
            "seed": server.seed,
            "pid": os.getpid(),
        }
    )
    if ready_file is not None:
        # By rename, so that a reader never sees half of the file.
        beside = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        try:
            beside.write_text(line + "\n")
            beside.replace(ready_file)
        except OSError as error:
            raise ServeError(f"cannot write {ready_file}: {error.strerror}") from error
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # The server continues if standard output is closed.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (as long as the process lives)


async def _end_on_signal(
    scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()
            return


def _standard_stream() -> trio.abc.Stream:
    return trio.StapledStream(trio.lowlevel.FdStream(os.dup(1)), trio.lowlevel.FdStream(os.dup(0)))
