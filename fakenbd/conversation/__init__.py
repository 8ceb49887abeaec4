"""The server's side of one connection as a state machine, without sockets, tasks or a clock.

Profiles need `Handshake` only, which is imported at once; the machine is in conversation.py.
"""

from __future__ import annotations

from fakenbd.conversation.handshake import Handshake

__all__ = ["Handshake"]
