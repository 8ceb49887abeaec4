"""Whose turn it is: precedence, stacking, counting, exhaustion, addressing, and what it costs."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fakenbd.faults import (
    Answer,
    Event,
    Fault,
    Faults,
    Firing,
    FiringRecord,
    When,
    make_kind,
    parse_do,
)
from fakenbd.faults.answer import Pause
from fakenbd.faults.stream import step_bytes
from fakenbd.protocol.messages import OptionReply, Request, SimpleReply
from tests.faults.correct_answers import CHUNKS, GO, SIMPLE
from tests.faults.firing import fire


def command(number: int = 0, connection: int = 1, **fields: Any) -> Event:
    return Event("command", connection, request=Request(number, **fields))


READ, WRITE = command(0), command(1)
OK: Answer = [SimpleReply(1)]


def errors(faults: Faults, events: list[Event]) -> list[int]:
    """The error that each event is answered with."""
    answers = (fire(faults, event, OK)[0][0] for event in events)
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
    answer, fired = fire(faults, READ, OK)
    assert answer == [Pause(2.0), SimpleReply(0, 1)]
    assert [record.fault for record in fired] == ["slow", "first", "late"]


def test_a_fault_that_changes_nothing_has_not_fired_and_does_not_pass_the_turn() -> None:
    faults = Faults()
    first = faults.on("read", times=1, name="no holes").drop("hole")
    second = faults.on("read").error(5)
    assert errors(faults, [READ, READ]) == [0, 0]
    assert (faults.fired(first), faults.fired(second)) == (0, 0)
    assert faults.unfired([READ, READ]) == [
        "fault 'no holes' never fired: at NBD_CMD_READ number 1 on connection 1 "
        "it left the answer as it was",
        "fault 'error on read' never fired: at NBD_CMD_READ number 1 on connection 1 "
        "fault 'no holes' came first",
    ]


def test_a_fault_that_changed_nothing_is_not_used_up() -> None:
    faults = Faults()
    fault = faults.on("read", times=1).drop("data")
    fire(faults, CHUNKS.event, [])
    assert 0 in faults.touched_commands
    _, fired = fire(faults, CHUNKS.event, CHUNKS.answer)
    assert [record.fault for record in fired] == [fault.name]
    assert faults.touched_commands == frozenset()


def test_a_choice_depends_on_events_and_not_on_replies() -> None:
    faults = Faults()
    faults.on("read", nth=2, name="second").error(5)
    faults.on("read", also=True, name="slow").delay(1)
    choices = [faults.choose(READ) for _ in range(3)]
    assert all(choices)
    assert not faults.choose(WRITE)
    fired = [faults.apply(choice, OK)[1] for choice in reversed(choices)]
    assert [[(each.fault, each.occurrence) for each in records] for records in fired] == [
        [("slow", 3)],
        [("second", 2), ("slow", 2)],
        [("slow", 1)],
    ]


def test_no_more_faults_are_chosen_at_a_time_than_may_fire() -> None:
    faults = Faults()
    fault = faults.on("read", times=1).drop("simple")
    first, second = faults.choose(READ), faults.choose(READ)
    assert first
    assert not second
    faults.apply(first, [])
    third = faults.choose(READ)
    assert faults.apply(third, OK)[0] == []
    assert faults.fired(fault) == 1
    assert not faults.choose(READ)


def test_what_was_chosen_on_a_connection_that_ended_may_be_chosen_again() -> None:
    faults = Faults()
    fault = faults.on("read", times=1).drop("simple")
    lost = faults.choose(READ)
    faults.forget(1)
    again = faults.choose(command(0, 2))
    assert again
    faults.apply(lost, [])
    faults.apply(again, OK)
    assert faults.fired(fault) == 1
    assert faults.touched_commands == frozenset()


ABORT, GREETING = Event("option", 1, option=2), Event("greeting", 1)


@pytest.mark.parametrize(
    ("event", "do", "effect"),
    [
        (WRITE, {"error": 5}, False),
        (WRITE, {"error": 5, "effect": True}, True),
        (WRITE, {"reply": []}, False),
        (WRITE, [{"delay": 1}, {"reply": [], "effect": True}], True),
        (WRITE, [{"delay": 1}, {"reply": []}], False),
        (WRITE, "shutdown", False),
        (WRITE, {"shutdown": True, "effect": True}, True),
        (WRITE, ["drop"], True),
        (WRITE, {"cut": 0}, True),
        (GO.event, {"refuse": "unsup"}, False),
        (GO.event, {"refuse": "unsup", "effect": True}, True),
        (GO.event, "shutdown", False),
        (ABORT, "shutdown", True),
        (ABORT, {"reply": []}, False),
        (GREETING, "shutdown", True),
    ],
)
def test_a_kind_that_replaces_the_reply_keeps_the_effect_only_when_asked(
    event: Event, do: Any, effect: bool
) -> None:
    choice = Faults((Fault("the fault", When(), parse_do(do)),)).choose(event)
    assert choice
    assert choice.effect is effect


def test_one_fault_of_several_is_enough_to_keep_a_command_from_being_performed() -> None:
    faults = Faults()
    faults.on("write", also=True).drop()
    assert faults.choose(WRITE).effect
    faults.on("write").error(5)
    assert not faults.choose(WRITE).effect


def test_kinds_of_one_fault_apply_in_order() -> None:
    faults = Faults()
    cut, delayed = make_kind("cut", 3), make_kind("delay", 1)
    faults.on("read").do(make_kind("error", 5), cut, delayed)
    answer, fired = fire(faults, SIMPLE.event, SIMPLE.answer)
    assert b"".join(map(step_bytes, answer)) == bytes.fromhex("674466")
    assert fired == [
        FiringRecord(
            fault="error and cut and delay on read",
            kinds=("error", "cut", "delay"),
            occurrence=1,
            connection=1,
            change="replaced simple reply by NBD_EIO; "
            "cut after 3 of 16 bytes, then close; delayed by 1 s",
        )
    ]
    assert str(fired[0]) == (
        "fault 'error and cut and delay on read' fired on connection 1: " + fired[0].change
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
    assert faults.fired(fault) == expected.count(5)
    on_two = [expected[place] for place in (2, 3, 5)]
    assert faults.fired(fault, connection=2) == on_two.count(5)
    assert faults.fired(fault, connection=3) == 0


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
    assert faults.touched_commands == {0, 1}
    fire(faults, WRITE, OK)
    fire(faults, READ, OK)
    assert faults.touched_commands == {0}
    fire(faults, READ, OK)
    assert faults.touched_commands == frozenset()
    assert nth in list(faults)
    assert len(faults) == 2


def test_counting_per_connection_ends_only_for_connections_named_beforehand() -> None:
    faults = Faults()
    faults.on("read", per="connection", nth=1, connection=[1, 2]).error(5)
    faults.on("write", per="connection", nth=1).error(5)
    fire(faults, command(0, 1), OK)
    fire(faults, command(1, 1), OK)
    assert faults.touched_commands == {0, 1}
    fire(faults, command(0, 2), OK)
    fire(faults, command(1, 2), OK)
    assert faults.touched_commands == {1}


def test_a_fault_on_any_command_touches_every_command() -> None:
    faults = Faults()
    assert 0 not in faults.touched_commands
    faults.on("any", times=1).error(5)
    faults.on("write").error(6)
    assert {0, 99} <= {number for number in range(100) if number in faults.touched_commands}
    assert errors(faults, [WRITE, WRITE, READ]) == [5, 6, 0]
    assert faults.touched_commands == {1}


def test_conditions_without_a_kind_of_event_touch_what_the_kinds_can_change() -> None:
    faults = Faults()
    faults.on(connection=2).no_greeting()
    assert faults.touched_commands == frozenset()
    assert faults.choose(Event("greeting", 2))
    faults.on(tls=True).delay(1)
    assert 77 in faults.touched_commands
    assert faults.choose(Event("option", 1, option=77, tls=True))


def test_no_fault_is_chosen_for_a_timer() -> None:
    faults = Faults()
    faults.on().delay(1)
    faults.on().call(lambda answer, firing: [])
    assert not faults.choose(Event("timer", 1, now=3.0))


def test_a_fault_that_is_not_armed_neither_fires_nor_counts() -> None:
    faults = Faults(
        (Fault("late", When(command="read", nth=2), make_kind("error", 5), armed=False),)
    )
    assert faults.touched_commands == frozenset()
    assert errors(faults, [READ, READ]) == [0, 0]
    assert faults.unfired([READ, READ]) == ["fault 'late' never fired: it was not armed"]
    faults.arm("late")
    assert [fault.armed for fault in faults] == [True]
    assert errors(faults, [READ]) == [0]
    faults.disarm("late")
    assert errors(faults, [READ, READ]) == [0, 0]
    faults.arm("late")
    assert errors(faults, [READ, READ]) == [5, 0]
    faults.disarm("late")
    assert faults.unfired([READ]) == []
    with pytest.raises(ValueError, match=r"^there is no fault named 'later'$"):
        faults.arm("later")


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
    assert faults.fired(fault, connection=9) == 0
    assert faults.fired(fault) == 1


# --- functions ---------------------------------------------------------------------------------


def test_a_function_is_a_kind() -> None:
    def shout(answer: Answer, firing: Firing) -> Answer:
        assert firing.event is READ
        answer.append(OptionReply(7, GO.answer[-1].body))  # type: ignore[union-attr, arg-type]
        return answer

    faults = Faults()
    fault = faults.on("read").call(shout)
    correct = list(OK)
    answer, (record,) = fire(faults, READ, correct)
    assert correct == OK, "the function works on a copy"
    assert len(answer) == 2
    assert (fault.name, record.kinds) == ("shout on read", ("shout",))
    assert record.change == "changed by shout"


def test_a_function_that_returns_no_answer_is_named() -> None:
    faults = Faults()
    faults.on("read", name="mine").call(lambda answer, firing: None)
    with pytest.raises(TypeError) as caught:
        fire(faults, READ, OK)
    assert str(caught.value) == "fault 'mine': <lambda> returned NoneType, not a list of steps"


# --- addressed randomness ----------------------------------------------------------------------


def run(seed: int, order: list[int]) -> dict[int, list[tuple[bytes, int]]]:
    """The replies on each connection, its requests coming in the given order of connections."""
    faults = Faults(seed=seed)
    faults.on("read", chance=0.5, name="noise").corrupt(count=3)
    faults.on("read", also=True, name="order").shuffle()
    collected: dict[int, list[tuple[bytes, int]]] = {}
    for connection in order:
        event = Event("command", connection, request=CHUNKS.event.request, structured=True)
        answer, fired = fire(faults, event, CHUNKS.answer)
        sent = b"".join(map(step_bytes, answer))
        collected.setdefault(connection, []).append((sent, len(fired)))
    return collected


def test_the_same_seed_says_the_same_bytes_in_whatever_order_connections_come() -> None:
    order = [1, 2, 3] * 20
    first = run(7, order)
    for shuffle in range(20):
        mixed = list(order)
        random.Random(shuffle).shuffle(mixed)
        assert run(7, mixed) == first
    assert run(8, order) != first
    assert first[1] != first[2], "connections have numbers of their own"


def test_chance_firings_about_as_often_as_it_says_and_not_always_alike() -> None:
    faults = Faults(seed=3)
    fault = faults.on("read", chance=0.25).error(5)
    for _ in range(1000):
        fire(faults, READ, OK)
    assert 200 < faults.fired(fault) < 300


def test_purposes_draw_different_numbers() -> None:
    firing = Firing(READ, "noise", 3, seed=1)
    assert firing.random().random() == random.Random("1/1/noise/3").random()
    assert firing.random("chance").random() != firing.random().random()


# --- cost --------------------------------------------------------------------------------------


def test_faults_on_other_commands_are_never_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults()
    for error in range(100):
        faults.on("write", offset=error).error(error + 1)
        faults.on(option="go").refuse("unsup")
    faults.on("read", nth=1000).error(5)
    looked: list[When] = []
    monkeypatch.setattr(When, "matches", lambda when, event: looked.append(when))
    fire(faults, READ, OK)
    assert len(looked) == 1
    assert 3 not in faults.touched_commands
