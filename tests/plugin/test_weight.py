"""What the plugin costs those who have fakenbd installed and do not use it: next to nothing."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.plugin.conftest import Run

_IMPORTS = """
import sys, pytest
import _pytest.config
before = set(sys.modules)
import fakenbd.pytest_plugin
print(*sorted(set(sys.modules) - before))
"""


def test_import_brings_nothing_but_the_plugin() -> None:
    result = subprocess.run(
        [sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == [
        "fakenbd",
        "fakenbd.lazy",
        "fakenbd.pytest_plugin",
        "fakenbd.pytest_plugin.category",
    ]


def test_nothing_more_is_imported_until_a_fixture_is_used(run_process: Run) -> None:
    source = """
import sys

HEAVY = {"attr", "attrs", "trio", "fakenbd.server", "fakenbd.profile", "fakenbd.journal"}

def test_without():
    assert not HEAVY & sys.modules.keys()

def test_with(nbd_server):
    assert HEAVY <= sys.modules.keys()
"""
    run_process(source).assert_outcomes(passed=2)


def test_it_adds_one_option_to_pytest(run: Run) -> None:
    options = re.findall(r"--fakenbd-[a-z]+", run("", "--help").stdout.str())
    assert options == ["--fakenbd-seed"]
