"""The examples are written for readers, who have the program that they are about."""

from __future__ import annotations

import pytest

from tests.peers import require


@pytest.fixture(autouse=True)
def _nbdcopy_is_here() -> None:
    require("nbdcopy")
