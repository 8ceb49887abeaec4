"""Asks for exports without opening one: NBD_OPT_LIST and NBD_OPT_INFO."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from fakenbd.client.channel import Channel, Timeouts
from fakenbd.client.export_info import ExportInfo, Listed
from fakenbd.client.negotiation import Negotiation
from fakenbd.client.noncompliance import Noncompliance, Tolerance
from fakenbd.client.target import Settings, Target, begin
from fakenbd.client.tls import TLS
from fakenbd.errors import OptionRefusedError

__all__ = ["describe_export", "list_export_infos", "list_exports"]


async def list_exports(target: Target, **options: Any) -> tuple[Listed, ...]:
    """The exports that a server lists. Raises OptionRefusedError where it refuses, or has no
    options.

    `options` are those of `Client.connect` for the handshake: timeout, tolerance, tls.
    """
    async with _negotiating(target, **options) as (channel, negotiation):
        return await channel.perform(negotiation.list_exports())


async def list_export_infos(
    target: Target, *, notes: list[Noncompliance] | None = None, **options: Any
) -> tuple[tuple[Listed, ExportInfo | str], ...]:
    """The exports that a server lists, each with its information or the refusal of it.

    The breaches that were tolerated are added to `notes`.
    """
    async with _negotiating(target, notes=notes, **options) as (channel, negotiation):
        found: list[tuple[Listed, ExportInfo | str]] = []
        for listed in await channel.perform(negotiation.list_exports()):
            try:
                export_info: ExportInfo | str = await _describe(channel, negotiation, listed.name)
            except OptionRefusedError as error:
                export_info = str(error)
            found.append((listed, export_info))
        return tuple(found)


async def describe_export(
    target: Target, *, export: str | None = None, **options: Any
) -> ExportInfo:
    """The information on one export, with its metadata contexts, without opening it."""
    async with _negotiating(target, export=export, **options) as (channel, negotiation):
        return await _describe(channel, negotiation, negotiation.requested.export)


async def _describe(channel: Channel, negotiation: Negotiation, export: str) -> ExportInfo:
    export_info = await channel.perform(negotiation.info(export))
    contexts = await channel.perform(negotiation.list_contexts(export))
    return attrs.evolve(export_info, contexts=contexts)


@asynccontextmanager
async def _negotiating(
    target: Target,
    *,
    export: str | None = None,
    timeout: float | Timeouts | None = None,
    tolerance: Tolerance = "tolerant",
    tls: TLS | None = None,
    notes: list[Noncompliance] | None = None,
) -> AsyncIterator[tuple[Channel, Negotiation]]:
    """A session in option negotiation, which ends with NBD_OPT_ABORT."""
    settings = Settings(target, export, (), tolerance, Timeouts.given(timeout), tls)
    channel, negotiation = await begin(settings)
    try:
        await channel.perform(negotiation.begin())
        if not negotiation.negotiating:
            raise OptionRefusedError(
                "the server knows no options, so it cannot be asked what it has"
            )
        yield channel, negotiation
    except BaseException as error:
        await channel.leave(negotiation, error)
        raise
    finally:
        if notes is not None:
            notes += negotiation.notes.kept
    await channel.leave(negotiation)
