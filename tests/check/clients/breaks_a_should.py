"""Does not ask for block sizes."""

from wire import Wire, output, path, size

wire = Wire(path(), sizes=False)
reply = wire.read(0, size())
wire.leave()
if reply.error:
    raise SystemExit("the read failed")
output(reply.data[0])
