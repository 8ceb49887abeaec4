"""What a test of the plugin's looks like when it is over, to the letter."""

from __future__ import annotations

import attrs
import pytest

from tests.plugin.conftest import Run, plain


@attrs.frozen
class Case:
    """A test, and all that pytest prints of it. `outcome` as in assert_outcomes."""

    name: str
    source: str
    report: str
    outcome: dict[str, int]


_SHORT = "=========================== short test summary info ============================"
_ERRORS = "==================================== ERRORS ===================================="
_AT_TEARDOWN = "_________________________ ERROR at teardown of test_it _________________________"
_TRANSCRIPT = "------------------------------ fakenbd transcript ------------------------------"
_PASSED = ".                                                                        [100%]"
_PASSED_AT_FIRST = ".E                                                                       [100%]"
_FAILED_AT_ONCE = "F                                                                        [100%]"

_SERVER = """\
nbd_server: profile python, nbd://127.0.0.1:<port>/
seed <seed>; for the same again: pytest --fakenbd-seed=<seed>"""
_CONNECTED = "0.000  #{}  -- connected over tcp from 127.0.0.1:<port> to 127.0.0.1:<port>"

CASES = [
    Case(
        "all is well",
        """
def test_it(nbd_server):
    nbd_server.on(option="abort").drop()
    chat(nbd_server)
""",
        f"""\
{_PASSED}
1 passed in <time>s""",
        {"passed": 1},
    ),
    Case(
        "a fault never fired",
        """
def test_it(nbd_server):
    nbd_server.on("read", nth=2).error("EIO")
    chat(nbd_server)
""",
        f"""\
{_PASSED_AT_FIRST}
{_ERRORS}
{_AT_TEARDOWN}
fault 'error on read' never fired: there was no event that it could fire at
{_TRANSCRIPT}
{_SERVER}
  {_CONNECTED.format(1)}
  0.000  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> NBD_OPT_ABORT
  0.000  #1  <S NBD_REP_ACK to NBD_OPT_ABORT
  0.000  #1  -- the client ended the connection: ABORT
{_SHORT}
ERROR test_it.py::test_it - Failed: fault 'error on read' never fired: there ...
1 passed, 1 error in <time>s""",
        {"passed": 1, "errors": 1},
    ),
    Case(
        "the client broke a MUST, again and again",
        """
def test_it(nbd_server):
    chat(nbd_server, flags=7)
    nbd_server.settle()
    chat(nbd_server, flags=7)
""",
        f"""\
{_PASSED_AT_FIRST}
{_ERRORS}
{_AT_TEARDOWN}
the client broke C-01 (MUST, 2 times): client flags contain undefined bits 0x4
{_TRANSCRIPT}
{_SERVER}
  {_CONNECTED.format(1)}
  0.000  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES|0x4
             ✗ C-01 MUST: client flags contain undefined bits 0x4
  0.000  #1  -- the server ended the connection: refused, client flags 0x4 match nothing that was \
offered
  {_CONNECTED.format(2)}
  0.000  #2  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #2  C> client flags FIXED_NEWSTYLE|NO_ZEROES|0x4
             ✗ C-01 MUST: client flags contain undefined bits 0x4
  0.000  #2  -- the server ended the connection: refused, client flags 0x4 match nothing that was \
offered
{_SHORT}
ERROR test_it.py::test_it - Failed: the client broke C-01 (MUST, 2 times): cl...
1 passed, 1 error in <time>s""",
        {"passed": 1, "errors": 1},
    ),
    Case(
        "the client broke a SHOULD",
        """
def test_it(nbd_server):
    chat(nbd_server, tail=b"bye")
""",
        f"""\
{_PASSED}
=============================== warnings summary ===============================
test_it.py::test_it
  test_it.py:4: NBDViolationWarning: the client broke C-23 (SHOULD): NBD_OPT_ABORT has data of \
length 3; it may have none
    def test_it(nbd_server):

-- Docs: https://docs.pytest.org/en/stable/how-to/capture-warnings.html
1 passed, 1 warning in <time>s""",
        {"passed": 1, "warnings": 1},
    ),
    Case(
        "the server failed",
        """
def broken(answer, firing):
    return None

def test_it(nbd_server):
    nbd_server.on("greeting").call(broken)
    chat(nbd_server)
""",
        f"""\
{_PASSED_AT_FIRST}
{_ERRORS}
{_AT_TEARDOWN}
the server failed: TypeError: fault 'broken on greeting': broken returned NoneType, not a list of \
steps
fault 'broken on greeting' never fired: the closest was the greeting of connection 1 (the fault \
came later, or failed)
{_TRANSCRIPT}
{_SERVER}
  {_CONNECTED.format(1)}
  0.000  #1  -- the server ended the connection: closed
  0.000  #1  !! TypeError: fault 'broken on greeting': broken returned NoneType, not a list of \
steps (apply_change, line <line>)
----------------------------- fakenbd server error -----------------------------
Traceback (most recent call last):
  <calls>
TypeError: fault 'broken on greeting': broken returned NoneType, not a list of steps
{_SHORT}
ERROR test_it.py::test_it - Failed: the server failed: TypeError: fault 'brok...
1 passed, 1 error in <time>s""",
        {"passed": 1, "errors": 1},
    ),
    Case(
        "the test fails first, and its unfired faults are no failure",
        """
def test_it(nbd_server):
    nbd_server.on("read").error("EIO")
    chat(nbd_server, flags=7)
    raise SystemError("dead")
""",
        f"""\
{_FAILED_AT_ONCE}
=================================== FAILURES ===================================
___________________________________ test_it ____________________________________
test_it.py:7: in test_it
    raise SystemError("dead")
E   SystemError: dead
{_TRANSCRIPT}
{_SERVER}
  {_CONNECTED.format(1)}
  0.000  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES|0x4
             ✗ C-01 MUST: client flags contain undefined bits 0x4
  0.000  #1  -- the server ended the connection: refused, client flags 0x4 match nothing that was \
offered
fault 'error on read' never fired: there was no event that it could fire at
{_SHORT}
FAILED test_it.py::test_it - SystemError: dead
1 failed in <time>s""",
        {"failed": 1},
    ),
    Case(
        "another fixture dies",
        """
@pytest.fixture
def client(nbd_server):
    chat(nbd_server)
    raise SystemError("dead")

def test_it(client):
    pass
""",
        f"""\
E                                                                        [100%]
{_ERRORS}
__________________________ ERROR at setup of test_it ___________________________
test_it.py:7: in client
    raise SystemError("dead")
E   SystemError: dead
{_TRANSCRIPT}
{_SERVER}
  {_CONNECTED.format(1)}
  0.000  #1  <S greeting FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> client flags FIXED_NEWSTYLE|NO_ZEROES
  0.000  #1  C> NBD_OPT_ABORT
  0.000  #1  <S NBD_REP_ACK to NBD_OPT_ABORT
  0.000  #1  -- the client ended the connection: ABORT
{_SHORT}
ERROR test_it.py::test_it - SystemError: dead
1 error in <time>s""",
        {"errors": 1},
    ),
    Case(
        "several servers are distinguished",
        """
def test_it(nbd_server, make_nbd_server):
    other = make_nbd_server("quirks/qemu-odd-tail", unfired="warn")
    other.on("read").error("EIO")
    nbd_server.on("read").error("EIO")
""",
        f"""\
{_PASSED_AT_FIRST}
{_ERRORS}
{_AT_TEARDOWN}
nbd_server: fault 'error on read' never fired: there was no event that it could fire at
{_TRANSCRIPT}
{_SERVER}
no client connected

server 1: profile quirks/qemu-odd-tail, nbd://127.0.0.1:<port>/
seed <seed>; for the same again: pytest --fakenbd-seed=<seed>
no client connected
=============================== warnings summary ===============================
test_it.py::test_it
  test_it.py:4: UnfiredFaultWarning: server 1: fault 'error on read' never fired: there was no \
event that it could fire at
    def test_it(nbd_server, make_nbd_server):

-- Docs: https://docs.pytest.org/en/stable/how-to/capture-warnings.html
{_SHORT}
ERROR test_it.py::test_it - Failed: nbd_server: fault 'error on read' never f...
1 passed, 1 warning, 1 error in <time>s""",
        {"passed": 1, "errors": 1, "warnings": 1},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_report(run: Run, case: Case) -> None:
    result = run(case.source)
    assert plain(result) == case.report
    assert result.stderr.str() == ""
    result.assert_outcomes(**case.outcome)
