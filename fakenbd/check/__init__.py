"""Runs any client against profiles and judges the results.

Names are imported when they are first used: `fakenbd run` needs the placeholders only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakenbd.lazy import lazy_getattr

if TYPE_CHECKING:
    from fakenbd.check.options import CheckOptions
    from fakenbd.check.run import run_check

__all__ = ["CheckOptions", "run_check"]

__getattr__ = lazy_getattr(__name__, {"CheckOptions": "options", "run_check": "run"})
