"""Connects again at once, and again, whenever the server hangs up."""

from wire import Wire, output, path, size

while True:
    try:
        wire = Wire(path())
        reply = wire.read(0, size())
    except (EOFError, OSError):
        continue
    output(reply.data[0])
    wire.leave()
    break
