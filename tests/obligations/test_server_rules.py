"""Each rule of a server, broken and kept, and the tables of where it is judged."""

from __future__ import annotations

from typing import Any

import pytest

from fakenbd.obligations import server_coverage
from fakenbd.obligations.byte_runs import LIMIT, ByteRuns
from fakenbd.obligations.option_progress import OptionProgress
from fakenbd.obligations.reply_progress import ReplyProgress, RequestFacts
from fakenbd.obligations.server_end_rules import judge_end
from fakenbd.obligations.server_reply_rules import judge_chunk_length, judge_reply
from fakenbd.obligations.server_tls_rules import judge_clear_bytes
from fakenbd.protocol.constants import ChunkType, Command, Option
from fakenbd.protocol.messages import (
    Chunk,
    ClientFlags,
    Data,
    Greeting,
    MetaContext,
    MetaContextQuery,
    OptionReply,
    OptionRequest,
    SimpleReply,
)
from fakenbd.protocol.negotiated import BlockSize, NegotiatedState
from fakenbd.protocol.rules import rules
from tests.obligations.server_cases import CASES, Case
from tests.obligations.server_judging import ServerJudge

TABLES = {name: getattr(server_coverage, name) for name in server_coverage.__all__}


def shown(messages: Any) -> ServerJudge:
    judge = ServerJudge()
    for message in messages:
        judge.show(message)
    return judge


# --- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_broken_rule_is_found_and_a_kept_one_is_not(case: Case):
    assert shown(case.before).rules == []
    assert shown((*case.before, *case.clean)).rules == []
    assert sorted(shown((*case.before, *case.broken)).rules) == sorted(case.rules)


def test_every_row_stands_in_one_table():
    places = [rule for table in TABLES.values() for rule in table]
    assert sorted(places) == sorted(row.id for row in rules("S"))


def test_every_judged_row_is_broken_once():
    broken = {rule for case in CASES for rule in case.rules}
    broken |= {rule for _, found in ENDS for rule in found.split()} | {"S-104", "S-105"}
    assert broken == set(server_coverage.JUDGED)


# --- ends ----------------------------------------------------------------------------------------


def after(option: int, *, final: bool = False, count: int = 0) -> dict[str, Any]:
    progress = OptionProgress(final=final, count=count)
    return {"option": OptionRequest(option), "progress": progress}


SECRET = NegotiatedState(tls=True)
ENDS: list[tuple[dict[str, Any], str]] = [
    ({"stage": "greeting"}, "S-10"),
    ({"stage": "client-flags"}, "S-10"),
    ({"stage": "greeting", "part": "header"}, "S-06"),
    ({"stage": "options"}, "S-11"),
    ({"stage": "options", "part": "header", **after(Option.LIST)}, "S-28"),
    ({"stage": "options", "part": "body", **after(Option.SET_META_CONTEXT)}, "S-28"),
    ({"stage": "options", **after(Option.LIST)}, "S-28"),
    ({"stage": "options", **after(Option.SET_META_CONTEXT, count=1)}, "S-28"),
    ({"stage": "options", **after(Option.SET_META_CONTEXT)}, "S-32"),
    ({"stage": "options", **after(77)}, "S-32"),
    ({"stage": "options", "part": "body", **after(Option.EXPORT_NAME)}, "S-66"),
    ({"stage": "options", "part": "body", **after(Option.GO)}, "S-75"),
    ({"stage": "options", **after(Option.GO)}, "S-75"),
    ({"stage": "options", **after(Option.INFO, final=True)}, "S-75"),
    ({"stage": "tls"}, "S-104"),
    ({"stage": "transmission", "state": SECRET}, "S-111"),
    ({"stage": "transmission", "part": "header", "in_flight": 1}, "S-133 S-135"),
    ({"stage": "transmission", "part": "body", "in_flight": 1}, "S-135"),
    ({"stage": "transmission", "part": "body", "how": "RST", "in_flight": 1}, "S-135"),
    ({"stage": "disc", "part": "body", "in_flight": 1}, "S-135"),
    ({"stage": "transmission", "in_flight": 3}, "S-135"),
    ({"stage": "disc", "in_flight": 1}, "S-190"),
]
LEGAL_ENDS: list[dict[str, Any]] = [
    {"stage": "options", **after(Option.EXPORT_NAME)},
    {"stage": "options", **after(Option.ABORT)},
    {"stage": "options", **after(Option.ABORT, final=True)},
    {"stage": "options", **after(Option.STARTTLS, final=True)},
    {"stage": "transmission"},
    {"stage": "transmission", "part": "read-data", "in_flight": 1},
    {"stage": "transmission", "how": "TLS close", "state": SECRET},
    {"stage": "disc"},
]


def found_at_the_end(
    stage: Any, how: Any = "EOF", state: NegotiatedState | None = None, **more: Any
) -> list[str]:
    return [each.rule for each in judge_end(stage, how, state or NegotiatedState(), **more)]


@pytest.mark.parametrize(("end", "found"), ENDS, ids=lambda value: str(value)[:60])
def test_an_end_that_breaks_a_rule(end, found):
    assert found_at_the_end(**end) == found.split()


@pytest.mark.parametrize("end", LEGAL_ENDS, ids=lambda value: str(value)[:60])
def test_an_end_that_breaks_none(end):
    assert found_at_the_end(**end) == []


