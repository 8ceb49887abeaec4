"""Faults that the reference client cannot trigger, triggered by a client that asks for them."""

from __future__ import annotations

import pytest
import trio

from fakenbd import open_server
from fakenbd.profile import find
from fakenbd.protocol.constants import Command, Option
from fakenbd.protocol.messages import (
    Chunk,
    MetaContextQuery,
    Request,
    Status,
)
from tests.profiles.test_library import UNREACHED
from tests.server.speaker import Speaker


async def ask_for_another_map(speaker):
    await speaker.option(Option.STRUCTURED_REPLY)
    await speaker.option(Option.SET_META_CONTEXT, MetaContextQuery("other", ["base:allocation"]))
    await speaker.go()
    chunk = await speaker.reply(Request(Command.BLOCK_STATUS, 1, 0, 65536), structured=True)
    assert chunk == Chunk(1, Status(1, ((65536, 3),)), flags=1)


async def ask_for_the_right_map(speaker):
    await speaker.option(Option.STRUCTURED_REPLY)
    await speaker.option(Option.SET_META_CONTEXT, MetaContextQuery("", ["base:allocation"]))
    await speaker.go()
    chunk = await speaker.reply(Request(Command.BLOCK_STATUS, 1, 0, 65536), structured=True)
    assert chunk == Chunk(1, Status(1, ((65536, 0),)), flags=1)


RUDE = {
    "quirks/contexts-outlive-their-export": ask_for_another_map,
}


def test_none_is_forgotten():
    assert RUDE.keys() == UNREACHED.keys()


@pytest.mark.trio
@pytest.mark.parametrize("profile_id", RUDE)
async def test_a_fault_that_only_other_clients_meet(profile_id, autojump_clock):
    with trio.fail_after(60):
        await meet(profile_id)


async def meet(profile_id):
    async with open_server(find(profile_id), endpoints=()) as server:
        speaker = Speaker(server.connect())
        await speaker.greet()
        await RUDE[profile_id](speaker)
        assert server.unfired() == []


@pytest.mark.trio
async def test_a_map_that_was_asked_for_rightly_is_true():
    async with open_server(find("quirks/contexts-outlive-their-export"), endpoints=()) as server:
        speaker = Speaker(server.connect())
        await speaker.greet()
        await ask_for_the_right_map(speaker)
        assert server.fired() == 0
