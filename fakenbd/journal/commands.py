"""What a client owes in a request: pure checks of one request against what was agreed.

Tables say what each command and each command flag needs; the functions below them are for rules
that no table row can hold. Nothing here remembers anything.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from fakenbd.journal.agreement import Agreement, Selection
from fakenbd.journal.violation import Violation
from fakenbd.protocol.constants import (
    MAXIMUM_PAYLOAD,
    Command,
    CommandFlag,
    TransmissionFlag,
    flag_names,
    spec_name,
)
from fakenbd.protocol.messages import Request

__all__ = ["SECTOR", "command_violations", "effect_length", "is_off_preferred"]

SECTOR: Final = 512

# Plain integers: arithmetic with members of IntFlag is ten times as slow.
_PAYLOAD_LEN: Final = int(CommandFlag.PAYLOAD_LEN)
_DF: Final = int(CommandFlag.DF)
_READ_ONLY: Final = int(TransmissionFlag.READ_ONLY)
_BLOCK_STATUS_PAYLOAD: Final = int(TransmissionFlag.BLOCK_STATUS_PAYLOAD)


class _Duty(NamedTuple):
    """What a command needs: a transmission flag, a nonzero length, a range inside the export."""

    needs: int = 0
    unoffered: str = ""
    empty: str = ""
    ranged: bool = True
    writes: bool = False


_DUTIES: Final[dict[int, _Duty]] = {
    Command.READ: _Duty(empty="C-95"),
    Command.WRITE: _Duty(empty="C-96", writes=True),
    Command.DISC: _Duty(ranged=False),
    Command.FLUSH: _Duty(int(TransmissionFlag.SEND_FLUSH), "C-77", ranged=False),
    Command.TRIM: _Duty(int(TransmissionFlag.SEND_TRIM), "C-79", "C-97", writes=True),
    Command.CACHE: _Duty(int(TransmissionFlag.SEND_CACHE), "C-83"),
    Command.WRITE_ZEROES: _Duty(
        int(TransmissionFlag.SEND_WRITE_ZEROES), "C-80", "C-98", writes=True
    ),
    Command.BLOCK_STATUS: _Duty(empty="C-99"),
    Command.RESIZE: _Duty(int(TransmissionFlag.SEND_RESIZE), "C-87", ranged=False),
}


class _FlagDuty(NamedTuple):
    """Where a command flag belongs, the rule that says so, and the transmission flag it needs."""

    commands: frozenset[int]
    misplaced: str
    needs: int = 0
    unoffered: str = ""


_FLAG_DUTIES: Final[dict[int, _FlagDuty]] = {
    int(CommandFlag.FUA): _FlagDuty(
        frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)),
        "C-76",
        int(TransmissionFlag.SEND_FUA),
        "C-75",
    ),
    int(CommandFlag.NO_HOLE): _FlagDuty(frozenset((Command.WRITE_ZEROES,)), "C-109"),
    int(CommandFlag.DF): _FlagDuty(
        frozenset((Command.READ,)), "C-82", int(TransmissionFlag.SEND_DF), "C-82"
    ),
    int(CommandFlag.REQ_ONE): _FlagDuty(frozenset((Command.BLOCK_STATUS,)), "C-109"),
    int(CommandFlag.FAST_ZERO): _FlagDuty(
        frozenset((Command.WRITE_ZEROES,)), "C-74", int(TransmissionFlag.SEND_FAST_ZERO), "C-81"
    ),
}
_KNOWN_FLAGS: Final = int(sum(CommandFlag))


def command_violations(request: Request, agreed: Agreement) -> Iterator[Violation]:
    """All that is wrong with one request, whatever else is in flight."""
    duty = _DUTIES.get(request.command)
    if duty is None:
        yield Violation("C-73", f"{_name(request)} is not a command that NBD uses")  # C-73
        return
    yield from _command(request, duty, agreed)
    if request.flags:
        yield from _flags(request, agreed)
    if agreed.extended:
        yield from _extended(request, agreed)
    if request.command == Command.BLOCK_STATUS:
        yield from _block_status(request, agreed)
    if duty.ranged:
        yield from _range(request, duty, agreed)
    elif request.command in (Command.FLUSH, Command.DISC) and (request.offset or request.length):
        rule_id = "C-78" if request.command == Command.FLUSH else "C-129"
        yield Violation(
            rule_id,
            f"{_name(request)} has offset {request.offset} and length {request.length}; "
            "both must be 0",
        )


def effect_length(request: Request) -> int | None:
    """How many bytes of the export the request is about; None where its payload would tell."""
    if request.command == Command.BLOCK_STATUS and request.flags & _PAYLOAD_LEN:
        if len(request.payload) < 8:
            return None
        effect: int = struct.unpack_from(">Q", request.payload)[0]
        return effect
    return request.length


def is_off_preferred(request: Request, agreed: Agreement) -> bool:
    """Whether the request misses the preferred block; worth counting, never worth blame (C-90)."""
    duty = _DUTIES.get(request.command)
    return bool(
        duty is not None
        and duty.ranged
        and (request.offset | request.length) & (agreed.preferred - 1)
    )


def _name(request: Request) -> str:
    return spec_name(Command, request.command)


def _place(request: Request, length: int) -> str:
    return f"{_name(request)} of {length} bytes at offset {request.offset}"


def _command(request: Request, duty: _Duty, agreed: Agreement) -> Iterator[Violation]:
    if duty.needs & ~agreed.flags:  # C-77, C-79, C-80, C-83, C-87
        sentence = (
            f"{_name(request)} was sent without {flag_names(TransmissionFlag, duty.needs)} "
            "in the transmission flags"
        )
        if request.command == Command.CACHE and request.flags:
            # Historic clients send CACHE unasked; none of them sets a flag on it.
            flags = flag_names(CommandFlag, request.flags)
            yield Violation(duty.unoffered, f"{sentence}, and with {flags}", "MUST")
        else:
            yield Violation(duty.unoffered, sentence)
    if duty.writes and agreed.flags & _READ_ONLY:  # C-104
        yield Violation("C-104", f"{_name(request)} was sent to a read-only export")


def _flags(request: Request, agreed: Agreement) -> Iterator[Violation]:
    unknown = request.flags & ~_KNOWN_FLAGS
    if unknown:  # C-74
        sentence = f"{_name(request)} contains undefined command flags {unknown:#x}"
        yield Violation("C-74", sentence)
    for flag, duty in _FLAG_DUTIES.items():
        if not request.flags & flag:
            continue
        if (
            flag == _DF
            and request.command in duty.commands
            and not (agreed.structured or agreed.extended)
        ):
            # An honest server does not offer it then; what the client skipped says more.
            yield _unstructured(_has(request, flag), agreed)
        elif duty.needs & ~agreed.flags:  # C-75, C-81, C-82
            needed = flag_names(TransmissionFlag, duty.needs)
            yield Violation(
                duty.unoffered, f"{_has(request, flag)} without {needed} in the transmission flags"
            )
        elif request.command not in duty.commands:  # C-74, C-76, C-82, C-109
            yield Violation(duty.misplaced, f"{_has(request, flag)}, which is not for that command")
    if request.flags & _PAYLOAD_LEN and not agreed.extended:  # C-105
        yield Violation("C-105", f"{_has(request, _PAYLOAD_LEN)} without extended headers")


def _has(request: Request, flag: int) -> str:
    return f"{_name(request)} has {flag_names(CommandFlag, flag)}"


def _unstructured(what: str, agreed: Agreement) -> Violation:
    if agreed.forgotten:  # C-56
        return Violation(
            "C-56", f"{what}, but structured replies were negotiated only before TLS began"
        )
    return Violation("C-45", f"{what}, but structured replies were not negotiated")  # C-45


def _extended(request: Request, agreed: Agreement) -> Iterator[Violation]:
    has_payload = bool(request.flags & _PAYLOAD_LEN)
    if request.command == Command.WRITE and not has_payload:  # C-106
        yield Violation("C-106", "NBD_CMD_WRITE lacks NBD_CMD_FLAG_PAYLOAD_LEN, which it must have")
    elif has_payload and request.command == Command.BLOCK_STATUS:
        yield from _block_status_payload(request, agreed)
    elif has_payload and request.command != Command.WRITE:  # C-106
        yield Violation(
            "C-106", f"{_name(request)} has NBD_CMD_FLAG_PAYLOAD_LEN, but no form with a payload"
        )
    if request.command == Command.READ and request.length >= 1 << 32:  # C-108
        yield Violation("C-108", f"{_place(request, request.length)} is longer than 2^32 - 1")


def _block_status_payload(request: Request, agreed: Agreement) -> Iterator[Violation]:
    if not agreed.flags & _BLOCK_STATUS_PAYLOAD:  # C-107
        yield Violation(
            "C-107",
            "NBD_CMD_BLOCK_STATUS has a payload without NBD_FLAG_BLOCK_STATUS_PAYLOAD "
            "in the transmission flags",
            "SHOULD",
        )
    if request.length < 8 or request.length % 4:  # C-107
        yield Violation(
            "C-107",
            f"NBD_CMD_BLOCK_STATUS has a payload of {request.length} bytes; it must be 8 bytes "
            "and 4 for each context id",
            "MUST",
        )
        return
    payload = bytes(request.payload)[8:]
    ids = struct.unpack(f">{len(payload) // 4}I", payload[: len(payload) // 4 * 4])
    unknown = sorted(set(ids) - set(agreed.contexts))
    if unknown:  # C-107
        yield Violation(
            "C-107",
            "NBD_CMD_BLOCK_STATUS names context ids that were not selected: "
            + ", ".join(map(str, unknown)),
            "MUST",
        )
    if len(set(ids)) < len(ids):  # C-107
        yield Violation("C-107", "NBD_CMD_BLOCK_STATUS names a context id twice", "MUST")


def _block_status(request: Request, agreed: Agreement) -> Iterator[Violation]:
    if not (agreed.structured or agreed.extended):
        yield _unstructured("NBD_CMD_BLOCK_STATUS was sent", agreed)
    elif agreed.selection is Selection.NONE:  # C-84
        yield Violation("C-84", "NBD_CMD_BLOCK_STATUS was sent with no metadata context selected")
    elif agreed.selection is not Selection.LIVE:  # C-86
        yield Violation("C-86", f"NBD_CMD_BLOCK_STATUS was sent although {agreed.selection.value}")
    elif agreed.names and agreed.selected_for not in agreed.names:  # C-85
        yield Violation(
            "C-85",
            f"NBD_CMD_BLOCK_STATUS was sent to export {agreed.names[0]!r}, but the metadata "
            f"contexts were selected for {agreed.selected_for!r}",
        )


def _range(request: Request, duty: _Duty, agreed: Agreement) -> Iterator[Violation]:
    length = effect_length(request)
    if length is None:
        return
    end = request.offset + length
    if not length and duty.empty:  # C-95 to C-99
        yield Violation(duty.empty, f"{_name(request)} at offset {request.offset} has length 0")
    if agreed.size is not None and end > agreed.size:  # C-88
        place = _place(request, length)
        yield Violation("C-88", f"{place} ends at {end}, past the export's size of {agreed.size}")
    bits = request.offset | length
    if bits & (agreed.minimum - 1):  # C-89
        place = _place(request, length)
        sentence = f"{place} is not aligned to the minimum block of {agreed.minimum} bytes"
        if agreed.asked_block_size:
            yield Violation("C-89", sentence)
        else:
            yield Violation("C-89", sentence + ", which the client did not ask for", "advisory")
    if not agreed.sizes_agreed:
        yield from _without_block_sizes(request, length, agreed)
    yield from _payload_limit(request, agreed)


def _without_block_sizes(request: Request, length: int, agreed: Agreement) -> Iterator[Violation]:
    # Only so can the last bytes of an odd export be reached.
    is_tail = not request.offset % SECTOR and request.offset + length == agreed.size
    if (request.offset | length) % SECTOR and not is_tail:  # C-93
        place = _place(request, length)
        sentence = f"{place} is not a multiple of 512 bytes, and no block size was agreed"
        yield Violation("C-93", sentence)
    if request.command in (Command.READ, Command.WRITE) and length > MAXIMUM_PAYLOAD:  # C-94
        place = _place(request, length)
        yield Violation("C-94", f"{place} is longer than 32 MiB, and no block size was agreed")


def _payload_limit(request: Request, agreed: Agreement) -> Iterator[Violation]:
    limited = request.command == Command.WRITE or (
        request.command == Command.READ and not (agreed.structured or agreed.extended)
    )
    limit = agreed.maximum
    if limited and limit is not None and request.length > limit:  # C-92
        sentence = (
            f"{_place(request, request.length)} is longer than the maximum payload of {limit} bytes"
        )
        if agreed.asked_block_size:
            yield Violation("C-92", sentence)
        else:
            yield Violation("C-92", sentence + ", which the client did not ask for", "advisory")
