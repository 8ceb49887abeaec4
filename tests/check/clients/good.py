"""Reads the export, one request, and fails on any error."""

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
wire.leave()
if reply.error:
    raise SystemExit(f"the server says error {reply.error}")
output(reply.data[0])
