"""Block sizes as an export advertises them (NBD_INFO_BLOCK_SIZE)."""

from __future__ import annotations

import attrs

__all__ = ["BlockSize"]


@attrs.frozen
class BlockSize:
    """Minimum and preferred block and maximum payload in bytes: any numbers, lies included."""

    minimum: int = 1
    preferred: int = 4096
    maximum: int = 1 << 25
