"""Does not catch what it does not expect."""

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
wire.leave()
output(reply.data[0])
