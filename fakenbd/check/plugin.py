"""The pytest plugin that workers of pytest-xdist load by name, to collect profiles."""

from __future__ import annotations

import pickle
from typing import Any

__all__ = ["pytest_configure"]


def pytest_configure(config: Any) -> None:
    """Register the plugin with the setup that the controller sent."""
    if hasattr(config, "workerinput"):
        from fakenbd.check.collection import WORKER_INPUT, Cases

        config.pluginmanager.register(Cases(pickle.loads(config.workerinput[WORKER_INPUT])))
