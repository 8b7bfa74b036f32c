from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm_kit.report.html import shade
from prm_kit.report.svg import Plot


def test_places_are_linear_and_up_is_up():
    plot = Plot("t", (0, 2), (-1, 1))
    assert plot.at_x(1) == pytest.approx((plot.at_x(0) + plot.at_x(2)) / 2, abs=0.11)
    assert plot.at_y(1) < plot.at_y(0) < plot.at_y(-1)


def test_a_plot_is_well_formed_and_says_what_it_shows():
    plot = Plot("title", (0, 1), (0, 1), "x", "y")
    plot.line([(0, 0), (1, 1)], "model")
    plot.band([(0, 0), (1, 0)], [(0, 1), (1, 1)], "model")
    for shape in ("circle", "square", "triangle"):
        plot.dot(0.5, 0.5, "right", shape, shape)
    plot.bar((0, 0.5), (0, 1), "wrong", "a bar")
    root = ET.fromstring(str(plot.markup()))
    assert root.get("aria-label") == root[0].text == "title"
    assert [title.text for title in root.iter("title")] == ["title", "circle", "square", "triangle", "a bar"]


@given(st.text(alphabet="<>&\"'/scriptaz =", max_size=30))
def test_no_text_becomes_markup(text):
    plot = Plot(text, (0, 1), (0, 1), text, text)
    plot.x_ticks([(0, text)])
    plot.y_ticks([(0, text)])
    plot.dot(0, 0, "right", text)
    plot.text(0, 0, text)
    root = ET.fromstring(str(plot.markup()))
    assert {element.tag for element in root.iter()} == {"svg", "title", "text", "line", "circle"}
    assert root[0].text == (text or None)


def test_colours_go_from_wrong_to_right_in_tenths():
    assert [shade(x) for x in (-1.0, -0.06, -0.04, 0.0, 0.04, 0.25, 1.0, None)] == [
        "v n k10", "v n k1", "v", "v", "v", "v p k3", "v p k10", "v x",
    ]  # fmt: skip
