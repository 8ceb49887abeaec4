"""Dies of a signal as soon as a read fails."""

import os
import signal

from wire import Wire, output, path, size

wire = Wire(path())
reply = wire.read(0, size())
if reply.error:
    os.kill(os.getpid(), signal.SIGSEGV)
output(reply.data[0])
wire.leave()
