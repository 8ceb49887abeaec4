"""Connects again at once, and again, whenever the server hangs up."""

from wire import Wire, output, path

while True:
    try:
        wire = Wire(path())
        reply = wire.read(0, 4096)
    except (EOFError, OSError):
        continue
    output(reply.data[0])
    wire.leave()
    break
