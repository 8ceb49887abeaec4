"""What a server has ready before its first client connects."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import builtins, io, os
from fakenbd.server.factory import close, prepare
server = prepare(size=512)
def refuse(*_, **__):
    raise OSError("no file is opened while a client may be served")
opening = builtins.open, io.open, io.open_code, os.open
builtins.open = io.open = io.open_code = os.open = refuse
from fakenbd.obligations.finding import level_of
print(level_of("C-89"), level_of("C-131"))
builtins.open, io.open, io.open_code, os.open = opening
close(server)
"""


def test_the_rule_table_is_read_before_anyone_connects() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("MUST SHOULD\n", "")
