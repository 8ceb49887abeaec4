"""Reads the export, one request, and fails on any error."""

from wire import Wire, output, path

SIZE = 4096

wire = Wire(path())
reply = wire.read(0, SIZE)
wire.leave()
if reply.error:
    raise SystemExit(f"the server says error {reply.error}")
output(reply.data[0])
