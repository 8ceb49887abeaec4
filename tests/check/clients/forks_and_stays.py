"""Forks children that leave the session and ignore signals, floods its output, and never ends."""

import os
import signal
import sys
import time

from wire import Wire, path, size

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
with open(sys.argv[2], "a") as pids:
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                time.sleep(3600)
            os._exit(0)
    print(os.getpid(), file=pids)
wire = Wire(path())
wire.read(0, size())
while True:
    print("still here " * 1000)
