from __future__ import annotations

from hypothesis import settings

pytest_plugins = "pytester"

# The same examples in every run: a failure seen once is a failure seen always.
settings.register_profile("fakenbd", max_examples=100, derandomize=True, deadline=None)
settings.load_profile("fakenbd")
