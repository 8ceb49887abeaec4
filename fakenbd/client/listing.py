"""What a server has to offer, asked without opening anything: NBD_OPT_LIST and NBD_OPT_INFO."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs

from fakenbd.client.channel import Channel, Deadlines
from fakenbd.client.export_info import Listed, Offer
from fakenbd.client.negotiation import Negotiation
from fakenbd.client.noncompliance import Noncompliance, Tolerance
from fakenbd.client.target import Settings, Target, begin
from fakenbd.client.tls import TLS
from fakenbd.errors import RefusedError

__all__ = ["describe_export", "list_exports", "list_offers"]


async def list_exports(target: Target, **options: Any) -> tuple[Listed, ...]:
    """The exports that a server lists. RefusedError where it does not say, or cannot be asked.

    `options` are those of `Client.connect` that make sense here: timeout, tolerance, tls.
    """
    async with _haggling(target, **options) as (channel, negotiation):
        return await channel.perform(negotiation.list_exports())


async def list_offers(
    target: Target, *, notes: list[Noncompliance] | None = None, **options: Any
) -> tuple[tuple[Listed, Offer | str], ...]:
    """The exports that a server lists, and what each offers; or why it does not say.

    The breaches that were tolerated are added to `notes`.
    """
    async with _haggling(target, notes=notes, **options) as (channel, negotiation):
        found: list[tuple[Listed, Offer | str]] = []
        for listed in await channel.perform(negotiation.list_exports()):
            try:
                offer: Offer | str = await _describe(channel, negotiation, listed.name)
            except RefusedError as error:
                offer = str(error)
            found.append((listed, offer))
        return tuple(found)


async def describe_export(target: Target, *, export: str | None = None, **options: Any) -> Offer:
    """What a server offers under one name, metadata contexts included, without opening it."""
    async with _haggling(target, export=export, **options) as (channel, negotiation):
        return await _describe(channel, negotiation, negotiation.wishes.export)


async def _describe(channel: Channel, negotiation: Negotiation, export: str) -> Offer:
    offer = await channel.perform(negotiation.info(export))
    contexts = await channel.perform(negotiation.list_contexts(export))
    return attrs.evolve(offer, contexts=contexts)


@asynccontextmanager
async def _haggling(
    target: Target,
    *,
    export: str | None = None,
    timeout: float | Deadlines | None = None,
    tolerance: Tolerance = "tolerant",
    tls: TLS | None = None,
    notes: list[Noncompliance] | None = None,
) -> AsyncIterator[tuple[Channel, Negotiation]]:
    """A session between its greeting and the choice of an export; left with NBD_OPT_ABORT."""
    settings = Settings(target, export, (), tolerance, Deadlines.given(timeout), tls)
    channel, negotiation = await begin(settings)
    try:
        await channel.perform(negotiation.begin())
        if not negotiation.haggling:
            raise RefusedError("the server knows no options, so it cannot be asked what it has")
        yield channel, negotiation
    except BaseException as error:
        await channel.leave(negotiation, error)
        raise
    finally:
        if notes is not None:
            notes += negotiation.notes.kept
    await channel.leave(negotiation)
