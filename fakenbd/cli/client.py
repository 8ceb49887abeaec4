"""The verbs of the reference client: `fakenbd info`, `list`, `map`, `copy`."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import trio
from cyclopts import Parameter
from cyclopts.validators import Number

from fakenbd.cli.client_options import ClientOptions
from fakenbd.client import (
    BlockDevice,
    ExportInfo,
    Run,
    copy,
    list_export_infos,
    map_export,
    qemu_json,
)
from fakenbd.errors import ClientError, ProtocolError
from fakenbd.protocol.constants import State, TransmissionFlag, flag_names
from fakenbd.protocol.text import escaped
from fakenbd.protocol.uri import Uri

__all__ = ["copy_disk", "info", "list_all", "show_map"]

_Target = Annotated[str, Parameter(help="The URI of an export, such as nbd://localhost/disk.")]
_Json = Annotated[bool, Parameter(help="Print JSON.")]


def show_map(
    uri: _Target,
    /,
    *,
    context: Annotated[
        str,
        Parameter(help="The metadata context to show.", metavar="CONTEXT", show_default=True),
    ] = "base:allocation",
    json: Annotated[bool, Parameter(help="Print JSON as qemu-img map does.")] = False,
    options: ClientOptions | None = None,
) -> int:
    """Show which parts of an export hold data, and which are holes."""
    runs: list[Run] = []
    try:
        trio.run(_map, uri, context, options or ClientOptions(), runs)
    except (ClientError, ProtocolError) as error:
        if not runs:
            raise
        _print_map(runs, context, json=json)
        end = runs[-1].start + runs[-1].length
        raise ClientError(f"nothing is known from byte {end} on: {error}") from error
    _print_map(runs, context, json=json)
    return 0


async def _map(uri: str, context: str, options: ClientOptions, runs: list[Run]) -> None:
    async with options.connect(uri, (context,)) as client:
        if client.contexts or context != "base:allocation":
            await map_export(client, context=context, runs=runs)
        elif client.size:
            # Without block status everything is reported as data.
            runs.append(Run(0, client.size, 0))


def _print_map(runs: list[Run], context: str, *, json: bool) -> None:
    if json:
        print(qemu_json(runs), end="")
        return
    words = _allocation if context == "base:allocation" else hex
    for run in runs:
        print(f"{run.start:>15} {run.length:>15}  {run.flags:>3}  {words(run.flags)}")


def _allocation(flags: int) -> str:
    known = {0: "data", 1: "hole", 2: "zero", 3: "hole,zero"}[flags & (State.HOLE | State.ZERO)]
    return known + (f",{flags & ~3:#x}" if flags & ~3 else "")


def info(uri: _Target, /, *, json: _Json = False, options: ClientOptions | None = None) -> int:
    """Show export information."""
    facts = trio.run(_facts, uri, options or ClientOptions())
    if json:
        print(json_format.dumps(facts, indent=1, ensure_ascii=False))
    else:
        _show(facts)
    return 0


async def _facts(uri: str, options: ClientOptions) -> dict[str, Any]:
    async with options.connect(uri) as client:
        replies = "structured" if client.structured else "simple"
        return {
            "export": client.export,
            "size": client.size,
            "style": client.style,
            "replies": "extended" if client.extended else replies,
            "tls": client.tls,
            **_advertised(client),
            "contexts": list(client.contexts),
        }


def _advertised(export_info: ExportInfo | BlockDevice) -> dict[str, Any]:
    """The information on an export besides name and size."""
    sizes = export_info.block_size
    return {
        "flags": flag_names(TransmissionFlag, export_info.flags).split("|"),
        "minimum block": sizes and sizes.minimum,
        "preferred block": sizes and sizes.preferred,
        "maximum payload": sizes and sizes.maximum,
        "name": export_info.canonical_name,
        "description": export_info.description,
    }


def list_all(uri: _Target, /, *, json: _Json = False, options: ClientOptions | None = None) -> int:
    """List the exports of a server, with the information on each."""
    found = trio.run(_listed, uri, options or ClientOptions())
    if json:
        print(json_format.dumps(found, indent=1, ensure_ascii=False))
        return 0
    for place, facts in enumerate(found):
        if place:
            print()
        _show(facts)
    return 0


async def _listed(uri: str, options: ClientOptions) -> list[dict[str, Any]]:
    target = Uri.parse(uri)
    found: list[dict[str, Any]] = []
    settings = {**options.settings(target), "tls": options.security(target)}
    with options.noting() as notes:
        ask = partial(list_export_infos, target, notes=notes, **settings)
        policy = options.policy
        offers = await (ask() if policy is None else policy.persist(ask))
    for listed, export_info in offers:
        if isinstance(export_info, str):
            found.append({"export": listed.name, "refused": export_info})
            continue
        facts = {**_advertised(export_info), "contexts": list(export_info.contexts)}
        facts["description"] = facts["description"] or listed.description or None
        found.append({"export": listed.name, "size": export_info.size, **facts})
    return found


def _show(facts: Mapping[str, Any]) -> None:
    width = max(map(len, facts)) + 1
    for name, value in facts.items():
        print(f"{name + ':':<{width}}  {escaped(_shown(value))}")


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not advertised" if value is None else str(value) or '""'


def copy_disk(
    source: Annotated[str, Parameter(help="A URI, or a file.")],
    destination: Annotated[str, Parameter(help="A URI, or a file.")],
    /,
    *,
    verify: Annotated[bool, Parameter(help="Read both again and compare.")] = False,
    in_flight: Annotated[
        int,
        Parameter(
            help="Number of pieces in flight.",
            metavar="N",
            show_default=True,
            validator=Number(gte=1),
        ),
    ] = 4,
    connections: Annotated[
        int,
        Parameter(
            help="Number of connections, if the server allows several.",
            metavar="N",
            show_default=True,
            validator=Number(gte=1),
        ),
    ] = 4,
    no_sparse: Annotated[bool, Parameter(help="Transfer zeroes as data.")] = False,
    options: ClientOptions | None = None,
) -> int:
    """Copy an export or a file, whole, to an export or a file."""
    options = options or ClientOptions()
    remote = [Uri.parse(place) for place in (source, destination) if "://" in place]
    if not remote:
        raise ClientError(f"neither {source} nor {destination} is the URI of an export")
    settings = options.settings(*remote)
    title = f"{Path(source).name or source} → {destination}"
    with options.noting() as notes, _progress(title) as progress:
        copied = trio.run(
            lambda: copy(
                source,
                destination,
                verify=verify,
                in_flight=in_flight,
                connections=connections,
                sparse=not no_sparse,
                policy=options.policy,
                progress=progress,
                tls=options.security,
                notes=notes,
                **settings,
            )
        )
    if sys.stderr.isatty():
        print(f"{copied.size} bytes, {copied.transferred} of them transferred", file=sys.stderr)
    return 0


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar on a terminal; None elsewhere, without importing rich."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    with Progress(
        TextColumn(escaped(title)),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("copy", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
