import math
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl.changes import change


def test_a_change_is_two_means_and_the_noise_between_neighbours():
    lines = [{"update": n + 5, "x": x} for n, x in enumerate([1.0, 2.0, 1.0, 4.0, 5.0, 4.0])]
    found = change(lines, "x", 0, 2)
    # means 1.5 and 4.5; squared jumps 1, 1, 9, 1, 1, halved and averaged: 13 / 10; error sqrt(1.3 x (1/2 + 1/2))
    assert (found.before, found.now, found.error) == pytest.approx((1.5, 4.5, math.sqrt(1.3)))
    assert found.sigmas == pytest.approx(3 / math.sqrt(1.3))
    assert (found.began, found.beside) == (8, (5, 6))  # 1, 2, 1 | 4, 5, 4
    groups = change([{**line, "errors": {"x": 2.0}} for line in lines], "x", 0, 2)
    assert groups.error == pytest.approx(2.0)  # what the groups say is larger: sqrt(4 x (1/2 + 1/2))
    assert change(lines, "y", 0, 2) is None


@given(st.lists(st.floats(-5, 5), min_size=4, max_size=14))
def test_a_break_is_where_two_levels_leave_the_least_over(values):
    lines = [{"update": n, "x": x} for n, x in enumerate(values)]

    def left(cut):
        return sum((x - fmean(part)) ** 2 for part in (values[:cut], values[cut:]) for x in part)

    best = min(left(cut) for cut in range(1, len(values)))
    assert left(change(lines, "x", 0, 1).began) == pytest.approx(best, abs=1e-6)
