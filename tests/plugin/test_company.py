"""The plugin beside others: with pytest-trio, pytest-asyncio and pytest-xdist, and without."""

from __future__ import annotations

import re

import pytest

from tests.plugin.conftest import Run, plain

_TRIO = "pytest_trio.plugin"
_ASYNCIO = "pytest_asyncio.plugin"

_IN_MEMORY = """
import trio

@pytest.mark.trio
async def test_stall(trio_nbd_server, autojump_clock):
    trio_nbd_server.on(option="list").stall()
    stream = trio_nbd_server.connect()
    await stream.send_all(b"\\0\\0\\0\\3IHAVEOPT\\0\\0\\0\\3\\0\\0\\0\\0")
    with trio.move_on_after(30) as patience:
        while True:
            await stream.receive_some()
    assert patience.cancelled_caught
    assert trio.current_time() == pytest.approx(30)

@pytest.mark.trio
async def test_judged(trio_nbd_server, autojump_clock):
    trio_nbd_server.on("read").error("EIO")
    stream = trio_nbd_server.connect()
    await stream.send_all(bytes.fromhex("00000007"))
"""

_JUDGED = """\
fault 'error on read' never fired: there was no event that it could fire at
------------------------------ fakenbd transcript ------------------------------
trio_nbd_server: profile python
seed <seed>; for the same again: pytest --fakenbd-seed=<seed>
  0.000  #1  -- connected over memory from memory
  0.000  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES|0x4
             ✗ C-01 MUST: client flags contain undefined bits 0x4
  0.000  #1  -- the server ended the connection: refused, client flags 0x4 match nothing that was \
offered
"""


@pytest.mark.parametrize("others", [(), (_ASYNCIO,)], ids=["alone", "with asyncio"])
def test_trio(run: Run, others: tuple[str, ...]) -> None:
    loop = ("-oasyncio_default_fixture_loop_scope=function",) if others else ()
    result = run(_IN_MEMORY, *loop, plugins=(_TRIO, *others))
    result.assert_outcomes(passed=2, errors=1)
    assert _JUDGED in plain(result)


@pytest.mark.parametrize(
    ("plugins", "sentence"),
    [
        (
            (),
            "trio_nbd_server needs pytest-trio, which is not installed or not active; "
            "nbd_server does without",
        ),
        (
            (_TRIO,),
            "trio_nbd_server is for trio tests: mark this one with @pytest.mark.trio, "
            "or set trio_mode = true",
        ),
    ],
)
def test_trio_server_outside_trio(run: Run, plugins: tuple[str, ...], sentence: str) -> None:
    result = run("\ndef test_it(trio_nbd_server):\n    pass\n", plugins=plugins)
    result.assert_outcomes(errors=1)
    assert f"\n{sentence}\n" in plain(result)


_WITH_ASYNCIO = """
import asyncio

async def test_it(nbd_server):
    nbd_server.on("greeting").delay(0.001)
    reader, writer = await asyncio.open_connection("127.0.0.1", nbd_server.port)
    assert (await reader.readexactly(18)).startswith(b"NBDMAGICIHAVEOPT")
    writer.close()
    await writer.wait_closed()
"""


def test_asyncio(run: Run) -> None:
    mode = "-oasyncio_mode=auto", "-oasyncio_default_fixture_loop_scope=function"
    run(_WITH_ASYNCIO, *mode, plugins=(_ASYNCIO,)).assert_outcomes(passed=1)


_FOR_XDIST = """
def test_passes(nbd_server):
    chat(nbd_server)

def test_it(nbd_server):
    nbd_server.on("read").error("EIO")
    chat(nbd_server, tail=b"bye")

def test_dies(nbd_server):
    raise SystemError("dead")
"""


def test_xdist(run: Run) -> None:
    result = run(_FOR_XDIST, "-n2", plugins=("xdist.plugin", "xdist.looponfail"))
    result.assert_outcomes(passed=2, failed=1, errors=1, warnings=1)
    text = re.sub(r"\[gw\d\].*\n", "", plain(result))
    assert text.count("fakenbd transcript") == 2
    assert (
        """\
_________________________ ERROR at teardown of test_it _________________________
fault 'error on read' never fired: there was no event that it could fire at
------------------------------ fakenbd transcript ------------------------------
"""
        in text
    )
    assert "NBDViolationWarning: the client broke C-23 (SHOULD)" in text


def test_entry_point(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    pytester.makepyfile("def test_it(nbd_server, make_nbd_server):\n    assert nbd_server.port\n")
    quiet = "-oasyncio_default_fixture_loop_scope=function"
    pytester.runpytest_subprocess("--strict-markers", quiet).assert_outcomes(passed=1)
