"""Waits for the answer to a read that failed."""

import time

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
while reply.error:
    time.sleep(1)
output(reply.data[0])
wire.leave()
