import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.report.curves import Curve, curves, number, round_ticks


def test_ticks_are_round_numbers_inside():
    assert round_ticks(0, 30) == [0, 5, 10, 15, 20, 25, 30]
    assert round_ticks(0.38, 0.61) == pytest.approx([0.4, 0.45, 0.5, 0.55, 0.6])
    assert round_ticks(-1.2, 0.7) == pytest.approx([-1, -0.5, 0, 0.5])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_a_plot_has_a_few_ticks_wherever_it_lies(low, span):
    ticks = round_ticks(low, low + span)
    assert 2 <= len(ticks) <= 7
    assert all(low - 1e-3 * span <= tick <= low + 1.001 * span for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (-0.5, "−0.5"), (1234, "1234"), (20480, "20.48k"), (3e6, "3M"), (3e-4, "0.0003"),
     (0.00003, "3e−5"), (0.00000105, "1.05e−6")],
)  # fmt: skip
def test_numbers_are_short(value, text):
    assert number(value) == text


def test_a_curve_has_its_band_or_its_whiskers_and_an_alarm_a_rule():
    points, reach = [(0.0, 0.5), (10.0, 0.7)], [(0.0, 0.4, 0.6), (10.0, 0.6, 0.8)]
    plot = curves("t", [Curve("a", "model", points, reach)], "update", "share", marks=[5.0])
    assert plot.count("<polygon") == 1
    assert plot.count('class="chosen"') == 1
    dotted = curves("t", [Curve("a", "model", points, reach, "circle", whiskers=True)], "update", "share")
    assert (dotted.count("<polygon"), dotted.count("<circle"), dotted.count("whisker")) == (0, 2, 2)
    assert "a, 10: 0.7, 0.6 to 0.8" in dotted
    assert "&lt;b&gt;" in curves("<b>", [Curve("a", "model", points)], "x", "y")


def test_a_curve_that_never_moves_has_an_axis_and_nothing_lies_outside_of_it():
    for value in (0.0, 0.3, -2.0):
        plot = curves("t", [Curve("a", "model", [(0.0, value), (1.0, value)])], "x", "y", size=(380, 240))
        heights = [float(y) for _, y in re.findall(r"([\d.]+),([\d.]+)", re.search(r'points="([^"]+)"', plot)[1])]
        assert all(12 <= y <= 240 - 42 for y in heights)
    outside = curves("t", [Curve("a", "model", [(0.0, 0.5), (1.0, 0.6)], [(0.0, -9.0, 9.0)])], "x", "y")
    assert "nan" not in outside


def test_an_alarm_after_the_last_point_lies_within_the_axes():
    plot = curves(
        "t", [Curve("a", "model", [(0.0, 0.5), (1.0, 0.7)])], "update", "share", marks=[30.0], size=(380, 240)
    )
    (place,) = re.findall(r'class="chosen" x1="([\d.]+)"', plot)
    assert float(place) <= 380
