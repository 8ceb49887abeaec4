"""Repeats a read that failed, without pause or end."""

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
while reply.error:
    reply = wire.read(0, size())
output(reply.data[0])
wire.leave()
