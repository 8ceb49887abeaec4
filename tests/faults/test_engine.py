"""Whose turn it is: precedence, stacking, counting, exhaustion, addressing, and what it costs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fakenbd.faults import Answer, Event, Fault, Faults, Strike, Struck, When, make_kind
from fakenbd.faults.answer import Pause
from fakenbd.faults.stream import step_bytes
from fakenbd.protocol.messages import Greeting, OptionReply, Request, SimpleReply
from tests.faults.truths import CHUNKS, GO, SIMPLE


def command(number: int = 0, connection: int = 1, **fields: Any) -> Event:
    return Event("command", connection, request=Request(number, **fields))


READ, WRITE = command(0), command(1)
OK: Answer = [SimpleReply(1)]


def errors(faults: Faults, events: list[Event]) -> list[int]:
    """The error that each event is answered with."""
    answers = (faults.strike(event, OK)[0][0] for event in events)
    return [answer.error if isinstance(answer, SimpleReply) else -1 for answer in answers]


def test_the_first_fault_that_is_due_wins() -> None:
    faults = Faults()
    faults.on("read", nth=2).error(1)
    faults.on("read", after=1).error(2)
    faults.on("any").error(3)
    assert errors(faults, [READ, READ, READ, WRITE]) == [3, 1, 2, 3]


def test_a_fault_with_also_stacks_on_the_one_that_wins() -> None:
    faults = Faults()
    faults.on("read", also=True, name="slow").delay(1)
    faults.on("read", name="first").error(1)
    faults.on("read", name="shadowed").error(2)
    faults.on("read", also=True, name="late").delay(2)
    answer, struck = faults.strike(READ, OK)
    assert answer == [Pause(2.0), SimpleReply(0, 1)]
    assert [record.fault for record in struck] == ["slow", "first", "late"]


def test_a_fault_that_changes_nothing_does_not_win_nor_count() -> None:
    faults = Faults()
    idle = faults.on("read", times=1).drop("status")
    faults.on("read").error(5)
    assert errors(faults, [READ, READ]) == [5, 5]
    assert faults.strikes(idle) == 0


def test_kinds_of_one_fault_apply_in_order() -> None:
    faults = Faults()
    cut, delayed = make_kind("cut", 3), make_kind("delay", 1)
    faults.on("read").do(make_kind("error", 5), cut, delayed)
    answer, struck = faults.strike(SIMPLE.event, SIMPLE.answer)
    assert b"".join(map(step_bytes, answer)) == bytes.fromhex("674466")
    assert struck == [
        Struck(
            fault="error and cut and delay on read",
            kinds=("error", "cut", "delay"),
            occurrence=1,
            connection=1,
            change="set error of the simple reply: 0 -> 5 NBD_EIO; "
            "set data of the simple reply: 16 -> 0 bytes; "
            "cut after 3 of 16 bytes, then close; delayed by 1 s",
        )
    ]
    assert str(struck[0]) == (
        "fault 'error and cut and delay on read' struck on connection 1: " + struck[0].change
    )


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"nth": 2}, [0, 5, 0, 0, 0, 0]),
        ({"nth": 2, "per": "connection"}, [0, 5, 0, 5, 0, 0]),
        ({"times": 3}, [5, 5, 5, 0, 0, 0]),
        ({"times": 1, "per": "connection"}, [5, 0, 5, 0, 0, 0]),
        ({"every": 2}, [0, 5, 0, 5, 0, 5]),
        ({"connection": 2, "nth": 1}, [0, 0, 5, 0, 0, 0]),
        ({"after": 4}, [0, 0, 0, 0, 5, 5]),
        ({"chance": 0}, [0, 0, 0, 0, 0, 0]),
        ({"chance": 1}, [5, 5, 5, 5, 5, 5]),
    ],
)
def test_occurrences_count_for_the_server_or_for_each_connection(
    conditions: dict[str, Any], expected: list[int]
) -> None:
    faults = Faults()
    fault = faults.on("read", **conditions).error(5)
    events = [command(0, connection) for connection in (1, 1, 2, 2, 1, 2)]
    assert errors(faults, events) == expected
    assert faults.strikes(fault) == expected.count(5)
    on_two = [expected[place] for place in (2, 3, 5)]
    assert faults.strikes(fault, connection=2) == on_two.count(5)
    assert faults.strikes(fault, connection=3) == 0


def test_occurrences_count_only_what_meets_all_fixed_conditions() -> None:
    faults = Faults()
    faults.on("read", nth=2, offset="1KiB..", length=512).error(5)
    offsets = [0, 1024, 0, 4096, 4096]
    events = [command(0, offset=offset, length=512) for offset in offsets]
    assert errors(faults, events) == [0, 0, 0, 5, 0]


def test_a_fault_that_is_used_up_leaves_the_hot_path() -> None:
    faults = Faults()
    nth = faults.on("read", nth=2).error(5)
    faults.on("write", times=1).error(5)
    faults.on(option="go", nth=1).refuse("unsup")
    faults.on("greeting", nth=1).mute()
    faults.on("connect", nth=1).reset()
    assert faults.touched_commands == {0, 1}
    assert faults.touched_options == {7}
    assert (faults.touches_greeting, faults.touches_connect) == (True, True)
    faults.strike(WRITE, OK)
    faults.strike(READ, OK)
    assert faults.touched_commands == {0}
    faults.strike(READ, OK)
    faults.strike(GO.event, GO.answer)
    faults.strike(Event("greeting", 1), [Greeting()])
    faults.strike(Event("connect", 1), [])
    assert faults.touched_commands == frozenset()
    assert faults.touched_options == frozenset()
    assert (faults.touches_greeting, faults.touches_connect) == (False, False)
    assert nth in list(faults)
    assert len(faults) == 5


def test_counting_per_connection_ends_only_for_connections_named_beforehand() -> None:
    faults = Faults()
    faults.on("read", per="connection", nth=1, connection=[1, 2]).error(5)
    faults.on("write", per="connection", nth=1).error(5)
    faults.strike(command(0, 1), OK)
    faults.strike(command(1, 1), OK)
    assert faults.touched_commands == {0, 1}
    faults.strike(command(0, 2), OK)
    faults.strike(command(1, 2), OK)
    assert faults.touched_commands == {1}


def test_a_fault_on_any_command_touches_every_command() -> None:
    faults = Faults()
    assert not faults.touches(0)
    faults.on("any", times=1).error(5)
    faults.on("write").error(6)
    assert faults.touches(0)
    assert faults.touches(99)
    assert errors(faults, [WRITE, WRITE, READ]) == [5, 6, 0]
    assert not faults.touches(0)
    assert faults.touches(1)


def test_conditions_without_a_kind_of_event_touch_what_the_kinds_can_change() -> None:
    faults = Faults()
    faults.on(connection=2).mute()
    assert faults.touched_commands == frozenset()
    assert faults.touches_connect
    assert faults.touches_greeting
    faults.on(tls=True).delay(1)
    assert faults.touches(0)
    assert 77 in faults.touched_options


def test_faults_come_and_go_while_the_server_runs() -> None:
    faults = Faults((Fault("bad reads", When(command="read"), make_kind("error", 5)),))
    assert errors(faults, [READ]) == [5]
    faults.remove("bad reads")
    assert errors(faults, [READ]) == [0]
    assert faults.touched_commands == frozenset()
    added = faults.on("read").error(6)
    assert errors(faults, [READ]) == [6]
    faults.remove(added)
    assert errors(faults, [READ]) == [0]
    with pytest.raises(ValueError, match=r"^there is no fault named 'error on read'$"):
        faults.remove(added)


def test_names_are_unique_and_given_where_there_is_none() -> None:
    faults = Faults()
    names = [faults.on("read").error(error).name for error in (1, 2, 3)]
    assert names == ["error on read", "error on read (2)", "error on read (3)"]
    with pytest.raises(ValueError, match=r"^a fault named 'error on read' is there already$"):
        faults.on("write", name="error on read").error(1)


def test_what_was_counted_for_a_connection_can_be_forgotten() -> None:
    faults = Faults()
    fault = faults.on("read", per="connection", nth=1).error(5)
    assert errors(faults, [command(0, 9)]) == [5]
    faults.forget(9)
    assert faults.strikes(fault, connection=9) == 0
    assert faults.strikes(fault) == 1


# --- functions ---------------------------------------------------------------------------------


def test_a_function_is_a_kind() -> None:
    def shout(answer: Answer, strike: Strike) -> Answer:
        assert strike.event is READ
        answer.append(OptionReply(7, GO.answer[-1].body))  # type: ignore[union-attr, arg-type]
        return answer

    faults = Faults()
    fault = faults.on("read").call(shout)
    honest = list(OK)
    answer, (record,) = faults.strike(READ, honest)
    assert honest == OK, "the function works on a copy"
    assert len(answer) == 2
    assert (fault.name, record.kinds) == ("shout on read", ("shout",))
    assert record.change == "inserted ack"


def test_a_function_that_returns_no_answer_is_named() -> None:
    faults = Faults()
    faults.on("read", name="mine").call(lambda answer, strike: None)
    with pytest.raises(TypeError) as caught:
        faults.strike(READ, OK)
    assert str(caught.value) == "fault 'mine': <lambda> returned NoneType, not a list of steps"


# --- addressed randomness ----------------------------------------------------------------------


def run(seed: int, order: list[int]) -> dict[int, list[tuple[bytes, int]]]:
    """What each connection is told, its requests coming in the given order of connections."""
    faults = Faults(seed=seed)
    faults.on("read", chance=0.5, name="noise").garble(count=3)
    faults.on("read", also=True, name="order").shuffle()
    said: dict[int, list[tuple[bytes, int]]] = {}
    for connection in order:
        event = Event("command", connection, request=CHUNKS.event.request, structured=True)
        answer, struck = faults.strike(event, CHUNKS.answer)
        sent = b"".join(map(step_bytes, answer))
        said.setdefault(connection, []).append((sent, len(struck)))
    return said


def test_the_same_seed_says_the_same_bytes_in_whatever_order_connections_come() -> None:
    order = [1, 2, 3] * 20
    first = run(7, order)
    for shuffle in range(20):
        mixed = list(order)
        random.Random(shuffle).shuffle(mixed)
        assert run(7, mixed) == first
    assert run(8, order) != first
    assert first[1] != first[2], "connections have numbers of their own"


def test_chance_strikes_about_as_often_as_it_says_and_not_always_alike() -> None:
    faults = Faults(seed=3)
    fault = faults.on("read", chance=0.25).error(5)
    for _ in range(1000):
        faults.strike(READ, OK)
    assert 200 < faults.strikes(fault) < 300


def test_purposes_draw_different_numbers() -> None:
    strike = Strike(READ, "noise", 3, seed=1)
    assert strike.random().random() == random.Random("1/1/noise/3").random()
    assert strike.random("chance").random() != strike.random().random()


# --- cost --------------------------------------------------------------------------------------


def test_faults_on_other_commands_are_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    for error in range(100):
        faults.on("write", offset=error).error(error + 1)
        faults.on(option="go").refuse("unsup")
    faults.on("read", nth=1000).error(5)
    looked: list[When] = []
    monkeypatch.setattr(When, "matches", lambda when, event: looked.append(when))
    faults.strike(READ, OK)
    assert len(looked) == 1
    assert 3 not in faults.touched_commands
