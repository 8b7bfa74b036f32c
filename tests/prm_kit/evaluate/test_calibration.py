import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prm_kit.evaluate.bootstrap import Bootstrap
from prm_kit.evaluate.calibration import (
    FLOOR,
    bin_edges,
    calibration_table,
    expected_calibration_error,
    reliability_curve,
)
from prm_kit.evaluate.rows import StepRows


def rows_of(label):
    n = len(label)
    zeros = np.zeros(n, int)
    return StepRows(zeros, zeros, np.arange(n), np.array(label), zeros + 1, n, 0)


def test_the_calibration_error_by_hand():
    p, truth = np.array([0.1, 0.3, 0.8, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    # two bins of width .5: means .2 and .85, shares .5 and 1: (2 * .3 + 2 * .15) / 4 = .225; equal mass cuts at .55
    assert expected_calibration_error(p, truth, 2, "equal_width") == pytest.approx(0.225)
    assert expected_calibration_error(p, truth, 2, "equal_mass") == pytest.approx(0.225)


def test_equal_predictions_share_a_bin_of_equal_mass():
    p = np.array([0.25] * 50 + [0.75] * 50)
    truth = np.array([1.0] * 25 + [0.0] * 25 + [1.0] * 50)
    # .25 is right half the time, .75 always: both off by .25
    assert expected_calibration_error(p, truth, 10, "equal_mass") == pytest.approx(0.25)
    curve = reliability_curve(p, truth)
    assert [(point["n"], point["share"]) for point in curve] == [(50, 0.5), (50, 1.0)]


def slow_ece(p, truth, edges):
    total = 0.0
    for low, high in zip([-1.0, *edges], [*edges, 2.0], strict=True):
        inside = [(x, t) for x, t in zip(p, truth, strict=True) if low <= x < high]
        if inside:
            total += abs(sum(t for _, t in inside) - sum(x for x, _ in inside))
    return total / len(p)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=30),
    st.integers(1, 12),
    st.sampled_from(["equal_mass", "equal_width"]),
)
def test_the_calibration_error_agrees_with_counting_bin_by_bin(pairs, bins, binning):
    p, truth = (np.array(column) for column in zip(*pairs, strict=True))
    expected = slow_ece(p, truth, bin_edges(p, bins, binning).tolist())
    assert expected_calibration_error(p, truth, bins, binning) == pytest.approx(expected)


def test_the_table_by_hand():
    # Brier: (.2^2 + .2^2 + 0) and (1 + 1): mean 1.04; NLL: -ln .8 and -ln of the floor
    p = np.array([[0.2, 0.0, 0.8], [0.0, 0.0, 1.0], [np.nan] * 3])
    table = calibration_table(rows_of([1, -1, 1]), p, Bootstrap(3, 40))
    assert table["answered"] == 2
    assert table["brier"]["value"] == pytest.approx((0.08 + 2) / 2)
    assert table["nll"]["value"] == pytest.approx((-math.log(0.8) - math.log(FLOOR)) / 2)
    assert set(table["classes"]) == {"-1", "0", "1"}
    assert table["classes"]["0"]["ece_equal_mass"]["value"] == 0.0


def test_a_scorer_that_says_the_truth_has_no_error():
    table = calibration_table(rows_of([1, 0, -1]), np.eye(3)[[2, 1, 0]], Bootstrap(3, 40))
    assert table["brier"]["value"] == table["nll"]["value"] == 0.0
    assert all(part["ece_equal_width"]["value"] == 0.0 for part in table["classes"].values())


def test_a_scorer_that_only_abstains_is_undefined_not_a_crash():
    table = calibration_table(rows_of([1, -1]), np.full((2, 3), np.nan), Bootstrap(2, 40))
    assert table["brier"] == {"value": None, "low": None, "high": None, "n": 0}
    assert table["classes"]["1"]["reliability"] == []
