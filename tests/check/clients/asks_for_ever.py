"""Repeats a read that failed, without pause or end."""

from wire import Wire, output, path

wire = Wire(path())
reply = wire.read(0, 4096)
while reply.error:
    reply = wire.read(0, 4096)
output(reply.data[0])
wire.leave()
