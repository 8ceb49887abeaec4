"""The categories of warnings, for filters: `ignore::fakenbd.pytest_plugin.NBDViolationWarning`."""

from __future__ import annotations

__all__ = ["NBDViolationWarning", "ServerErrorWarning", "UnfiredFaultWarning"]


class NBDViolationWarning(UserWarning):
    """The client broke a SHOULD of the specification, or a MUST where that is no error."""


class UnfiredFaultWarning(UserWarning):
    """A fault never fired, where that is no error."""


class ServerErrorWarning(UserWarning):
    """The fake server raised an exception, where that is no error."""
