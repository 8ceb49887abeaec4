"""Rude clients and their polite twins: sizes, requests in flight, and leaving transmission."""

from __future__ import annotations

from fakenbd.protocol.constants import Command, TransmissionFlag
from fakenbd.protocol.messages import InfoBlockSize, Raw
from tests.obligations.stage import (
    DISC,
    LEAVE,
    Leave,
    Meanwhile,
    Part,
    Setting,
    Shutdown,
    Together,
    Twins,
    command,
    go,
    read,
    session,
    write,
)

_MIB = 1 << 20

_SIMPLE = (go(),)
_READ = session(read())
_BLOCKS = Setting(block_size=InfoBlockSize(4096, 4096, 65536))
_NO_BLOCKS = Setting(size=1 << 30, block_size=None)
_RESIZABLE = Setting(with_flags=TransmissionFlag.SEND_RESIZE)


def _without(*flags: TransmissionFlag) -> Setting:
    return Setting(without_flags=sum(flags))


TRAFFIC_TWINS = (
    Twins(
        "C-72",
        session(Together((read(), read(4096)))),
        session(Together((read(), read(4096, cookie=2))), read()),
        "NBD_CMD_READ has the cookie 0x1 of a request still in flight",
    ),
    Twins(
        "C-88",
        session(read(_MIB - 512)),
        session(read(_MIB - 4096)),
        "NBD_CMD_READ of 4096 bytes at offset 1048064 ends at 1052160, past the export's "
        "size of 1048576",
    ),
    Twins(
        "C-88",
        session(command(Command.TRIM, (1 << 64) - 4096, 4096)),
        session(command(Command.TRIM, _MIB - 4096, 4096)),
        "NBD_CMD_TRIM of 4096 bytes at offset 18446744073709547520 ends at "
        "18446744073709551616, past the export's size of 1048576",
    ),
    Twins(
        "C-89",
        session(read(512)),
        session(read(4096)),
        "NBD_CMD_READ of 4096 bytes at offset 512 is not aligned to the minimum block of "
        "4096 bytes",
        _BLOCKS,
    ),
    Twins(
        "C-89",
        session(read(512), opening=(go(infos=()),)),
        session(read(4096)),
        "NBD_CMD_READ of 4096 bytes at offset 512 is not aligned to the minimum block of "
        "4096 bytes, which the client did not ask for",
        _BLOCKS,
        level="advisory",
        also=("C-33",),
    ),
    Twins(
        "C-92",
        session(write(0, 69632)),
        session(write(0, 65536), read(0, 69632)),
        "NBD_CMD_WRITE of 69632 bytes at offset 0 is longer than the maximum payload of "
        "65536 bytes",
        _BLOCKS,
    ),
    Twins(
        "C-92",
        session(read(0, 69632), opening=_SIMPLE),
        session(read(0, 65536), opening=_SIMPLE),
        "NBD_CMD_READ of 69632 bytes at offset 0 is longer than the maximum payload of 65536 bytes",
        _BLOCKS,
    ),
    Twins(
        "C-92",
        session(write(0, 69632), opening=(go(infos=()),)),
        session(write(0, 65536)),
        "NBD_CMD_WRITE of 69632 bytes at offset 0 is longer than the maximum payload of "
        "65536 bytes, which the client did not ask for",
        _BLOCKS,
        level="advisory",
        also=("C-33",),
    ),
    Twins(
        "C-93",
        session(read(512, 100)),
        session(read(512, 489)),
        "NBD_CMD_READ of 100 bytes at offset 512 is not a multiple of 512 bytes, and no "
        "block size was agreed",
        Setting(size=1001, block_size=None),
    ),
    Twins(
        "C-94",
        session(read(0, 33 * _MIB)),
        session(read(0, 32 * _MIB)),
        "NBD_CMD_READ of 34603008 bytes at offset 0 is longer than 32 MiB, and no block "
        "size was agreed",
        _NO_BLOCKS,
    ),
    Twins("C-95", session(read(0, 0)), _READ, "NBD_CMD_READ at offset 0 has length 0"),
    Twins("C-96", session(write(0, 0)), _READ, "NBD_CMD_WRITE at offset 0 has length 0"),
    Twins("C-97", session(command(Command.TRIM)), _READ, "NBD_CMD_TRIM at offset 0 has length 0"),
    Twins(
        "C-98",
        session(command(Command.WRITE_ZEROES)),
        _READ,
        "NBD_CMD_WRITE_ZEROES at offset 0 has length 0",
    ),
    Twins(
        "C-99",
        session(command(Command.BLOCK_STATUS)),
        _READ,
        "NBD_CMD_BLOCK_STATUS at offset 0 has length 0",
    ),
    Twins(
        "C-100",
        session(write(), Raw(bytes(40))),
        session(write(), read()),
        "after the payload of NBD_CMD_WRITE came 0000000000000000, which is no request",
    ),
    Twins(
        "C-100",
        (*session()[:-2], Part(write(), 1000), LEAVE),
        session(write()),
        "the client left before it had sent the whole payload",
    ),
    Twins(
        "C-102",
        session(read(), Meanwhile(session(read())[:-2])),
        session(read(), Meanwhile(session()[:-2])),
        "the client uses 2 connections to export '' without NBD_FLAG_CAN_MULTI_CONN in "
        "the transmission flags",
        _without(TransmissionFlag.CAN_MULTI_CONN),
    ),
    Twins(
        "C-111",
        session(Together((read(_MIB - 4096), command(Command.RESIZE, _MIB // 2, cookie=2)))),
        session(Together((read(0), command(Command.RESIZE, _MIB // 2, cookie=2))), read()),
        "NBD_CMD_RESIZE came with requests in flight in the area it changes: 1",
        _RESIZABLE,
    ),
    Twins(
        "C-111",
        session(Together((command(Command.RESIZE, _MIB // 2), read(_MIB - 4096, cookie=2)))),
        session(Together((command(Command.RESIZE, _MIB // 2), read(cookie=2)))),
        "NBD_CMD_READ came for an area that NBD_CMD_RESIZE is changing",
        _RESIZABLE,
    ),
    Twins(
        "C-127",
        session(Shutdown(), read(), read()),
        session(Shutdown(), read()),
        "NBD_CMD_READ came after NBD_ESHUTDOWN, not NBD_CMD_DISC",
    ),
    Twins(
        "C-127",
        (*session(Shutdown(), read())[:-2], LEAVE),
        session(Shutdown(), Together((read(), read(cookie=2)))),
        "the client left after NBD_ESHUTDOWN without NBD_CMD_DISC",
    ),
    Twins(
        "C-128",
        (*session()[:-2], Leave("RST")),
        _READ,
        "the client left transmission without NBD_CMD_DISC",
    ),
    Twins(
        "C-129",
        (*session()[:-2], command(Command.DISC, 0, 4096), LEAVE),
        _READ,
        "NBD_CMD_DISC has offset 0 and length 4096; both must be 0",
    ),
    Twins(
        "C-130",
        (*session()[:-2], Together((DISC, read())), LEAVE),
        _READ,
        "bytes came after NBD_CMD_DISC",
    ),
    Twins(
        "C-131",
        (*session()[:-2], Together((read(), DISC)), LEAVE),
        _READ,
        "NBD_CMD_DISC came with requests unanswered: 1",
        level="advisory",
    ),
)
