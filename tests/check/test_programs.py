"""The whole library against programs that people use: it runs to its end, and nothing is new."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import require

HERE = Path(__file__).parent
LIMIT = "6"
"""Seconds; what counts as slow in the lists of known failures counts from here."""

MAIN = "import sys; from fakenbd.cli import main; sys.exit(main())"


def judged(tmp_path: Path, *words: str) -> tuple[int, str, list[str]]:
    """The exit status, the output, and the cases that could not be judged."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", MAIN, "check", "-q", "--seed", "1", "--jobs", "2"),
            *("--timeout", LIMIT),
            *("--report", str(tmp_path), *words),
        ],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    cases = json.loads((tmp_path / "report.json").read_text())["cases"]
    errors = [case["id"] for case in cases if case["verdict"] == "error"]
    return done.returncode, done.stdout + done.stderr, errors


@pytest.mark.soak
def test_the_reference_client_passes_all(tmp_path: Path) -> None:
    status, output, errors = judged(tmp_path)
    assert (status, errors) == (0, []), output


@pytest.mark.soak
@pytest.mark.parametrize(
    ("client", "programs"),
    [("libnbd", ["nbdinfo", "nbdcopy"]), ("qemu", ["qemu-img", "qemu-io", "qemu-nbd"])],
)
def test_a_program_fails_what_it_is_known_to_fail(
    tmp_path: Path, client: str, programs: list[str]
) -> None:
    for program in programs:
        require(program)
    known = HERE / f"known-{client}.toml"
    status, output, errors = judged(tmp_path, "--client", client, "--known-failures", str(known))
    assert (status, errors) == (0, []), output
