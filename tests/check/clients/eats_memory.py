"""Allocates what the server makes it believe."""

import time

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
hoard = []
while reply.error:
    hoard.append(b"\1" * (1 << 24))
    time.sleep(0.001)
output(reply.data[0])
wire.leave()
