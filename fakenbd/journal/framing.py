"""Messages where none of their kind is due, and bytes that are no message at all.

What may come depends on the phase alone. Each function names the breach, or none where the server
only lost track of a phase that its own replies had announced otherwise.
"""

from __future__ import annotations

from typing import Final

from fakenbd.journal.agreement import Agreement, Phase
from fakenbd.journal.violation import Violation
from fakenbd.protocol.constants import (
    EXTENDED_REQUEST_MAGIC,
    IHAVEOPT,
    REQUEST_MAGIC,
    Command,
)

__all__ = ["HEADER_SIZES", "REQUEST_MAGICS", "misframed", "out_of_place", "wrong_form"]

# Whether headers are extended, and what that makes of a request.
REQUEST_MAGICS: Final = {False: REQUEST_MAGIC, True: EXTENDED_REQUEST_MAGIC}
HEADER_SIZES: Final = {False: 28, True: 32}

_OPTION_MAGIC: Final = IHAVEOPT.to_bytes(8, "big")
_TLS_HANDSHAKE: Final = b"\x16\x03"
# Nothing of NBD may come any more, whatever it is.
_OVER: Final = {
    Phase.LEFT_HAGGLING: ("C-133", "NBD_OPT_ABORT"),
    Phase.DISCONNECTED: ("C-130", "NBD_CMD_DISC"),
    Phase.TLS_FAILED: ("C-57", "the TLS handshake had failed"),
}


def out_of_place(what: str, due: Phase, agreed: Agreement) -> list[Violation]:
    """The breach of sending an option or a request while the phase is not the `due` one."""
    phase = agreed.phase
    if phase in _OVER:  # C-57, C-130, C-133
        rule_id, event = _OVER[phase]
        return [Violation(rule_id, f"{what} came after {event}")]
    if phase is Phase.TLS_DUE:  # C-52
        return [Violation("C-52", f"{what} came in clear after NBD_OPT_STARTTLS was agreed")]
    if due is Phase.TRANSMISSION and phase is Phase.HAGGLING:  # C-110
        return [Violation("C-110", f"{what} came before the handshake was complete")]
    if due is Phase.HAGGLING and phase is Phase.TRANSMISSION and agreed.opened_by_go:  # C-29
        return [Violation("C-29", f"{what} came after NBD_OPT_GO had succeeded")]
    return []


def misframed(head: bytes, last_command: int | None, agreed: Agreement) -> list[Violation]:
    """The breach of sending bytes that begin with `head`, which begin no message of this phase."""
    phase = agreed.phase
    if phase in _OVER:
        return out_of_place(f"what begins with {head.hex()}", phase, agreed)
    if phase is Phase.TLS_DUE and head[:2] != _TLS_HANDSHAKE:  # C-52
        return [
            Violation(
                "C-52",
                f"after NBD_OPT_STARTTLS was agreed came {head.hex()}, which is not TLS",
            )
        ]
    if phase is Phase.HAGGLING:
        return _no_option(head)
    if phase is Phase.TRANSMISSION:
        return _no_request(head, last_command, agreed)
    return []


def wrong_form(extended: bool) -> Violation:
    came, due = ("a compact", "extended") if extended else ("an extended", "compact")
    sentence = f"a request has {came} header, but {due} headers are in use"
    return Violation("C-71", sentence)  # C-71


def _no_option(head: bytes) -> list[Violation]:
    if head == _OPTION_MAGIC:
        return []
    if int.from_bytes(head[:4], "big") in REQUEST_MAGICS.values():  # C-110
        return [Violation("C-110", "a request came before the handshake was complete")]
    sentence = f"an option begins with {head.hex()}; it must be {_OPTION_MAGIC.hex()}"
    return [Violation("C-07", sentence)]  # C-07


def _no_request(head: bytes, last_command: int | None, agreed: Agreement) -> list[Violation]:
    magic = int.from_bytes(head[:4], "big")
    due = REQUEST_MAGICS[agreed.extended]
    if head == _OPTION_MAGIC and agreed.opened_by_go:  # C-29
        return [Violation("C-29", "an option came after NBD_OPT_GO had succeeded")]
    if magic == due:
        return []
    if magic == REQUEST_MAGICS[not agreed.extended]:
        return [wrong_form(agreed.extended)]
    if last_command == Command.WRITE:  # C-100
        sentence = f"after the payload of NBD_CMD_WRITE came {head.hex()}, which is no request"
        return [Violation("C-100", sentence)]
    sentence = f"a request begins with {head[:4].hex()}; it must be {due:08x}"
    return [Violation("C-70", sentence)]  # C-70
