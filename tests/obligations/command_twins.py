"""Rude clients and their polite twins: commands, their flags, and metadata contexts."""

from __future__ import annotations

import attrs

from fakenbd.protocol.constants import Command, CommandFlag, TransmissionFlag
from fakenbd.protocol.messages import Raw, Request
from tests.obligations.stage import (
    LEAVE,
    STARTTLS,
    STRUCTURED,
    Leave,
    Setting,
    StartTLS,
    Twins,
    command,
    extended_session,
    go,
    read,
    session,
    set_contexts,
    write,
)

_MIB = 1 << 20
_FUA, _NO_HOLE, _DF = CommandFlag.FUA, CommandFlag.NO_HOLE, CommandFlag.DF
_REQ_ONE, _FAST_ZERO = CommandFlag.REQ_ONE, CommandFlag.FAST_ZERO
_PAYLOAD_LEN = CommandFlag.PAYLOAD_LEN

_SIMPLE = (go(),)
_STRUCTURED = (STRUCTURED, go())
_READ = session(read())
_EXTENDED = Setting(extended=True, size=1 << 40)


def _without(*flags: TransmissionFlag) -> Setting:
    return Setting(without_flags=sum(flags))


def _status(length: int, *ids: int, effect: int = 4096) -> Request:
    """BLOCK_STATUS with a payload that claims `length` bytes."""
    payload = effect.to_bytes(8, "big") + b"".join(number.to_bytes(4, "big") for number in ids)
    return Request(Command.BLOCK_STATUS, 1, 0, length, _PAYLOAD_LEN, payload.ljust(length, b"\0"))


_BLOCK_STATUS = command(Command.BLOCK_STATUS, 0, 4096)

