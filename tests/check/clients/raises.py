"""Does not catch what it does not expect."""

from wire import Wire, output, path

wire = Wire(path())
reply = wire.read(0, 4096)
wire.leave()
output(reply.data[0])
