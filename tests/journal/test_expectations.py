from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fakenbd.errors import ExpectationError
from fakenbd.journal import Ended, Heard, Journal, Said, Violated, Waiter
from fakenbd.protocol.messages import Request
from tests.journal.conversation import heard, recorded, sample

FOUND: list[tuple[dict[str, Any], list[int]]] = [
    ({"command": "read"}, [16, 20]),
    ({"command": "READ"}, [16, 20]),
    ({"command": "NBD_CMD_READ"}, [16, 20]),
    ({"command": 0}, [16, 20]),
    ({"command": ["read", "write"]}, [16, 20, 23]),
    ({"command": "block_status"}, [25]),
    ({"command": "read", "offset": 4096}, [16]),
    ({"command": "read", "offset": range(1, 5000)}, [16]),
    ({"command": "read", "length": lambda length: length > 512}, [20]),
    ({"command": "read", "flags": "df"}, [20]),
    ({"command": "read", "flags": 0}, [16]),
    ({"command": "write", "flags": ["fua"]}, [23]),
    ({"command": "write", "flags": ["fua", "df"]}, []),
    ({"command": "write", "data": b"hidden"}, [23]),
    ({"command": "write", "digest": "e564b4081d7a9ea4"}, [23]),
    ({"option": "go"}, [12]),
    ({"option": 7, "name": "disk"}, [12]),
    ({"cookie": 7}, [16]),
    ({"connection": 2}, [28]),
    ({"type": "simple"}, [17]),
    ({"type": "offset-data"}, [21]),
    ({"type": "NBD_REPLY_TYPE_OFFSET_HOLE"}, [22]),
    ({"type": "ack", "option": "go"}, [15]),
    ({"type": "info", "flags": "flush"}, [13]),
    ({"type": "offset-hole", "flags": "done"}, [22]),
    ({"error": "EIO"}, [17]),
    ({"error": 5}, [17]),
    ({"error": "invalid"}, [11]),
    ({"error": "NBD_REP_ERR_INVALID"}, [11]),
    ({"error": ["EIO", "ENOSPC"]}, [17, 24]),
    ({"error": None, "cookie": 8}, [21, 22]),
    ({"text": "full\n"}, [24]),
    ({"info": "block-size"}, [14]),
    ({"fault": "odd tail"}, [27]),
    ({"kinds": "error"}, [18]),
    ({"kinds": ["error", "cut"]}, []),
    ({"rule": "C-89"}, [29]),
    ({"level": "MUST"}, [9]),
    ({"how": "RST"}, [33]),
    ({"by": "client"}, [32]),
    ({"transport": "unix"}, [19]),
    ({"sentence": lambda text: "No space" in text, "connection": None}, []),
]


@pytest.mark.parametrize(("conditions", "indexes"), FOUND)
def test_conditions(conditions: dict[str, Any], indexes: list[int]) -> None:
    journal = recorded()
    assert [entry.index for entry in journal.select(**conditions)] == indexes
    if indexes:
        assert [entry.index for entry in journal.expect(**conditions)] == indexes
        assert journal.expect(**conditions, count=len(indexes))
        assert journal.last(**conditions).index == indexes[-1]
        with pytest.raises(ExpectationError, match=r"^expected none: "):
            journal.expect_none(**conditions)
    else:
        journal.expect_none(**conditions)
        assert journal.expect(**conditions, count=0) == []
        assert journal.last(**conditions) is None


def test_requests_and_kinds() -> None:
    journal = recorded()
    assert [request.index for request in journal.requests()] == [16, 20, 23, 25, 31]
    assert [request.index for request in journal.requests("read", length=1024)] == [20]
    assert [type(entry) for entry in journal.select(Ended)] == [Ended, Ended]
    assert [entry.index for entry in journal.select(Said, cookie=8)] == [21, 22]
    assert [entry.rule for entry in journal.select(Violated)] == ["C-14", "C-89"]  # type: ignore[union-attr]
    assert journal.last().index == 33
    assert Journal(lambda: 0.0).last() is None