COMMAND_TWINS = (
    Twins(
        "C-45",
        session(_BLOCK_STATUS, opening=_SIMPLE),
        session(_BLOCK_STATUS),
        "NBD_CMD_BLOCK_STATUS was sent, but structured replies were not negotiated",
    ),
    Twins(
        "C-45",
        session(read(flags=_DF), opening=_SIMPLE),
        session(read(flags=_DF)),
        "NBD_CMD_READ has NBD_CMD_FLAG_DF, but structured replies were not negotiated",
    ),
    Twins(
        "C-70",
        session(Raw(b"GET / HTTP/1.1\r\n\r\n          ")),
        _READ,
        "a request begins with 47455420; it must be 25609513",
    ),
    Twins(
        "C-71",
        session(attrs.evolve(read(), extended=True)),
        _READ,
        "a request has an extended header, but compact headers are in use",
    ),
    Twins(
        "C-71",
        (*extended_session()[:-2], read(), LEAVE),
        extended_session(read()),
        "a request has a compact header, but extended headers are in use",
        _EXTENDED,
    ),
    Twins("C-73", session(command(9, 0, 512)), _READ, "NBD_CMD_(9) is not a command that NBD uses"),
    Twins(
        "C-74",
        session(read(flags=0x40)),
        _READ,
        "NBD_CMD_READ contains undefined command flags 0x40",
    ),
    Twins(
        "C-74",
        session(write(flags=_FAST_ZERO)),
        session(command(Command.WRITE_ZEROES, 0, 4096, _FAST_ZERO)),
        "NBD_CMD_WRITE has NBD_CMD_FLAG_FAST_ZERO, which is not for that command",
    ),
    Twins(
        "C-75",
        session(write(flags=_FUA)),
        session(write()),
        "NBD_CMD_WRITE has NBD_CMD_FLAG_FUA without NBD_FLAG_SEND_FUA in the transmission flags",
        _without(TransmissionFlag.SEND_FUA),
    ),
    Twins(
        "C-76",
        session(read(flags=_FUA)),
        session(write(flags=_FUA)),
        "NBD_CMD_READ has NBD_CMD_FLAG_FUA, which is not for that command",
    ),
    Twins(
        "C-77",
        session(command(Command.FLUSH)),
        _READ,
        "NBD_CMD_FLUSH was sent without NBD_FLAG_SEND_FLUSH in the transmission flags",
        _without(TransmissionFlag.SEND_FLUSH),
    ),
    Twins(
        "C-78",
        session(command(Command.FLUSH, 0, 4096)),
        session(command(Command.FLUSH)),
        "NBD_CMD_FLUSH has offset 0 and length 4096; both must be 0",
    ),
    Twins(
        "C-79",
        session(command(Command.TRIM, 0, 4096)),
        session(write()),
        "NBD_CMD_TRIM was sent without NBD_FLAG_SEND_TRIM in the transmission flags",
        _without(TransmissionFlag.SEND_TRIM),
    ),
    Twins(
        "C-80",
        session(command(Command.WRITE_ZEROES, 0, 4096)),
        session(command(Command.TRIM, 0, 4096)),
        "NBD_CMD_WRITE_ZEROES was sent without NBD_FLAG_SEND_WRITE_ZEROES in the "
        "transmission flags",
        _without(TransmissionFlag.SEND_WRITE_ZEROES, TransmissionFlag.SEND_FAST_ZERO),
    ),
    Twins(
        "C-81",
        session(command(Command.WRITE_ZEROES, 0, 4096, _FAST_ZERO)),
        session(command(Command.WRITE_ZEROES, 0, 4096, _NO_HOLE)),
        "NBD_CMD_WRITE_ZEROES has NBD_CMD_FLAG_FAST_ZERO without NBD_FLAG_SEND_FAST_ZERO "
        "in the transmission flags",
        _without(TransmissionFlag.SEND_FAST_ZERO),
    ),
    Twins(
        "C-82",
        session(read(flags=_DF)),
        _READ,
        "NBD_CMD_READ has NBD_CMD_FLAG_DF without NBD_FLAG_SEND_DF in the transmission flags",
        _without(TransmissionFlag.SEND_DF),
    ),
    Twins(
        "C-82",
        session(write(flags=_DF)),
        session(read(flags=_DF)),
        "NBD_CMD_WRITE has NBD_CMD_FLAG_DF, which is not for that command",
    ),
    Twins(
        "C-83",
        session(command(Command.CACHE, 0, 4096)),
        _READ,
        "NBD_CMD_CACHE was sent without NBD_FLAG_SEND_CACHE in the transmission flags",
        _without(TransmissionFlag.SEND_CACHE),
    ),
    Twins(
        "C-83",
        session(command(Command.CACHE, 0, 4096, _FUA)),
        _READ,
        "NBD_CMD_CACHE was sent without NBD_FLAG_SEND_CACHE in the transmission flags, "
        "and with NBD_CMD_FLAG_FUA",
        _without(TransmissionFlag.SEND_CACHE),
        level="MUST",
        also=("C-76",),
    ),
    Twins(
        "C-84",
        session(_BLOCK_STATUS, opening=_STRUCTURED),
        session(_BLOCK_STATUS),
        "NBD_CMD_BLOCK_STATUS was sent with no metadata context selected",
    ),
    Twins(
        "C-85",
        session(_BLOCK_STATUS, opening=(STRUCTURED, set_contexts(name="other"), go())),
        session(_BLOCK_STATUS, opening=(STRUCTURED, set_contexts(name="other"), go("other"))),
        "NBD_CMD_BLOCK_STATUS was sent to export '', but the metadata contexts were "
        "selected for 'other'",
        Setting(exports=("", "other")),
    ),
    Twins(
        "C-86",
        session(
            _BLOCK_STATUS,
            opening=(STRUCTURED, set_contexts(), set_contexts(name="missing"), go()),
        ),
        session(
            _BLOCK_STATUS,
            opening=(STRUCTURED, set_contexts(name="missing"), set_contexts(), go()),
        ),
        "NBD_CMD_BLOCK_STATUS was sent although the last NBD_OPT_SET_META_CONTEXT failed",
    ),
    Twins(
        "C-86",
        session(
            _BLOCK_STATUS,
            opening=(STRUCTURED, set_contexts(), STARTTLS, StartTLS(), STRUCTURED, go()),
            end=Leave("TLS close"),
        ),
        session(
            _BLOCK_STATUS,
            opening=(STARTTLS, StartTLS(), STRUCTURED, set_contexts(), go()),
            end=Leave("TLS close"),
        ),
        "NBD_CMD_BLOCK_STATUS was sent although the metadata contexts were selected "
        "before TLS began",
        Setting(tls=True),
        also=("C-55",),
    ),
    Twins(
        "C-87",
        session(command(Command.RESIZE, 2 * _MIB)),
        _READ,
        "NBD_CMD_RESIZE was sent without NBD_FLAG_SEND_RESIZE in the transmission flags",
    ),
    Twins(
        "C-104",
        session(write()),
        _READ,
        "NBD_CMD_WRITE was sent to a read-only export",
        Setting(with_flags=TransmissionFlag.READ_ONLY),
    ),
    Twins(
        "C-105",
        session(read(flags=_PAYLOAD_LEN)),
        _READ,
        "NBD_CMD_READ has NBD_CMD_FLAG_PAYLOAD_LEN without extended headers",
    ),
    Twins(
        "C-106",
        extended_session(write(flags=_PAYLOAD_LEN)),
        extended_session(write()),
        "NBD_CMD_WRITE lacks NBD_CMD_FLAG_PAYLOAD_LEN, which it must have",
        _EXTENDED,
    ),
    Twins(
        "C-106",
        extended_session(Request(Command.TRIM, 1, 0, 512, _PAYLOAD_LEN, bytes(512))),
        extended_session(command(Command.TRIM, 0, 4096)),
        "NBD_CMD_TRIM has NBD_CMD_FLAG_PAYLOAD_LEN, but no form with a payload",
        _EXTENDED,
    ),
    Twins(
        "C-107",
        extended_session(_status(12, 1)),
        extended_session(_BLOCK_STATUS),
        "NBD_CMD_BLOCK_STATUS has a payload without NBD_FLAG_BLOCK_STATUS_PAYLOAD in the "
        "transmission flags",
        attrs.evolve(_EXTENDED, without_flags=TransmissionFlag.BLOCK_STATUS_PAYLOAD),
        level="SHOULD",
    ),
    Twins(
        "C-107",
        extended_session(_status(13, 1)),
        extended_session(_status(12, 1)),
        "NBD_CMD_BLOCK_STATUS has a payload of 13 bytes; it must be 8 bytes and 4 for "
        "each context id",
        _EXTENDED,
        level="MUST",
    ),
    Twins(
        "C-107",
        extended_session(_status(12, 7)),
        extended_session(_status(8)),
        "NBD_CMD_BLOCK_STATUS names context ids that were not selected: 7",
        _EXTENDED,
        level="MUST",
    ),
    Twins(
        "C-107",
        extended_session(_status(16, 1, 1)),
        extended_session(_status(12, 1)),
        "NBD_CMD_BLOCK_STATUS names a context id twice",
        _EXTENDED,
        level="MUST",
    ),
    Twins(
        "C-108",
        extended_session(read(0, 1 << 32)),
        extended_session(read(0, 1 << 25)),
        "NBD_CMD_READ of 4294967296 bytes at offset 0 is longer than 2^32 - 1",
        _EXTENDED,
    ),
    Twins(
        "C-109",
        session(write(flags=_NO_HOLE)),
        session(command(Command.WRITE_ZEROES, 0, 4096, _NO_HOLE)),
        "NBD_CMD_WRITE has NBD_CMD_FLAG_NO_HOLE, which is not for that command",
    ),
    Twins(
        "C-109",
        session(read(flags=_REQ_ONE)),
        session(command(Command.BLOCK_STATUS, 0, 4096, _REQ_ONE)),
        "NBD_CMD_READ has NBD_CMD_FLAG_REQ_ONE, which is not for that command",
    ),
)