def test_a_server_may_be_shutting_down():
    (between,) = judge_end("transmission", "EOF", NegotiatedState(), in_flight=1)
    (within,) = judge_end("transmission", "EOF", NegotiatedState(), part="body", in_flight=1)
    assert (between.level, within.level) == ("SHOULD", None)


# --- TLS -----------------------------------------------------------------------------------------

CLEAR = [
    (b"\0\3\xe8\x89", False, ["S-105"]),
    (b"\x16\3\3", False, ["S-105"]),
    (b"\0\3\xe8\x89", True, ["S-104"]),
    (b"\x16\2", True, ["S-104"]),
    (b"\x16", True, []),
    (b"\x16\3\3", True, []),
    (b"\x15\3\3", True, []),
]


@pytest.mark.parametrize(("head", "client_began", "found"), CLEAR)
def test_bytes_behind_an_accepted_starttls(head, client_began, found):
    breaches = judge_clear_bytes(head, client_began=client_began)
    assert [breach.rule for breach in breaches] == found


# --- lengths -------------------------------------------------------------------------------------

READ = RequestFacts(Command.READ, 0, 0, 4096)
SMALL = NegotiatedState(structured=True, block_size=BlockSize(1, 512, 1024))
LENGTHS = [
    (READ, ChunkType.OFFSET_DATA, 4104, NegotiatedState(), []),
    (READ, ChunkType.OFFSET_DATA, 4105, NegotiatedState(), ["S-144"]),
    (READ, ChunkType.OFFSET_DATA, 1033, SMALL, ["S-144"]),
    (READ, ChunkType.OFFSET_DATA, 1032, SMALL, []),
    (READ, ChunkType.ERROR, 1 << 20, SMALL, []),
    (RequestFacts(Command.WRITE, 0, 0, 1), ChunkType.OFFSET_DATA, 1 << 20, SMALL, []),
]


@pytest.mark.parametrize(("request_", "kind", "length", "state", "found"), LENGTHS)
def test_an_announced_length(request_, kind, length, state, found):
    breaches = judge_chunk_length(request_, kind, length, state)
    assert [breach.rule for breach in breaches] == found


# --- bounds --------------------------------------------------------------------------------------


def test_runs_are_merged_and_found():
    runs = ByteRuns()
    for start, end in ((10, 20), (30, 40), (20, 30), (0, 5)):
        assert not runs.overlaps(start, end)
        runs.add(start, end)
    assert [runs.gap(at, 50) for at in (0, 5, 10, 39, 45)] == [5, 5, 40, 40, 45]
    assert runs.gap(10, 40) is None
    assert runs.overlaps(39, 41)
    assert not runs.overlaps(40, 41)
    runs.add(3, 35)
    assert runs.gap(0, 50) == 40


def scattered(count: int, *more: tuple[int, int]) -> list[str]:
    """A READ whose content comes in `count` runs that do not touch, then `more`."""
    request, progress = RequestFacts(Command.READ, 0, 0, 2 * count), ReplyProgress()
    state = NegotiatedState(structured=True)
    found: list[str] = []
    for start, size in (*((2 * index, 1) for index in range(count)), *more):
        found += [
            breach.rule
            for breach in judge_reply(request, Chunk(1, Data(start, bytes(size))), progress, state)
        ]
    assert progress.data is not None
    assert progress.data.lost == (count > LIMIT)
    last = judge_reply(request, Chunk(1, Data(2 * count - 1, b"x"), 1), progress, state)
    return found + [breach.rule for breach in last]


@pytest.mark.parametrize("count", [LIMIT, LIMIT + 1])
def test_what_is_scattered_is_kept_within_bounds(count):
    complete = [(2 * index + 1, 1) for index in range(count - 1)]
    assert scattered(count, *complete) == []
    assert scattered(count, *complete[1:]) == ["S-157"]


def test_too_many_runs_are_no_overlap():
    assert scattered(LIMIT + 1, (0, 1), *((2 * at + 1, 1) for at in range(LIMIT))) == []
    assert scattered(LIMIT, (0, 1), *((2 * at + 1, 1) for at in range(LIMIT - 1))) == ["S-155"]


def test_nothing_is_missing_where_bytes_are_unknown():
    state = NegotiatedState(structured=True)
    progress = ReplyProgress(blind=True)
    assert not judge_reply(READ, Chunk(1, Data(0, b"x"), 1), progress, state)
    assert progress.done


@pytest.mark.parametrize("command", [Command.WRITE, Command.READ])
def test_the_short_way_finishes_a_reply_as_the_long_one_does(command):
    request, progress = RequestFacts(command, 0, 0, 512), ReplyProgress()
    data = bytes(512) if command == Command.READ else b""
    assert not judge_reply(request, SimpleReply(1, 0, data), progress, NegotiatedState())
    found = judge_reply(None, SimpleReply(1, 5), progress, NegotiatedState())
    assert [breach.rule for breach in found] == ["S-124"]


def test_contexts_are_kept_within_bounds():
    queries = [f"x-a:{number}" for number in range(1000)]
    judge = shown([Greeting(3), ClientFlags(3)])
    judge.show(OptionRequest(Option.SET_META_CONTEXT, MetaContextQuery("disk", queries)))
    for number, name in enumerate(queries):
        judge.show(OptionReply(Option.SET_META_CONTEXT, MetaContext(number, name)))
    assert judge.rules == []
    assert len(judge.progress.contexts) == 64
