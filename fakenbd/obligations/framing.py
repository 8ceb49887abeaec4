"""The client's rules on messages in the wrong phase, and on bytes that are no message.

What is allowed depends on the phase alone. Each function yields the breach, or nothing where the
client may be in another phase.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fakenbd.obligations.finding import Violation
from fakenbd.obligations.shown import Phase, ShownState
from fakenbd.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    IHAVEOPT,
    REQUEST_MAGIC,
    Command,
)

__all__ = ["looks_like_tls", "misframed", "out_of_place", "wrong_form"]

_OPTION_MAGIC: Final = IHAVEOPT.to_bytes(8, "big")
_TLS_RECORD: Final = b"\x16\x03"
# Phases in which no message of NBD is allowed any more.
_OVER: Final = {
    Phase.ABORTED: ("C-133", "NBD_OPT_ABORT"),
    Phase.DISCONNECTING: ("C-130", "NBD_CMD_DISC"),
    Phase.TLS_FAILED: ("C-57", "the TLS handshake had failed"),
}


def looks_like_tls(head: bytes) -> bool:
    """Whether the bytes begin a TLS handshake record."""
    return head[:2] == _TLS_RECORD


def out_of_place(what: str, due: Phase, phase: Phase, shown: ShownState) -> Iterator[Violation]:
    """The breach of sending an option or a request in `phase`, and not in the `due` one."""
    if phase in _OVER:  # C-57, C-130, C-133
        rule, event = _OVER[phase]
        yield Violation(rule, f"{what} came after {event}")
    elif phase is Phase.TLS_HANDSHAKE:  # C-52
        yield Violation("C-52", f"{what} came in clear after NBD_OPT_STARTTLS was agreed")
    elif due is Phase.TRANSMISSION and phase in (Phase.GREETING, Phase.OPTIONS):  # C-110
        yield Violation("C-110", f"{what} came before the handshake was complete")
    elif due is Phase.OPTIONS and phase is Phase.TRANSMISSION and shown.opened_by_go:  # C-29
        yield Violation("C-29", f"{what} came after NBD_OPT_GO had succeeded")


def misframed(head: bytes, last_command: int | None, shown: ShownState) -> Iterator[Violation]:
    """The breach of sending bytes that begin with `head`, up to 8, which begin no message."""
    phase = shown.phase
    if phase is Phase.DISCONNECTING:  # C-130
        yield Violation("C-130", "bytes came after NBD_CMD_DISC")
    elif phase in _OVER:
        yield from out_of_place(f"what begins with {head.hex()}", phase, phase, shown)
    elif phase is Phase.GREETING:
        if looks_like_tls(head):  # C-06
            yield Violation(
                "C-06",
                f"what came where the client flags were due looks like a TLS handshake: "
                f"{head.hex()}",
            )
    elif phase is Phase.TLS_HANDSHAKE:
        if not looks_like_tls(head):  # C-52
            yield Violation(
                "C-52",
                f"after NBD_OPT_STARTTLS was agreed came {head.hex()}, which is not TLS",
            )
    elif phase is Phase.OPTIONS:  # C-07
        sentence = f"an option begins with {head.hex()}; it must be {_OPTION_MAGIC.hex()}"
        yield Violation("C-07", sentence)
    elif phase is Phase.TRANSMISSION:
        yield _no_request(head, last_command, shown)


def wrong_form(extended: bool) -> Violation:
    """The breach of a request whose header has the other form than the negotiated one."""
    came, due = ("a compact", "extended") if extended else ("an extended", "compact")
    sentence = f"a request has {came} header, but {due} headers are in use"
    return Violation("C-71", sentence)  # C-71


def _no_request(head: bytes, last_command: int | None, shown: ShownState) -> Violation:
    if last_command == Command.WRITE:  # C-100
        sentence = f"after the payload of NBD_CMD_WRITE came {head.hex()}, which is no request"
        return Violation("C-100", sentence)
    due = EXTENDED_REQUEST_MAGIC if shown.extended else REQUEST_MAGIC
    sentence = f"a request begins with {head[:4].hex()}; it must be {due:08x}"
    return Violation("C-70", sentence)  # C-70
