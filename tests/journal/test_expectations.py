from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fakenbd.errors import ExpectationError
from fakenbd.journal import Closed, Journal, Received, Sent, Violated, Waiter
from fakenbd.protocol.messages import Request
from tests.journal.conversation import received, recorded, sample

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
    assert [type(entry) for entry in journal.select(Closed)] == [Closed, Closed]
    assert [entry.index for entry in journal.select(Sent, cookie=8)] == [21, 22]
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
        received(journal, 1, Request(0, cookie, offset, length))
    return journal


def numbers(count: int) -> Journal:
    journal = Journal(lambda: 0.0)
    for cookie in range(count):
        received(journal, 1, Request(3, cookie))
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
    assert all(isinstance(entry, Received) for entry in waiter.found)


def test_waiting_in_vain() -> None:
    journal = numbers(1)
    waiter = Waiter(journal, {"command": "flush"}, count=2)
    assert not waiter.done()
    assert not waiter.done()
    assert str(waiter.error(2.5)) == (
        "waited 2.5 s without success\n"
        "expected at least 2: flush\n"
        "found one\n"
        "\n"
        "found:\n"
        "  [0] 0.000  #1  C> NBD_CMD_FLUSH cookie 0\n"
        "\n"
        "transcript:\n"
        "▸ 0.000  #1  C> NBD_CMD_FLUSH cookie 0"
    )


def short(flushes: int, **options: Any) -> Journal:
    """A journal that holds the last ten of `flushes` entries."""
    journal = Journal(lambda: 0.0, limit=10, **options)
    for cookie in range(flushes):
        received(journal, 1, Request(3, cookie))
    return journal


REFUSED = """
this cannot be answered: the journal no longer holds its first 15 entries
raise journal_limit, now --journal-limit 10 or journal={"limit": 10, "payload_limit": 99}\
"""

DROPPED: list[tuple[str, Callable[[Journal], object], object]] = [
    ("all of a command", lambda journal: len(journal.expect("flush", count=25)), 10),
    ("one of a command", lambda journal: len(journal.expect("NBD_CMD_FLUSH")), 10),
    ("one of two commands", lambda journal: len(journal.expect(["read", 3], count=25)), 10),
    ("none of a command", lambda journal: journal.expect_none("read"), None),
    ("no option", lambda journal: journal.expect_none(option="go"), None),
    ("no fault", lambda journal: journal.expect(fault="cut", count=0), []),
    ("no rule", lambda journal: journal.expect_none(rule="C-89"), None),
    ("one that is held", lambda journal: len(journal.expect(cookie=20)), 1),
    ("an order that is held", lambda journal: len(journal.expect_order(["flush"] * 10)), 10),
    (
        "not so many of a command",
        lambda journal: journal.expect("flush", count=10),
        "expected 10: flush\nfound 25, 10 of them held\n\nfound:",
    ),
    (
        "a command that came",
        lambda journal: journal.expect_none("flush"),
        "expected none: flush\nfound 25, 10 of them held\n\nfound:",
    ),
    (
        "a command that never came",
        lambda journal: journal.expect("read"),
        "expected at least one: read\nfound none\n\nclosest:",
    ),
    (
        "too many that are held",
        lambda journal: journal.expect(connection=1, cookie=range(20, 25), count=2),
        "expected 2: connection 1, cookie 20..25\nfound at least 5\n\nfound:",
    ),
    (
        "an order with a command that never came",
        lambda journal: journal.expect_order(["flush", "read"]),
        "expected in this order:\n  1. flush: at entry 15\n  2. read: not found after entry 15",
    ),
    (
        "perhaps one",
        lambda journal: journal.expect(cookie=3),
        f"expected at least one: cookie 3\nfound none\n{REFUSED}",
    ),
    (
        "perhaps none",
        lambda journal: journal.expect_none("flush", cookie=3),
        f"expected none: flush with cookie 3\nfound none\n{REFUSED}",
    ),
    (
        "perhaps more than those that are held",
        lambda journal: journal.expect(cookie=range(20, 25), count=5),
        f"expected 5: cookie 20..25\nfound at least 5\n{REFUSED}",
    ),
    (
        "perhaps in this order",
        lambda journal: journal.expect_order([{"cookie": 3}, "flush"]),
        f"expected in this order: cookie 3\nfound none\n{REFUSED}",
    ),
]


@pytest.mark.parametrize(
    ("question", "answer"), [row[1:] for row in DROPPED], ids=[row[0] for row in DROPPED]
)
def test_what_is_dropped_is_counted_or_refused_never_guessed(
    question: Callable[[Journal], object], answer: object
) -> None:
    journal = short(25, payload_limit=99)
    if not isinstance(answer, str):
        assert question(journal) == answer
        return
    with pytest.raises(ExpectationError) as caught:
        question(journal)
    assert str(caught.value).startswith(answer)


WAITED: list[tuple[dict[str, Any], int, bool]] = [
    ({"command": "flush"}, 25, True),
    ({"command": "flush"}, 26, False),
    ({"cookie": [0, 24]}, 1, True),
    ({"cookie": [0, 24]}, 2, False),
]


@pytest.mark.parametrize(("wanted", "count", "done"), WAITED)
def test_waiting_for_what_is_dropped_before_it_is_looked_at(
    wanted: dict[str, Any], count: int, done: bool
) -> None:
    waiter = Waiter(short(25, payload_limit=99), wanted, count)
    assert waiter.done() is done
    text = str(waiter.error(5)).removeprefix("waited 5 s without success\n")
    if "command" in wanted:
        assert text.startswith(f"expected at least {count}: flush\nfound 25, 10 of them held\n")
    else:
        assert text.startswith(REFUSED.lstrip("\n") + "\nexpected at least ")


def test_waiting_sees_what_is_dropped_between_two_looks() -> None:
    journal = short(1)
    waiter = Waiter(journal, {"cookie": 100})
    assert not waiter.done()
    for cookie in range(100, 120):
        received(journal, 1, Request(3, cookie))
    assert not waiter.done()
    assert "raise journal_limit, " in str(waiter.error(5))


def rude(times: int) -> Journal:
    """A client that breaks one rule so many times, and another once."""
    journal = Journal(lambda: 0.0)
    journal.violated(1, "C-30", "SHOULD", "it went straight to EXPORT_NAME")
    for _ in range(times):
        journal.violated(1, "C-95", "MUST", "a READ of no bytes")
    return journal


def test_a_rule_broken_a_thousand_times_is_counted() -> None:
    journal = rude(1000)
    assert journal.totals.violations == {"C-30": 1, "C-95": 1000}
    assert [entry.rule for entry in journal.expect(rule="C-95", count=1000)] == ["C-95"] * 8
    assert len(journal.expect(rule="C-30", count=1)) == 1
    assert len(journal.expect(rule="C-95", level="MUST", count=1000)) == 8
    assert len(journal.expect(level=["MUST", "SHOULD"], count=1001)) == 9
    assert Waiter(journal, {"rule": "C-95"}, 1000).done()
    assert not Waiter(journal, {"rule": "C-95"}, 1001).done()
    assert len(journal.expect(connection=1, rule="C-95")) == 8
    with pytest.raises(ExpectationError) as caught:
        journal.expect(connection=1, rule="C-95", count=8)
    assert str(caught.value) == (
        "expected 8: connection 1, rule C-95\n"
        "found at least 8\n"
        "\n"
        "this cannot be answered: repeated violations of one rule on a connection are counted,"
        " without more entries"
    )
    assert len(rude(8).expect(connection=1, rule="C-95", count=8)) == 8