def test_order() -> None:
    journal = recorded()
    order = ["read", {"error": "EIO"}, {"command": "read", "length": 1024}, {"how": "DISC"}]
    assert [entry.index for entry in journal.expect_order(order)] == [16, 17, 20, 32]


def small() -> Journal:
    journal = Journal(lambda: 0.0)
    for cookie, (offset, length) in enumerate([(0, 512), (4096, 512), (4096, 1024), (0, 7)]):
        heard(journal, 1, Request(0, cookie, offset, length))
    return journal


def numbers(count: int) -> Journal:
    journal = Journal(lambda: 0.0)
    for cookie in range(count):
        heard(journal, 1, Request(3, cookie))
    return journal


TEXTS: list[tuple[str, Callable[[], Journal], Callable[[Journal], object], str]] = [
    (
        "missing",
        small,
        lambda journal: journal.expect("read", offset=4096, length=2048, count=2),
        """\
expected 2: read with offset 4096, length 2048
found none

closest:
  [1] 0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
      length is 512, not 2048
  [2] 0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024
      length is 1024, not 2048
  [0] 0.000  #1  C> NBD_CMD_READ cookie 0 offset 0 length 512
      offset is 0, not 4096; length is 512, not 2048

transcript:
  0.000  #1  C> NBD_CMD_READ cookie 0 offset 0 length 512
▸ 0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
  0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024
  0.000  #1  C> NBD_CMD_READ cookie 3 offset 0 length 7""",
    ),
    (
        "too few",
        small,
        lambda journal: journal.expect("read", length=7, count=2),
        """\
expected 2: read with length 7
found one

found:
  [3] 0.000  #1  C> NBD_CMD_READ cookie 3 offset 0 length 7

closest:
  [0] 0.000  #1  C> NBD_CMD_READ cookie 0 offset 0 length 512
      length is 512, not 7
  [1] 0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
      length is 512, not 7
  [2] 0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024
      length is 1024, not 7

transcript:
  0.000  #1  C> NBD_CMD_READ cookie 0 offset 0 length 512
  0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
  0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024
▸ 0.000  #1  C> NBD_CMD_READ cookie 3 offset 0 length 7""",
    ),
    (
        "too many",
        lambda: numbers(30),
        lambda journal: journal.expect("flush", count=1),
        """\
expected one: flush
found 30

found:
  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0
  [1] 0.000  #1  C> NBD_CMD_FLUSH cookie 1
  [2] 0.000  #1  C> NBD_CMD_FLUSH cookie 2
  … and 27 more

transcript:
… 19 entries left out
  0.000  #1  C> NBD_CMD_FLUSH cookie 19
  0.000  #1  C> NBD_CMD_FLUSH cookie 20
  0.000  #1  C> NBD_CMD_FLUSH cookie 21
  0.000  #1  C> NBD_CMD_FLUSH cookie 22
  0.000  #1  C> NBD_CMD_FLUSH cookie 23
  0.000  #1  C> NBD_CMD_FLUSH cookie 24
  0.000  #1  C> NBD_CMD_FLUSH cookie 25
  0.000  #1  C> NBD_CMD_FLUSH cookie 26
  0.000  #1  C> NBD_CMD_FLUSH cookie 27
  0.000  #1  C> NBD_CMD_FLUSH cookie 28
▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 29""",
    ),
    (
        "unwanted",
        lambda: numbers(1),
        lambda journal: journal.expect_none(cookie=[0, 5]),
        """\
expected none: cookie 0 or 5
found one

found:
  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0

transcript:
▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 0""",
    ),
    (
        "nothing recorded",
        lambda: Journal(lambda: 0.0),
        lambda journal: journal.expect(option="go", offset=range(5)),
        """\
expected at least one: option go, offset 0..5
found none

nothing was recorded""",
    ),
    (
        "nothing of the kind",
        lambda: numbers(1),
        lambda journal: journal.expect(rule="C-89"),
        """\
expected at least one: rule C-89
found none

transcript:
  0.000  #1  C> NBD_CMD_FLUSH cookie 0""",
    ),
    (
        "differences of every sort",
        lambda: numbers(1),
        lambda journal: journal.expect(
            "write", offset=range(1, 9), length=bool, data=b"x" * 20, flags=["fua", "df"]
        ),
        """\
expected at least one: write with offset 1..9, length what bool accepts,\
 data b'xxxxxxxxxxxxxxxx'… (20 bytes), flags df and fua
found none

closest:
  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0
      command is flush, not write; offset is 0, not 1..9; length is 0, not what bool accepts;\
 data is absent, not b'xxxxxxxxxxxxxxxx'… (20 bytes); flags is 0, not df and fua

transcript:
▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 0""",
    ),
    (
        "out of order",
        small,
        lambda journal: journal.expect_order(["read", {"length": 7}, {"offset": 4096}, "disc"]),
        """\
expected in this order:
  1. read: at entry 0
  2. length 7: at entry 3
  3. offset 4096: not found after entry 3
  4. disc: not reached

it came earlier:
  [1] 0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
  [2] 0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024

transcript:
  0.000  #1  C> NBD_CMD_READ cookie 0 offset 0 length 512
  0.000  #1  C> NBD_CMD_READ cookie 1 offset 4096 length 512
  0.000  #1  C> NBD_CMD_READ cookie 2 offset 4096 length 1024
▸ 0.000  #1  C> NBD_CMD_READ cookie 3 offset 0 length 7""",
    ),
    (
        "never in that order",
        lambda: numbers(1),
        lambda journal: journal.expect_order([{"command": "flush", "cookie": 4}]),
        """\
expected in this order:
  1. flush with cookie 4: not found

closest:
  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0
      cookie is 0, not 4

transcript:
▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 0""",
    ),
]


