"""Fails as soon as anything is not as it always was: here a reply in two chunks."""

from wire import Wire, output, path, size

wire = Wire(path(), structured=True)
reply = wire.read(0, size())
wire.leave()
if len(reply.data) > 1:
    raise SystemExit("fragmented replies are not supported")
output(reply.data[0])
