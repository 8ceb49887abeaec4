"""The correct greeting of each style of handshake, and its effect on the negotiated state."""

from __future__ import annotations

from fakenbd.conversation.export_commands import offered_flags
from fakenbd.conversation.shared_state import SharedState
from fakenbd.protocol.constants import HandshakeFlag
from fakenbd.protocol.messages import Greeting, OldstyleGreeting
from fakenbd.protocol.negotiated import NegotiatedState

__all__ = ["greeting"]


def greeting(shared: SharedState, state: NegotiatedState) -> Greeting | OldstyleGreeting:
    """The greeting; updates `state`. The oldstyle one opens the first export."""
    handshake = shared.handshake
    if handshake.style == "oldstyle":
        state.export = ""
        export = shared.source.direct(state)
        assert export is not None, "a server has an export"
        state.export, state.size = export.name, export.size
        state.flags = offered_flags(export, state)
        return OldstyleGreeting(export.size, state.flags)
    fixed = HandshakeFlag.FIXED_NEWSTYLE if handshake.style == "fixed" else 0
    no_zeroes = HandshakeFlag.NO_ZEROES if handshake.no_zeroes else 0
    state.handshake_flags = int(fixed | no_zeroes)
    return Greeting(state.handshake_flags)
