"""Claims success, and leaves what it likes."""

from wire import Wire, output, path

wire = Wire(path())
wire.read(0, 4096)
wire.leave()
output(b"\0" * 4096)
