"""Where the Observer finds something else than the Watch in the journal, and why.

For as long as both are there.
"""

from __future__ import annotations

__all__ = ["LEVELS", "SENTENCES"]

SENTENCES = {
    # The client's stream is cut by magic, so what came in the wrong phase is known by name.
    "NBD_OPT_LIST came after NBD_OPT_GO had succeeded": (
        "an option came after NBD_OPT_GO had succeeded"
    ),
    "NBD_CMD_READ came before the handshake was complete": (
        "a request came before the handshake was complete"
    ),
    # How many bytes there are when they are seen depends on how they were split.
    "bytes came after NBD_CMD_DISC": "bytes came after NBD_CMD_DISC: 28",
}
"""What the Watch says in place of the Observer's sentence."""

LEVELS = {
    # A polite client that gives up waiting does the same.
    "NBD_CMD_DISC came with requests unanswered: 1": "SHOULD",
}
"""The level that the Watch gives to the Observer's sentence."""
