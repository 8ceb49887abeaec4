from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakenbd.export.range_map import RangeMap

SPAN = 30
spans = st.tuples(st.integers(0, SPAN), st.integers(0, SPAN)).map(sorted)


@given(st.lists(st.tuples(spans, st.sampled_from([0, 2, 3])), max_size=20), spans)
def test_it_is_a_list_of_states(steps, asked):
    ranges = RangeMap()
    model: list[int | None] = [None] * SPAN
    for (start, end), flags in steps:
        ranges.set(start, end, flags)
        model[start:end] = [flags] * (end - start)
    start, end = asked
    position = start
    expected = []
    for flags, group in itertools.groupby(model[start:end]):
        stop = position + len(list(group))
        expected.append((position, stop, flags))
        position = stop
    assert list(ranges.over(start, end)) == expected
    assert len(ranges) == sum(flags is not None for flags, _ in itertools.groupby(model))


@pytest.mark.parametrize(("start", "end"), [(0, 2**64), (2**64 - 1, 2**64)])
def test_the_largest_range_is_one_range(start, end):
    ranges = RangeMap()
    ranges.set(start, end, 3)
    ranges.set(2**64 - 1, 2**64, 3)
    assert len(ranges) == 1
    assert list(ranges.over(start, end)) == [(start, end, 3)]
