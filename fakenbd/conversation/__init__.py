"""One connection without I/O: what a server agrees to speak."""

from __future__ import annotations

from fakenbd.conversation.handshake import Handshake

__all__ = ["Handshake"]
