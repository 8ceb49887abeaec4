"""What is owed excuses leaving, however long the client waited."""

from __future__ import annotations

import pytest

from fakenbd.protocol.constants import (
    Error,
    Option,
    Reply,
)
from fakenbd.protocol.messages import (
    Ack,
    OptionReply,
    SimpleReply,
)
from tests.obligations.stage import (
    ABORT,
    DISC,
    LIST,
    STARTTLS,
    STRUCTURED,
    go,
    read,
    write,
)
from tests.obligations.wire import EXPORT, Wire, answer, greeted, opened, refusal


@pytest.mark.parametrize("how", ["EOF", "RST"])
def test_a_client_may_leave_while_the_reply_to_go_has_not_left(how: str) -> None:
    wire = greeted()
    wire.client(STRUCTURED)
    wire.replies(Option.STRUCTURED_REPLY)
    wire.client(go())
    assert wire.observer.owes
    assert wire.client_left(how) == []


def test_a_client_may_leave_after_half_of_a_final_reply() -> None:
    wire = greeted()
    wire.client(go())
    wire.server(OptionReply(Option.GO, EXPORT))
    wire.server(OptionReply(Option.GO, Ack()), count=19)
    assert wire.observer.owes
    assert wire.client_left() == []


def test_a_client_may_leave_after_half_of_a_reply() -> None:
    wire = opened()
    request = read(0, 4096)
    wire.client(request)
    wire.server(answer(request), count=2000)
    assert wire.client_left() == []


def test_a_client_may_leave_when_nobody_greets_it() -> None:
    wire = Wire()
    assert wire.observer.owes
    assert wire.client_left() == []


def test_a_client_that_is_owed_nothing_may_not() -> None:
    wire = opened()
    assert not wire.observer.owes
    assert wire.client_left() == ["C-128"]


def test_a_client_may_tear_off_a_payload_while_another_reply_is_owed() -> None:
    wire = opened()
    wire.client(read(cookie=2))
    wire.client(write(cookie=3), count=1000)
    assert wire.client_left() == []


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ((ABORT,), "the client left after NBD_OPT_ABORT without shutting TLS down"),
        ((LIST, ABORT), None),
    ],
)
def test_close_notify_is_not_due_while_something_is_owed(last, sentence) -> None:
    wire = greeted()
    wire.client(STARTTLS)
    wire.replies(Option.STARTTLS)
    wire.observer.tls_started("TLSv1.3", 0)
    wire.client(*last)
    if sentence is not None:
        wire.replies(Option.ABORT)
    assert wire.client_left() == ([] if sentence is None else ["C-62"])
    assert [finding.sentence for finding in wire.found if finding.rule == "C-62"] == (
        [] if sentence is None else [sentence]
    )


def test_eshutdown_obliges_to_disc_but_not_while_something_is_owed() -> None:
    for owed in (True, False):
        wire = opened(structured=False)
        wire.client(read(cookie=1), read(cookie=2))
        wire.server(SimpleReply(1, Error.ESHUTDOWN))
        if not owed:
            wire.server(SimpleReply(2, Error.ESHUTDOWN))
        assert wire.client_left() == ([] if owed else ["C-127"])


def test_err_shutdown_obliges_to_abort_but_not_while_something_is_owed() -> None:
    for owed in (True, False):
        wire = greeted()
        wire.client(LIST)
        wire.server(refusal(Option.LIST, Reply.ERR_SHUTDOWN))
        if owed:
            assert wire.client(LIST) == ["C-35"]
        assert wire.client_left() == ([] if owed else ["C-35"])


def test_disc_with_requests_unanswered_is_advisory() -> None:
    wire = opened()
    wire.client(read(cookie=2))
    wire.client(DISC)
    assert [str(finding) for finding in wire.found] == [
        "NBD_CMD_DISC came with requests unanswered: 1 (C-131, advisory)"
    ]


@pytest.mark.parametrize("seconds", [0.3, 30.0])
def test_how_long_a_reply_takes_is_not_judged(seconds: float) -> None:
    wire = opened()
    observer, request = wire.observer, read(cookie=2)
    observer.client_message(request, 28, 0.0)
    observer.server_message(answer(request), 20 + 8 + request.length, seconds)
    assert not observer.owes
    assert [finding.rule for finding in observer.client_closed("EOF", seconds)] == ["C-128"]


@pytest.mark.parametrize("seconds", [0.3, 30.0])
def test_how_long_a_client_waits_is_not_judged(seconds: float) -> None:
    wire = opened()
    wire.observer.client_message(read(cookie=2), 28, 0.0)
    assert wire.observer.client_closed("EOF", seconds) == ()


@pytest.mark.parametrize("count", [0, 20, 1000])
def test_a_client_may_leave_anywhere_when_nobody_reads_what_it_sends(count: int) -> None:
    wire = opened()
    wire.client(write(cookie=3), count=count)
    wire.observer.stopped_reading(0.0)
    assert wire.client_left("RST") == []
