"""The server's rules on the greeting, and on the size and transmission flags of an export.

Each function takes a message as the decoders of `protocol` return it. What the specification leaves
to the server is no breach, and neither is what is uncertain.
"""

from __future__ import annotations

from collections.abc import Iterator

from fakenbd.obligations.breach import Breach
from fakenbd.protocol.constants import (
    OPTION_REPLY_MAGIC,
    HandshakeFlag,
    TransmissionFlag,
)
from fakenbd.protocol.messages import ExportNameReply, Greeting, OldstyleGreeting
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["judge_export_name_reply", "judge_greeting", "judge_transmission_flags"]


def judge_greeting(message: Greeting | OldstyleGreeting) -> Iterator[Breach]:
    """The rules broken by the server's first message; the decoder checks its magics."""
    if isinstance(message, Greeting):
        unknown = message.flags & ~int(sum(HandshakeFlag))
        if unknown:  # S-04
            yield Breach("S-04", f"the handshake flags have the undefined bits {unknown:#x}")
        return
    if message.flags >> 16:  # S-09
        yield Breach("S-09", f"the oldstyle greeting has handshake flags {message.flags >> 16:#x}")
    if any(message.reserved):  # S-09
        yield Breach("S-09", "the reserved bytes of the oldstyle greeting are not all zero")
    yield from judge_transmission_flags(message.flags & 0xFFFF, NegotiatedState())


def judge_transmission_flags(flags: int, state: NegotiatedState) -> Iterator[Breach]:
    """The rules broken by the transmission flags, in any message."""
    if not flags & TransmissionFlag.HAS_FLAGS:  # S-61
        yield Breach("S-61", f"the transmission flags {flags:#06x} lack NBD_FLAG_HAS_FLAGS")
    if flags & TransmissionFlag.SEND_DF and not state.chunks:  # S-62
        yield Breach("S-62", "NBD_FLAG_SEND_DF is set without structured replies")
    if flags & TransmissionFlag.SEND_FAST_ZERO and not flags & TransmissionFlag.SEND_WRITE_ZEROES:
        yield Breach("S-62", "NBD_FLAG_SEND_FAST_ZERO is set without NBD_FLAG_SEND_WRITE_ZEROES")
    if flags & TransmissionFlag.BLOCK_STATUS_PAYLOAD and not state.extended:  # S-62
        yield Breach("S-62", "NBD_FLAG_BLOCK_STATUS_PAYLOAD is set without extended headers")


def judge_export_name_reply(message: ExportNameReply, state: NegotiatedState) -> Iterator[Breach]:
    """The rules broken by the bare reply to NBD_OPT_EXPORT_NAME."""
    if message.size == OPTION_REPLY_MAGIC:  # S-65
        yield Breach("S-65", "the reply to NBD_OPT_EXPORT_NAME has the header of an option reply")
        return
    due = 0 if state.no_zeroes else 124
    if len(message.reserved) != due:  # S-64
        yield Breach(
            "S-64",
            f"the reply to NBD_OPT_EXPORT_NAME has {len(message.reserved)} bytes of padding;"
            f" {due} were negotiated",
        )
    elif any(message.reserved):  # S-64
        yield Breach("S-64", "the padding of the reply to NBD_OPT_EXPORT_NAME is not all zero")
    yield from judge_transmission_flags(message.flags, state)
