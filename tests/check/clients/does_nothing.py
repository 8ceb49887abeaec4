"""Connects and leaves."""

from wire import Wire, path

Wire(path()).leave()
