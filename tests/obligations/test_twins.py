"""Every rule that is observed: the rude client breaks exactly that one, its polite twin none.

Each conversation is replayed whole, byte by byte, cut in two wherever no bulk data are, with bulk
data as gaps, and as whole messages; what is found is the same each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from fakenbd.errors import ProtocolError
from fakenbd.obligations import Gap
from fakenbd.obligations.finding import level_of
from fakenbd.obligations.rule_coverage import OBSERVABLE
from fakenbd.protocol.decode_client import decode_option_request, decode_request
from fakenbd.protocol.encode import encode
from fakenbd.protocol.messages import Buffer, OptionRequest, Request
from tests.obligations.command_twins import COMMAND_TWINS
from tests.obligations.handshake_twins import HANDSHAKE_TWINS
from tests.obligations.recorder import Cut, Message, Recording, Sent, record, replayed
from tests.obligations.stage import Twins
from tests.obligations.traffic_twins import TRAFFIC_TWINS

TWINS = HANDSHAKE_TWINS + COMMAND_TWINS + TRAFFIC_TWINS
IDS = [f"{index}-{twins.rule}" for index, twins in enumerate(TWINS)]
RECORDINGS = {
    record(twins.setting, lines): f"{name}-{kind}"
    for name, twins in zip(IDS, TWINS, strict=True)
    for kind, lines in (("polite", twins.polite), ("rude", twins.rude))
}
EACH = [pytest.param(recording, id=name) for recording, name in RECORDINGS.items()]


@pytest.mark.parametrize("twins", TWINS, ids=IDS)
def test_a_client_breaks_its_rule_and_no_other(twins: Twins) -> None:
    found = replayed(record(twins.setting, twins.rude))
    assert sorted(finding.rule for finding in found) == sorted((twins.rule, *twins.also))
    (finding,) = (each for each in found if each.rule == twins.rule)
    assert finding.side == "client"
    assert finding.level == (twins.level or level_of(twins.rule))
    assert finding.sentence == twins.sentence


@pytest.mark.parametrize("twins", TWINS, ids=IDS)
def test_its_polite_twin_breaks_none(twins: Twins) -> None:
    assert replayed(record(twins.setting, twins.polite)) == []


def test_every_observable_rule_has_its_twins() -> None:
    assert {twins.rule for twins in TWINS} == set(OBSERVABLE)


# --- however the bytes come -----------------------------------------------------------------------


def at(*positions: int, data: bytes) -> list[Buffer]:
    cuts = [0, *positions, len(data)]
    return [data[start:end] for start, end in pairwise(cuts)]


def single_bytes(sent: Sent) -> Sequence[Buffer]:
    return at(*sent.cuts, data=sent.data)


def bulk_as_gaps(sent: Sent) -> Sequence[Buffer | Gap]:
    starts = [0, *sent.cuts]
    pieces = zip(starts, single_bytes(sent), strict=True)
    return [Gap(len(piece)) if start in sent.content else piece for start, piece in pieces]


def as_messages(sent: Sent) -> Sequence[Buffer | Message]:
    """Whole messages where somebody else can have decoded them, else their bytes."""
    if sent.count is not None:
        return [sent.data]
    return [decoded(each) if sent.side == "client" else each for each in sent.messages]


def decoded(message: Message) -> Buffer | Message:
    data = encode(message)
    try:
        if isinstance(message, OptionRequest):
            found = decode_option_request(data, limit=1 << 20)
        elif isinstance(message, Request):
            found = decode_request(data, extended=message.extended, limit=1 << 26)
        else:
            found = None
    except ProtocolError:
        found = None
    return found[0] if found is not None else data


WAYS = {"byte by byte": single_bytes, "with gaps": bulk_as_gaps, "as messages": as_messages}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
@pytest.mark.parametrize("recording", EACH)
def test_what_is_found_does_not_depend_on_how_the_bytes_come(
    recording: Recording, way: Cut
) -> None:
    assert replayed(recording, way) == replayed(recording)


@pytest.mark.parametrize("recording", EACH)
def test_what_is_found_does_not_depend_on_where_they_are_cut(recording: Recording) -> None:
    found = replayed(recording)
    most = max(len(step.cuts) for _, step in recording.steps if isinstance(step, Sent))
    for index in range(most):

        def cut(sent: Sent, index: int = index) -> Sequence[Buffer]:
            cuts = sent.cuts
            return at(*cuts[index : index + 1], data=sent.data)

        assert replayed(recording, cut) == found, index


@pytest.mark.endurance
@pytest.mark.parametrize("recording", EACH)
def test_what_is_found_does_not_depend_on_where_content_is_cut(recording: Recording) -> None:
    found = replayed(recording)
    longest = max(len(step.data) for _, step in recording.steps if isinstance(step, Sent))
    # Every byte of what is long for a header, then some of each block.
    for place in (*range(1, min(longest, 5000)), *range(5000, longest, 509)):

        def cut(sent: Sent, place: int = place) -> Sequence[Buffer]:
            return at(*(each for each in (place,) if each < len(sent.data)), data=sent.data)

        assert replayed(recording, cut) == found, place
