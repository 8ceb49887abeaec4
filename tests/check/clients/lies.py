"""Claims success, and leaves what it likes."""

from wire import Wire, output, path, size

wire = Wire(path())
wire.read(0, size())
wire.leave()
output(b"\0" * size())