@pytest.mark.parametrize(
    ("make", "expectation", "text"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS]
)
def test_a_failure_explains_itself(
    make: Callable[[], Journal], expectation: Callable[[Journal], object], text: str
) -> None:
    with pytest.raises(ExpectationError) as caught:
        expectation(make())
    assert str(caught.value) == text


MISUSED: list[tuple[dict[str, Any], str]] = [
    (
        {"ofset": 1},
        "there is no condition 'ofset'; did you mean 'offset'? (known are about, at, by, change,"
        " command, connection, cookie, data, detail, digest, error, fault, flags, how, info,"
        " kinds, length, level, name, occurrence, offset, option, peer, rule, sentence, text,"
        " transport, type)",
    ),
    ({"fault": "x", "rule": "C-89"}, "no entry has all of these: fault, rule"),
    ({}, "an expectation needs a command or a condition"),
]


@pytest.mark.parametrize(("conditions", "message"), MISUSED)
def test_a_mistaken_expectation_is_no_failed_one(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError) as caught:
        recorded().expect(**conditions)
    assert str(caught.value) == message


def test_waiting() -> None:
    journal = Journal(lambda: 0.0)
    waiter = Waiter(journal, {"command": "read"}, count=2)
    seen: list[bool] = []
    journal.subscribe(lambda: seen.append(waiter.done()))
    sample(journal)
    assert seen.index(True) == 20
    assert [entry.index for entry in waiter.found] == [16, 20]
    assert all(isinstance(entry, Heard) for entry in waiter.found)


def test_waiting_in_vain() -> None:
    journal = numbers(1)
    waiter = Waiter(journal, {"command": "flush"}, count=2)
    assert not waiter.done()
    assert not waiter.done()
    assert str(waiter.error(2.5)) == (
        "waited 2.5 s in vain\n"
        "expected at least 2: flush\n"
        "found one\n"
        "\n"
        "found:\n"
        "  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0\n"
        "\n"
        "transcript:\n"
        "▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 0"
    )
    assert Waiter(journal, {"command": "flush"}, start=1).done() is False
