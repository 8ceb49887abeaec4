"""Judgement: any client, run against any profile, and what it did wrong.

Names are imported when they are first used: pytest comes by here whenever it starts.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fakenbd.check.run import CheckOptions, run_check

__all__ = ["CheckOptions", "run_check"]

_HOMES = {"CheckOptions": "run", "run_check": "run"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
