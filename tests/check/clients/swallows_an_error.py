"""Flushes, and does not look at the answer."""

from wire import FLUSH, Wire, path

wire = Wire(path())
wire.send(FLUSH)
wire.reply()
wire.leave()
