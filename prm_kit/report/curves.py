"""Curves over the updates of a run as SVG: lines with bands, dots with whiskers, ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from prm_kit.report.svg import Plot, Point
from prm_kit.report.tables import MINUS


@dataclass(frozen=True)
class Curve:
    """A figure along an axis.

    Attributes:
        words: What it is, for the legend.
        kind: CSS class, which is its colour; "dashed" and "long" beside it are kinds of lines.
        points: (x, y), x rising.
        reach: (x, low, high) of the points that have an interval.
        shape: Marks each point; "": none is marked.
        whiskers: Draw the reach of each point on its own instead of as a band.
    """

    words: str
    kind: str
    points: Sequence[Point]
    reach: Sequence[tuple[float, float, float]] = ()
    shape: str = ""
    whiskers: bool = False


def curves(
    title: str,
    drawn: Sequence[Curve],
    x_label: str,
    y_label: str,
    *,
    marks: Sequence[float] = (),
    y: Point | None = None,
    size: tuple[int, int] = (380, 240),
) -> Markup:
    """Draw curves into one plot.

    Args:
        title: What it shows.
        drawn: At least one with a point; later ones lie above earlier ones.
        x_label: Under the axis.
        y_label: Beside the axis.
        marks: Places on the horizontal axis with an upright rule: alarms.
        y: Domain of the vertical axis; None: what the curves reach.
        size: In pixels.
    """
    places = [*marks, *(x for curve in drawn for x, _ in curve.points)]
    heights = [value for curve in drawn for _, value in curve.points]
    heights += [value for curve in drawn if curve.whiskers for _, *ends in curve.reach for value in ends]
    x = _domain(min(places), max(places))
    low, high = y or _domain(min(heights), max(heights), room=0.06)
    plot = Plot(title, x, (low, high), x_label, y_label, size, left=58)
    plot.x_ticks([(tick, number(tick)) for tick in round_ticks(*x)])
    plot.y_ticks([(tick, number(tick)) for tick in round_ticks(low, high, most=6)])
    for mark in marks:
        plot.rule((mark, mark), (low, high), "chosen")
    for curve in drawn:
        _draw(plot, curve, (low, high))
    return plot.markup()


def _draw(plot: Plot, curve: Curve, y: Point) -> None:
    reach = [(x, max(low, y[0]), min(high, y[1])) for x, low, high in curve.reach]
    if curve.whiskers:
        for x, low, high in reach:
            plot.rule((x, x), (low, high), f"whisker {curve.kind}")
    elif reach:
        plot.band([(x, low) for x, low, _ in reach], [(x, high) for x, _, high in reach], curve.kind)
    plot.line(curve.points, curve.kind)
    between = {x: f", {number(low)} to {number(high)}" for x, low, high in curve.reach}
    for x, value in curve.points if curve.shape else ():
        words = f"{curve.words}, {number(x)}: {number(value)}{between.get(x, '')}"
        plot.dot(x, value, curve.kind, words, curve.shape)


def round_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Up to `most` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    span = max(high - low, 1e-12)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * k for k in (1, 2, 5, 10, 20) if math.floor(high / (power * k) + 1e-9)
                - math.ceil(low / (power * k) - 1e-9) < most)  # fmt: skip
    return [step * k for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A number in three or four characters where that says enough, with a true minus."""
    size = abs(value)
    if size >= 10_000:
        text = f"{size / 1e6:g}M" if size >= 1e6 else f"{size / 1000:g}k"
    elif size == 0 or size >= 100:
        text = f"{size:.0f}"
    else:
        text = f"{size:.3g}".replace("e-0", f"e{MINUS}")
    return f"{MINUS}{text}" if value < 0 else text


def _domain(low: float, high: float, room: float = 0.0) -> Point:
    """A domain that is not empty, with some room above and below."""
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        return (low, low + 1.0) if low == 0 else (low - 0.1 * abs(low), low + 0.1 * abs(low))
    return low - room * (high - low), high + room * (high - low)
