"""The doors through which pytest comes in; behind them nothing is imported until it is needed.

`fakenbd check` loads this module as a plugin of its own. The plugin that is installed with fakenbd
calls the same two functions.
"""

from __future__ import annotations

from typing import Any

from fakenbd.check.options import add_options

__all__ = ["configure", "pytest_addoption", "pytest_configure"]


def pytest_addoption(parser: Any) -> None:
    add_options(parser)


def pytest_configure(config: Any) -> None:
    configure(config)


def configure(config: Any) -> None:
    """Let the session collect profiles as cases, if it was told of a client."""
    if config.getoption("fakenbd_client") or config.getoption("fakenbd_command"):
        from fakenbd.check.collection import install

        install(config)
