"""The figure of picking one of N solutions: a curve per way of picking."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from prm_kit.report.svg import Plot
from prm_kit.report.tables import share

_FIXED = {"random": "baseline dashed", "majority": "baseline", "oracle": "right dashed"}
_LEADING = {"min": ("model", "circle"), "last": ("neutral", "triangle"), "product": ("wrong", "square"),
            "mean": ("right", "triangle")}  # fmt: skip


@dataclass(frozen=True)
class SelectionFigure:
    """A plot with its legend (CSS class, shape, words) and caption."""

    plot: Markup
    keys: Sequence[tuple[str, str, str]]
    caption: str


def selection_figure(data: Mapping[str, Any]) -> SelectionFigure | None:
    """Curves of the leading scorer by aggregation, beside random, majority and oracle; None without candidates."""
    found = data["best_of_n"]
    if not found or len(found["sizes"]) < 2:
        return None
    sizes = found["sizes"]
    xs = [math.log2(size) for size in sizes]
    lines = [
        line
        for line in found["lines"]
        if line["pick"] in _FIXED or (line["pick"] == "best" and line["scorer"] == data["settings"]["leading"])
    ]
    known = [
        x for line in lines for figure in line["figures"] for x in (figure["low"], figure["high"]) if x is not None
    ]
    known += [figure["value"] for line in lines for figure in line["figures"]]
    low, high = math.floor(min(known) * 10) / 10, math.ceil(max(known) * 10) / 10
    plot = Plot(
        "Problems answered rightly, by number of solutions to pick from", (xs[0] - 0.1, xs[-1] + 0.1),
        (low, max(high, low + 0.1)), "solutions to pick from (N)", "problems answered rightly, %", size=(760, 380),
    )  # fmt: skip
    plot.x_ticks([(x, str(size)) for x, size in zip(xs, sizes, strict=True)])
    plot.y_ticks([(tick / 10, str(10 * tick)) for tick in range(round(low * 10), round(high * 10) + 1)])
    for line in lines:
        _draw(plot, line, xs, sizes)
    keys = [(*_LEADING[line["aggregation"]], line["name"]) for line in lines if line["pick"] == "best"]
    return SelectionFigure(plot.markup(), keys, "Bands are intervals over problems; oracle: some solution is right.")


def _draw(plot: Plot, line: Mapping[str, Any], xs: Sequence[float], sizes: Sequence[int]) -> None:
    kind, shape = _LEADING.get(line["aggregation"], (_FIXED.get(line["pick"], "model"), "circle"))
    drawn = list(zip(xs, sizes, line["figures"], strict=True))
    if line["pick"] == "best":
        bounded = [(x, figure) for x, _, figure in drawn if figure["low"] is not None]
        plot.band([(x, figure["low"]) for x, figure in bounded], [(x, figure["high"]) for x, figure in bounded], kind)
    plot.line([(x, figure["value"]) for x, _, figure in drawn], kind)
    if line["pick"] in _FIXED:
        plot.text(xs[-1], line["figures"][-1]["value"], line["name"], "tick", "end")
    for x, size, figure in drawn:
        cell = share(figure)
        plot.dot(
            x, figure["value"], kind.split()[0], f"{line['name']}, N = {size}: {cell.text}, {cell.interval}", shape
        )
