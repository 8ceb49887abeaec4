"""More than one connection: whom a breach excuses, and commands on several of them."""

from __future__ import annotations

import pytest

from fakenbd.obligations import Siblings
from fakenbd.protocol.constants import (
    TransmissionFlag,
)
from tests.obligations.stage import (
    read,
    write,
)
from tests.obligations.wire import FLAGS, answer, opened


@pytest.mark.parametrize(
    ("label", "found"), [("the client", []), ("another", ["C-128"]), (None, ["C-128"])]
)
def test_a_client_that_gives_up_leaves_all_its_connections(label, found) -> None:
    siblings = Siblings()
    broken, other = opened("the client", siblings), opened(label, siblings)
    broken.server(b"\xff" * 20)
    assert other.client_left() == found
    assert broken.client_left() == []


def test_a_sibling_may_tear_off_a_payload() -> None:
    siblings = Siblings()
    broken, other = opened("A", siblings), opened("A", siblings)
    other.client(write(), count=100)
    broken.server(b"\xff" * 20)
    assert other.client_left("RST") == []


def test_without_labels_a_breach_excuses_who_has_sent_nothing_since() -> None:
    siblings = Siblings()
    broken, idle, busy = (opened(None, siblings) for _ in range(3))
    broken.server(b"\xff" * 20)
    busy.client(read(cookie=4))
    busy.server(answer(read(cookie=4)))
    assert idle.client_left() == []
    assert busy.client_left() == ["C-128"]


def test_other_connections_are_excused_for_leaving_and_for_nothing_else() -> None:
    siblings = Siblings()
    broken, other = opened("A", siblings), opened("A", siblings)
    other.client(read(cookie=7))
    broken.server(b"\xff" * 20)
    assert other.client(read(cookie=7)) == ["C-72"]


def test_a_connection_made_after_the_breach_is_not_excused_by_it() -> None:
    siblings = Siblings()
    opened("A", siblings).server(b"\xff" * 20)
    assert opened("A", siblings).client_left() == ["C-128"]


@pytest.mark.parametrize("label", ["A", None])
def test_a_breach_on_a_connection_that_is_over_excuses_nobody(label: str | None) -> None:
    siblings = Siblings()
    gone, other = opened(label, siblings), opened(label, siblings)
    gone.client_left()
    gone.server(b"\xff" * 20)
    assert other.client_left() == ["C-128"]


@pytest.mark.parametrize(("label", "found"), [(None, []), ("A", ["C-102"])])
def test_who_nobody_can_tell_apart_is_not_taken_for_one_client(label, found) -> None:
    siblings = Siblings()
    flags = FLAGS & ~TransmissionFlag.CAN_MULTI_CONN
    opened(label, siblings, flags=flags)
    second = opened(label, siblings, flags=flags, commanded=False)
    assert second.client(read()) == found


@pytest.mark.parametrize("label", ["A", None])
@pytest.mark.parametrize("first", ["owed", "idle"])
def test_a_client_that_waits_no_longer_gives_up_all_its_connections(label, first) -> None:
    siblings = Siblings()
    owed, idle = opened(label, siblings), opened(label, siblings)
    owed.client(read(cookie=4))
    for wire in (owed, idle) if first == "owed" else (idle, owed):
        assert wire.client_left() == []


def test_what_another_client_is_owed_excuses_nobody() -> None:
    siblings = Siblings()
    owed, idle = opened("A", siblings), opened("B", siblings)
    owed.client(read(cookie=4))
    assert idle.client_left() == ["C-128"]


def test_what_was_owed_and_then_came_excuses_nobody() -> None:
    siblings = Siblings()
    owed, idle = opened("A", siblings), opened("A", siblings)
    owed.client(read(cookie=4))
    owed.server(answer(read(cookie=4)))
    assert idle.client_left() == ["C-128"]
