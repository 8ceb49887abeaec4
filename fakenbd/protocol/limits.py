"""Bounds within which a plain READ or WRITE needs no second look."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen
class Limits:
    """Requests of 1 to `maximum` bytes that end at or before `end`, off no bit of `mask`.

    `mask` is one less than an alignment, a power of two: `(offset | length) & mask` must be 0.
    """

    end: int
    maximum: int
    mask: int = 0

    def __and__(self, other: Limits) -> Limits:
        """What both allow."""
        return Limits(
            min(self.end, other.end), min(self.maximum, other.maximum), self.mask | other.mask
        )
