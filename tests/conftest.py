from __future__ import annotations

import signal

from hypothesis import settings

pytest_plugins = "pytester"

# The same examples in every run: a failure seen once is a failure seen always.
settings.register_profile("fakenbd", max_examples=100, derandomize=True, deadline=None)
settings.load_profile("fakenbd")

# A job that a shell put in the background ignores Ctrl-C, and whatever it starts inherits that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
