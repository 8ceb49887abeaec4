"""Programs that tests run against fakenbd, where the machine has them."""

from __future__ import annotations

import os
import shutil

import pytest

__all__ = ["require"]


def require(program: str) -> str:
    """The path of `program`; without it the test is skipped, or fails if peers are required.

    FAKENBD_REQUIRE_PEERS=1 is for machines that are supposed to have them all.
    """
    path = shutil.which(program)
    if path is not None:
        return path
    if os.environ.get("FAKENBD_REQUIRE_PEERS") == "1":
        pytest.fail(f"{program} is not installed, and FAKENBD_REQUIRE_PEERS is set", pytrace=False)
    pytest.skip(f"{program} is not installed")
