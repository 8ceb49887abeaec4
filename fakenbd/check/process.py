"""Runs a client that may crash, hang, flood, fork, ignore signals, or use too much memory.

It gets a session and a process group of its own, a scratch folder, and no standard input. One loop
waits for its output, its end, and the next look at its memory; nothing in it can block, so neither
a flood of output nor a pipe that a grandchild keeps open delays it. No process is left at the end:
the group is killed, and then every process with the mark that was put into the environment, even in
another group.
"""

from __future__ import annotations

import os
import secrets
import selectors
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import IO, Final

import attrs

from fakenbd.check.operation_result import OperationResult, Stop

__all__ = ["Limits", "run"]

_MARK: Final = "FAKENBD_CLIENT_MARK"
_TICK: Final = 0.02
_READ: Final = 1 << 16
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_MIB: Final = 1 << 20

# The shell sets the limits that must hold from the first instruction on, and then executes the
# client.
_LIMITED: Final = 'ulimit -c 0; ulimit -f "$0"; exec "$@"'


@attrs.frozen
class Limits:
    """Limits of a client: seconds, bytes of memory (all its processes), of a file, of output."""

    seconds: float = 10.0
    memory: int = 1 << 30
    file: int = 1 << 30
    output: int = 1 << 18


@attrs.define(eq=False)
class Capture:
    """The beginning and the end of the bytes from a pipe."""

    limit: int
    _head: bytearray = attrs.field(factory=bytearray)
    _tail: bytearray = attrs.field(factory=bytearray)
    _dropped: int = 0

    def take(self, data: bytes) -> None:
        """Keep as much of `data` as there is room for."""
        room = self.limit // 2 - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        surplus = len(self._tail) - self.limit // 2
        if surplus > 0:
            del self._tail[:surplus]
            self._dropped += surplus

    def text(self) -> str:
        """All of it, or both ends with a line between them on how much was left out."""
        gap = f"\n… {self._dropped} bytes left out …\n".encode() if self._dropped else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace")


def run(
    argv: Sequence[str],
    folder: Path,
    limits: Limits,
    *,
    environment: Mapping[str, str] | None = None,
    storming: Callable[[], str] = lambda: "",
) -> OperationResult:
    """Run a client to its end, or to the first limit that it breaks.

    `storming` is called every few milliseconds; if it returns a sentence the client is stopped.
    Raises OSError where the program cannot be started.
    """
    mark = secrets.token_hex(16)
    blocks = max(1, limits.file // 512)
    began = monotonic()
    process = subprocess.Popen(
        ["/bin/sh", "-c", _LIMITED, str(blocks), *argv],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=folder,
        env={**os.environ, **(environment or {}), _MARK: mark},
        start_new_session=True,
    )
    watched = _Watched(process, limits, began, storming)
    try:
        stopped, reason = watched.wait()
    finally:
        _kill_all(process, mark)
    watched.drain()
    code = process.returncode
    return OperationResult(
        status=None if stopped or code < 0 else code,
        signal=-code if code < 0 and not stopped else None,
        stopped=stopped,
        stop_reason=reason,
        output=watched.output.text(),
        errors=watched.errors.text(),
        command=tuple(argv),
        seconds=monotonic() - began,
    )


@attrs.define(eq=False)
class _Watched:
    process: subprocess.Popen[bytes]
    limits: Limits
    began: float
    storming: Callable[[], str]
    output: Capture = attrs.field(init=False)
    errors: Capture = attrs.field(init=False)
    _selector: selectors.DefaultSelector = attrs.field(factory=selectors.DefaultSelector)

    def __attrs_post_init__(self) -> None:
        self.output = Capture(self.limits.output)
        self.errors = Capture(self.limits.output)
        pipes = (self.process.stdout, self.output), (self.process.stderr, self.errors)
        for pipe, capture in pipes:
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._selector.register(pipe, selectors.EVENT_READ, (pipe, capture))

    def wait(self) -> tuple[Stop, str]:
        """Wait for the end; returns why the client was stopped, if it was."""
        pidfd = os.pidfd_open(self.process.pid)
        self._selector.register(pidfd, selectors.EVENT_READ)
        tick = self.began
        try:
            while self.process.poll() is None:
                for key, _ in self._selector.select(_TICK):
                    if key.data is not None:
                        self._take(*key.data)
                now = monotonic()
                if now >= tick:
                    tick = now + _TICK
                    stopped, reason = self._over(now)
                    if stopped:
                        return stopped, reason
            return "", ""
        finally:
            self._selector.unregister(pidfd)
            os.close(pidfd)

    def drain(self) -> None:
        """Read what is still in the pipes once all writers are gone, and close them."""
        for key in list(self._selector.get_map().values()):
            while self._take(*key.data):
                pass
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _take(self, pipe: IO[bytes], capture: Capture) -> int:
        try:
            data = os.read(pipe.fileno(), _READ)
        except BlockingIOError:
            return 0
        capture.take(data)
        if not data:
            self._selector.unregister(pipe)
            pipe.close()
        return len(data)

    def _over(self, now: float) -> tuple[Stop, str]:
        if now - self.began >= self.limits.seconds:
            return "time", f"it was still running after {self.limits.seconds:g} s"
        storm = self.storming()
        if storm:
            return "storm", storm
        used = sum(_resident(pid) for pid in _family(self.process.pid))
        if used > self.limits.memory:
            return "memory", (
                f"it used {used // _MIB} MiB of memory, more than the limit of "
                f"{self.limits.memory // _MIB} MiB"
            )
        return "", ""


# --- the processes of a client -----------------------------------------------------------------


def _family(pid: int) -> Iterator[int]:
    yield pid
    with suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(OSError):
                children = Path(f"/proc/{pid}/task/{task}/children").read_text()
                for child in children.split():
                    yield from _family(int(child))


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _kill_all(process: subprocess.Popen[bytes], mark: str) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # A process that forks all the time may have made another meanwhile: repeat until none is found.
    sought = f"{_MARK}={mark}".encode()
    while marked := [pid for pid in _others() if _carries(pid, sought)]:
        for pid in marked:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _others() -> Iterator[int]:
    own = os.getpid()
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != own:
            yield int(name)


def _carries(pid: int, sought: bytes) -> bool:
    """Whether a running process has the mark; a zombie has no environment any more."""
    try:
        return sought in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
