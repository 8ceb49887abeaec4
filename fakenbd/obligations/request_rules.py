"""The client's rules on one request, against what the client was shown.

Tables have what each command and each command flag needs; the functions below them are for rules
that do not fit a table row. Stateless.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from fakenbd.obligations.finding import Violation
from fakenbd.obligations.shown import Selection, ShownState
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


class _CommandRule(NamedTuple):
    """What a command needs: a transmission flag, a nonzero length, a range inside the export."""

    needs: int = 0
    unoffered: str = ""
    empty: str = ""
    ranged: bool = True
    writes: bool = False


_COMMANDS: Final[dict[int, _CommandRule]] = {
    Command.READ: _CommandRule(empty="C-95"),
    Command.WRITE: _CommandRule(empty="C-96", writes=True),
    Command.DISC: _CommandRule(ranged=False),
    Command.FLUSH: _CommandRule(int(TransmissionFlag.SEND_FLUSH), "C-77", ranged=False),
    Command.TRIM: _CommandRule(int(TransmissionFlag.SEND_TRIM), "C-79", "C-97", writes=True),
    Command.CACHE: _CommandRule(int(TransmissionFlag.SEND_CACHE), "C-83"),
    Command.WRITE_ZEROES: _CommandRule(
        int(TransmissionFlag.SEND_WRITE_ZEROES), "C-80", "C-98", writes=True
    ),
    Command.BLOCK_STATUS: _CommandRule(empty="C-99"),
    Command.RESIZE: _CommandRule(int(TransmissionFlag.SEND_RESIZE), "C-87", ranged=False),
}


class _FlagRule(NamedTuple):
    """Where a command flag belongs, the rule that says so, and the transmission flag it needs."""

    commands: frozenset[int]
    misplaced: str
    needs: int = 0
    unoffered: str = ""


_FLAGS: Final[dict[int, _FlagRule]] = {
    int(CommandFlag.FUA): _FlagRule(
        frozenset((Command.WRITE, Command.TRIM, Command.WRITE_ZEROES)),
        "C-76",
        int(TransmissionFlag.SEND_FUA),
        "C-75",
    ),
    int(CommandFlag.NO_HOLE): _FlagRule(frozenset((Command.WRITE_ZEROES,)), "C-109"),
    int(CommandFlag.DF): _FlagRule(
        frozenset((Command.READ,)), "C-82", int(TransmissionFlag.SEND_DF), "C-82"
    ),
    int(CommandFlag.REQ_ONE): _FlagRule(frozenset((Command.BLOCK_STATUS,)), "C-109"),
    int(CommandFlag.FAST_ZERO): _FlagRule(
        frozenset((Command.WRITE_ZEROES,)), "C-74", int(TransmissionFlag.SEND_FAST_ZERO), "C-81"
    ),
}
_KNOWN_FLAGS: Final = int(sum(CommandFlag))


def command_violations(request: Request, shown: ShownState) -> Iterator[Violation]:
    """The rules that one request breaks, regardless of others in flight."""
    rule = _COMMANDS.get(request.command)
    if rule is None:
        yield Violation("C-73", f"{_name(request)} is not a command that NBD uses")  # C-73
        return
    yield from _command(request, rule, shown)
    if request.flags:
        yield from _flags(request, shown)
    if shown.extended:
        yield from _extended(request, shown)
    if request.command == Command.BLOCK_STATUS:
        yield from _block_status(request, shown)
    if rule.ranged:
        yield from _range(request, rule, shown)
    elif request.command in (Command.FLUSH, Command.DISC) and (request.offset or request.length):
        rule_id = "C-78" if request.command == Command.FLUSH else "C-129"
        yield Violation(
            rule_id,
            f"{_name(request)} has offset {request.offset} and length {request.length}; "
            "both must be 0",
        )


def effect_length(request: Request) -> int | None:
    """How many bytes of the export the request is about; None where only its payload has it."""
    if request.command == Command.BLOCK_STATUS and request.flags & _PAYLOAD_LEN:
        if len(request.payload) < 8:
            return None
        effect: int = struct.unpack_from(">Q", request.payload)[0]
        return effect
    return request.length


def is_off_preferred(request: Request, shown: ShownState) -> bool:
    """Whether the request is not aligned to the preferred block (C-90): counted, never reported."""
    rule = _COMMANDS.get(request.command)
    return bool(
        rule is not None
        and rule.ranged
        and (request.offset | request.length) & (shown.preferred - 1)
    )


def _name(request: Request) -> str:
    return spec_name(Command, request.command)


def _place(request: Request, length: int) -> str:
    return f"{_name(request)} of {length} bytes at offset {request.offset}"


def _command(request: Request, rule: _CommandRule, shown: ShownState) -> Iterator[Violation]:
    if rule.needs & ~shown.flags:  # C-77, C-79, C-80, C-83, C-87
        sentence = (
            f"{_name(request)} was sent without {flag_names(TransmissionFlag, rule.needs)} "
            "in the transmission flags"
        )
        if request.command == Command.CACHE and request.flags:
            # Historic clients send CACHE unasked; none of them sets a flag on it.
            flags = flag_names(CommandFlag, request.flags)
            yield Violation(rule.unoffered, f"{sentence}, and with {flags}", "MUST")
        else:
            yield Violation(rule.unoffered, sentence)
    if rule.writes and shown.flags & _READ_ONLY:  # C-104
        yield Violation("C-104", f"{_name(request)} was sent to a read-only export")


def _flags(request: Request, shown: ShownState) -> Iterator[Violation]:
    unknown = request.flags & ~_KNOWN_FLAGS
    if unknown:  # C-74
        sentence = f"{_name(request)} contains undefined command flags {unknown:#x}"
        yield Violation("C-74", sentence)
    for flag, rule in _FLAGS.items():
        if not request.flags & flag:
            continue
        if flag == _DF and request.command in rule.commands and not shown.chunks:
            # A correct server does not offer the flag then; the option that the client skipped is
            # reported.
            yield _unstructured(_has(request, flag), shown)
        elif rule.needs & ~shown.flags:  # C-75, C-81, C-82
            needed = flag_names(TransmissionFlag, rule.needs)
            yield Violation(
                rule.unoffered, f"{_has(request, flag)} without {needed} in the transmission flags"
            )
        elif request.command not in rule.commands:  # C-74, C-76, C-82, C-109
            yield Violation(rule.misplaced, f"{_has(request, flag)}, which is not for that command")
    if request.flags & _PAYLOAD_LEN and not shown.extended:  # C-105
        yield Violation("C-105", f"{_has(request, _PAYLOAD_LEN)} without extended headers")


def _has(request: Request, flag: int) -> str:
    return f"{_name(request)} has {flag_names(CommandFlag, flag)}"


def _unstructured(what: str, shown: ShownState) -> Violation:
    if shown.chunks_before_tls:  # C-56
        return Violation(
            "C-56", f"{what}, but structured replies were negotiated only before TLS began"
        )
    return Violation("C-45", f"{what}, but structured replies were not negotiated")  # C-45


def _extended(request: Request, shown: ShownState) -> Iterator[Violation]:
    has_payload = bool(request.flags & _PAYLOAD_LEN)
    if request.command == Command.WRITE and not has_payload:  # C-106
        yield Violation("C-106", "NBD_CMD_WRITE lacks NBD_CMD_FLAG_PAYLOAD_LEN, which it must have")
    elif has_payload and request.command == Command.BLOCK_STATUS:
        yield from _block_status_payload(request, shown)
    elif has_payload and request.command != Command.WRITE:  # C-106
        yield Violation(
            "C-106", f"{_name(request)} has NBD_CMD_FLAG_PAYLOAD_LEN, but no form with a payload"
        )
    if request.command == Command.READ and request.length >= 1 << 32:  # C-108
        yield Violation("C-108", f"{_place(request, request.length)} is longer than 2^32 - 1")


def _block_status_payload(request: Request, shown: ShownState) -> Iterator[Violation]:
    if not shown.flags & _BLOCK_STATUS_PAYLOAD:  # C-107
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
    if shown.selection is Selection.UNREADABLE or len(request.payload) < request.length:
        return
    payload = bytes(request.payload)[8:]
    ids = struct.unpack(f">{len(payload) // 4}I", payload)
    unknown = sorted(set(ids) - set(shown.contexts))
    if unknown:  # C-107
        yield Violation(
            "C-107",
            "NBD_CMD_BLOCK_STATUS names context ids that were not selected: "
            + ", ".join(map(str, unknown)),
            "MUST",
        )
    if len(set(ids)) < len(ids):  # C-107
        yield Violation("C-107", "NBD_CMD_BLOCK_STATUS names a context id twice", "MUST")


def _block_status(request: Request, shown: ShownState) -> Iterator[Violation]:
    if not shown.chunks:
        yield _unstructured("NBD_CMD_BLOCK_STATUS was sent", shown)
    elif shown.selection is Selection.NONE:  # C-84
        yield Violation("C-84", "NBD_CMD_BLOCK_STATUS was sent with no metadata context selected")
    elif shown.selection is Selection.UNREADABLE:
        return  # The client may have understood that malformed reply.
    elif shown.selection is not Selection.LIVE:  # C-86
        yield Violation("C-86", f"NBD_CMD_BLOCK_STATUS was sent although {shown.selection.value}")
    elif shown.names and shown.contexts_export not in shown.names:  # C-85
        yield Violation(
            "C-85",
            f"NBD_CMD_BLOCK_STATUS was sent to export {shown.names[0]!r}, but the metadata "
            f"contexts were selected for {shown.contexts_export!r}",
        )


def _range(request: Request, rule: _CommandRule, shown: ShownState) -> Iterator[Violation]:
    length = effect_length(request)
    if length is None:
        return
    end = request.offset + length
    if not length and rule.empty:  # C-95 to C-99
        yield Violation(rule.empty, f"{_name(request)} at offset {request.offset} has length 0")
    if shown.size is not None and end > shown.size:  # C-88
        place = _place(request, length)
        yield Violation("C-88", f"{place} ends at {end}, past the export's size of {shown.size}")
    bits = request.offset | length
    if bits & (shown.minimum - 1):  # C-89
        place = _place(request, length)
        sentence = f"{place} is not aligned to the minimum block of {shown.minimum} bytes"
        if shown.block_size_asked:
            yield Violation("C-89", sentence)
        else:
            yield Violation("C-89", sentence + ", which the client did not ask for", "advisory")
    if not shown.block_size_negotiated:
        yield from _without_block_sizes(request, length, shown)
    yield from _payload_limit(request, shown)


def _without_block_sizes(request: Request, length: int, shown: ShownState) -> Iterator[Violation]:
    # The last bytes of an export of odd size cannot be reached otherwise.
    is_tail = not request.offset % SECTOR and request.offset + length == shown.size
    if (request.offset | length) % SECTOR and not is_tail:  # C-93
        place = _place(request, length)
        sentence = f"{place} is not a multiple of 512 bytes, and no block size was agreed"
        yield Violation("C-93", sentence)
    if request.command in (Command.READ, Command.WRITE) and length > MAXIMUM_PAYLOAD:  # C-94
        place = _place(request, length)
        yield Violation("C-94", f"{place} is longer than 32 MiB, and no block size was agreed")


def _payload_limit(request: Request, shown: ShownState) -> Iterator[Violation]:
    limited = request.command == Command.WRITE or (
        request.command == Command.READ and not shown.chunks
    )
    limit = shown.maximum
    if limited and limit is not None and request.length > limit:  # C-92
        sentence = (
            f"{_place(request, request.length)} is longer than the maximum payload of {limit} bytes"
        )
        if shown.block_size_asked:
            yield Violation("C-92", sentence)
        else:
            yield Violation("C-92", sentence + ", which the client did not ask for", "advisory")
