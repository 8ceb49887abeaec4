"""The exercise sees what a client takes for good, what it cannot do, and that it does not end."""

from __future__ import annotations

import pytest
import trio

from fakenbd import open_server
from fakenbd.check.oracle import GroundTruth
from fakenbd.check.workload import run_workload
from fakenbd.export import Export, Zeros
from fakenbd.profile import Profile, find
from fakenbd.profile.profile import OPERATIONS

SIZE = 1 << 20


def another(**options) -> GroundTruth:
    """The truth about an export that is not the one served."""
    return GroundTruth(Export(size=SIZE, **options))


async def perform(operation, ground_truth=None, fault=None, **options):
    """The outcome of one operation in words, and the server's journal."""
    async with open_server(endpoints=(), size=SIZE, **options) as server:

        async def connect() -> trio.abc.Stream:
            return server.connect()

        if fault is not None:
            fault(server)
        outcome = await run_workload(operation, connect, ground_truth or GroundTruth(server.export))
        return outcome.output, server.journal


@pytest.mark.trio
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_correct_server(operation, autojump_clock):
    assert (await perform(operation))[0] == f"{operation} succeeded"


# operation, the assumed ground truth, the result
WRONG = {
    "read": "read wrong-data: byte 0 is 0xbe, not 0x00",
    "copy": "copy wrong-data: byte 0 is 0xbe, not 0x00",
    "cache": "cache wrong-data: byte 0 is 0xbe, not 0x00",
    "map": "map wrong-data: the map has flags 0x0 for 0+1048576, not 0x3",
    "write": "write wrong-data: what was written is not there: byte 0 is 0x55, not 0x00",
    "reconnect": "reconnect wrong-data: the map has flags 0x0 for 0+1048576, not 0x3",
}


@pytest.mark.trio
@pytest.mark.parametrize("operation", WRONG)
async def test_what_is_taken_for_good_and_is_not(operation, autojump_clock):
    outcome, _ = await perform(operation, another(content=Zeros()))
    assert outcome == WRONG[operation]


@pytest.mark.trio
async def test_zeroes_that_are_none(autojump_clock):
    outcome, _ = await perform("zero", another())
    assert outcome == "zero wrong-data: what was written is not there: byte 0 is 0x00, not 0xbe"


@pytest.mark.trio
async def test_a_bit_flipped_in_data(autojump_clock):
    def flip(server):
        server.on("read", nth=3).corrupt(-1, xor="80")

    outcome, _ = await perform("read", fault=flip)
    assert outcome == "read wrong-data: byte 528383 is 0x2a, not 0xaa"


def test_what_no_client_can_see():
    flipped = Profile.of(rules=["S-169"])
    assert GroundTruth.of(flipped, Export()) != GroundTruth(Export())
    assert GroundTruth.of(flipped, Export(size=SIZE, content=Zeros())).wrong_data(0, b"\1") == ""


@pytest.mark.trio
async def test_an_error_is_noted_and_the_work_goes_on(autojump_clock):
    def fail(server):
        server.on("read", nth=2).error("EIO", message="bad sector")

    outcome, journal = await perform("read", fault=fail)
    assert outcome == (
        "read failed (CommandError): the server answered NBD_CMD_READ of 512+512"
        " with NBD_EIO: bad sector"
    )
    assert journal.totals.commands["read"] > 10
    assert journal.totals.connections == 1


@pytest.mark.trio
async def test_content_is_compared_only_after_writes_that_succeeded(autojump_clock):
    def fail(server):
        server.on("write").error("EIO")

    outcome, journal = await perform("flush", another(), fault=fail)
    assert outcome == (
        "flush failed (CommandError): the server answered NBD_CMD_WRITE of 0+512 with NBD_EIO"
    )
    assert journal.totals.commands["write"] == 2


@pytest.mark.trio
async def test_a_copy_does_without_a_map(autojump_clock):
    def fail(server):
        server.on("block-status").error("EIO")

    assert (await perform("copy", fault=fail))[0] == "copy succeeded"


@pytest.mark.trio
async def test_what_does_not_end(autojump_clock):
    async def connect() -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError("for ever is over")

    outcome = await run_workload("read", connect, GroundTruth(Export()))
    assert outcome.output == "read hung: it did not end in time"


@pytest.mark.trio
async def test_a_bug_is_not_caught(autojump_clock):
    async def connect() -> trio.abc.Stream:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        await run_workload("read", connect, GroundTruth(Export()))


# A script of extents may always be answered with data, never with other flags than its own.
MAPS = {
    "the seed": ([(1024, 0)], ""),
    "nothing mended": ([(1000, 0), (24, 3)], ""),
    "all zeroes": ([(1024, 3)], "the map has flags 0x3 for 0+1000, not 0x0"),
    "zeroes too early": ([(512, 0), (512, 3)], "the map has flags 0x3 for 512+488, not 0x0"),
    "other flags": ([(1000, 0), (24, 1)], "the map has flags 0x1 for 1000+24, not 0x3"),
}


@pytest.mark.parametrize(("extents", "wrong"), MAPS.values(), ids=MAPS)
def test_a_map_that_a_script_tells(extents, wrong):
    profile = find("quirks/qemu-odd-tail")
    ground_truth = GroundTruth.of(profile, profile.open_exports()[0])
    lists = [type(ground_truth.export.segments(0, 1)[0])(*extent) for extent in extents]
    assert ground_truth.wrong_map("base:allocation", 0, lists) == wrong
