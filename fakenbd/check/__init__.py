"""Judgement: any client, run against any profile, and what it did wrong.

Names are imported when they are first used: pytest comes by here whenever it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.later import later

if TYPE_CHECKING:
    from fakenbd.check.run import CheckOptions, run_check

__all__ = ["CheckOptions", "run_check"]

__getattr__ = later(__name__, dict.fromkeys(__all__, "run"))
