"""Reads past the end of the export, and takes the error for what it is."""

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
wire.read(size(), 512)
wire.leave()
if reply.error:
    raise SystemExit("the read failed")
output(reply.data[0])
