"""Processes that may do anything, and that are gone afterwards."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import attrs
import pytest

from fakenbd.check.operation_result import OperationResult
from fakenbd.check.process import Capture, Limits, run

LIMITS = Limits(seconds=60, memory=512 << 20, file=1 << 20, output=1000)
SHORT = attrs.evolve(LIMITS, seconds=0.3)


def played(
    script: str, folder: Path, limits: Limits = LIMITS, **options: object
) -> OperationResult:
    return run([sys.executable, "-E", "-S", "-c", script], folder, limits, **options)  # type: ignore[arg-type]


def test_status_and_both_outputs_are_kept(tmp_path: Path) -> None:
    done = played("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", tmp_path)
    assert (done.status, done.signal, done.stopped) == (7, None, "")
    assert (done.output, done.errors) == ("out\n", "err\n")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_is_distinguished_from_a_status(tmp_path: Path, number: int) -> None:
    done = played(f"import os; os.kill(os.getpid(), {int(number)})", tmp_path)
    assert (done.status, done.signal, done.stopped) == (None, number, "")


def test_it_has_a_session_a_folder_an_environment_and_no_input(tmp_path: Path) -> None:
    script = "import os, sys; print(os.getsid(0) == os.getpid(), os.getcwd(), os.environ['A'])"
    script += "; print(repr(sys.stdin.read()))"
    done = played(script, tmp_path, environment={"A": "b"})
    assert done.output == f"True {tmp_path} b\n''\n"


def test_time_runs_out(tmp_path: Path) -> None:
    done = played("import time; time.sleep(3600)", tmp_path, SHORT)
    assert (done.status, done.signal, done.stopped) == (None, None, "time")
    assert done.stop_reason == "it was still running after 0.3 s"


def test_a_flood_of_output_is_cut_in_the_middle(tmp_path: Path) -> None:
    done = played("print('a' * 2000 + 'b' * 2000)", tmp_path)
    assert done.output == "a" * 500 + "\n… 3001 bytes left out …\n" + "b" * 499 + "\n"


def test_an_endless_flood_does_not_hold_us_up(tmp_path: Path) -> None:
    done = played("while True: print('flood ' * 1000)", tmp_path, SHORT)
    assert done.stopped == "time"
    assert len(done.output) < 1100


def test_memory_of_children_counts(tmp_path: Path) -> None:
    script = """
import os, time
if os.fork() == 0:
    hoard = b"1" * (200 << 20)
    time.sleep(3600)
os.wait()
"""
    limits = attrs.evolve(LIMITS, memory=100 << 20)
    done = played(script, tmp_path, limits)
    assert done.stopped == "memory"
    assert done.stop_reason.endswith(" MiB of memory, more than the limit of 100 MiB")


def test_files_have_a_limit(tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
    script += "open('large', 'wb').write(bytes(2 << 20))"
    done = played(script, tmp_path)
    assert done.signal == signal.SIGXFSZ
    assert (tmp_path / "large").stat().st_size == 1 << 20


def test_a_storm_stops_it(tmp_path: Path) -> None:
    done = played("import time; time.sleep(3600)", tmp_path, storming=lambda: "it asked too much")
    assert (done.stopped, done.stop_reason) == ("storm", "it asked too much")


ESCAPES = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
ready, write_end = os.pipe()
for leaves in (False, True):
    if os.fork() == 0:
        if leaves:
            os.setsid()
        if os.fork() == 0:
            with open("pids", "a") as pids:
                print(os.getpid(), file=pids)
            os.write(write_end, b".")
            time.sleep(3600)
        os._exit(0)
os.read(ready, 1), os.read(ready, 1)
"""


@pytest.mark.parametrize(("ending", "stopped"), [("", ""), ("time.sleep(3600)", "storm")])
def test_nobody_is_left(tmp_path: Path, ending: str, stopped: str) -> None:
    summary = tmp_path / "pids"

    def both_are_there() -> str:
        return "enough" if summary.exists() and summary.read_text().count("\n") == 2 else ""

    done = played(ESCAPES + ending, tmp_path, storming=both_are_there if stopped else str)
    assert done.stopped == stopped
    pids = [int(pid) for pid in summary.read_text().split()]
    assert len(pids) == 2
    assert not [pid for pid in pids if _runs(pid)]


def _runs(pid: int) -> bool:
    """Whether it runs; who was killed may wait as a zombie for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_pipe_that_somebody_keeps_open_does_not_hold_us_up(tmp_path: Path) -> None:
    script = "import os, time\nif os.fork() == 0: time.sleep(3600)\nprint('done')"
    done = played(script, tmp_path)
    assert (done.status, done.stopped, done.output) == (0, "", "done\n")


def test_what_is_not_text_is_shown_all_the_same(tmp_path: Path) -> None:
    done = played("import os; os.write(1, b'a\\xff\\x00b')", tmp_path)
    assert done.output == "a\ufffd\x00b"


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ([b"abcd"], "abcd"),
        ([b"abcdefgh"], "abcdefgh"),
        ([b"abcdefghi"], "abcd\n… 1 bytes left out …\nfghi"),
        ([b"ab", b"cdef", b"ghijkl"], "abcd\n… 4 bytes left out …\nijkl"),
        ([b"a"] * 20, "aaaa\n… 12 bytes left out …\naaaa"),
    ],
)
def test_capture_keeps_both_ends(chunks: list[bytes], text: str) -> None:
    capture = Capture(8)
    for chunk in chunks:
        capture.take(chunk)
    assert capture.text() == text


def test_our_own_descriptors_are_closed(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        played("print('x')", tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
