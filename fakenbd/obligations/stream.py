"""What an owner can show of one direction of a connection besides its bytes."""

from __future__ import annotations

from enum import Enum

import attrs

__all__ = ["Gap", "Start"]


class Start(Enum):
    """What is known of a connection when its observation begins."""

    GREETING = "the server has sent nothing yet"
    UNKNOWN = "bytes were sent that nobody saw"


@attrs.frozen
class Gap:
    """`size` bytes of a stream whose content is unknown: lost segments, payloads let go of."""

    size: int
